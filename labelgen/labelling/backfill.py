"""Entry: labels files of dialogues with an export, on one machine or (cluster.py) on many. What is labelled stays, whatever stops the run.

    input files -> units (parts.py) -> Labeller: rows -> Annotator -> parts of the output

A part is labelled from a fresh memory, so that it is the same whichever process makes it and whatever was labelled before it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import chain, islice
from math import floor
from typing import Any, NamedTuple, Protocol

from tqdm import tqdm
from upath import UPath

from labelgen import __version__
from labelgen.dialogue import Dialogue, RecordError, Reject
from labelgen.io.files import DUPLICATE_ID, NumberedDialogue, SeenIds, read
from labelgen.io.paths import RECORD_SUFFIXES, absolute, list_record_files, local_path, would_read
from labelgen.io.rows import Position
from labelgen.labelling.annotator import Annotator, Precision, agreement
from labelgen.labelling.export import load, task_classes
from labelgen.labelling.parts import REJECTED, Done, Mark, Output, Part, Unit, read_unit, units

log = logging.getLogger(__name__)
PART_CHARACTERS = 20_000_000  # of records: a part ends there, however few its dialogues
EVERY = 30.0  # seconds, between lines of a log
SAMPLE = 200  # dialogues that are labelled in fp32 too
PASSED = "_passed.json"  # in the output: the precision of the run that is under way was good enough
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

    def settings(self) -> dict[str, Any]:
        """What the labels depend on beside the model."""
        rounded = {} if self.precision == "fp32" else {"part": self.part}  # a label depends on what is computed beside it
        return {"version": __version__, "precision": self.precision, "tasks": dict(sorted(self.tasks.items())), **rounded}

    def mark(self, annotator: Annotator) -> Mark:
        """The fingerprints of the model and of the settings."""
        return Mark(annotator.source, hashlib.sha256(json.dumps(self.settings()).encode()).hexdigest()[:16])


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

    here: bool  # is it this process that labels, on the job's device?

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
    used go to OUTPUT/_rejected/. `engine`: InProcess() (None) or cluster.OnRay(...).
    `tasks`: name -> dotted path of the class, for tasks that are not labelgen's own. `precision` bf16 or int8 is refused where
    the labels of a task agree less than `least_agreement` (F1) with those of fp32 on the first SAMPLE new dialogues. ValueError: nothing is
    usable, or the output is another model's.
    """
    if not (isinstance(least_agreement, int | float) and 0 <= least_agreement <= 1):
        raise ValueError(f"least_agreement={least_agreement!r}: give a number from 0 to 1")
    if not (isinstance(part, int) and part > 0):
        raise ValueError(f"part={part!r}: give the number of dialogues of an output file, 1 or more")
    target = Output(output)
    files = _input_files(input, target.folder)
    export, output = str(local_path(export).absolute()), str(target.folder)  # workers may be started elsewhere
    job = Job(export, output, device, dict(tasks or {}), precision, part)
    engine = engine or InProcess()
    annotator = (job if engine.here else job._replace(device="cpu")).annotator()
    size = sum(file.stat().st_size for file in files)
    with target.claim(job.mark(annotator), job.settings()) as parts, Progress(size) as progress:
        done = target.done(parts)
        passed, asked = target.folder / PASSED, json.dumps({"input": str(input), "least_agreement": least_agreement}).encode()
        if precision != "fp32" and not (passed.exists() and passed.read_bytes() == asked):
            new = (dialogue for dialogue in read(input, lambda error: None) if done.get(dialogue.id) is None)
            check_precision(job, annotator, list(islice(new, SAMPLE)), least_agreement)
            target.save(PASSED, asked)  # a run that is stopped goes on without being judged by other dialogues
        counts = engine.run(job, annotator, done, files, progress)
        passed.unlink(missing_ok=True)
    if not counts.labelled + counts.before:
        why = f"reasons in {target.folder / REJECTED}" if counts.rejected else "it holds no record"
        raise ValueError(f"{input}: no usable dialogue; {why}")
    _report(counts, target, annotator)
    return counts


def _input_files(input: str, output: UPath) -> list[UPath]:
    """Absolute paths of the files to label; ValueError where the output would mix with them."""
    if not isinstance(input, str | os.PathLike):
        raise ValueError(f"input={input!r}: give one path, URI or pattern")
    if output.suffix in RECORD_SUFFIXES:
        raise ValueError(f"output={output}: name a folder; Parquet files are written into it")
    files = [file.absolute() for file in list_record_files(input)]
    if output in {*chain.from_iterable(absolute(file).parents for file in files)} or would_read(input, output):
        raise ValueError(f"output={output} lies in the input, or holds it, so that the output would be read as input; write it elsewhere")
    return files


def check_precision(job: Job, annotator: Annotator, sample: Sequence[Dialogue], least: float) -> None:
    """Labels a sample in fp32 too, and tells how far the labels agree; ValueError where that is less than `least` for a task."""
    exact = job._replace(precision="fp32", device=str(annotator.device)).annotator()
    small = {dialogue.id: dialogue for dialogue in annotator.stream(sample, lambda dialogue, error: None)}
    full = {dialogue.id: dialogue for dialogue in exact.stream(sample, lambda dialogue, error: None)}
    both = small.keys() & full.keys()
    found = agreement([small[name] for name in both], [full[name] for name in both])
    told = ", ".join(f"{task} {share:.3f}" for task, share in found.items())
    log.info("%s labels agree with those of fp32 on the first %d new dialogues: %s", job.precision, len(sample), told)
    if low := [task for task, share in found.items() if not share >= least]:
        remedy = f"use fp32, or least_agreement={floor(100 * min(found.values())) / 100:.2f} if that is good enough"
        raise ValueError(f"precision={job.precision} changes too many labels of {', '.join(low)} ({told}; {least} is asked for); {remedy}")


