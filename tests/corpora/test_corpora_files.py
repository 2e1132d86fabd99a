"""Corpora whose files are pipes, sockets or devices are refused: reading them may never end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labelgen.corpora import Corpus
from labelgen.corpora.chat_messages import ChatMessages
from labelgen.corpora.records import Records
from labelgen.corpora.sgd import SGD


@pytest.mark.parametrize(
    ("corpus", "name"),
    [
        (lambda root: SGD(str(root), split="train"), "train/dialogues_001.json"),
        (lambda root: Records(str(root / "a.jsonl")), "a.jsonl"),
        (lambda root: ChatMessages(str(root / "a.jsonl")), "a.jsonl"),
    ],
    ids=["sgd", "records", "chat messages"],
)
def test_a_pipe_in_the_place_of_a_file_is_refused(corpus: object, name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    (file.parent / "schema.json").write_text("[]")
    os.mkfifo(file)
    made: Corpus = corpus(tmp_path)  # type: ignore[operator]
    with pytest.raises(ValueError, match="a pipe, a socket or a device"):
        list(made.read())
