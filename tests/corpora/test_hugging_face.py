"""Datasets of Hugging Face: saved, Parquet or streamed by name, read as the same rows of a file are; no test opens a network."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest

from labelgen.config import load_config, run
from labelgen.corpora.chat_messages import ChatMessages
from labelgen.corpora.hugging_face import HuggingFace
from labelgen.corpora.table import Table
from labelgen.dialogue import Dialogue, RecordError, Turn
from labelgen.io.files import read
from labelgen.io.hugging_face import to_dataset

CHATS = [
    {"id": str(k), "messages": [{"role": "user", "content": f"table {k}"}, {"role": "assistant", "content": "Booked."}], "lang": "en"}
    for k in range(5)
]
LINES = [{"chat": k // 2, "who": ["caller", "bot"][k % 2], "words": f"words {k}"} for k in range(6)]
COLUMNS = {"dialogue": "chat", "speaker": "who", "text": "words"}
SPEAKERS = {"user": ["caller"], "assistant": ["bot"]}


def saved(rows: list[dict[str, Any]], path: Path) -> str:
    datasets.Dataset.from_list(rows).save_to_disk(path)
    return str(path)


def parquet(rows: list[dict[str, Any]], path: Path) -> str:
    datasets.Dataset.from_list(rows).to_parquet(f"{path}.parquet")
    return f"{path}.parquet"


def clone(rows: list[dict[str, Any]], path: Path) -> str:
    """The files of a dataset's repository."""
    datasets.Dataset.from_list(rows).to_parquet(path / "data" / "train-00000-of-00001.parquet")
    return str(path)


WRITERS = [saved, parquet, clone]


@pytest.mark.parametrize("write", WRITERS)
def test_chats_are_read_as_those_of_a_file(write: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CHATS), "utf-8")
    expected = list(ChatMessages(str(tmp_path / "chats.jsonl")).read())
    assert list(HuggingFace(write(CHATS, tmp_path / "data")).read()) == expected
    assert expected[4].metadata == {"lang": "en"}


@pytest.mark.parametrize("write", WRITERS)
def test_tables_are_read_as_those_of_a_file(write: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("chat,who,words\n" + "".join(f"{row['chat']},{row['who']},{row['words']}\n" for row in LINES), "utf-8")
    expected = list(Table(str(tmp_path / "t.csv"), COLUMNS, SPEAKERS).read())
    assert list(HuggingFace(write(LINES, tmp_path / "data"), columns=COLUMNS, speakers=SPEAKERS).read()) == expected
    assert [turn.response for dialogue in expected for turn in dialogue.turns] == ["words 1", "words 3", "words 5"]


def test_records_are_read_with_their_annotations(dialogues: list[Dialogue], tmp_path: Path) -> None:
    to_dataset([*dialogues, dialogues[0]]).save_to_disk(tmp_path / "records")
    errors: list[RecordError] = []
    assert list(HuggingFace(str(tmp_path / "records")).read(errors.append)) == dialogues
    assert [(error.row, error.field) for error in errors] == [(len(dialogues) + 1, "id")]


def test_spans_of_several_rows_are_read_twice(tmp_path: Path) -> None:
    rows = [
        {
            "id": str(k),
            "session_id": "s",
            "trace_id": str(k),
            "input": f"hello {k}",
            "output": f"hi {k}",
            "timestamp": f"2026-01-01T00:00:0{k}",
        }
        for k in range(2)
    ]
    (dialogue,) = HuggingFace(saved(rows, tmp_path / "spans")).read()
    assert [(turn.request, turn.response) for turn in dialogue.turns] == [("hello 0", "hi 0"), ("hello 1", "hi 1")]


def test_settings_reach_the_reader(tmp_path: Path) -> None:
    rows = [{"log": [{"who": "caller", "words": "hi"}, {"who": "bot", "words": "hello"}]}]
    corpus = HuggingFace(
        saved(rows, tmp_path / "d"), messages="log", role="who", text="words", roles={"caller": "user", "bot": "assistant"}
    )
    (dialogue,) = corpus.read()
    assert (dialogue.turns[0].request, dialogue.turns[0].response) == ("hi", "hello")
    rows = [{"id": k, "q": "hi", "a": "hello", "device": "tv", "score": 0.5} for k in range(2)]
    columns = {"dialogue": "id", "request": "q", "response": "a", "user": None}
    corpus = HuggingFace(saved(rows, tmp_path / "t"), columns=columns, categorical=["device"], numerical=["score"])
    turn = next(corpus.read()).turns[0]
    rows = [{"id": k % 2, "q": f"hi {k}", "at": f"0{k + 1}.02.2026"} for k in range(4)]
    settings: dict[str, Any] = {"columns": {"dialogue": "id", "request": "q", "timestamp": "at"}, "time_format": "%d.%m.%Y", "sort": True}
    found = {dialogue.id: dialogue.turns for dialogue in HuggingFace(saved(rows, tmp_path / "apart"), **settings).read()}
    assert [turn.request for turn in found["1"]] == ["hi 1", "hi 3"]
    assert found["0"][1].timestamp == datetime(2026, 2, 3, tzinfo=UTC)
    assert (turn.categorical, turn.numerical) == ({"device": "tv"}, {"score": 0.5})


def test_the_command_line_reads_it(tmp_path: Path) -> None:
    path = saved(LINES, tmp_path / "data")
    settings = ["corpus.columns={dialogue: chat, speaker: who, text: words}", "corpus.speakers={user: [caller], assistant: [bot]}"]
    run(load_config("convert", "corpus=hugging_face", f"corpus.path={path}", *settings, f"output={tmp_path}/out.jsonl"))
    assert len(list(read(tmp_path / "out.jsonl"))) == 3
    run(load_config("convert", "corpus=hugging_face", f"corpus.path={saved(CHATS, tmp_path / 'chats')}", f"output={tmp_path}/chats.jsonl"))
    assert len(list(read(tmp_path / "chats.jsonl"))) == 5


def test_splits(tmp_path: Path) -> None:
    splits = {name: datasets.Dataset.from_list(rows) for name, rows in (("train", CHATS[:3]), ("test", CHATS[3:]))}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "both")
    both = str(tmp_path / "both")
    assert [dialogue.id for dialogue in HuggingFace(both, split="test").read()] == ["3", "4"]
    with pytest.raises(ValueError, match=r"the splits train, test; set corpus\.split to one of them"):
        HuggingFace(both).read()
    with pytest.raises(ValueError, match=r"no split 'dev'; there are train, test"):
        HuggingFace(both, split="dev").read()
    datasets.DatasetDict({"train": splits["train"]}).save_to_disk(tmp_path / "one")
    assert len(list(HuggingFace(str(tmp_path / "one")).read())) == 3
    with pytest.raises(ValueError, match=r"has no splits; leave corpus\.split out"):
        HuggingFace(saved(CHATS, tmp_path / "none"), split="train").read()


