"""Entry `inspect`: says what a file of somebody's logs is, what reading it gives and loses, and which command comes next."""

from __future__ import annotations

import logging
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import PurePath
from typing import Any, NamedTuple

from upath import UPath

from labelgen.corpora import Corpus
from labelgen.corpora.chat_messages import ChatMessages
from labelgen.corpora.chat_parts import from_json
from labelgen.corpora.recognition import Recognised, override, recognise, recognise_table
from labelgen.corpora.records import Records
from labelgen.corpora.table import NotAdjacentError, Table
from labelgen.dialogue import Dialogue, RecordError
from labelgen.io.display import DISPLAYS, annotations_as_labels
from labelgen.io.formats import Kind, format_of
from labelgen.io.paths import RECORD_SUFFIXES, list_files
from labelgen.io.progress import progress
from labelgen.io.render import clean, to_text
from labelgen.io.rows import Row, rows
from labelgen.io.tables import TABLE_SUFFIXES, TableFile

CORPORA: Mapping[str, Callable[..., Corpus]] = {"jsonl": Records, "chat_messages": ChatMessages, "table": Table}  # by `corpus=`
SAMPLE = 2000  # rows that show what a file is
REASONS = 3  # for which dialogues are not usable, that are shown
LINES = 14  # of the first dialogue, that are shown
VOTED = ("satisfaction",)  # questions that a task learns


def inspect(input: str, limit: int | None = 10_000) -> None:
    """Prints what the file or folder `input` is, and the command that comes next. `limit`: read only this many dialogues; None: all.

    ValueError: it cannot be used; the message says why.
    """
    if limit is not None and not (isinstance(limit, int) and limit > 0):
        raise ValueError(f"limit={limit!r}: give the number of dialogues to read, or null for all")
    remedy = "give JSON (.jsonl, .ndjson, .json), .parquet or a table as text (.csv, .tsv)"
    files = list_files(input, {*RECORD_SUFFIXES, *TABLE_SUFFIXES}, remedy, tuple(Kind))
    sample = Sample(files[0])
    found = sample.recognise()
    names_files = len(files) > 1
    try:
        corpus, findings = read_all(found, input, limit, names_files)
    except NotAdjacentError:
        note = "rows of a dialogue stand apart; corpus.sort=true gathers them"
        found = found._replace(settings={**found.settings, "sort": True}, notes=[*found.notes, note])
        corpus, findings = read_all(found, input, limit, names_files)
    if findings.first is None:
        reason = f"; the first reason: {findings.reasons[0]}" if findings.reasons else ""
        raise ValueError(f"{input}: {found.description}, but no dialogue is usable{reason}")
    lines = [f"{input}: {found.description} ({_size(files)}{sample.layout})", *findings.lines(corpus, found)]
    print("\n".join(clean(line) for line in lines))
    print(_drawn(findings.first))
    print("\n".join(clean(line) for line in next_commands(found, input, findings)))


def build(found: Recognised, path: str) -> Corpus:
    """The corpus that reads a file or folder."""
    settings: Mapping[str, Any] = {"speakers": {}, **found.settings} if found.corpus == "table" else found.settings
    return CORPORA[found.corpus](path=path, **settings)


class Reading(NamedTuple):
    """A corpus, and what reading it gives."""

    corpus: Corpus
    findings: Findings


def read_all(found: Recognised, path: str, limit: int | None, names_files: bool) -> Reading:
    """Reads a file or folder up to the limit. NotAdjacentError: the rows of a dialogue stand apart."""
    corpus, findings = build(found, path), Findings(limit, names_files)
    with _without_log("labelgen.corpora"):
        findings.read(corpus)
    return Reading(corpus, findings)


class Sample:
    """The first rows of a file. ValueError: there are none, or they are nothing that is known."""

    def __init__(self, file: UPath) -> None:
        self.file, self.format = file, format_of(file)
        self.is_text = self.format.kind in (Kind.TEXT, Kind.ZIP)
        self.layout = f", {self.format}"
        numbered = TableFile(file, self._names()).rows() if self.is_text else rows(file)
        self.rows: list[Row] = []
        self.problem = "it has no rows"
        for number, row in islice(numbered, SAMPLE):
            if isinstance(row, str):
                self.problem = f"row {number} is {row}"
            else:
                self.rows.append(row)

    def _names(self) -> list[str]:
        table = TableFile(self.file, [])
        self.layout = f", {table.layout}"
        return [name for name in table.names() or () if name]

    def recognise(self) -> Recognised:
        """What the rows are."""
        if not self.rows:
            raise ValueError(f"{self.file}: {self.problem}")
        holds_json = any(from_json(cell) is not cell for row in self.rows for cell in row.values())
        found = recognise_table(self.rows) if self.is_text and not holds_json else recognise(self.rows)
        if found is None:
            columns = ", ".join(map(repr, self.rows[0])) or "none"
            remedy = (
                "name its columns (labelgen convert corpus=table --help)"
                if self.is_text
                else "name its messages (corpus=chat_messages corpus.messages=COLUMN) or write a corpus (docs/recipes/corpus.md)"
            )
            raise ValueError(f"{self.file}: no format that is known (the columns: {columns}); {remedy}")
        return found


