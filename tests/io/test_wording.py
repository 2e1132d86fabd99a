"""One is not many: in the words of `counted`, and in each message that has a number."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from labelgen.corpora.records import Records
from labelgen.dialogue import Dialogue, RecordError, Turn
from labelgen.io.files import RejectedFile, write
from labelgen.io.paths import list_files
from labelgen.io.wording import counted

ROOT = Path(__file__).resolve().parents[2]
NOUNS = "rows|records|dialogues|files|folders|turns|recordings|epochs|steps|validations|fragments|positives|values|responses"


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 rows were read"), (1, "1 row was read"), (2, "2 rows were read"), (1234, "1,234 rows were read")]
)
def test_one_is_not_many(number: int, words: str) -> None:
    assert counted(number, "row was", "rows were") + " read" == words
    assert counted(number, "row") == words.rpartition(" w")[0]


def test_no_message_has_a_plural_without_counting() -> None:
    """A number right before a plural is written by `counted`. Totals ("of"), limits ("first") and second numbers ("and") are excepted."""
    plural = re.compile(rf"(?<!of )(?<!first )(?<!and )(?:%d|%s|\{{(?:len\([^}}]*\)|[\w.]*(?:count|number)\w*)(?::,)?\}}) (?:{NOUNS})\b")
    own = {"inputs/tokenizer.py", "labelling/annotator.py"}  # more than a maximum
    for file in sorted((ROOT / "labelgen").rglob("*.py")):
        name = str(file.relative_to(ROOT / "labelgen"))
        if not name.startswith(("corpora/", "metrics/")) and name not in own:
            assert not plural.findall(file.read_text("utf-8")), name


def test_messages_of_files_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rejected = RejectedFile(tmp_path / "r.jsonl")
    rejected(RecordError("a.jsonl", 1, None, "id", "it is wrong"))
    rejected.log()
    assert "1 record was not usable; reasons in" in caplog.text
    write([Dialogue(id="a", turns=[Turn()])], tmp_path / "a.jsonl")
    for name in ("x.txt", "y.txt", ".z.jsonl"):
        (tmp_path / name).touch()
    list_files(tmp_path, (".jsonl",), "")
    assert "2 files are ignored, such as" in caplog.text
    assert "1 file is ignored whose name" in caplog.text


def test_what_holds_no_records_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a b.csv").write_text("id,text\n")
    with pytest.raises(ValueError, match=r"^a b\.csv: records are JSON .*; `labelgen inspect 'a b\.csv'` prints the command"):
        list(Records("a b.csv").read())
    Path("saved").mkdir()
    Path("saved/state.json").write_text("{}")
    with pytest.raises(ValueError, match=r"^saved: a dataset of Hugging Face.* labelgen convert corpus=hugging_face corpus\.path=saved "):
        list(Records("saved").read())
    Path("logs").mkdir()
    with pytest.raises(ValueError, match=r"holds no \.jsonl, \.ndjson, \.json, \.parquet file$"):
        list(Records("logs").read())
    Path("logs/a.csv").touch()
    with pytest.raises(ValueError, match=r"\.parquet file; records are JSON .*`labelgen inspect logs`"):
        list(Records("logs").read())
