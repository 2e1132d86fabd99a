"""Entry `inspect`: says what a file of somebody's logs is, what reading it gives and loses, and which command comes next."""

from __future__ import annotations

import json
import logging
import re
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from upath import UPath

from labelgen.corpora import Corpus
from labelgen.corpora.chat_messages import ChatMessages
from labelgen.corpora.chat_parts import from_json
from labelgen.corpora.hugging_face import HuggingFace
from labelgen.corpora.recognition import Recognised, override, recognise, recognise_table
from labelgen.corpora.records import Records
from labelgen.corpora.table import NotAdjacentError, Table
from labelgen.dialogue import Dialogue, RecordError
from labelgen.io.display import DISPLAYS, annotations_as_labels
from labelgen.io.formats import Kind, format_of, has_ending, read_head
from labelgen.io.paths import RECORD_SUFFIXES, is_saved_dataset, list_files
from labelgen.io.progress import progress
from labelgen.io.render import clean, to_text
from labelgen.io.rows import Row, rows
from labelgen.io.tables import TABLE_SUFFIXES, TableFile, encoding_of
from labelgen.io.wording import counted

CORPORA: Mapping[str, Callable[..., Corpus]] = {  # by `corpus=`
    "jsonl": Records,
    "chat_messages": ChatMessages,
    "table": Table,
    "hugging_face": HuggingFace,
}
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
READABLE = "give JSON (.jsonl, .ndjson, .json), .parquet or a table as text (.csv, .tsv)"
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
    if is_saved_dataset(input):
        files, layout, found = sorted(UPath(input).rglob("*.arrow"), key=str), ", Arrow", recognise_saved(Path(input))
    else:
        _refuse_what_is_no_file(input)
        files = list_files(input, dict.fromkeys((*RECORD_SUFFIXES, *TABLE_SUFFIXES)), READABLE, tuple(Kind))
        sample = Sample(files[0])
        layout, found = sample.layout, sample.recognise()
        suffixes = TABLE_SUFFIXES if found.corpus == "table" else RECORD_SUFFIXES
        files = [file for file in files if has_ending(file.name, suffixes)] or files
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
    lines = [f"{input}: {found.description} ({_size(files)}{layout})", *findings.lines(corpus, found)]
    print("\n".join(clean(line) for line in lines))
    print(_drawn(findings.first))
    print("\n".join(clean(line) for line in next_commands(found, input, findings)))


def recognise_saved(folder: Path) -> Recognised:
    """What a folder of `save_to_disk` is. Of several splits the first is read."""
    index, description = folder / "dataset_dict.json", "a dataset of Hugging Face"
    splits = json.loads(index.read_text("utf-8"))["splits"] if index.is_file() else []
    if len(splits) < 2:
        return Recognised(description, "hugging_face")
    others = f"the other splits: {', '.join(splits[1:])} (corpus.split=...)"
    return Recognised(f"{description}, split {splits[0]}", "hugging_face", {"split": splits[0]}, [others])


def _refuse_what_is_no_file(path: str) -> None:
    """ValueError if the path is an empty file, or nothing that exists but perhaps the name of a dataset on the hub."""
    if Path(path).is_file() and not Path(path).stat().st_size:
        raise ValueError(f"{path}: the file is empty")
    if HUB_NAME.fullmatch(path) and not Path(path).parent.exists():
        command = Recognised("", "hugging_face").command(path)
        raise ValueError(f"{path}: no such file or folder; if it is a dataset on huggingface.co: {command}")


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
    with _without_log("labelgen.corpora", logging.ERROR), _without_log("labelgen.io.tables", logging.WARNING):
        findings.read(corpus)
    return Reading(corpus, findings)


