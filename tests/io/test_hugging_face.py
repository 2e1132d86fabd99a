"""Datasets of Hugging Face: what was saved is read, features are the record's, and what cannot be used is refused with the reason."""

from __future__ import annotations

import sys
from pathlib import Path

import datasets
import pytest

import labelgen
from labelgen.dialogue import Dialogue, Goal, Label, RecordError, Turn
from labelgen.io import hugging_face
from labelgen.io.hugging_face import features, from_dataset, to_dataset


def test_what_was_saved_is_read(dialogues: list[Dialogue], tmp_path: Path) -> None:
    made = labelgen.to_dataset(dialogues)
    made.save_to_disk(tmp_path / "saved")
    made.to_parquet(tmp_path / "made.parquet")
    saved = datasets.load_from_disk(tmp_path / "saved")
    parquet = datasets.load_dataset("parquet", data_files=str(tmp_path / "made.parquet"), split="train", streaming=True)
    assert saved.features == parquet.features == features()
    assert list(labelgen.from_dataset(saved)) == list(labelgen.from_dataset(parquet)) == dialogues


def test_dialogues_are_converted_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hugging_face, "ROWS", 2)
    records = [Dialogue(id=str(k), turns=[Turn(categorical={"a": str(k), "b": None})]) for k in range(5)]
    assert list(from_dataset(to_dataset(iter(records)))) == records
    assert to_dataset(records).num_rows == 5
    assert to_dataset([]).features == features()


def test_maps_are_lists_of_keys_and_values() -> None:
    row = to_dataset([Dialogue(id="a", turns=[Turn(numerical={"confidence": 0.5})])])[0]
    assert row["turns"][0]["numerical"] == [{"key": "confidence", "value": 0.5}]


def test_a_value_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hugging_face, "ROWS", 1)
    label = Label.model_construct(task="t", value="v", turns=[2**40], confidence=1.0, source="s")
    records = [Dialogue(id="fits", turns=[Turn()]), Dialogue(id="not", turns=[Turn()]).model_copy(update={"labels": [label]})]
    with pytest.raises(RecordError) as caught:
        to_dataset(records)
    assert (caught.value.dialogue_id, caught.value.row) == ("not", 2)


def test_rows_that_are_no_dialogues_are_rejected() -> None:
    errors: list[RecordError] = []
    good = to_dataset([Dialogue(id="a", turns=[Turn()], goals=[Goal(turns=[0])])])[0]
    rows = [{"text": "hi"}, good, {**good, "id": ""}, {**good, "turns": [{"request": 3}]}]
    assert [dialogue.id for dialogue in from_dataset(rows, errors.append)] == ["a"]
    assert [(error.row, error.field) for error in errors] == [(1, "record"), (3, "id"), (4, "turns.0.request")]
    with pytest.raises(RecordError, match=r"to_dataset"):
        list(from_dataset([{"text": "hi"}]))


def test_splits_are_named() -> None:
    splits = datasets.DatasetDict({"train": to_dataset([]), "test": to_dataset([])})
    with pytest.raises(ValueError, match=r"splits train, test; give one of them, such as dataset\['train'\]"):
        list(from_dataset(splits))


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'labelgen\[hugging_face\]'"):
        to_dataset([])
