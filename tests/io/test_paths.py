"""Errors of the operating system name the file, and say nothing of numbers."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from labelgen.io.paths import error_message, error_reason, list_record_files, naming_file


def test_an_error_of_the_system_is_its_files_and_its_reason(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        (tmp_path / "none").read_text()
    assert error_message(caught.value) == f"{tmp_path / 'none'}: No such file or directory"
    assert error_reason(caught.value) == "No such file or directory"
    with pytest.raises(FileNotFoundError) as caught:
        os.replace(tmp_path / "a", tmp_path / "b")
    assert error_message(caught.value) == f"{tmp_path / 'a'} -> {tmp_path / 'b'}: No such file or directory"
    assert error_message(OSError(errno.ENOSPC, "No space left on device")) == "No space left on device"


def test_other_errors_keep_their_message() -> None:
    assert error_message(ValueError("a\nb")) == "a\nb"
    assert error_message(OSError("the hub does not answer")) == "the hub does not answer"
    assert error_reason(ValueError("a\nb")) == "a"
    assert error_reason(ValueError()) == "ValueError"


def test_an_error_without_a_file_gets_its_name() -> None:
    with pytest.raises(OSError, match=r"No space left on device: 'x\.jsonl'"), naming_file("x.jsonl"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="'y'"), naming_file("x.jsonl"):
        raise OSError(errno.ENOENT, "No such file or directory", "y")
    with pytest.raises(OSError, match=r"^the hub does not answer$"), naming_file("x.jsonl"):
        raise OSError("the hub does not answer")


WRITE = """
import resource
from labelgen.config import main
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, -1))
main()
"""


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_the_command_names_the_file_of_a_full_disk(ending: str, tmp_path: Path) -> None:
    arguments = ["convert", "corpus=simulated", "corpus.num_dialogues=40", f"output={tmp_path}/out.{ending}"]
    ended = subprocess.run([sys.executable, "-c", WRITE, *arguments], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ended.returncode == 1
    assert ended.stderr.strip().endswith(f"labelgen: {tmp_path}/out.{ending}: File too large"), ended.stderr
    assert not list(tmp_path.glob("out*")), "nothing is left"


def test_links_that_lead_nowhere_are_skipped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n", "utf-8")
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "absent.jsonl")
    (tmp_path / "c.jsonl").symlink_to(tmp_path / "c.jsonl")
    assert [file.name for file in list_record_files(tmp_path)] == ["a.jsonl"]
    assert "links that lead nowhere are not read (2), such as" in caplog.text
    with pytest.raises(ValueError, match="no such file"):
        list_record_files(tmp_path / "b.jsonl")
