"""Several corpora as one: ids stay apart, a limit takes nested subsets, and what a corpus does not annotate stays unannotated."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from labelgen import load_config, run
from labelgen.corpora.mixture import Mixture
from labelgen.corpora.simulated import Simulated
from labelgen.dialogue import Dialogue, RecordError, Reject
from labelgen.io.files import write


@dataclass(frozen=True)
class Broken:
    """A corpus whose only row is unusable."""

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        assert reject is not None
        reject(RecordError("file", 3, None, "turns", "there are none"))
        yield from ()


ONE, OTHER = Simulated(num_dialogues=30, seed=1), Simulated(num_dialogues=8, seed=1, split="test")


def test_corpora_follow_each_other_under_their_names() -> None:
    found = list(Mixture({"a": ONE, "b": OTHER}).read())
    wanted = [("a", dialogue) for dialogue in ONE.read()] + [("b", dialogue) for dialogue in OTHER.read()]
    assert [dialogue.id for dialogue in found] == [f"{name}/{dialogue.id}" for name, dialogue in wanted]
    assert [dialogue.slices for dialogue in found] == [[name, *dialogue.slices] for name, dialogue in wanted]
    assert [dialogue.turns for dialogue in found] == [dialogue.turns for _, dialogue in wanted]
    assert found == list(Mixture({"a": ONE, "b": OTHER}).read()), "reading changes nothing"


def test_a_limit_takes_nested_subsets_in_order() -> None:
    whole = [dialogue.id for dialogue in Mixture({"a": ONE, "b": OTHER}).read()]
    before: set[str] = set()
    for limit in (3, 10, 30, 99):
        found = [dialogue.id for dialogue in Mixture({"a": ONE, "b": OTHER}, limit).read()]
        assert [len([key for key in found if key.startswith(name)]) for name in "ab"] == [min(limit, 30), min(limit, 8)]
        assert found == [key for key in whole if key in set(found)]
        assert before <= set(found)
        before = set(found)
    assert [dialogue.id for dialogue in Mixture({"a": ONE}, 10, seed=1).read()] != [
        dialogue.id for dialogue in Mixture({"a": ONE}, 10).read()
    ]


def test_what_cannot_be_mixed_is_named(tmp_path: Path) -> None:
    rejected: list[RecordError] = []
    with pytest.raises(ValueError, match="bad has no usable dialogue; check its settings, or leave it out"):
        list(Mixture({"a": ONE, "bad": Broken()}).read(rejected.append))
    assert [error.row for error in rejected] == [3]
    with pytest.raises(ValueError, match=r"names no corpus; give \+corpus@corpus.corpora.NAME=..."):
        run(load_config("convert", "corpus=mixture", f"output={tmp_path / 'x.jsonl'}"))
    with pytest.raises(ValueError, match="limit=0; give a number of dialogues, or null for all"):
        Mixture({"a": ONE}, 0)


def test_each_task_learns_from_the_corpora_that_annotate_it(tmp_path: Path) -> None:
    """One corpus has intents alone, the other defects alone. One run learns both from the command line's settings."""
    for name, corpus in {"intents": ONE, "defects": OTHER}.items():
        bare = []
        for dialogue in corpus.read():
            content = dialogue.content()
            for turn, annotated in zip(content.turns, dialogue.turns, strict=True):
                if name == "intents":
                    turn.intent = annotated.intent
                else:
                    turn.defect = annotated.defect
            bare.append(content)
        write(bare, tmp_path / f"{name}.jsonl")
    mixed = [
        "corpus=mixture",
        *(f"+corpus@corpus.corpora.{name}=jsonl" for name in ("intents", "defects")),
        *(f"corpus.corpora.{name}.path={tmp_path / name}.jsonl" for name in ("intents", "defects")),
    ]
    run(load_config("convert", *mixed, f"output={tmp_path / 'mixed.jsonl'}"))
    assert len((tmp_path / "mixed.jsonl").read_text("utf-8").splitlines()) == 38
    small = ("encoder=tiny", "trainer.max_steps=2", "data.cache=null", "+trainer.enable_progress_bar=false")
    run(load_config("train", *mixed, *small, f"output={tmp_path / 'run'}"))
    described = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["labelgen"]
    assert sorted(described["tasks"]) == ["defect", "intent"]
