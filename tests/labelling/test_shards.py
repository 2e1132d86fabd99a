"""Fragments cover a file once, whatever their size; an output belongs to one model and one process, and its files are whole."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from labelgen.dialogue import Dialogue, RecordError, Turn
from labelgen.io.files import SeenIds, read, write
from labelgen.io.rows import Position
from labelgen.labelling import shards
from labelgen.labelling.shards import Fragment, LabelledIndex, Output, Provenance, Shard, fragments, read_fragment

PROVENANCE = Provenance("a" * 16, "b" * 16)


@pytest.fixture
def records() -> list[Dialogue]:
    """Of very different sizes."""
    return [Dialogue(id=f"{k}", turns=[Turn(request="é" * (k * 37 % 400))]) for k in range(60)]


def whole(file: Path) -> tuple[list[tuple[int, str]], list[int]]:
    """Row and id of each dialogue, and rows of the errors, over all fragments."""
    found, errors, before = [], list[RecordError](), 0
    for fragment in fragments(UPath(file)):
        position = Position()
        found += [(row, dialogue.id) for row, dialogue in read_fragment(fragment, fragment.rows_before(before), position, errors.append)]
        before += position.row
    return found, [error.row for error in errors]


@pytest.mark.parametrize("size", [1, 7, 100, 1000, 10**6])
def test_units_hold_every_line_once(size: int, records: list[Dialogue], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "FRAGMENT_BYTES", size)
    lines = [dialogue.model_dump_json(exclude_defaults=True) for dialogue in records]
    lines[20], lines[30] = "", "{broken"
    (tmp_path / "a.jsonl").write_bytes("\ufeff".encode() + "\r\n".join(lines).encode())
    found, errors = whole(tmp_path / "a.jsonl")
    assert found == [(k + 1, dialogue.id) for k, dialogue in enumerate(records) if k not in (20, 30)]
    assert errors == [31]


@pytest.mark.parametrize(("group", "length"), [(1, 1), (7, 20), (7, 3), (100, 10), (10, 10)])
def test_units_hold_every_row_of_parquet_once(
    group: int, length: int, records: list[Dialogue], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "FRAGMENT_ROWS", length)
    write(records, tmp_path / "a.parquet", rows_per_group=group)
    found, errors = whole(tmp_path / "a.parquet")
    assert found == [(k + 1, dialogue.id) for k, dialogue in enumerate(records)]
    assert not errors
    assert len(fragments(UPath(tmp_path / "a.parquet"))) == -(-60 // length), "however large the row groups are"


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.jsonl.gz", "a.json.gz"])
def test_arrays_and_compressed_files_are_one_fragment(
    name: str, records: list[Dialogue], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "FRAGMENT_BYTES", 100)
    lines = [dialogue.model_dump_json(exclude_defaults=True) for dialogue in records]
    lines[20] = "3"
    content = ("\n\n".join(lines) if name == "a.jsonl.gz" else f"[{','.join(lines)}]").encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    (fragment,) = fragments(UPath(tmp_path / name))
    found, errors = whole(tmp_path / name)
    row = (lambda k: 2 * k + 1) if name == "a.jsonl.gz" else (lambda k: k + 1)  # blank lines are counted, as in any file of lines
    assert found == [(row(k), dialogue.id) for k, dialogue in enumerate(records) if k != 20]
    assert errors == [row(20)]
    position = Position()
    for _ in read_fragment(fragment, 0, position, errors.append):
        assert 0 < position.byte <= fragment.size == (tmp_path / name).stat().st_size


def test_the_content_says_whether_fragments_count_rows(records: list[Dialogue], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "FRAGMENT_ROWS", 20)
    write(records, tmp_path / "a.parquet")
    (tmp_path / "a.parquet").rename(tmp_path / "a.jsonl")
    assert [fragment.is_parquet for fragment in fragments(UPath(tmp_path / "a.jsonl"))] == [True] * 3
    assert whole(tmp_path / "a.jsonl") == ([(k + 1, dialogue.id) for k, dialogue in enumerate(records)], [])


def test_a_damaged_row_group_costs_the_rest_of_its_unit_alone(
    records: list[Dialogue], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shards, "FRAGMENT_ROWS", 20)
    file = tmp_path / "a.parquet"
    write(records, file, rows_per_group=10)
    column = pq.ParquetFile(file).metadata.row_group(3).column(0)
    content = bytearray(file.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + 24] = b"\xff" * 24
    file.write_bytes(content)
    found, errors = whole(file)
    assert found == [(k + 1, dialogue.id) for k, dialogue in enumerate(records) if not 30 <= k < 40]
    assert errors == [31]
    assert "a.parquet is not whole" in caplog.text


def test_a_part_that_cannot_be_read_now_is_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").mkdir()  # any error of the system would do
    output = Output(str(tmp_path))
    with pytest.raises(IsADirectoryError):
        output.index(output.shards())


def test_the_parts_of_a_slot_are_found_without_listing_the_folder(tmp_path: Path) -> None:
    output = Output(str(tmp_path))
    names = []
    for _ in range(3):
        *held, free = output.shards_of("a-000001")
        assert [part.name for part in held] == names
        output.save(free.name, b"")
        names.append(free.name)
    assert names == ["a-000001.parquet", "a-000001-1.parquet", "a-000001-2.parquet"]


def test_a_file_that_is_no_parquet_is_one_unit(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"no")
    assert whole(tmp_path / "a.parquet") == ([], [1])


def test_files_of_one_name_have_units_of_other_names() -> None:
    names = {Fragment(file, 0, 0, None, 0).name for file in ("a/x y.jsonl", "b/x y.jsonl", "s3://a/x y.jsonl", "../../etc/x.jsonl")}
    assert len(names) == 4
    assert all("/" not in name and " " not in name for name in names)


def refuse(error: RecordError) -> None:
    raise AssertionError(error)


def claim(folder: Path, mark: Provenance = PROVENANCE, **parsed: str) -> None:
    """Takes the folder and leaves it."""
    with Output(str(folder)).claim(mark, parsed):
        pass


def test_an_output_is_one_models(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Output(str(out)).claim(PROVENANCE, {"precision": "fp32"}):
        assert json.loads((out / "_backfill.json").read_text())["precision"] == "fp32"
        with pytest.raises(ValueError, match="another process is writing"):
            claim(out)
        (out / "a.parquet").write_bytes(b"")
    claim(out)
    for other in (PROVENANCE._replace(model="c" * 16), PROVENANCE._replace(config="c" * 16)):
        with pytest.raises(ValueError, match=f"model {'a' * 16} with config {'b' * 16}.*model {other.model} with config {other.config}"):
            claim(out, other)
    with pytest.raises(ValueError, match="precision 'fp32' there, 'int8' now"):
        claim(out, PROVENANCE._replace(config="c" * 16), precision="int8")


def test_an_output_without_labels_is_free_for_another_model(tmp_path: Path) -> None:
    claim(tmp_path / "out")
    claim(tmp_path / "out", PROVENANCE._replace(model="c" * 16))
    assert json.loads((tmp_path / "out" / "_backfill.json").read_text())["model"] == "c" * 16


def test_two_processes_never_share_a_new_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second comes while the first is about to write what it is."""
    real = Output.save

    def interrupted(self: Output, name: str, content: bytes) -> None:
        with pytest.raises(ValueError, match="another process is writing"):
            claim(tmp_path / "out", PROVENANCE._replace(model="c" * 16))
        real(self, name, content)

    monkeypatch.setattr(Output, "save", interrupted)
    claim(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "_backfill.json").read_text())["model"] == PROVENANCE.model


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(ValueError, match="not an output of backfill"):
        claim(tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        claim(tmp_path / "thesis.tex")
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match="not an output of backfill"):  # its manifest was lost: whose labels are they?
        claim(tmp_path / "out")
    (tmp_path / "out" / "_backfill.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        claim(tmp_path / "out")


def test_what_a_part_holds_is_done(records: list[Dialogue], tmp_path: Path) -> None:
    output = Output(str(tmp_path / "out"))
    claim(tmp_path / "out")
    assert len(output.index([])) == 0
    (tmp_path / "a.jsonl").write_text("{}")
    (fragment,) = fragments(UPath(tmp_path / "a.jsonl"))
    for number, some in enumerate((records[:25], records[25:40])):
        shard = Shard(PROVENANCE, fragment, refuse)
        for row, dialogue in enumerate(some, 1):
            shard.add(row, dialogue)
        output.save(f"{fragment.name}-{number:05d}.parquet", shard.content())
    done = output.index(output.shards())
    assert len(done) == 40
    assert [done.get(dialogue.id) for dialogue in records] == [d.fingerprint() for d in records[:40]] + 20 * [None]
    assert list(read(tmp_path / "out")) == records[:40], "the manifest is no record, the columns of provenance no fields"
    output.shards()[0].write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"00000.parquet: damaged .*delete it"):
        output.index(output.shards())
    for text in ("zz", None):
        pq.write_table(pa.table({"id": ["a"], "input": pa.array([text], pa.string())}), tmp_path / "out" / "a.parquet")
        with pytest.raises(ValueError, match=r"a.parquet: damaged .*delete it"):
            output.index([UPath(tmp_path / "out" / "a.parquet")])
    assert LabelledIndex().get("a") is None


