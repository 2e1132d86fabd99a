"""The simulated corpus: reproducible, prefixes of each other, with the share of annotations that is asked for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from functools import cache

import pytest

from labelgen.corpora.simulated import Simulated
from labelgen.dialogue import Dialogue

MANY = 400


@cache
def corpus(split: str = "train", seed: int = 0) -> list[Dialogue]:
    return list(Simulated(MANY, seed=seed, split=split).read())


@pytest.fixture(scope="module")
def dialogues() -> list[Dialogue]:
    return corpus()


def dump(dialogues: Iterable[Dialogue]) -> list[str]:
    return [dialogue.model_dump_json() for dialogue in dialogues]


def test_a_seed_gives_the_same_dialogues_in_every_process() -> None:
    """Also in another process, where hashes of strings differ."""
    here = dump(Simulated(20, seed=3, split="test", labelled=0.5).read())
    assert here == dump(Simulated(20, seed=3, split="test", labelled=0.5).read())
    code = (
        "from labelgen.corpora.simulated import Simulated\n"
        "list(Simulated(5).read())\n"
        "import sys; sys.stdout.reconfigure(encoding='utf-8')\n"
        "for d in Simulated(20, seed=3, split='test', labelled=0.5).read(): print(d.model_dump_json())\n"
        "assert 'torch' not in sys.modules\n"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True)
    assert there.stdout.split("\n")[:-1] == here


def test_fewer_dialogues_are_a_prefix_of_more(dialogues: list[Dialogue]) -> None:
    assert dump(Simulated(50).read()) == dump(dialogues[:50])


def test_seeds_and_splits_differ_and_ids_are_unique(dialogues: list[Dialogue]) -> None:
    corpora = [dialogues, corpus(seed=1), corpus("valid"), corpus("test")]
    ids = [dialogue.id for corpus in corpora for dialogue in corpus]
    assert len(set(ids)) == len(ids)
    assert ids[12] == "simulated:train/0/0000012"
    prints = [{dialogue.fingerprint() for dialogue in corpus} for corpus in corpora]
    assert all(not (a & b) for k, a in enumerate(prints) for b in prints[k + 1 :])
    users = [{dialogue.user for dialogue in corpus} for corpus in (corpora[0], corpora[2], corpora[3])]
    assert not (users[0] & users[1])
    assert not (users[0] & users[2])
    assert not (users[1] & users[2])
    assert any(count > 1 for count in map([d.user for d in dialogues].count, users[0])), "users have several dialogues"


def test_labelled_drops_annotations_and_nothing_else(dialogues: list[Dialogue]) -> None:
    part = list(Simulated(MANY, labelled=0.3).read())
    assert [d.fingerprint() for d in part] == [d.fingerprint() for d in dialogues]
    kept = [
        [d.goals is not None for d in part],
        [any(t.intent is not None for t in d.turns) for d in part],
        [any(t.request_slots is not None for t in d.turns) for d in part],
        [any(t.defect is not None for t in d.turns) for d in part],
    ]
    for kind in kept:
        assert 0.2 * MANY < sum(kind) < 0.4 * MANY
    assert len(set(zip(*kept, strict=True))) == 16, "label types go missing on their own"
    assert any(goal.outcome is None for dialogue in part for goal in dialogue.goals or ()), "a goal without its outcome"
    bare = list(Simulated(20, labelled=0.0).read())
    assert dump(bare) == dump(d.content() for d in bare)


@pytest.mark.parametrize(
    ("wrong", "message"), [({"split": "dev"}, "valid"), ({"labelled": 1.5}, "0 to 1"), ({"num_dialogues": -1}, "negative")]
)
def test_wrong_settings_are_refused_with_the_remedy(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Simulated(**wrong)  # type: ignore[arg-type]
