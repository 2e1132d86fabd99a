"""Your own logs as a dataset of Hugging Face: a folder of `save_to_disk`, a Parquet file, or the name of a dataset on the hub.

It needs the package `datasets` (`pip install 'labelgen[hugging_face]'`). `path` is, in this order, a folder that `Dataset.save_to_disk` or
`DatasetDict.save_to_disk` wrote, a Parquet file, a folder as a clone of a dataset's repository, or the name of a dataset on huggingface.co,
with `name` (its configuration) and `revision`. `split` may be left out if there is only one. Rows are streamed: a dataset of the hub is
read while it is downloaded. No code of a dataset is run.

The rows are read as those of a file are:

- As a table, if `columns` names any. `columns`, `speakers`, `categorical`, `numerical`, `time_format` and `sort` are those of
  `corpus=table`, where a row is a turn or a message. A class label is its name, and a recording is its path.
- As labelgen's records, if they have the columns that `labelgen.to_dataset` makes.
- As chat messages otherwise. The format is recognised; `format`, `messages`, `role`, `text`, `roles` and `without_words` are those of
  `corpus=chat_messages`.

Labelled: records keep their annotations. Tables and chats: see their pages. Licence: see the page of the dataset.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from labelgen.corpora.chat_messages import ChatMessages
from labelgen.corpora.recognition import Recognised, is_record, overrides, recognise
from labelgen.corpora.table import Table
from labelgen.dialogue import Dialogue, Reject
from labelgen.io.files import convert_rows, record_columns, unique_dialogues
from labelgen.io.hugging_face import import_datasets, record_of
from labelgen.io.paths import error_reason, is_saved_dataset
from labelgen.io.rows import NumberedRow, Row

SAMPLE = 200  # rows that show what a dataset is


@dataclass(frozen=True)
class HuggingFace:
    """The dialogues of the dataset `path`. ValueError: a setting has another value."""

    path: str
    name: str | None = None  # of a configuration
    split: str | None = None
    revision: str | None = None
    columns: Mapping[str, str | None] | None = None  # of a table
    speakers: Mapping[str, Sequence[str | int]] | None = None
    categorical: Sequence[str] = ()
    numerical: Sequence[str] = ()
    time_format: str | None = None
    sort: bool = False
    format: str | None = None  # of chat messages
    messages: str | None = None
    role: str | None = None
    text: str | None = None
    roles: Mapping[str, str] | Sequence[str] | None = None
    without_words: Literal["reject", "skip"] = "reject"

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Yields the dialogues. Unusable rows and repeated ids go to `reject`; without it the first one raises RecordError.

        ValueError: there is no such dataset, configuration, split or column, or its rows are nothing that is known.
        """
        source = DatasetRows(self)
        if named := {field: column for field, column in (self.columns or {}).items() if column is not None}:
            source.check([*named.values(), *self.categorical, *self.numerical])
            features = self.categorical, self.numerical
            table = Table(str(source), named, self.speakers or {}, *features, time_format=self.time_format, sort=self.sort)
            return table.read_sources([source], reject)
        if self.messages is not None:
            source.check([self.messages.split(".")[0]])
        elif self.format is None:
            found = self._recognise(source)
            if found is not None and found.corpus == "jsonl":
                return _unique(source, reject)
        chats = ChatMessages(str(source), self.format, self.messages, self.role, self.text, self.roles, self.without_words)
        return chats.read_sources([source], reject)

    def _recognise(self, source: DatasetRows) -> Recognised | None:
        """What the first rows are. None: there are none. ValueError: they are a table, or nothing that is known."""
        sample = source.sample()
        if not sample:
            return None
        found = Recognised("records", "jsonl") if is_record(sample[0]) else recognise(sample)
        if found is None or found.corpus == "table":
            columns = ", ".join(map(repr, sample[0]))
            remedy = (
                shlex.join(overrides("corpus", found.settings)) if found else "corpus.messages=COLUMN, or corpus.columns={dialogue: ...}"
            )
            raise ValueError(
                f"{source}: {found.description if found else 'no format that is known'} (the columns: {columns}); set {remedy}"
            )
        return found