@dataclass
class Findings:
    """What reading a corpus gives."""

    limit: int | None
    names_files: bool = False  # whether a reason names its file
    first: Dialogue | None = None
    dialogues: int = 0
    turns: int = 0
    longest: int = 0
    one_sided: Counter[str] = field(default_factory=Counter)  # turns without a request or without a response
    annotations: Counter[str] = field(default_factory=Counter)  # by task
    features: Counter[str] = field(default_factory=Counter)  # turns by feature
    rejected: int = 0
    reasons: list[str] = field(default_factory=list)
    is_whole: bool = True

    def read(self, corpus: Corpus) -> None:
        """Counts the dialogues of a corpus, up to the limit."""
        dialogues = corpus.read(self._reject)
        for dialogue in progress(islice(dialogues, self.limit), "reading", "dialogue"):
            self._add(dialogue)
        self.is_whole = next(dialogues, None) is None

    def _reject(self, error: RecordError) -> None:
        self.rejected += 1
        if len(self.reasons) < REASONS:
            place = f"{PurePath(error.source).name}, " if self.names_files else ""
            self.reasons.append(f"{place}row {error.row}, field {error.field}: {error.problem}")

    def _add(self, dialogue: Dialogue) -> None:
        self.first = self.first or dialogue
        self.dialogues += 1
        self.turns += len(dialogue.turns)
        self.longest = max(self.longest, len(dialogue.turns))
        self.annotations.update(annotations_of(dialogue))
        for turn in dialogue.turns:
            self.one_sided.update(name for name in ("request", "response") if turn.text(name) is None)
            for features in (turn.categorical, turn.numerical):
                self.features.update(name for name, value in features.items() if value is not None)
            self.features.update(name for name in ("timestamp", "audio") if getattr(turn, name) is not None)

    def lines(self, corpus: Corpus, found: Recognised) -> Iterator[str]:
        """The lines to print."""
        counted = "" if self.is_whole else f" (the first {self.limit:,}; limit=null reads all)"
        yield _line("dialogues", f"{self.dialogues:,} with {self.turns:,} turns, at most {self.longest:,} each{counted}")
        if self.one_sided:
            yield _line("one-sided", ", ".join(f"{number:,} turns without a {part}" for part, number in self.one_sided.most_common()))
        if isinstance(corpus, ChatMessages):
            yield _line("parts", _counted(corpus.summary.parts))
        if isinstance(corpus, ChatMessages | Table):
            left_out = corpus.left_out if isinstance(corpus, Table) else corpus.summary.left_out
            yield _line("left out", _counted(left_out) or "nothing")
        yield _line("unusable", f"{self.rejected:,} {'row' if self.rejected == 1 else 'rows'}" if self.rejected else "nothing")
        yield from (_line("", reason) for reason in self.reasons)
        yield _line("features", _counted(self.features) or "none")
        yield _line("annotated", _counted(self.annotations) or "nothing")
        yield from (_line("note", note) for note in found.notes)


def annotations_of(dialogue: Dialogue) -> Counter[str]:
    """The number of a dialogue's annotations by task. Votes that no task learns are counted by their question."""
    counts = Counter(label.task for label in annotations_as_labels(dialogue))
    counts["user_act"] += sum(turn.request_acts is not None for turn in dialogue.turns)
    for task, votes in (
        ("satisfaction", [vote for turn in dialogue.turns for vote in turn.votes]),
        ("dialogue_satisfaction", dialogue.votes),
    ):
        counts.update(task if vote.question in VOTED else f"votes on {vote.question}" for vote in votes)
    counts.update(f"labels of {label.task}" for label in dialogue.labels or ())
    return +counts


def next_commands(found: Recognised, path: str, findings: Findings) -> list[str]:
    """The command that turns the file into records; for records, those that label them and that train on their annotations."""
    if found.corpus != "jsonl":
        return [_line("to records", found.command(path))]
    learned = [task for task in (*DISPLAYS, "user_act", "satisfaction", "dialogue_satisfaction") if findings.annotations[task]]
    label = shlex.join(["labelgen", "backfill", "export=EXPORT", override("input", path), "output=labelled"])
    if not learned:
        return [_line("to label", label)]
    dropped = [f"~tasks@tasks.{task}" for task in DISPLAYS if task not in learned]
    added = [f"+tasks@tasks.{task}={task}" for task in learned if task not in DISPLAYS]
    train = ["labelgen", "train", "corpus=jsonl", override("corpus.path", path), *dropped, *added]
    return [_line("to train", shlex.join(train)), _line("to label", label)]


@contextmanager
def _without_log(name: str) -> Iterator[None]:
    """Silences what a part logs below errors: the report says it."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _drawn(dialogue: Dialogue) -> str:
    """The first lines of a dialogue, as `labelgen.show` draws it."""
    lines = to_text(dialogue, color=sys.stdout.isatty(), width=min(shutil.get_terminal_size().columns, 120) - 2).splitlines()
    more = [f"... {len(lines) - LINES} more lines"] if len(lines) > LINES else []
    return "\n".join(f"  {line}" for line in [*lines[:LINES], *more])


def _line(title: str, text: str) -> str:
    return f"  {title:12}{text}"


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{kind} {number:,}" for kind, number in counts.most_common() if number)


def _size(files: Sequence[UPath]) -> str:
    size = sum(file.stat().st_size for file in files)
    unit = next((k for k, bound in enumerate((10**3, 10**6, 10**9)) if size < bound), 3)
    text = f"{size / 10 ** (3 * unit):.3g} {('bytes', 'kB', 'MB', 'GB')[unit]}"
    return text if len(files) == 1 else f"{len(files)} files, {text}"
