"""Tables: the encoding and the delimiter are recognised, rows that do not fit are rejected alone, other columns cost nothing."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from upath import UPath

from labelgen.io.rows import NumberedRow
from labelgen.io.tables import TableFile, delimiter_of, encoding_of


def table_rows(file: Path, *columns: str, encoding: str | None = None) -> list[NumberedRow]:
    return list(TableFile(UPath(file), columns or ("id", "text"), encoding=encoding).rows())


@pytest.mark.parametrize(
    ("line", "problem"),
    [(b"3", "1 cell under 2"), (b'3,4,"x"', "3 cells"), (b'"3"x,4', "not CSV"), (b"\xff,4", "UTF-8"), (b"3,\0", None)],
)
def test_csv_rows_that_do_not_fit_are_reported_and_reading_continues(tmp_path: Path, line: bytes, problem: str | None) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b'\xef\xbb\xbfid,text\r\n1,"a, ""b""\r\nc"\r\n' + line + b"\r\n\r\n2,\xc3\xa9\r\n")
    first, second, blank, third = table_rows(file)
    assert (first, third) == ((1, {"id": "1", "text": 'a, "b"\r\nc'}), (4, {"id": "2", "text": "é"}))
    assert blank == (3, {"id": "", "text": ""})
    assert second[0] == 2
    assert second[1] == {"id": "3", "text": "\0"} if problem is None else problem in second[1]


def test_long_csv_cells_are_read_and_endless_ones_have_their_own_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.csv"
    file.write_text(f"id,text\n1,{'x' * 200_000}\n2,short\n")
    assert [len(row["text"]) for _, row in table_rows(file) if not isinstance(row, str)] == [200_000, 5]
    monkeypatch.setattr("labelgen.io.tables.MAX_CELL", 1000)
    (first, problem), second = table_rows(file)
    assert first == 1 and isinstance(problem, str) and "shorten the cell to 1,000 characters" in problem
    assert second == (2, {"id": "2", "text": "short"})


@pytest.mark.parametrize(("header", "problem"), [(b"id,text,id", "name 'id'"), (b"id,\xff", "UTF-8"), (b'id,"text"x', "not CSV")])
def test_a_csv_without_usable_column_names_is_reported_once(tmp_path: Path, header: bytes, problem: str) -> None:
    (tmp_path / "a.csv").write_bytes(header + b"\n1,2,3\n4,5,6\n")
    ((number, reason),) = table_rows(tmp_path / "a.csv", encoding="utf-8")
    assert number == 0
    assert problem in reason


TEXT = "id;text\r\n1;Où est la gare\r\n2;12 € für alles\r\n"


@pytest.mark.parametrize(
    ("encoding", "recognised"),
    [("utf-8", "utf-8"), ("utf-8-sig", "utf-8-sig"), ("utf-16", "utf-16"), ("utf-16-le", "utf-16-le"), ("utf-16-be", "utf-16-be"),
     ("cp1252", "cp1252")],
)  # fmt: skip
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_encoding_and_delimiter_are_recognised(tmp_path: Path, encoding: str, recognised: str, delimiter: str) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(TEXT.replace(";", delimiter).encode(encoding))
    found = TableFile(UPath(file), ["id", "text"])
    assert found.layout is not None and found.layout[:2] == (recognised, delimiter)
    assert found.layout.example == ("Où" if encoding == "cp1252" else None)
    assert found.names() == ["id", "text"]
    assert list(found.rows()) == [(1, {"id": "1", "text": "Où est la gare"}), (2, {"id": "2", "text": "12 € für alles"})]


def test_a_file_in_another_alphabet_needs_its_encoding(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes("id,text\n1,Привет\n".encode("cp1251"))
    with pytest.raises(ValueError, match=r"a\.csv: neither UTF-8, UTF-16 nor cp1252; set `encoding`"):
        table_rows(file)
    assert table_rows(file, encoding="cp1251") == [(1, {"id": "1", "text": "Привет"})]


@pytest.mark.parametrize("words", ["Grüße, schön", "São João", "12 €", "señor ¿qué?", "“so” – they’re", "Müßiggänger"])
def test_western_words_are_recognised(words: str) -> None:
    assert encoding_of(words.encode("cp1252")) == "cp1252"


@pytest.mark.parametrize(
    ("words", "encoding"), [("Привет, как дела", "cp1251"), ("Καλημέρα", "cp1253"), ("こんにちは", "cp932"), ("你好，车站", "gb18030")]
)
def test_other_alphabets_are_not_taken_for_western_ones(words: str, encoding: str) -> None:
    assert encoding_of(words.encode(encoding)) is None


def test_a_few_damaged_rows_do_not_change_the_encoding() -> None:
    assert encoding_of("é, ü, ñ, ".encode() + b"\xff") == "utf-8"
    assert encoding_of(b"plain") == "utf-8"


def test_the_delimiter_is_that_of_the_named_columns(tmp_path: Path) -> None:
    assert delimiter_of("a,b,c;id;text", ["id", "text"]) == ";"
    assert delimiter_of("id;text,with,commas", ["words"]) == ","
    (tmp_path / "a.csv").write_text("sep=;\r\nid;text\r\n1;a, b\r\n")
    assert table_rows(tmp_path / "a.csv") == [(1, {"id": "1", "text": "a, b"})]


def test_blank_columns_and_unnamed_columns_cost_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b"\n,,\nid,text,note,note,,\n1,x,,,,\n,,,,,\n\n2,y,\xff,,,\n3,z,,,,,\n4,w,,,,,!\n")
    *read, last = table_rows(file, encoding="utf-8")
    cells = [("1", "x"), ("", ""), ("", ""), ("2", "y"), ("3", "z")]
    assert read == [(number, {"id": name, "text": text}) for number, (name, text) in enumerate(cells, 1)], "blank rows are counted"
    assert last[0] == 6 and "7 cells under 6 column names" in last[1]


def test_a_workbook_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"PK\x03\x04...")
    with pytest.raises(ValueError, match=r"workbook of Excel.*save the table as CSV"):
        table_rows(tmp_path / "a.csv")


def test_compressed_tables_are_read_and_damaged_ones_give_a_reason(tmp_path: Path) -> None:
    content = gzip.compress(b"id,text\n" + b"".join(b"%d,%s\n" % (k, b"x" * 50) for k in range(5000)))
    (tmp_path / "a.csv.gz").write_bytes(content)
    assert len(table_rows(tmp_path / "a.csv.gz")) == 5000
    (tmp_path / "a.csv.gz").write_bytes(content[:-100])
    *read, (number, reason) = table_rows(tmp_path / "a.csv.gz")
    assert number == len(read) + 1 and isinstance(reason, str) and "cut short" in reason


def test_lines_that_are_too_long_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelgen.io.tables.MAX_ROW", 1000)
    monkeypatch.setattr("labelgen.io.tables.CHUNK", 99)
    (tmp_path / "a.csv").write_text(f"sep=,\nid,text\n1,x\n2,{'x' * 5000}\n3,{'x' * 996}\n4,{'x' * 997}\n5,y\n")
    found = table_rows(tmp_path / "a.csv")
    assert [number if isinstance(row, str) else row["id"] for number, row in found] == ["1", 2, "3", 4, "5"]
    assert "a line has more than 1,000 characters); look for line ends that are missing" in str(found[1].row)
    (tmp_path / "a.csv").write_text(f"{'x' * 5000}\nid,text\n1,x\n")
    ((number, problem),) = table_rows(tmp_path / "a.csv")
    assert number == 0 and "the column names: not CSV (a line has more than" in str(problem)
    assert TableFile(UPath(tmp_path / "a.csv"), ["id"]).names() is None


def test_the_line_for_excel_names_any_delimiter(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sep=^\nid^text\n1^a, b; c\n")
    assert table_rows(tmp_path / "a.csv") == [(1, {"id": "1", "text": "a, b; c"})]