def _report(counts: Counts, target: Output, annotator: Annotator) -> None:
    usable = counts.labelled + counts.before
    before = f" and found {counts.before:,} labelled by earlier runs" if counts.before else ""
    share = usable / (usable + counts.rejected)
    log.info("labelled %s dialogues%s in %s with model %s", f"{counts.labelled:,}", before, target.folder, annotator.source)
    if counts.rejected:
        log.warning("%s rows were rejected (%s accepted); reasons in %s", f"{counts.rejected:,}", f"{share:.2%}", target.folder / REJECTED)
    if counts.recordings:
        log.warning("%d recordings could not be read; their turns were labelled by their words alone", counts.recordings)


class Progress(AbstractContextManager["Progress"]):
    """Dialogues a second, the share that was accepted and the time that remains: a bar over the bytes of the input, in a log a line."""

    def __init__(self, size: int) -> None:
        line = "labelling {percentage:5.1f}% |{bar:20}| {desc} [{elapsed} so far, {remaining} to go]"
        self._bar = tqdm(total=max(size, 1), bar_format=line, disable=not sys.stderr.isatty() or None)
        self._start = self._told = time.monotonic()
        self._size, self._at = max(size, 1), 0

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, counts: Counts, position: int) -> None:
        """`counts` so far, at this byte of all files."""
        position = max(self._at, min(position, self._size))
        now = time.monotonic()
        usable = counts.labelled + counts.before
        rate = counts.labelled / max(now - self._start, 1e-9)
        told = f"{usable:,} dialogues, {rate:.1f}/s, {usable / max(usable + counts.rejected, 1):.2%} accepted"
        self._bar.set_description_str(told, refresh=False)
        self._bar.update(position - self._at)
        self._at = position
        if self._bar.disable and now - self._told > EVERY and position:
            remains = (now - self._start) * (self._size / position - 1)
            log.info("labelling %.1f%%: %s, about %.0f minutes to go", 100 * position / self._size, told, remains / 60)
            self._told = now


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
        silent, labelled, skipped, place = self.annotator.unusable_recordings, 0, 0, Position()
        begin = 0 if unit.is_parquet else unit.start
        with self.output.rejected(unit) as rejects:

            def counts() -> Counts:
                return Counts(labelled, skipped, rejects.count, self.annotator.unusable_recordings - silent)

            for slot, rows in enumerate(self._slots(read_unit(unit, before, place, rejects))):
                *held, free = self.output.slot(f"{unit.name}-{slot:06d}")  # held: by a worker that was lost, or of other rows
                new = self._new(rows, self.output.done(held), unit, first_use, rejects)
                skipped += sum(row is None for row in new.values())
                part = Part(self.mark)
                for dialogue in self._labelled({name: row for name, row in new.items() if row is not None}, unit, rejects):
                    part.add(dialogue)
                    labelled += 1
                    tell(counts(), place.byte - begin)
                if part.count:
                    self.output.save(free.name, part.content())
                tell(counts(), place.byte - begin)
        return counts(), before + place.row

    def _labelled(self, wanted: Mapping[str, NumberedDialogue], unit: Unit, reject: Reject) -> Iterator[Dialogue]:
        """The dialogues with their labels, in order, from a fresh memory; those that no model labels are rejected."""

        def failed(dialogue: Dialogue, error: Exception) -> None:
            told = f"could not be labelled ({type(error).__name__}: {error})"
            reject(RecordError(unit.file, wanted[dialogue.id].row, dialogue.id, "record", told))

        self.annotator.memory.forget()
        return self.annotator.stream((row.dialogue for row in wanted.values()), failed)

    def _slots(self, found: Iterable[NumberedDialogue]) -> Iterator[list[NumberedDialogue]]:
        """Runs of `part` dialogues, or of fewer if they are large, whether they are labelled or not: the same in each run."""
        rows: list[NumberedDialogue] = []
        size = 0
        for row in found:
            rows.append(row)
            size += len(row.dialogue.model_dump_json())
            if len(rows) == self.job.part or size > PART_CHARACTERS:
                yield rows
                rows, size = [], 0
        yield rows

    def _new(
        self, rows: Sequence[NumberedDialogue], there: Done, unit: Unit, first_use: Callable[[str, int], bool], reject: Reject
    ) -> dict[str, NumberedDialogue | None]:
        """Id -> the row, where it has no labels yet; None: it has. Rows whose id means another dialogue are rejected."""
        found: dict[str, NumberedDialogue | None] = {}
        for row in rows:
            name = row.dialogue.id
            known = self.done.get(name) or there.get(name)
            if not first_use(name, row.row):
                problem = DUPLICATE_ID
            elif known is None or known == row.dialogue.fingerprint():
                found[name] = row if known is None else None
                continue
            else:
                problem = "labelled before, with other content; give it another id, or write to another output"
            reject(RecordError(unit.file, row.row, name, "id", problem))
        return found


class InProcess:
    """One machine: one process, a thread for each core."""

    here = True

    def run(self, job: Job, annotator: Annotator, done: Done, files: Sequence[UPath], progress: Progress) -> Counts:
        labeller, ids = Labeller(job, annotator, done), SeenIds()
        total, size = Counts(), 0
        for file in files:
            before = 0
            for unit in units(file):

                def tell(counts: Counts, position: int, total: Counts = total, size: int = size) -> None:
                    progress.show(total.plus(counts), size + position)

                counts, before = labeller.label(unit, unit.rows_before(before), lambda identity, row: ids.add(identity), tell)
                total, size = total.plus(counts), size + unit.size
                progress.show(total, size)
        return total