def test_a_dataset_of_the_hub_is_streamed_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(*names: Any, **settings: Any) -> Any:
        asked.append((names, settings))
        return datasets.IterableDatasetDict({"train": datasets.IterableDataset.from_generator(lambda: iter(CHATS))})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    corpus = HuggingFace("owner/chats", name="en", split="train", revision="v1")
    assert [dialogue.id for dialogue in corpus.read()] == ["0", "1", "2", "3", "4"]
    assert asked == [(("owner/chats",), {"name": "en", "revision": "v1", "streaming": True})]
    with pytest.raises(ValueError, match=r"owner/chats:train: no column 'log'; there are 'id', 'messages', 'lang'"):
        HuggingFace("owner/chats", split="train", messages="log").read()


def test_a_dataset_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*names: Any, **settings: Any) -> Any:
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'owner/x' doesn't exist on the Hub or cannot be accessed.\nAnd more.")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        ValueError,
        match=r"^owner/x: it cannot be loaded as a dataset \(Dataset 'owner/x' doesn't exist on the Hub or cannot be accessed\.\)$",
    ):
        HuggingFace("owner/x").read()


def test_columns_that_are_not_there_or_not_named(tmp_path: Path) -> None:
    path = saved(LINES, tmp_path / "data")
    with pytest.raises(ValueError, match=r"no column 'call'; there are 'chat', 'who', 'words'"):
        HuggingFace(path, columns={**COLUMNS, "dialogue": "call"}, speakers=SPEAKERS).read()
    with pytest.raises(ValueError, match=re.escape("set 'corpus.columns={dialogue: chat, speaker: who, text: words}' 'corpus.speakers=")):
        HuggingFace(path).read()
    with pytest.raises(ValueError, match=r"no format that is known \(the columns: 'n'\); set corpus\.messages=COLUMN"):
        HuggingFace(saved([{"n": 1}], tmp_path / "numbers")).read()
    with pytest.raises(ValueError, match=r"revision cannot be set for a folder of save_to_disk"):
        HuggingFace(path, revision="v1").read()


def test_types_of_their_own(tmp_path: Path) -> None:
    features = datasets.Features({
        "id": datasets.Value("int64"), "request": datasets.Value("string"), "intent": datasets.ClassLabel(names=["Greet", "Leave"]),
        "audio": datasets.Audio(),
    })  # fmt: skip
    rows = [{"id": k, "request": "hi", "intent": [1, None][k], "audio": {"path": "a.wav", "bytes": b"RIFF"}} for k in range(2)]
    table = pa.Table.from_pylist(rows, schema=features.arrow_schema)  # `datasets` needs torchcodec to encode audio
    datasets.Dataset(table).save_to_disk(tmp_path / "data")
    columns = {"dialogue": "id", "request": "request", "intent": "intent", "audio": "audio"}
    first, second = HuggingFace(str(tmp_path / "data"), columns=columns).read()
    assert first.turns == [Turn(request="hi", intent="Leave", audio="a.wav")]
    assert second.turns[0].intent is None


def test_messages_as_lists_by_key(tmp_path: Path) -> None:
    """How older releases of `datasets` hold a sequence of objects."""
    rows = [{"conversations": {"from": ["human", "gpt"], "value": ["hi", "hello"]}}]
    (dialogue,) = HuggingFace(saved(rows, tmp_path / "data")).read()
    assert (dialogue.turns[0].request, dialogue.turns[0].response) == ("hi", "hello")


def test_a_dataset_without_rows(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"messages": []}).to_parquet(tmp_path / "empty.parquet")
    assert list(HuggingFace(str(tmp_path / "empty.parquet")).read()) == []


def test_columns_that_are_no_fields_of_a_record_are_named_and_cost_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dialogues = [Dialogue(id=name, turns=[Turn(request="x")]) for name in "ab"]
    to_dataset(dialogues).add_column("split", ["x", "y"]).save_to_disk(tmp_path / "data")
    assert list(HuggingFace(str(tmp_path / "data")).read()) == dialogues
    assert "columns that are not read, because a record has no such fields: 1 ('split')" in caplog.text
