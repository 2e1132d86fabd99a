"""UKP: each rule on files made here in the publisher's format, and the counts of the published folder where it is at hand."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from labelgen.corpora.ukp import FOLDER, FreeTextFeedback, is_defect
from labelgen.dialogue import Dialogue, RecordError, Turn

Json = dict[str, Any]

DATA = os.environ.get("LABELGEN_DATA")
TURNS = [("A café?", "Luna."), ("Far?", "It is red."), ("That makes no sense!", "Sorry."), ("Bye.", "-")]


def entry(error: str | None = "", reaction: str | None = "", correction: str = "C1") -> Json:
    return {"error_type": error, "comment": "", "user_correction": correction, "user_reaction": reaction}


CLEAN, SILENT = entry(correction="C2"), entry(correction="")


def talk(*annotations: Json, turns: Any = TURNS, **fields: Any) -> Json:
    published = [{"utterance": request, "response": response} for request, response in turns]
    return {"unique_id": "7_sgd_train", "id": "7", "turns": published, "annotations": list(annotations), "corrections": [], **fields}


def at(turn: int, *entries: Json) -> Json:
    return {"turn": turn, "annotation": list(entries)}


def write(root: Path, content: Any, name: str = "0_7_sgd_train", source: str = "SGD", subset: str = "checked") -> Path:
    file = root / FOLDER / source / subset / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def only(root: Path, content: Json, source: str = "SGD") -> Dialogue:
    write(root, content, source=source)
    (dialogue,) = FreeTextFeedback(str(root)).read()
    return dialogue


def votes(turn: Turn) -> list[tuple[str, float | str]]:
    return [(vote.question, vote.value) for vote in turn.votes]


def test_annotators_judge_the_response_before_the_request_that_reacts(tmp_path: Path) -> None:
    dialogue = only(tmp_path, talk(at(2, entry("E1", "UR5"), entry("E6", "UR1"), CLEAN)))
    assert (dialogue.id, dialogue.slices) == ("ukp:SGD/checked/0_7_sgd_train", ["SGD", "checked"])
    assert dialogue.metadata == {"unique_id": "7_sgd_train"}
    assert [(turn.request, turn.response) for turn in dialogue.turns] == [*TURNS[:3], ("Bye.", None)]
    assert [votes(turn) for turn in dialogue.turns] == [
        [], [("error_type", "E1"), ("error_type", "E6"), ("error_type", "none")], [("user_reaction", "UR5"), ("user_reaction", "UR1")], [],
    ]  # fmt: skip
    assert [turn.defect for turn in dialogue.turns] == [None, True, None, None]
    assert (dialogue.goals, dialogue.turns[0].intent, dialogue.turns[0].request_slots) == (None, None, None)


@pytest.mark.parametrize(
    ("types", "defect"),
    [(["E1", "E2", "none"], True), (["E1", "none"], None), (["E1", "none", "none"], None), (["none"], False), (["I1"], True), ([], None)],
)
def test_a_defect_needs_a_majority_and_its_absence_two_thirds(types: list[str], defect: bool | None) -> None:
    assert is_defect(types) is defect


def test_entries_without_an_answer_do_not_vote(tmp_path: Path) -> None:
    unknown = entry(None, "-", "C3")
    dialogue = only(tmp_path, talk(at(1, SILENT, entry(None, None, ""), unknown, entry()), at(2, CLEAN, SILENT), at(3, entry("E9", "B6"))))
    assert [votes(turn) for turn in dialogue.turns] == [[], [("error_type", "none")], [("error_type", "E9")], []]
    assert [turn.defect for turn in dialogue.turns] == [None, False, True, None]


def test_annotations_without_a_response_or_given_again_are_left_out(tmp_path: Path) -> None:
    annotations = [at(0, entry("E1", "UR1")), at(2, CLEAN), at(2, entry("E1", "UR2")), at(4, entry("E7", "UR3")), at(5, entry("E8", "UR4"))]
    dialogue = only(tmp_path, talk(*annotations))
    assert [votes(turn) for turn in dialogue.turns] == [[("user_reaction", "UR1")], [("error_type", "none")], [], [("error_type", "E7")]]


def test_a_phrase_finds_the_request_of_a_correction(tmp_path: Path) -> None:
    fields: Json = {"correction": {"phrase": ["this is nonsense", " THAT MAKES no sense "], "confidence": 0.8}}
    found = only(tmp_path, talk(entry("E1", "UR4"), CLEAN, entry("E6", "UR4"), **fields))
    assert [turn.defect for turn in found.turns] == [None, True, None, None]
    twice = only(tmp_path, talk(entry("E1"), turns=[*TURNS, TURNS[2]], **fields))
    absent = only(tmp_path, talk(entry("E1"), turns=TURNS[:2], **fields))
    assert not any(turn.votes or turn.defect is not None for dialogue in (twice, absent) for turn in dialogue.turns)


def test_marks_of_the_sources_are_not_words(tmp_path: Path) -> None:
    dialogue = only(tmp_path, talk(turns=[("12 hi , i am 30", "1 one"), ("<SILENCE>", "Hm?")]), source="Personachat")
    assert [(turn.request, turn.response) for turn in dialogue.turns] == [("hi , i am 30", "1 one"), (None, "Hm?")]
    (other,) = (d for d in _again(tmp_path, talk(turns=[("12 euros", "1 one")])) if d.slices[0] == "MWoZ")
    assert other.turns[0].request == "12 euros"


def _again(root: Path, content: Json) -> list[Dialogue]:
    write(root, content, source="MWoZ")
    return list(FreeTextFeedback(str(root)).read())


def test_folds_keep_dialogues_that_stand_twice_together(tmp_path: Path) -> None:
    for k in range(40):
        for subset in ("checked", "unchecked"):
            write(tmp_path, talk(unique_id=f"{k}"), f"{k}", subset=subset)

    def ids(*fold: Any) -> list[str]:
        return [dialogue.id for dialogue in FreeTextFeedback(str(tmp_path), *fold).read()]

    assert len(ids()) == 80
    tested = ids("test", 1)
    assert 0 < len(tested) < 80
    assert sorted(ids("train", 1) + tested) == sorted(ids())
    assert set(Counter(identity.rsplit("/", 1)[1] for identity in tested).values()) == {2}


@pytest.mark.parametrize(
    ("content", "field", "problem"),
    [
        (talk(turns=[("Hi.", None)]), "record", "response None is not a text"),
        (talk(unique_id=7), "record", "unique_id 7 is not a text"),
        (talk({"turn": 1}), "annotation", "KeyError"),
        (talk(at(1, {"error_type": "E1"})), "user_reaction", "KeyError"),
        (talk(turns=[]), "turns", "at least one"),
        ([], "record", "TypeError"),
    ],
)
def test_malformed_dialogues_are_rejected_and_reading_continues(tmp_path: Path, content: Any, field: str, problem: str) -> None:
    write(tmp_path, content)
    write(tmp_path, talk(), "1_8_sgd_train")
    write(tmp_path, talk(), "2_9_sgd_train").write_bytes(b"\xff")
    errors: list[RecordError] = []
    assert [dialogue.id for dialogue in FreeTextFeedback(str(tmp_path)).read(errors.append)] == ["ukp:SGD/checked/1_8_sgd_train"]
    assert [(error.dialogue_id, error.field) for error in errors] == [
        ("ukp:SGD/checked/0_7_sgd_train", field),
        ("ukp:SGD/checked/2_9_sgd_train", "file"),
    ]
    assert problem in errors[0].problem
    with pytest.raises(RecordError):
        list(FreeTextFeedback(str(tmp_path)).read())


def test_what_is_not_the_corpus_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no SOURCE/checked/\*\.json there; clone github\.com/UKPLab"):
        list(FreeTextFeedback(str(tmp_path)).read())


@pytest.mark.skipif(DATA is None, reason="LABELGEN_DATA is not set")
def test_the_published_folder_has_its_known_counts() -> None:
    read = list(FreeTextFeedback(str(Path(DATA or "") / "ukp")).read())
    assert len({dialogue.id for dialogue in read}) == len(read) == 552
    assert len({dialogue.metadata["unique_id"] for dialogue in read}) == 549
    assert Counter(dialogue.slices[0] for dialogue in read) == {
        "SGD": 98, "MWoZ": 100, "BABI": 100, "SelfFeeding": 100, "WoW": 85, "Personachat": 69,
    }  # fmt: skip
    assert Counter(turn.defect for dialogue in read for turn in dialogue.turns if turn.defect is not None) == {True: 108, False: 421}
    answers = Counter(vote.question for dialogue in read for turn in dialogue.turns for vote in turn.votes)
    assert answers == {"error_type": 1090, "user_reaction": 182}
