"""ConvLab-3's unified format: each rule on a data set made here, packed and unpacked; malformed dialogues rejected."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from labelgen.corpora.convlab import ConvLab
from labelgen.dialogue import Dialogue, RecordError, Slot, Turn

Json = dict[str, Any]


def act(intent: str, domain: str, slot: str = "", **more: Any) -> Json:
    return {"intent": intent, "domain": domain, "slot": slot, **more}


def span(text: str, words: str, domain: str, slot: str, intent: str = "inform") -> Json:
    return act(intent, domain, slot, value=words, start=text.index(words), end=text.index(words) + len(words))


def utterance(
    speaker: str, text: str, *spans: Json, categorical: tuple[Json, ...] = (), binary: tuple[Json, ...] = (), **more: Any
) -> Json:
    acts = {"categorical": list(categorical), "non-categorical": list(spans), "binary": list(binary)}
    return {"speaker": speaker, "utterance": text, "dialogue_acts": acts, **more}


def published(root: Path, *talks: Any, speakers: tuple[str, ...] = ("user", "system"), split: str = "train") -> ConvLab:
    """Writes dialogues demo-SPLIT-0, ... as the publisher does, unpacked; the ontology lists one act of each of the speakers."""
    listed = [str({"user": s == "user", "system": s == "system", "intent": "inform", "domain": "cafe", "slot": "city"}) for s in speakers]
    ontology = {"domains": {}, "intents": {}, "state": {}, "dialogue_acts": {"categorical": [], "non-categorical": listed, "binary": []}}
    rows = [
        talk
        if isinstance(talk, str)
        else {
            "dataset": "demo", "data_split": split, "dialogue_id": f"demo-{split}-{k}", "domains": ["cafe"],
            "goal": {"description": "", "inform": {"cafe": {"city": "Oslo"}}, "request": {}}, "turns": talk,
        }
        for k, talk in enumerate(talks)
    ]  # fmt: skip
    root.mkdir(exist_ok=True)
    (root / "dialogues.json").write_text(json.dumps(rows), encoding="utf-8")
    (root / "ontology.json").write_text(json.dumps(ontology), encoding="utf-8")
    return ConvLab(str(root), split)


def only(root: Path, *turns: Json, **kwargs: Any) -> Dialogue:
    (dialogue,) = published(root, list(turns), **kwargs).read()
    return dialogue


def test_spans_are_slots_of_their_domain(tmp_path: Path) -> None:
    request, response = "☕ Mocca in Oslo, cheap, near Oslo", "Luna, in Oslo"
    city = span(request, "Oslo", "cafe", "city")
    dialogue = only(
        tmp_path,
        utterance("user", request, city, {**city, "intent": "request"}, span(request, "Mocca", "menu", "name"),
             act("inform", "cafe", "area", value="x"),             categorical=(act("inform", "cafe", "price", value="cheap"),)),
        utterance("system", response, span(response, "Luna", "cafe", "name", "offer")),
        utterance("user", "Thanks"), utterance("system", "Bye"),
    )  # fmt: skip
    assert dialogue.id == "demo-train-0"
    assert dialogue.turns[0].request_slots == [
        Slot(name="menu-name", start=2, end=7, value="Mocca"), Slot(name="cafe-city", start=11, end=15, value="Oslo"),
    ]  # fmt: skip
    assert dialogue.turns[0].response_slots == [Slot(name="cafe-name", start=0, end=4, value="Luna")]
    assert (dialogue.turns[1].request_slots, dialogue.turns[1].response_slots) == ([], [])


@pytest.mark.parametrize(
    ("acts", "expected"),
    [
        ([act("request", "cafe", "phone"), act("request", "cafe", "city")], "cafe/request"),
        ([act("thank", "")], "thank"),
        ([act("request", "cafe", "phone"), act("thank", "general")], None),
        ([act("request", "cafe", "phone"), act("request", "menu", "name")], None),
        ([], None),
    ],
)
def test_an_intent_is_what_all_acts_agree_on(tmp_path: Path, acts: list[Json], expected: str | None) -> None:
    dialogue = only(
        tmp_path, utterance("user", "Well?", binary=tuple(acts)), utterance("system", "Hm.", binary=(act("welcome", "general"),))
    )
    assert dialogue.turns[0].intent == expected
    informed = act("inform", "cafe", "price", value="cheap")
    mixed = only(tmp_path, utterance("user", "Well?", binary=tuple(acts), categorical=(informed,)))
    assert mixed.turns[0].intent == (None if acts else "cafe/inform")


@pytest.mark.parametrize("speakers", [(), ("user",), ("system",), ("user", "system")])
def test_who_is_annotated_the_ontology_says(tmp_path: Path, speakers: tuple[str, ...]) -> None:
    (turn,) = only(tmp_path, utterance("user", "Hi"), utterance("system", "Hello"), speakers=speakers).turns
    assert turn.request_slots == ([] if "user" in speakers else None)
    assert turn.response_slots == ([] if "system" in speakers else None)


def test_turns_without_a_partner_stand_alone(tmp_path: Path) -> None:
    dialogue = only(tmp_path, *(utterance(who, text) for who, text in (
        ("system", "Welcome"), ("user", "Hi"), ("user", "There?"), ("system", "Yes"), ("system", "Well?"),
    )), speakers=())  # fmt: skip
    assert dialogue.turns == [
        Turn(response="Welcome"), Turn(request="Hi"), Turn(request="There?", response="Yes"), Turn(response="Well?"),
    ]  # fmt: skip
    assert dialogue.goals is None


def test_the_rest_is_metadata(tmp_path: Path) -> None:
    dialogue = only(
        tmp_path, utterance("user", "Hi", state={"cafe": {"city": ""}}), utterance("system", "Hello", db_results={}, booked={}),
        utterance("user", "Oslo", state={"cafe": {"city": "Oslo"}}),
        utterance("system", "Done", db_results={"cafe": [{}]}, booked={"cafe": [{"ref": "X"}]}),
    )  # fmt: skip
    assert dialogue.metadata == {
        "dataset": "demo", "domains": ["cafe"], "goal": {"description": "", "inform": {"cafe": {"city": "Oslo"}}, "request": {}},
        "state": {"cafe": {"city": "Oslo"}}, "booked": {"cafe": [{"ref": "X"}]},
    }  # fmt: skip


def test_packed_and_unpacked_read_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "demo" / "data"
    folder.parent.mkdir()
    expected = list(published(folder, [utterance("user", "Hi")], [utterance("user", "Ho")]).read())
    assert list(ConvLab(str(folder.parent)).read()) == expected
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"data/{file.name}")
    assert list(ConvLab(str(tmp_path)).read()) == list(ConvLab(str(tmp_path / "data.zip")).read()) == expected


def test_a_split_that_is_not_there_is_reported(tmp_path: Path) -> None:
    published(tmp_path, [utterance("user", "Hi")], split="validation")
    assert [dialogue.id for dialogue in ConvLab(str(tmp_path), "validation").read()] == ["demo-validation-0"]
    with pytest.raises(ValueError, match="no split 'dev'; there are validation"):
        list(ConvLab(str(tmp_path), "dev").read())


OUTSIDE = act("inform", "cafe", "city", value="Oslo", start=0, end=9)


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        ("a dialogue", "record"),
        ([{"speaker": "user", "dialogue_acts": {}}], "utterance"),
        ([{"speaker": "user", "utterance": "Hi"}], "dialogue_acts"),
        ([utterance("robot", "Hi")], "record"),
        ([utterance("user", "Oslo", OUTSIDE)], "turns.0"),
        ([utterance("user", "Oslo", {**OUTSIDE, "end": 3})], "turns.0"),
        ([], "turns"),
    ],
)
def test_malformed_dialogues_are_rejected_and_reading_continues(tmp_path: Path, broken: Any, field: str) -> None:
    corpus = published(tmp_path, broken, [utterance("user", "Hi")])
    errors: list[RecordError] = []
    assert [dialogue.id for dialogue in corpus.read(errors.append)] == ["demo-train-1"]
    assert [error.field for error in errors] == [field]
    with pytest.raises(RecordError, match=r"dialogues\.json"):
        list(corpus.read())


def test_a_missing_or_damaged_data_set_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"github\.com/ConvLab/ConvLab-3"):
        list(ConvLab(str(tmp_path)).read())
    published(tmp_path, [utterance("user", "Hi")])
    for name, text, message in (
        ("ontology.json", "{}", "unified format"), ("ontology.json", "{", "ontology.json cannot be read"),
        ("dialogues.json", "{}", "not a list"), ("dialogues.json", "[{", "dialogues.json cannot be read"),
        ("dialogues.json", "[" * 100_000, "dialogues.json cannot be read"),
        ("dialogues.json", '[{"data_split": ["train"]}]', "no split 'train'"),
    ):  # fmt: skip
        kept = (tmp_path / name).read_text("utf-8")
        (tmp_path / name).write_text(text, "utf-8")
        with pytest.raises(ValueError, match=message):
            list(ConvLab(str(tmp_path)).read())
        (tmp_path / name).write_text(kept, "utf-8")
    (tmp_path / "data.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match=r"data\.zip: no zip file, or one that was cut short; .*as `root`"):
        list(ConvLab(str(tmp_path / "data.zip")).read())
