"""Every setting of conf/{data,optimizer,trainer,callbacks} has an effect: where one is changed, a run differs."""

import csv
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from hydra.utils import instantiate
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, Timer
from torch import Tensor

from labelgen.config import CONF, load_config, run

RUN = (
    *(
        "encoder=tiny",
        "encoder.max_tokens=16",
        "corpus=simulated",
        "corpus.num_dialogues=12",
        "features=none",
        "data.cache=null",
        "data.valid_fraction=0.2",
    ),
    *(
        "data.batch_tokens=400",
        "trainer.max_epochs=1",
        "trainer.log_every_n_steps=1",
        "trainer.limit_train_batches=2",
    ),
)
WEIGHTS = [  # settings that change what is learnt
    *("seed=1", "data.batch_tokens=200", "data.valid_fraction=0.5", "data.fraction=0.6"),
    *("optimizer.weight_decay=0.9", "optimizer.betas=[0.1, 0.1]", "trainer.gradient_clip_val=0.01"),
    *("model.encoder_rate=0.9", "model.layer_decay=0.1", "model.warmup=0.9"),
]
TESTED = {  # settings with another test
    "data": {
        *("corpus", "features", "tasks"),  # test_conf.py
        "augment",  # test_pretrain.py
        *("cache", "num_workers"),  # test_train.py: test_frozen_with_cache, test_workers_...
    },
    "optimizer": {"fused"},
    "trainer": {
        *("accelerator", "devices", "val_check_interval", "log_every_n_steps", "deterministic", "precision"),
        *("max_epochs", "max_steps", "max_time", "limit_train_batches"),  # test_train.py: test_every_budget_...
        "enable_model_summary",  # test_train.py: test_the_log_gives_the_sizes_once
    },
}


def weights(output: Path, *overrides: str) -> dict[str, Tensor]:
    run(load_config("train", *RUN, f"output={output}", *overrides))
    read: dict[str, Tensor] = torch.load(output / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return read


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The weights of a run as configured."""
    return weights(tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("setting", WEIGHTS)
def test_a_setting_changes_the_weights(plain: dict[str, Tensor], tmp_path: Path, setting: str) -> None:
    changed = weights(tmp_path, setting)
    assert changed.keys() == plain.keys()
    assert any(not torch.equal(changed[key], plain[key]) for key in plain)


@pytest.mark.parametrize("group", TESTED)
def test_no_setting_is_left_out(group: str) -> None:
    for file in (CONF / group).glob("*.yaml"):
        keys = {key for key in yaml.safe_load(file.read_text("utf-8")) if not key.startswith("_")}
        varied = {setting.split("=")[0].removeprefix(f"{group}.") for setting in WEIGHTS}
        assert keys <= varied | TESTED[group], file


def build(*overrides: str) -> pl.Trainer:
    trainer: pl.Trainer = instantiate(load_config("train", "corpus=simulated", *overrides).trainer)(
        logger=False, enable_checkpointing=False
    )
    return trainer


def test_the_trainer_is_built_as_configured() -> None:
    assert build().world_size == 1
    assert torch.are_deterministic_algorithms_enabled()
    assert build("trainer.precision=bf16-mixed").precision == "bf16-mixed"
    assert build("trainer.devices=2").world_size == 2
    assert build("trainer.deterministic=false") and not torch.are_deterministic_algorithms_enabled()
    assert build("trainer.log_every_n_steps=3").log_every_n_steps == 3  # type: ignore[attr-defined]
    assert not [callback for callback in build().callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
    assert build("trainer.accelerator=auto").accelerator is not None


def test_rows_and_validations_are_as_many_as_asked_for(tmp_path: Path) -> None:
    found = []
    for every, interval in ((1, 0.5), (2, 1.0)):
        output = tmp_path / str(every)
        weights(output, f"trainer.log_every_n_steps={every}", f"trainer.val_check_interval={interval}")
        with (output / "metrics.csv").open() as lines:
            rows = list(csv.DictReader(lines))
        found.append((sum(bool(row["train/loss"]) for row in rows), sum(bool(row["valid/score"]) for row in rows)))
    assert found == [(2, 2), (1, 1)]


def test_the_optimizer_is_fused_and_gives_the_same(plain: dict[str, Tensor], tmp_path: Path) -> None:
    parameter = [torch.nn.Parameter(torch.ones(2))]
    assert instantiate(load_config("train", "corpus=simulated").optimizer)(parameter).defaults["fused"] is True
    for key, value in weights(tmp_path, "optimizer.fused=false").items():
        torch.testing.assert_close(value, plain[key], rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # from 3.12 on Python warns of threads
def test_workers_give_the_same_weights(plain: dict[str, Tensor], tmp_path: Path) -> None:
    for key, value in weights(tmp_path, "data.num_workers=1").items():
        assert torch.equal(value, plain[key]), key


def callbacks(*overrides: str) -> dict[str, Any]:
    made: dict[str, Any] = instantiate(load_config("train", "corpus=simulated", "output=/tmp/x", *overrides).callbacks)
    return made


def test_early_stopping_waits_for_a_better_score() -> None:
    stopping = callbacks()["early_stopping"]
    assert isinstance(stopping, EarlyStopping)
    assert stopping.monitor == callbacks()["best"].monitor == "valid/score"
    rising = [stopping._evaluate_stopping_criteria(torch.tensor(k / 10))[0] for k in range(8)]
    assert not any(rising)
    assert [stopping._evaluate_stopping_criteria(torch.tensor(0.1))[0] for _ in range(5)] == [False] * 4 + [True]


def test_the_best_checkpoint_is_that_of_the_highest_score() -> None:
    best = callbacks()["best"]
    assert isinstance(best, ModelCheckpoint)
    assert (best.mode, best.filename, best.save_top_k) == ("max", "best", 1)
    assert Path(str(best.dirpath)) == Path("/tmp/x/checkpoints") == callbacks()["last"].path.parent