class Sample:
    """The first rows of a file. ValueError: there are none, or they are nothing that is known."""

    def __init__(self, file: UPath) -> None:
        self.file, self.format = file, format_of(file)
        if self.format.kind is Kind.ZIP:
            raise ValueError(f"{file}: a zip archive, as Excel's workbooks are; save the workbook's table as CSV, or unpack the archive")
        self.is_text = self.format.kind is Kind.TEXT
        if self.is_text and _is_binary(read_head(file, self.format.is_gzip)):
            raise ValueError(f"{file}: not text, but an image, a document or another binary file; {READABLE}")
        self.layout = f", {self.format}"
        numbered = TableFile(file, self._names()).rows() if self.is_text else rows(file)
        self.rows: list[Row] = []
        problem = ""
        for number, row in islice(numbered, SAMPLE):
            if not isinstance(row, str):
                self.rows.append(row)
            elif not problem:
                problem = f"row {number}: {row}" if number else row
        self.problem = problem or "it has no rows"

    def _names(self) -> list[str]:
        table = TableFile(self.file, [])
        self.layout = f", {table.layout}{', compressed with gzip' if self.format.is_gzip else ''}"
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
    features: Counter[str] = field(default_factory=Counter)  # turns in which a feature has a value that is not 0
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
                self.features.update(name for name, value in features.items() if value not in (None, 0))
            self.features.update(name for name in ("timestamp", "audio") if getattr(turn, name) is not None)

    def lines(self, corpus: Corpus, found: Recognised) -> Iterator[str]:
        """The lines to print."""
        part = "" if self.is_whole else f" (the first {self.limit:,}; limit=null reads all)"
        yield _line("dialogues", f"{self.dialogues:,} with {counted(self.turns, 'turn')}, at most {self.longest:,} each{part}")
        if self.one_sided:
            turns = (f"{counted(number, 'turn')} without a {name}" for name, number in self.one_sided.most_common())
            yield _line("one-sided", ", ".join(turns))
        if isinstance(corpus, ChatMessages):
            yield _line("parts", _listed(corpus.summary.parts))
        if isinstance(corpus, ChatMessages | Table):
            left_out = corpus.left_out if isinstance(corpus, Table) else corpus.summary.left_out
            yield _line("left out", _listed(left_out) or "nothing")
        yield _line("unusable", counted(self.rejected, "row") if self.rejected else "nothing")
        yield from (_line("", reason) for reason in self.reasons)
        yield _line("features", f"{_listed(self.features)} (turns with a value)" if self.features else "none")
        yield _line("annotated", _listed(self.annotations) or "nothing")
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
def _without_log(name: str, below: int) -> Iterator[None]:
    """Silences what a part logs below a level: the report says it."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(below)
    try:
        yield
    finally:
        logger.setLevel(level)


def _is_binary(head: bytes) -> bool:
    """Whether a file that begins with these bytes is no text: it has zeros, but is not in UTF-16, or it is a PDF."""
    return head.startswith(b"%PDF") or (b"\0" in head and not (encoding_of(head) or "").startswith("utf-16"))


def _drawn(dialogue: Dialogue) -> str:
    """The first lines of a dialogue, as `labelgen.show` draws it."""
    lines = to_text(dialogue, color=sys.stdout.isatty(), width=min(shutil.get_terminal_size().columns, 120) - 2).splitlines()
    more = [f"... {counted(len(lines) - LINES, 'more line')}"] if len(lines) > LINES else []
    return "\n".join(f"  {line}" for line in [*lines[:LINES], *more])


def _line(title: str, text: str) -> str:
    return f"  {title:12}{text}"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{kind} {number:,}" for kind, number in counts.most_common() if number)


def _size(files: Sequence[UPath]) -> str:
    size = sum(file.stat().st_size for file in files)
    unit = next((k for k, bound in enumerate((10**3, 10**6, 10**9)) if size < bound), 3)
    text = f"{size / 10 ** (3 * unit):.3g} {('bytes', 'kB', 'MB', 'GB')[unit]}"
    return text if len(files) == 1 else f"{counted(len(files), 'file')}, {text}"
