"""Entry: labels files of dialogues with an export, on one machine or (cluster.py) on many. What is labelled stays, whatever stops the run.

    input files -> units (parts.py) -> Labeller: rows -> Annotator -> parts of the output

A part is labelled from a fresh memory, so that it is the same whichever process makes it and whatever was labelled before it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import chain, islice
from typing import NamedTuple, Protocol

from tqdm import tqdm
from upath import UPath

from labelgen import __version__
from labelgen.annotator import Annotator, Precision, agreement
from labelgen.dialogue import PARTS, Dialogue, RecordError
from labelgen.export import load, task_classes
from labelgen.files import Ids, read, record_files
from labelgen.parts import Done, Mark, Output, Part, Reader, Unit, units

log = logging.getLogger(__name__)
PART_CHARACTERS = 50_000_000  # a part ends there, however few its dialogues
SAMPLE = 200  # dialogues that are labelled in fp32 too
REJECTED_STATUS = 3  # exit status: done, but some rows were rejected


class Job(NamedTuple):
    """What a process needs to take part."""

    export: str
    output: str
    device: str
    tasks: Mapping[str, str]
    precision: Precision
    part: int  # dialogues

    def annotator(self) -> Annotator:
        """The model."""
        return load(self.export, task_classes(self.tasks), self.device, self.precision)

    def mark(self, annotator: Annotator) -> Mark:
        """The model, and what else the labels depend on: the tasks' classes, the precision and this version's code."""
        settings = json.dumps([__version__, self.precision, sorted(self.tasks.items())])
        return Mark(annotator.source, hashlib.sha256(settings.encode()).hexdigest()[:16])


class Counts(NamedTuple):
    """Rows of the input."""

    labelled: int = 0
    before: int = 0  # labelled by an earlier run
    rejected: int = 0
    recordings: int = 0  # files of recordings that could not be read; their turns were labelled by their words alone

    def plus(self, other: Counts) -> Counts:
        """The sum."""
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def exit_status(self) -> int:
        """0: every row has labels; 3: some were rejected."""
        return REJECTED_STATUS if self.rejected else 0


class Engine(Protocol):
    """Runs a job over the units of files."""

    def run(self, job: Job, annotator: Annotator, done: Done, files: Sequence[UPath], progress: Progress) -> Counts:
        """Labels what is not done; returns the counts of all files."""


def backfill(
    export: str,
    input: str,
    output: str,
    engine: Engine | None = None,
    device: str = "cpu",
    tasks: Mapping[str, str] | None = None,
    precision: Precision = "fp32",
    least_agreement: float = 0.97,
    part: int = 2000,
) -> Counts:
    """Labels `input` (.jsonl, .parquet, a folder of them, a pattern; paths or URIs) into Parquet files in the folder `output`.

    Each row is a dialogue with its labels, and `model`, `config`, `input` (fingerprints), `version` (of labelgen) and `time`; `part` rows
    make a file. Run again, it labels what is not in the output yet: a dialogue is known by its id and its content. Rows that cannot be
    used go to OUTPUT/rejected/. `engine`: InProcess() (None) or cluster.OnRay(...).
    `tasks`: name -> dotted path of the class, for tasks that are not labelgen's own. `precision` int8 is refused where
    the labels of a task agree less than `least_agreement` (F1) with those of fp32 on the first SAMPLE dialogues. ValueError: nothing is
    usable, or the output is another model's.
    """
    if not (isinstance(part, int) and part > 0):
        raise ValueError(f"part={part!r}: give the number of dialogues of an output file, 1 or more")
    files = record_files(input)
    folder = UPath(output).absolute()
    if inside := next((file for file in files if folder in file.absolute().parents), None):
        raise ValueError(f"{inside} would be read from the output's own folder {output}; write elsewhere, or name the input more closely")
    job = Job(export, output, device, dict(tasks or {}), precision, part)
    annotator = job.annotator()
    if precision == "int8":
        check_precision(job, annotator, input, least_agreement)
    target = Output(output)
    told = {"labelgen": __version__, "export": annotator.info["versions"], "input": str(input)}
    with target.claim(job.mark(annotator), told), Progress(sum(file.stat().st_size for file in files)) as progress:
        counts = (engine or InProcess()).run(job, annotator, target.done(), files, progress)
    if not counts.labelled + counts.before:
        why = f"reasons in {target.folder / 'rejected'}" if counts.rejected else "it holds no record"
        raise ValueError(f"{input}: no usable dialogue; {why}")
    _report(counts, target, annotator)
    return counts


def check_precision(job: Job, annotator: Annotator, input: str, least: float) -> None:
    """Labels a sample in fp32 too, and tells how far the labels agree; ValueError where that is less than `least` for a task."""
    sample = list(islice(read(input, lambda error: None), SAMPLE))
    exact = job._replace(precision="fp32").annotator()
    found = agreement(annotator(sample), exact(sample))
    told = ", ".join(f"{task} {share:.3f}" for task, share in found.items())
    log.info("%s labels agree with those of fp32 on the first %d dialogues: %s", job.precision, len(sample), told)
    if low := [task for task, share in found.items() if share < least]:
        remedy = f"use fp32, or least_agreement={min(found.values()):.2f} if that is good enough"
        raise ValueError(f"precision={job.precision} changes too many labels of {', '.join(low)} ({told}; {least} is asked for); {remedy}")


def _report(counts: Counts, target: Output, annotator: Annotator) -> None:
    usable = counts.labelled + counts.before
    before = f" and found {counts.before:,} labelled by earlier runs" if counts.before else ""
    share = usable / (usable + counts.rejected)
    log.info("labelled %s dialogues%s in %s with model %s", f"{counts.labelled:,}", before, target.folder, annotator.source)
    if counts.rejected:
        log.warning(
            "%s rows were rejected (%.2f%% accepted); reasons in %s", f"{counts.rejected:,}", 100 * share, target.folder / "rejected"
        )
    if counts.recordings:
        log.warning("%d recordings could not be read; their turns were labelled by their words alone", counts.recordings)


class Progress(AbstractContextManager["Progress"]):
    """A bar over the bytes of the input, with dialogues a second, the share that was accepted and the time that remains."""

    def __init__(self, size: int) -> None:
        often = 1.0 if sys.stderr.isatty() else 30.0  # a log file wants few lines
        line = "labelling {percentage:5.1f}% |{bar:20}| {desc} [{elapsed} so far, {remaining} to go]"
        self._bar = tqdm(total=max(size, 1), bar_format=line, mininterval=often, maxinterval=often)
        self._counts, self._at = Counts(), 0

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, counts: Counts, position: int) -> None:
        """`counts` so far, at this byte of all files."""
        self._counts = counts
        usable = counts.labelled + counts.before
        rate = counts.labelled / max(self._bar.format_dict["elapsed"], 1e-9)
        accepted = usable / max(usable + counts.rejected, 1)
        self._bar.set_description_str(f"{usable:,} dialogues, {rate:.1f}/s, {accepted:.2%} accepted", refresh=False)
        self._bar.update(min(position, self._bar.total) - self._at)
        self._at = max(self._at, min(position, self._bar.total))


class Labeller:
    """Labels units; one in each process."""

    def __init__(self, job: Job, annotator: Annotator, done: Done) -> None:
        self.job, self.annotator, self.done = job, annotator, done
        self.output = Output(job.output)
        self.mark = job.mark(annotator)

    def label(
        self, unit: Unit, before: int, first_use: Callable[[str, int], bool], tell: Callable[[Counts, int], None]
    ) -> tuple[Counts, int]:
        """Writes the parts of a unit, and its rejected rows. Returns the counts, and the rows of the file up to the unit's end.

        `before`: rows of the file before the unit; `first_use` tells of an id and its row whether no earlier row has it;
        `tell` is told the counts and the bytes read so far.
        """
        errors: list[RecordError] = []
        reader = Reader(unit, before, errors.append)
        labelled = skipped = 0
        silent = self.annotator.unusable_recordings
        waiting: dict[str, tuple[int, str]] = {}  # id -> row and fingerprint, of the part under way
        there = self.output.done(unit)  # of a worker that was lost

        def counts() -> Counts:
            return Counts(labelled, skipped, len(errors), self.annotator.unusable_recordings - silent)

        def new() -> Iterator[Dialogue]:
            nonlocal skipped
            for row, dialogue in reader:
                problem, known = None, self.done.get(dialogue.id) or there.get(dialogue.id)
                fingerprint = dialogue.fingerprint()
                if not first_use(dialogue.id, row):
                    problem = "a dialogue with this id came before; make ids unique (this one is left out)"
                elif known is None:
                    waiting[dialogue.id] = row, fingerprint
                    yield dialogue
                elif known == fingerprint:
                    skipped += 1
                    tell(counts(), reader.place.position - self._start(unit))
                else:
                    problem = "labelled before, with other content; give it another id, or write to another output"
                if problem:
                    errors.append(RecordError(unit.file, row, dialogue.id, "id", problem))

        def failed(dialogue: Dialogue, error: Exception) -> None:
            told = f"could not be labelled ({type(error).__name__}: {error})"
            errors.append(RecordError(unit.file, waiting.pop(dialogue.id)[0], dialogue.id, "record", told))

        source, number = new(), len(self.output.parts(unit))
        for first in source:
            part = Part(self.mark)
            self.annotator.memory.forget()
            for dialogue in self.annotator.stream(self._take(first, source), failed):
                part.add(dialogue, waiting.pop(dialogue.id)[1])
                labelled += 1
                tell(counts(), reader.place.position - self._start(unit))
            if part.count:
                self.output.save(f"{unit.name}-{number:05d}.parquet", part.content())
                number += 1
        self.output.reject(unit, sorted(errors, key=lambda error: error.row or 0))
        return counts(), before + reader.place.row

    @staticmethod
    def _start(unit: Unit) -> int:
        return 0 if unit.file.endswith(".parquet") else unit.start

    def _take(self, first: Dialogue, rest: Iterator[Dialogue]) -> Iterator[Dialogue]:
        """The dialogues of a part."""
        size = 0
        for count, dialogue in enumerate(chain([first], rest), 1):
            yield dialogue
            size += sum(len(turn.text(side) or "") for turn in dialogue.turns for side in PARTS)
            if count == self.job.part or size > PART_CHARACTERS:
                return


class InProcess:
    """One machine: one process, a thread for each core."""

    def run(self, job: Job, annotator: Annotator, done: Done, files: Sequence[UPath], progress: Progress) -> Counts:
        labeller, ids = Labeller(job, annotator, done), Ids()
        total, size = Counts(), 0
        for file in files:
            before = 0
            for unit in units(file):

                def tell(counts: Counts, position: int, total: Counts = total, size: int = size) -> None:
                    progress.show(total.plus(counts), size + position)

                counts, before = labeller.label(unit, before, lambda identity, row: ids.add(identity), tell)
                total, size = total.plus(counts), size + unit.size
                progress.show(total, size)
        return total