class DatasetRows:
    """The rows of a dataset. ValueError: there is none, or it has several splits."""

    def __init__(self, corpus: HuggingFace) -> None:
        self._name = ":".join(part for part in (corpus.path, corpus.name, corpus.split) if part)
        self._dataset = load(corpus)
        self._features = self._dataset.features or {}

    def __str__(self) -> str:
        return self._name

    @property
    def columns(self) -> list[str]:
        """The names of the columns. Empty: they are not known."""
        return list(self._features)

    def rows(self, columns: Collection[str] | None = None) -> Iterator[NumberedRow]:
        """The rows, numbered from 1, with all columns or these. Recordings and images are not decoded."""
        for number, row in enumerate(self._dataset, 1):
            chosen = row if columns is None else {name: row[name] for name in columns}
            yield NumberedRow(number, {name: _plain(value, self._features.get(name)) for name, value in chosen.items()})

    def sample(self) -> list[Row]:
        """The first rows."""
        return [{name: _plain(value, self._features.get(name)) for name, value in row.items()} for row in self._dataset.take(SAMPLE)]

    def check(self, columns: Iterable[str]) -> None:
        """ValueError: one of the columns is not there."""
        present = list(self._features) or list(next(iter(self.sample()), {}))
        if missing := [column for column in columns if present and column not in present]:
            raise ValueError(f"{self}: no column {', '.join(map(repr, missing))}; there are {', '.join(map(repr, present))}")


def load(corpus: HuggingFace) -> Any:
    """The dataset as an IterableDataset. ValueError: it cannot be loaded, or it has several splits."""
    datasets = import_datasets()
    path, others = Path(corpus.path), {"name": corpus.name, "revision": corpus.revision}
    is_saved = is_saved_dataset(corpus.path)
    if is_saved and (given := [key for key, value in others.items() if value is not None]):
        raise ValueError(f"{corpus.path}: {' and '.join(given)} cannot be set for a folder of save_to_disk")
    try:
        if is_saved:
            loaded = datasets.load_from_disk(str(path))
        elif path.is_file():
            loaded = datasets.load_dataset("parquet", data_files=str(path), streaming=True)
        else:
            loaded = datasets.load_dataset(corpus.path, **others, streaming=True)
    except Exception as error:  # of the package, of a file system, of the network
        raise ValueError(f"{corpus.path}: it cannot be loaded as a dataset ({error_reason(error)})") from None
    return _iterable(_split_of(loaded, corpus))


def _split_of(loaded: Any, corpus: HuggingFace) -> Any:
    """The split that is asked for, or the only one."""
    if not isinstance(loaded, Mapping):
        if corpus.split is not None:
            raise ValueError(f"{corpus.path}: the dataset has no splits; leave corpus.split out")
        return loaded
    splits = ", ".join(map(str, loaded))
    if corpus.split is None and len(loaded) != 1:
        raise ValueError(f"{corpus.path}: the dataset has the splits {splits}; set corpus.split to one of them")
    split = next(iter(loaded)) if corpus.split is None else corpus.split
    if split not in loaded:
        raise ValueError(f"{corpus.path}: no split {split!r}; there are {splits}")
    return loaded[split]


def _iterable(dataset: Any) -> Any:
    """A dataset that is streamed, and whose recordings and images are not decoded."""
    datasets = import_datasets()
    if isinstance(dataset, datasets.Dataset):
        dataset = dataset.to_iterable_dataset()
    return dataset.decode(False) if dataset.features else dataset


def _plain(value: Any, feature: Any) -> Any:
    """A value of a column: the name of a class label, the path of a recording, and a dict of lists as a list of dicts."""
    datasets = import_datasets()
    if isinstance(feature, datasets.ClassLabel) and isinstance(value, int):
        return feature.int2str(value) if value >= 0 else None
    if isinstance(feature, datasets.Audio | datasets.Image) and isinstance(value, Mapping):
        return value.get("path")
    if isinstance(feature, dict) and isinstance(value, Mapping) and all(isinstance(inner, datasets.List) for inner in feature.values()):
        return [dict(zip(value, items, strict=True)) for items in zip(*value.values(), strict=True)]  # Sequence of older releases
    return value


def _unique(source: DatasetRows, reject: Reject | None) -> Iterator[Dialogue]:
    """The dialogues of rows that `labelgen.to_dataset` made."""
    columns = record_columns(source.columns, str(source))
    found = convert_rows(source.rows(columns), str(source), record_of, reject)
    return unique_dialogues(((str(source), row, dialogue) for row, dialogue in found), reject)