def test_rejected_rows_are_those_of_the_last_run(tmp_path: Path) -> None:
    output = Output(str(tmp_path))
    fragment = Fragment("a.jsonl", 0, 0, None, 1)
    with output.rejected(fragment) as rejects:
        rejects(RecordError("a.jsonl", 1, "\ud800", "turns", "none"))
    (file,) = (tmp_path / "_rejected").iterdir()
    assert json.loads(file.read_text("utf-8"))["field"] == "turns"
    with output.rejected(fragment):
        pass
    assert not list((tmp_path / "_rejected").iterdir())


def test_ids_in_eight_bytes_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelgen.io.files.RECENT_IDS", 10)
    ids, names = SeenIds(), [f"{k * 7919 % 500}" for k in range(1000)]
    seen: set[str] = set()
    for name in names:
        assert ids.add(name) == (name not in seen)
        seen.add(name)
    assert sum(len(run) for run in ids._older) == 500
    assert len(ids._older) < 8


def test_a_row_of_chat_messages_is_rejected_with_the_command_that_converts_it(tmp_path: Path) -> None:
    file = tmp_path / "chats.jsonl"
    file.write_text('{"id": "a", "messages": [{"role": "user", "content": "hi"}]}\n', "utf-8")
    errors: list[RecordError] = []
    (fragment,) = fragments(UPath(file))
    assert list(read_fragment(fragment, 0, Position(), errors.append)) == []
    command = f"labelgen convert corpus=chat_messages corpus.path={file} output={tmp_path.name}_chats.records.jsonl"
    assert errors[0].problem == f"chat messages, not a record of labelgen; convert the file first: {command}"
