"""`labelgen inspect`: each file gets its name, its counts and a command that a shell can run; what cannot be used gets one sentence."""

from __future__ import annotations

import csv
import gzip
import json
import logging
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from labelgen import config, read, write
from labelgen.corpora.recognition import foreign, guess_columns, guess_speakers, output_name, override, recognise
from labelgen.corpora.simulated import Simulated
from labelgen.dialogue import Dialogue, RecordError, Turn, Vote
from labelgen.inspection import inspect

CHAT = [{"role": "user", "content": "a table in Lisbon"}, {"role": "assistant", "content": "Booked."}]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_lines(name: str, rows: Sequence[Any]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return name


def write_table(name: str, rows: Sequence[Sequence[Any]], delimiter: str = ",", encoding: str = "utf-8") -> str:
    with Path(name).open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return name


def labelgen(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Runs a command of the console and returns its exit status."""
    monkeypatch.setattr(sys, "argv", ["labelgen", *words])
    try:
        config.main()
    except SystemExit as end:
        print(end.code if isinstance(end.code, str) else "")
        return 1 if isinstance(end.code, str) else int(end.code or 0)
    return 0


def inspected(name: str, capsys: pytest.CaptureFixture[str], **settings: Any) -> str:
    inspect(name, **settings)
    return capsys.readouterr().out


def records_by_the_command(report: str, monkeypatch: pytest.MonkeyPatch) -> list[Dialogue]:
    """Runs the command that the report ends with, as a shell would, and reads what it writes."""
    program, *words = shlex.split(report.splitlines()[-1].partition("labelgen")[1] + report.splitlines()[-1].partition("labelgen")[2])
    assert program == "labelgen"
    assert labelgen(monkeypatch, *words) == 0
    return list(read(words[-1].removeprefix("output=")))


MESSAGES = [["Conversation ID", "Sender Type", "Message Body", "Sent At", "Order"]]
MESSAGES += [[f"c{k // 2}", "agent" if k % 2 else "customer", f"hello, it is me {k}", f"2026-01-01T10:00:0{k}", k] for k in range(6)]


def test_chats_are_counted_and_converted_by_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    look = {"role": "user", "content": [{"type": "text", "text": "look"}, image]}
    rows = [*({"id": str(k), "messages": CHAT * (k + 1)} for k in range(3)), {"id": "3", "messages": [look]}, {"id": "4", "messages": 5}]
    report = inspected(write_lines("my chats, new=1.jsonl", rows), capsys)
    assert report.startswith("my chats, new=1.jsonl: chat messages (")
    assert re.search(r"dialogues +4 with 7 turns, at most 3 each\n", report)
    assert re.search(r"one-sided +1 turn without a response\n", report)
    assert re.search(r"parts +text 13, image_url 1\n", report)
    assert re.search(r"left out +parts of type image_url 1\n", report)
    assert re.search(r"unusable +1 row\n +row 5, field messages: not a list", report)
    assert re.search(r"annotated +nothing\n", report)
    assert "U a table in Lisbon" in report
    assert shlex.split(report.splitlines()[-1])[-2:] == ['corpus.path="my chats, new=1.jsonl"', "output=my_chats_new_1.records.jsonl"]
    good = write_lines("my chats, new=1.jsonl", rows[:-1])
    assert [dialogue.id for dialogue in records_by_the_command(inspected(good, capsys), monkeypatch)] == ["0", "1", "2", "3"]


OWN = [{"speaker": "Customer", "utterance": "it is down"}, {"speaker": "Support Agent", "utterance": "restart it"}]


@pytest.mark.parametrize(
    ("row", "description"),
    [
        ({"messages": CHAT}, "chat messages"),
        ({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}, "ShareGPT conversations"),
        ({"prompt": "hi", "completion": "hello"}, "TRL prompts with completions"),
        ({"dialog": OWN}, "chat messages under 'dialog'"),
        ({"messages": OWN}, "chat messages"),
        ({"conversations": OWN}, "ShareGPT conversations"),
        ({"turns": [{"speaker": "USER", "text": "hi"}, {"speaker": "SYSTEM", "text": "hello"}]}, "chat messages under 'turns'"),
        ({"log": [{"author": {"role": "user"}, "text": "hi"}, {"author": {"role": "bot"}, "text": "hello"}]}, "chat messages under 'log'"),
    ],
)
def test_each_layout_of_chats_gives_requests_and_responses(
    row: dict[str, Any], description: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = inspected(write_lines("logs.jsonl", [row]), capsys)
    assert report.startswith(f"logs.jsonl: {description} (")
    (dialogue,) = records_by_the_command(report, monkeypatch)
    assert [bool(turn.request and turn.response) for turn in dialogue.turns] == [True]


@pytest.mark.parametrize(
    ("delimiter", "encoding", "words"), [(",", "utf-8", "commas"), (";", "utf-8-sig", "semicolons"), ("\t", "utf-16", "tabs")]
)
def test_a_table_of_messages_names_its_columns(
    delimiter: str, encoding: str, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = inspected(write_table("m.csv", MESSAGES, delimiter, encoding), capsys)
    assert report.startswith("m.csv: a table with one row per message (")
    assert words in report.splitlines()[0]
    assert "columns that are not read: Order" in report
    dialogues = records_by_the_command(report, monkeypatch)
    assert [(d.id, [(t.request, t.response) for t in d.turns]) for d in dialogues] == [
        (f"c{k}", [(f"hello, it is me {2 * k}", f"hello, it is me {2 * k + 1}")]) for k in range(3)
    ]
    assert dialogues[2].turns[0].timestamp is not None


def test_blank_rows_change_nothing_but_the_count(capsys: pytest.CaptureFixture[str]) -> None:
    columns, *rows = MESSAGES
    plain = inspected(write_table("m.csv", [columns, *rows]), capsys)
    report = inspected(write_table("m.csv", [columns, rows[0], [""] * 5, *rows[1:], [], [" "] * 5]), capsys)
    assert "rows without a value 3" in report
    assert [line for line in report.splitlines()[1:] if "left out" not in line] == [
        line for line in plain.splitlines()[1:] if "left out" not in line
    ]


def test_a_table_of_turns_names_its_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [["Call", "Question", "Answer", "customer_id"], *([k // 2, f"is it {k}?", f"it is {k}", k // 2] for k in range(4))]
    (first, second) = records_by_the_command(inspected(write_table("t.csv", rows), capsys), monkeypatch)
    assert (first.id, first.user, second.turns[1].request, second.turns[1].response) == ("0", "0", "is it 3?", "it is 3")


def test_columns_that_are_not_ascii_are_quoted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [["Gespräch", "Zeitpunkt", "Sprecher", "Äußerung"]]
    rows += [[f"g{k // 2}", f"2026-01-01T10:00:0{k}", ("Kunde", "Agent-für-alle")[k % 2], f"Schöne Grüße {k}"] for k in range(4)]
    report = inspected(write_table("cp1252.csv", rows, ";", "cp1252"), capsys)
    dialogues = records_by_the_command(report, monkeypatch)
    assert [(d.turns[0].request, d.turns[0].response) for d in dialogues] == [
        ("Schöne Grüße 0", "Schöne Grüße 1"),
        ("Schöne Grüße 2", "Schöne Grüße 3"),
    ]


def test_rows_that_stand_apart_are_gathered_by_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [MESSAGES[0], *MESSAGES[1::2], *MESSAGES[2::2]]
    report = inspected(write_table("unsorted.csv", rows), capsys)
    assert re.search(r"dialogues +3 with 3 turns", report)
    assert "rows of a dialogue stand apart; corpus.sort=true gathers them" in report
    assert "corpus.sort=true" in report.splitlines()[-1].split()
    assert all(dialogue.turns[0].response for dialogue in records_by_the_command(report, monkeypatch))
    assert "corpus.sort" not in inspected(write_table("sorted.csv", MESSAGES), capsys)


@pytest.mark.parametrize(("column", "is_guess"), [("call", False), ("nr", True)])
def test_columns_request_and_response_need_no_sentences(
    column: str, is_guess: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [["order", column, "request", "response"], [0, 1, "balance", "agent"], [1, 2, "hello", "hi"], [2, 1, "thanks", "agent"]]
    report = inspected(write_table("turns.csv", rows), capsys)
    assert report.startswith("turns.csv: a table with one row per turn (")
    assert (f"that {column!r} is the column of the dialogue's id is a guess" in report) == is_guess
    (first, second) = records_by_the_command(report, monkeypatch)
    assert [turn.request for turn in first.turns] == ["balance", "thanks"]
    assert second.turns[0].response == "hi"


def test_columns_request_and_response_without_text_are_no_turns() -> None:
    assert guess_columns({"call": ["a", "a"], "request": ["x", "y"], "response": [200, 404]}) == {}
    assert guess_columns({"request": ["x", "y"], "response": ["a", "b"]}) == {}


@pytest.mark.parametrize("name", ["flat.jsonl", "flat.json"])
def test_flat_objects_are_a_table(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[dict[str, Any]] = [
        {"conversation_id": k // 2, "role": "assistant" if k % 2 else "user", "content": f"well hello {k}"} for k in range(4)
    ]
    rows[3]["intent"] = "late"
    del rows[1]["content"]
    Path(name).write_text(json.dumps(rows) if name == "flat.json" else "".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    report = inspected(name, capsys)
    assert report.startswith(f"{name}: a table with one row per message (")
    dialogues = records_by_the_command(report, monkeypatch)
    assert [(t.request, t.response) for d in dialogues for t in d.turns] == [("well hello 0", None), ("well hello 2", "well hello 3")]
    with pytest.raises(RecordError, match=f"convert the file first: labelgen inspect {name}"):
        list(read(name))


def test_what_a_table_leaves_out_is_counted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    report = inspected(write_table("m.csv", [*MESSAGES, ["c2", "note", "see above please", "yesterday", 9]]), capsys)
    assert re.search(r"left out +.*rows of speaker 'note' 1", report)
    assert re.search(r"left out +.*values of column 'Sent At' 1", report)
    assert "ignore: [note]" in report.splitlines()[-1]
    assert len(records_by_the_command(report, monkeypatch)) == 3


def test_columns_without_names_that_are_known_are_found_by_their_values() -> None:
    found = guess_columns(
        {"nr": [1, 1, 2, 2], "p": ["user", "bot", "user", "bot"], "t": ["well hello", "hi to you", "a b", "c d"], "x": [1, 2, 3, 4]}
    )
    assert found == {"dialogue": "nr", "speaker": "p", "text": "t"}
    assert guess_columns({"a": [1, 2], "b": [3, 4]}) == {}
    assert guess_columns({"id": ["a", "b"], "user": ["I am in", "we are out"], "assistant": ["oh no", "oh yes"]})["request"] == "user"


def test_who_speaks_is_read_from_words_or_said_to_be_a_guess() -> None:
    assert guess_speakers(["Support Agent", "Customer (web)", "note"]) == (
        {"Support Agent": "assistant", "Customer (web)": "user", "note": "ignore"},
        [],
    )
    assert guess_speakers(["system", "user"]).roles == {"system": "assistant", "user": "user"}
    assert guess_speakers(["system", "user", "bot"]).roles == {"system": "ignore", "user": "user", "bot": "assistant"}
    guess = guess_speakers(["Anna", "bot", "Carl"])
    assert guess.roles == {"Anna": "user", "bot": "assistant", "Carl": "ignore"}
    assert guess.notes == ["who speaks is a guess for 'Anna' (user), 'Carl' (ignore)"]


def test_columns_of_lists_do_not_hide_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    spoken = [("a", "customer", "hello to you"), ("a", "agent", "good morning"), ("b", "customer", "a table")]
    rows = [{"session": chat, "role": who, "text": text, "embedding": [0.5], "extra": {"k": 1}} for chat, who, text in spoken]
    report = inspected(write_lines("table.jsonl", rows), capsys)
    assert report.startswith("table.jsonl: a table with one row per message (")
    assert re.search(r"note +columns that are not read: embedding, extra\n", report)
    assert len(records_by_the_command(report, monkeypatch)) == 2


def test_a_prompt_is_no_response_of_a_system(capsys: pytest.CaptureFixture[str]) -> None:
    """`system` answers in some data: there it speaks after the user. Before the user it is the prompt."""
    prompt, request = {"role": "system", "content": "Be kind."}, CHAT[0]
    report = inspected(write_lines("prompts.jsonl", [{"messages": [prompt, request]}] * 2), capsys)
    assert "corpus.roles" not in report and "note" not in report
    report = inspected(write_lines("answers.jsonl", [{"messages": [prompt, request]}, {"messages": [request, prompt]}]), capsys)
    assert report.splitlines()[-1].count("'corpus.roles={system: assistant}'") == 1
    assert "who speaks is a guess for 'system' (assistant)\n" in report


def test_rows_before_the_first_that_is_known_do_not_hide_the_format(capsys: pytest.CaptureFixture[str]) -> None:
    header = {"_export": "1.0"}
    report = inspected(write_lines("chats.jsonl", [header, header, {"messages": CHAT}]), capsys)
    assert report.startswith("chats.jsonl: chat messages (") and re.search(r"unusable +2 rows\n +row 1, field messages: no chat", report)
    write([Dialogue(id="a", turns=[Turn(request="hi")])], "records.jsonl")
    Path("records.jsonl").write_text(json.dumps(header) + "\n" + Path("records.jsonl").read_text())
    assert inspected("records.jsonl", capsys).startswith("records.jsonl: records (")


def test_records_give_their_annotations_and_the_next_commands(capsys: pytest.CaptureFixture[str]) -> None:
    dialogues = list(Simulated(num_dialogues=3).read())
    dialogues[0].turns[0].votes.append(Vote(question="satisfaction", value=4))
    dialogues[0].votes.append(Vote(question="mood", value="good"))
    write(dialogues, "annotated.parquet")
    report = inspected("annotated.parquet", capsys)
    assert report.startswith("annotated.parquet: records (")
    goals = sum(len(dialogue.goals or ()) for dialogue in dialogues)
    assert f"goal_segmentation {goals}" in report
    assert "satisfaction 1, votes on mood 1\n" in report
    train, label = (shlex.split(line.partition("labelgen")[2]) for line in report.splitlines()[-2:])
    assert train == ["train", "corpus=jsonl", "corpus.path=annotated.parquet", "+tasks@tasks.satisfaction=satisfaction"]
    assert label == ["backfill", "export=EXPORT", "input=annotated.parquet", "output=labelled"]
    write([Dialogue(id="a", turns=[Turn(request="hi", intent="Greet")])], "intents.jsonl")
    line = inspected("intents.jsonl", capsys).splitlines()[-2]
    assert {f"'~tasks@tasks.{task}'" for task in ("goal_segmentation", "goal_evaluation", "slot", "defect")} < {*line.split()}
    config.load_config(*shlex.split(line.partition("labelgen")[2]))


def test_features_count_the_turns_that_have_them(capsys: pytest.CaptureFixture[str]) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "book", "arguments": "{}"}}]}
    rows = [{"id": "a", "messages": [CHAT[0], call]}, *({"id": str(k), "messages": CHAT} for k in range(3))]
    assert re.search(r"features +tool 1, tool_calls 1 \(turns with a value\)\n", inspected(write_lines("c.jsonl", rows), capsys))
    assert re.search(r"features +none\n", inspected(write_lines("c.jsonl", rows[1:]), capsys)), "no turn has a call"


def test_no_two_files_get_the_same_output() -> None:
    here = Path.cwd()
    names = ["a.jsonl", "a.json", "a.csv", "a.records.jsonl", "b/a.jsonl", "a.jsonl.gz", "/x/y/a.jsonl", "s3://b/c.jsonl"]
    found = [output_name(name) for name in names]
    assert len({*found}) == len(names)
    assert not any(name == output for name, output in zip(names, found, strict=True))
    assert found[0] == output_name(str(here / "a.jsonl")) == "a.records.jsonl"
    assert output_name(".") == "logs.records.jsonl"


@pytest.mark.parametrize("splits", [None, ["train"], ["train", "test"]])
def test_a_saved_dataset_gets_its_command(
    splits: list[str] | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_list([{"id": str(k), "messages": CHAT} for k in range(2)])
    (datasets.DatasetDict(dict.fromkeys(splits, dataset)) if splits else dataset).save_to_disk("saved")
    capsys.readouterr()
    report = inspected("saved", capsys)
    is_split = bool(splits) and len(splits) > 1
    assert report.startswith(
        "saved: a dataset of Hugging Face, split train (2 files," if is_split else "saved: a dataset of Hugging Face ("
    )
    assert ("corpus.split=train" in report.splitlines()[-1]) == ("the other splits: test" in report) == is_split
    assert [dialogue.id for dialogue in records_by_the_command(report, monkeypatch)] == ["0", "1"]


def test_a_folder_counts_what_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    Path("logs").mkdir()
    write_table("logs/a.csv", MESSAGES)
    write_lines("logs/b.jsonl", [{"messages": CHAT}])
    assert inspected("logs", capsys).startswith("logs: a table with one row per message (")
    assert "2 files" not in inspected("logs", capsys)


def test_a_compressed_table_is_read(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    Path("m.tsv.gz").write_bytes(gzip.compress(Path(write_table("m.tsv", MESSAGES, "\t")).read_bytes()))
    assert "CSV with tabs between the columns, in utf-8, compressed with gzip)" in inspected("m.tsv.gz", capsys)
    assert not caplog.records, "the report has it"
    assert logging.getLogger("labelgen.io.tables").level == logging.NOTSET, "it is silent only while the report is made"


def test_a_limit_is_stated(capsys: pytest.CaptureFixture[str]) -> None:
    name = write_lines("c.jsonl", [{"id": str(k), "messages": CHAT} for k in range(5)])
    assert "2 with 2 turns, at most 1 each (the first 2; limit=null reads all)" in inspected(name, capsys, limit=2)
    assert "limit" not in inspected(name, capsys, limit=5)
    assert "limit" not in inspected(name, capsys, limit=None)
    with pytest.raises(ValueError, match=r"limit=0"):
        inspect(name, limit=0)


def test_a_long_dialogue_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    report = inspected(write_lines("c.jsonl", [{"id": "a", "messages": CHAT * 50}]), capsys)
    assert len(report.splitlines()) < 30
    assert re.search(r"\.\.\. \d+ more lines", report)


def test_control_characters_of_a_file_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    write_lines(
        "c.jsonl",
        [{"id": "\x1b[2J", "messages": [{"role": "user", "content": "\x1b]0;x\x07"}, *CHAT]}, {"messages": [{"role": "\x1b[2J"}]}],
    )
    report = inspected("c.jsonl", capsys)
    assert "\x1b" not in report
    assert "unusable    1 row" in report


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("none.jsonl", '{"foo": 1}\n', "no format that is known (the columns: 'foo')"),
        ("none.csv", "a,b\n1,2\n", "no format that is known (the columns: 'a', 'b')"),
        ("blank.jsonl", "\n", "it has no rows"),
        ("lists.json", json.dumps([CHAT, [], 3]), "lists.json: row 1: a JSON array, not an object"),
        ("twice.csv", "text,text\na,b\n", "twice.csv: the column names: two have the name 'text'; rename one"),
        ("empty.jsonl", "", "the file is empty"),
        ("empty", "", "the file is empty"),
        ("p.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "not text, but an image"),
        ("png.jsonl", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "not text, but an image"),
        ("p.pdf", b"%PDF-1.4\n%\xe2\xe3\n", "not text, but an image, a document"),
        ("m.xlsx", b"PK\x03\x04\x14\0", "a zip archive, as Excel's workbooks are; save"),
        (
            "a/b-c",
            None,
            "no such file or folder; if it is a dataset on huggingface.co: labelgen convert corpus=hugging_face corpus.path=a/b-c ",
        ),
        ("absent/a.jsonl", None, "no such file"),
        ("bad.jsonl", '{"messages": [{"role": "user"}]}\n', "no dialogue is usable; the first reason: row 1, field messages.0"),
        ("absent.jsonl", None, "no such file or folder"),
    ],
)
def test_a_file_that_cannot_be_used_gets_one_sentence_and_status_1(
    name: str, content: str | bytes | None, reason: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert labelgen(monkeypatch, "inspect", name) == 1
    said = capsys.readouterr().out.strip()
    assert said.startswith(f"labelgen: {name}: ")
    assert reason in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("words", [["c d=e.jsonl"], ['input="c d=e.jsonl"'], ["limit=1", "c d=e.jsonl"]])
def test_the_command_takes_a_bare_path(words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write_lines("c d=e.jsonl", [{"messages": CHAT}])
    assert labelgen(monkeypatch, "inspect", *words) == 0
    assert capsys.readouterr().out.startswith("c d=e.jsonl: chat messages")


@pytest.mark.parametrize(
    "value",
    [
        "a b",
        "it's",
        'say "x"',
        "' and \"",
        "back\\",
        "b\\'s",
        "null",
        "1",
        "é客",
        "a=b,c{d}",
        "$x",
        "",
        "Gespräch",
        {"a b:c": ["x", "y z", "zä"], "d": "Gespräch"},
    ],
)
def test_settings_are_written_in_the_grammar_of_hydra(value: Any) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_override(override("key", value)).value()
    assert getattr(parsed, "text", parsed) == value


def test_reading_chats_as_records_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    write_lines("chats.jsonl", [{"id": "a", "messages": CHAT}])
    command = "labelgen convert corpus=chat_messages corpus.path=chats.jsonl output=chats.records.jsonl"
    with pytest.raises(RecordError, match=re.escape(f"chat messages, not a record of labelgen; convert the file first: {command}")):
        list(read("chats.jsonl"))
    errors: list[RecordError] = []
    write_lines("mixed.jsonl", [{"id": "a", "messages": CHAT}, {"id": "b", "turns": [{"request": 3}]}, {"id": "c", "turns": [{}]}])
    assert [dialogue.id for dialogue in read("mixed.jsonl", errors.append)] == ["c"]
    assert [(error.row, error.problem.startswith("chat messages")) for error in errors] == [(1, True), (2, False)]


def test_a_row_of_a_table_or_of_nothing_that_is_known() -> None:
    assert foreign({"conversation_id": 1, "role": "user", "content": "hi to you"}, "f.jsonl") == (
        "a table with one row per message, not a record of labelgen; convert the file first: labelgen inspect f.jsonl"
    )
    assert foreign({"foo": 1}, "f.jsonl") is None
    assert foreign({"id": "a", "turns": [{"request": "hi"}]}, "f.jsonl") is None
    assert recognise([]) is None


def test_langfuse_is_no_table_and_a_table_of_prompts_is_no_trl() -> None:
    rows = [{"session_id": "s", "trace_id": str(k), "input": "hello there", "output": "hi to you", "project_id": "p"} for k in range(2)]
    found = recognise(rows)
    assert found is not None
    assert found.corpus == "chat_messages"
    found = recognise([{"conversation_id": k // 2, "prompt": "hello there", "response": "hi to you"} for k in range(4)])
    assert found is not None
    assert found.settings["columns"] == {"dialogue": "conversation_id", "request": "prompt", "response": "response"}


def test_roles_whose_names_are_not_ascii(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [{"role": "Kundin Ä", "content": "hi"}, {"role": 'the "Support" Agent', "content": "hello"}]
    report = inspected(write_lines("c.jsonl", [{"messages": messages}]), capsys)
    assert report.splitlines()[-1].count("corpus.roles=[") == 1
    (dialogue,) = records_by_the_command(report, monkeypatch)
    assert (dialogue.turns[0].request, dialogue.turns[0].response) == ("hi", "hello")
    words = ["convert", "corpus=chat_messages", "corpus.path=c.jsonl", "output=o.jsonl"]
    assert labelgen(monkeypatch, *words, 'corpus.roles={Kundin Ä: user, "Support Agent": assistant}') == 1
    remedy = 'corpus.roles=["Kundin Ä=user", "Support Agent=assistant"]'
    assert f"give a list: '{remedy}'" in capsys.readouterr().out
    write_lines("c.jsonl", [{"messages": [messages[0], {"role": "Support Agent", "content": "hello"}]}])
    assert labelgen(monkeypatch, *words, remedy) == 0


@pytest.mark.parametrize(
    ("rows", "description"),
    [
        ([{"data": [{"id": "a", "messages": CHAT}]}], "chat messages"),
        ([{"sender_id": "a", "event": name, "text": text, "timestamp": 1} for name, text in (("user", "hi"), ("bot", "hello"))],
         "events of Rasa trackers"),
        ([{"span_id": "1", "attributes": {"http.method": "GET"}},
          {"trace_id": "t", "attributes": {"gen_ai.prompt.0.content": "hi", "gen_ai.completion.0.content": "hello"}}],
         "OpenTelemetry GenAI spans or events"),
    ],
)  # fmt: skip
def test_rows_that_take_several_for_a_conversation_or_hold_several(
    rows: list[dict[str, Any]], description: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = inspected(write_lines("f.jsonl", rows), capsys)
    assert report.startswith(f"f.jsonl: {description} (")
    (dialogue,) = records_by_the_command(report, monkeypatch)
    assert [bool(turn.request and turn.response) for turn in dialogue.turns] == [True]


def test_a_csv_file_whose_cells_hold_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    events = [{"event": "user", "text": "hi", "timestamp": 1}, {"event": "bot", "text": "hello", "timestamp": 2}]
    cells = [["a", event["event"], json.dumps(event)] for event in events]
    report = inspected(write_table("f.csv", [["sender_id", "type_name", "data"], *cells]), capsys)
    assert report.startswith("f.csv: events of Rasa trackers (")
    (dialogue,) = records_by_the_command(report, monkeypatch)
    assert (dialogue.id, dialogue.turns[0].request, dialogue.turns[0].response) == ("a", "hi", "hello")
