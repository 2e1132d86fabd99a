#!/bin/sh
# Pretrains on SGD without its labels, then trains on 3% of the labelled dialogues with and without: run.sh SGD_FOLDER [RUNS_FOLDER]
set -eu
sgd=$1
runs=${2:-runs/pretraining}
steps="experiment=pretraining corpus.root=$sgd data.seed=0"

labelgen pretrain $steps data.fraction=0.15 trainer.max_epochs=6 output="$runs/encoder"
for seed in 0 1 2; do
  few="$steps data.fraction=0.03 data.batch_tokens=2048 trainer.max_epochs=8 seed=$seed"
  labelgen train $few output="$runs/without_$seed"
  labelgen train $few output="$runs/with_$seed" pretrained="$runs/encoder"
done
for run in "$runs"/with*_[0-9]; do
  labelgen export checkpoint="$run" output="$run/export"
done
python "$(dirname "$0")/table.py" "$sgd" "$runs"
