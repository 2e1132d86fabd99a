"""Entry `backfill`: labels files of dialogues with an export, on one machine or (cluster.py) on many. It can be interrupted and resumed.

    input files -> fragments (shards.py) -> FragmentLabeler: chunks of rows -> Annotator -> shards of the output

A chunk is labelled with an empty cache, so that its labels do not depend on the process, or on what was labelled before it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import chain, islice
from math import floor
from typing import Any, NamedTuple, Protocol

from tqdm import tqdm
from upath import UPath

from labelgen import __version__
from labelgen.dialogue import Dialogue, RecordError, Reject
from labelgen.io.files import DUPLICATE_ID, REJECTED_STATUS, NumberedDialogue, SeenIds, log_reasons, read, reasons_in
from labelgen.io.paths import RECORD_SUFFIXES, absolute, list_record_files, local_path, would_read
from labelgen.io.progress import LogInterval, on_terminal
from labelgen.io.rows import Position
from labelgen.io.wording import counted
from labelgen.labelling.annotator import Annotator, Precision, agreement
from labelgen.labelling.export import load, task_classes
from labelgen.labelling.shards import RESUME, Fragment, LabelledIndex, Output, Provenance, Shard, fragments, read_fragment

log = logging.getLogger(__name__)
SHARD_CHARACTERS = 20_000_000  # a shard with more characters of records is full, however few dialogues it holds
SAMPLE = 200  # dialogues that are labelled in fp32 too
PASSED = "_passed.json"  # this file in the output says that the precision of the current run is good enough
TERMINATED = 128 + signal.SIGTERM  # exit status of a process that SIGTERM ends


class Job(NamedTuple):
    """What a process needs to know to label."""

    export: str
    output: str
    device: str
    tasks: Mapping[str, str]
    precision: Precision
    shard_rows: int

    def annotator(self) -> Annotator:
        """Loads the model."""
        return load(self.export, task_classes(self.tasks), self.device, self.precision)

    def settings(self) -> dict[str, Any]:
        """What the labels depend on besides the model."""
        chunks = {} if self.precision == "fp32" else {"shard_rows": self.shard_rows}  # labels depend on the other dialogues of a batch
        return {"version": __version__, "precision": self.precision, "tasks": dict(sorted(self.tasks.items())), **chunks}

    def provenance(self, annotator: Annotator) -> Provenance:
        """The fingerprints of the model and of the settings."""
        return Provenance(annotator.source, hashlib.sha256(json.dumps(self.settings()).encode()).hexdigest()[:16])


class Counts(NamedTuple):
    """Rows of the input."""

    labelled: int = 0
    skipped: int = 0  # labelled by an earlier run
    rejected: int = 0
    recordings: int = 0  # that could not be read; their turns were labelled from their words alone

    def plus(self, other: Counts) -> Counts:
        """The sum."""
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def exit_status(self) -> int:
        """0: every row has labels; 3: some were rejected."""
        return REJECTED_STATUS if self.rejected else 0


class Engine(Protocol):
    """Runs a job over the fragments of files."""

    in_process: bool  # whether this process labels, on the job's device

    def run(self, job: Job, annotator: Annotator, index: LabelledIndex, files: Sequence[UPath], progress: Progress) -> Counts:
        """Labels what is not in the index. Returns the counts of all files."""


class Terminated(SystemExit):
    """Raised on SIGTERM. The process exits with status 143."""


def _terminate(*_: object) -> None:
    """Handles SIGTERM: raises Terminated, so that open files are closed."""
    raise Terminated(TERMINATED)


@contextmanager
def _reporting_interruption() -> Iterator[None]:
    """Logs how to resume if SIGTERM or SIGINT ends the run. Only the main thread can handle SIGTERM."""
    handles = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _terminate) if handles else None
    try:
        yield
    except (Terminated, KeyboardInterrupt) as end:
        log.warning("stopped by %s; %s", "SIGTERM" if isinstance(end, Terminated) else "SIGINT", RESUME)
        raise
    finally:
        if handles:
            signal.signal(signal.SIGTERM, before)


@_reporting_interruption()
def backfill(
    export: str,
    input: str,
    output: str,
    engine: Engine | None = None,
    device: str = "cpu",
    tasks: Mapping[str, str] | None = None,
    precision: Precision = "fp32",
    least_agreement: float = 0.97,
    shard_rows: int = 2000,
) -> Counts:
    """Labels `input` (JSON, Parquet, a folder of such files, a pattern; paths or URIs) into Parquet files in the folder `output`.

    A row is a dialogue with its labels, the fingerprints `model`, `config` and `input`, the `version` of labelgen and the `time`. A file
    holds `shard_rows` rows. The same command resumes an interrupted run and labels new input: a dialogue is identified by its id and its
    content. Rows that cannot be used go to OUTPUT/_rejected/. `engine`: InProcess() (None) or cluster.OnRay(...).
    `tasks`: name -> dotted path of the class, for tasks that are not labelgen's own. A `precision` of bf16 or int8 is refused if the labels
    of a task agree less than `least_agreement` (F1) with those of fp32 on the first SAMPLE new dialogues. ValueError: no dialogue is
    usable, or the output belongs to another model. In process SIGTERM raises SystemExit (143), SIGINT
    KeyboardInterrupt.
    """
    _check_settings(least_agreement, shard_rows)
    target = Output(output)
    files = _input_files(input, target.folder)
    export, output = str(local_path(export).absolute()), str(target.folder)  # workers may be started elsewhere
    job = Job(export, output, device, dict(tasks or {}), precision, shard_rows)
    engine = engine or InProcess()
    annotator = (job if engine.in_process else job._replace(device="cpu")).annotator()
    size, sources = sum(file.stat().st_size for file in files), {str(file) for file in files}
    with target.claim(job.provenance(annotator), job.settings()) as shards, Progress(size) as progress:
        index = target.index(shards)
        if precision != "fp32":
            _check_precision_once(job, annotator, index, target, input, least_agreement)
        counts = engine.run(job, annotator, index, files, progress)
        (target.folder / PASSED).unlink(missing_ok=True)
        target.delete_stale_rejected(sources)
    if not counts.labelled + counts.skipped:
        reason = reasons_in(target.rejected_path(), target.first_rejected(sources)) if counts.rejected else "it holds no record"
        raise ValueError(f"{input}: no usable dialogue; {reason}")
    _report(counts, target, annotator, sources)
    return counts


def _check_settings(least_agreement: float, shard_rows: int) -> None:
    if not (isinstance(least_agreement, int | float) and 0 <= least_agreement <= 1):
        raise ValueError(f"least_agreement={least_agreement!r}: give a number from 0 to 1")
    if not (isinstance(shard_rows, int) and shard_rows > 0):
        raise ValueError(f"shard_rows={shard_rows!r}: give the number of dialogues of an output file, 1 or more")


def _input_files(input: str, output: UPath) -> list[UPath]:
    """The absolute paths of the files to label. ValueError if the output would mix with them."""
    if not isinstance(input, str | os.PathLike):
        raise ValueError(f"input={input!r}: give one path, URI or pattern")
    if output.suffix in RECORD_SUFFIXES:
        raise ValueError(f"output={output}: name a folder; Parquet files are written into it")
    files = [file.absolute() for file in list_record_files(input)]
    if output in {*chain.from_iterable(absolute(file).parents for file in files)} or would_read(input, output):
        raise ValueError(f"output={output} lies in the input, or holds it, so that the output would be read as input; write it elsewhere")
    return files


def _check_precision_once(job: Job, annotator: Annotator, index: LabelledIndex, target: Output, input: str, least_agreement: float) -> None:
    """Checks the precision on the first new dialogues, unless an interrupted run of the same command has done so."""
    passed, request = target.folder / PASSED, json.dumps({"input": str(input), "least_agreement": least_agreement}).encode()
    if passed.exists() and passed.read_bytes() == request:
        return
    new = (dialogue for dialogue in read(input, lambda error: None) if index.get(dialogue.id) is None)
    check_precision(job, annotator, list(islice(new, SAMPLE)), least_agreement)
    target.save(PASSED, request)


def check_precision(job: Job, annotator: Annotator, sample: Sequence[Dialogue], least: float) -> None:
    """Labels a sample in fp32 too and logs how far the labels agree. ValueError if that is less than `least` for a task."""
    reference = job._replace(precision="fp32", device=str(annotator.device)).annotator()
    rounded = {dialogue.id: dialogue for dialogue in annotator.stream(sample, lambda dialogue, error: None)}
    exact = {dialogue.id: dialogue for dialogue in reference.stream(sample, lambda dialogue, error: None)}
    both = rounded.keys() & exact.keys()
    shares = agreement([rounded[name] for name in both], [exact[name] for name in both])
    description = ", ".join(f"{task} {share:.3f}" for task, share in shares.items())
    log.info("%s labels agree with those of fp32 on the first %s: %s", job.precision, counted(len(sample), "new dialogue"), description)
    if low := [task for task, share in shares.items() if not share >= least]:
        remedy = f"use fp32, or least_agreement={floor(100 * min(shares.values())) / 100:.2f} if that is good enough"
        raise ValueError(
            f"precision={job.precision} changes too many labels of {', '.join(low)} ({description}; required: {least}); {remedy}"
        )


def _report(counts: Counts, target: Output, annotator: Annotator, sources: Collection[str]) -> None:
    usable = counts.labelled + counts.skipped
    skipped = f" and skipped {counts.skipped:,} that earlier runs had labelled" if counts.skipped else ""
    share = usable / (usable + counts.rejected)
    log.info("labelled %s%s in %s with model %s", counted(counts.labelled, "dialogue"), skipped, target.folder, annotator.source)
    if counts.rejected:
        problem = f"{counted(counts.rejected, 'row was', 'rows were')} rejected ({share:.2%} accepted)"
        log_reasons(problem, target.rejected_path(), target.first_rejected(sources))
    if counts.recordings:
        recordings = counted(counts.recordings, "recording")
        log.warning("%s could not be read; their turns were labelled from their words alone", recordings)


class Progress(AbstractContextManager["Progress"]):
    """Shows dialogues per second, the share accepted and the time that remains, as a bar over the bytes of the input or as log lines."""

    def __init__(self, size: int) -> None:
        line = "labelling {percentage:5.1f}% |{bar:20}| {desc} [{elapsed} so far, {remaining} to go]"
        self._bar = tqdm(total=max(size, 1), bar_format=line, disable=not on_terminal())
        self._start, self._interval = time.monotonic(), LogInterval()
        self._size, self._byte = max(size, 1), 0

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, counts: Counts, byte: int) -> None:
        """Shows the `counts` so far, at this byte of all files."""
        byte = max(self._byte, min(byte, self._size))
        now = time.monotonic()
        usable = counts.labelled + counts.skipped
        rate = counts.labelled / max(now - self._start, 1e-9)
        description = f"{counted(usable, 'dialogue')}, {rate:.1f}/s, {usable / max(usable + counts.rejected, 1):.2%} accepted"
        self._bar.set_description_str(description, refresh=False)
        self._bar.update(byte - self._byte)
        self._byte = byte
        if self._bar.disable and byte and self._interval.is_due():
            minutes = (now - self._start) * (self._size / byte - 1) / 60
            log.info("labelling %.1f%%: %s, about %.0f minutes to go", 100 * byte / self._size, description, minutes)


class InProcess:
    """The engine for one machine: one process with a thread for each core."""

    in_process = True

    def run(self, job: Job, annotator: Annotator, index: LabelledIndex, files: Sequence[UPath], progress: Progress) -> Counts:
        labeler, ids = FragmentLabeler(job, annotator, index), SeenIds()
        total, size = Counts(), 0
        for file in files:
            rows = 0
            for fragment in fragments(file):
                for step in labeler.label(fragment, fragment.rows_before(rows), lambda identity, row: ids.add(identity)):
                    progress.show(total.plus(step.counts), size + step.byte)
                total, size, rows = total.plus(step.counts), size + fragment.size, step.rows
        return total


class Step(NamedTuple):
    """How far a fragment is labelled: the counts, the bytes of the rows that are labelled, and the rows of the file that are read."""

    counts: Counts
    byte: int
    rows: int


class ChunkStep(NamedTuple):
    """How far a chunk is labelled: the counts, and the share of its rows. It is 1 when the shard is written."""

    counts: Counts
    share: float


class Pending(NamedTuple):
    """The rows of a chunk that have no labels yet, by id, and the number of the others."""

    rows: Mapping[str, NumberedDialogue]
    skipped: int


class FragmentLabeler:
    """Labels fragments. Each process has one."""

    def __init__(self, job: Job, annotator: Annotator, index: LabelledIndex) -> None:
        self.job, self.annotator, self.index = job, annotator, index
        self.output = Output(job.output)
        self.provenance = job.provenance(annotator)

    def label(self, fragment: Fragment, rows_before: int, is_first_use: Callable[[str, int], bool]) -> Iterator[Step]:
        """Writes the shards of a fragment and its rejected rows. Yields the progress. The last step counts the whole fragment.

        `rows_before`: rows of the file before the fragment. `is_first_use(id, row)`: whether no earlier row has this id.
        """
        position, total, unusable, read = Position(), Counts(), self.annotator.unusable_recordings, 0
        start = 0 if fragment.is_parquet else fragment.start
        with self.output.rejected(fragment) as rejected:
            rows = read_fragment(fragment, rows_before, position, rejected)
            for number, chunk in enumerate(_chunks(rows, self.job.shard_rows)):
                of_chunk = min(position.byte - start, fragment.size) - read  # the chunk is read before it is labelled
                for counts, share in self._label_chunk(fragment, number, chunk, is_first_use, rejected):
                    counts = total.plus(counts)._replace(rejected=rejected.count)
                    yield Step(counts, read + int(share * of_chunk), rows_before + position.row)
                total, read = counts, read + of_chunk
        total = Counts(total.labelled, total.skipped, rejected.count, self.annotator.unusable_recordings - unusable)
        yield Step(total, fragment.size, rows_before + position.row)

    def _label_chunk(
        self,
        fragment: Fragment,
        number: int,
        chunk: Sequence[NumberedDialogue],
        is_first_use: Callable[[str, int], bool],
        reject: Reject,
    ) -> Iterator[ChunkStep]:
        """Labels those rows of a chunk that have no labels yet, and writes their shard. Yields the counts so far."""
        *existing, free = self.output.shards_of(f"{fragment.name}-{number:06d}")  # by a lost worker, or for other rows
        pending = self._pending(chunk, self.output.index(existing), fragment, is_first_use, reject)
        shard = Shard(self.provenance, fragment, reject)
        for dialogue in self._labelled(pending.rows, fragment, reject):
            shard.add(pending.rows[dialogue.id].row, dialogue)
            done = len(chunk) - len(pending.rows) + shard.count
            yield ChunkStep(Counts(shard.count, pending.skipped), done / (len(chunk) + 1))
        if content := shard.content():
            self.output.save(free.name, content)
        yield ChunkStep(Counts(shard.count, pending.skipped), 1.0)

    def _pending(
        self,
        chunk: Sequence[NumberedDialogue],
        existing: LabelledIndex,
        fragment: Fragment,
        is_first_use: Callable[[str, int], bool],
        reject: Reject,
    ) -> Pending:
        """Finds the rows that have no labels yet. Rejects rows whose id is that of another dialogue."""
        rows: dict[str, NumberedDialogue] = {}
        skipped = 0
        for row in chunk:
            name = row.dialogue.id
            known = self.index.get(name) or existing.get(name)
            if not is_first_use(name, row.row):
                reject(RecordError(fragment.file, row.row, name, "id", DUPLICATE_ID))
            elif known is None:
                rows[name] = row
            elif known == row.dialogue.fingerprint():
                skipped += 1
            else:
                problem = "labelled before, with other content (has it grown since?); give it another id, or write to another output"
                reject(RecordError(fragment.file, row.row, name, "id", problem))
        return Pending(rows, skipped)

    def _labelled(self, rows: Mapping[str, NumberedDialogue], fragment: Fragment, reject: Reject) -> Iterator[Dialogue]:
        """Labels the dialogues, in order and with an empty cache. Those that cannot be labelled are rejected."""
        self.annotator.cache.clear()
        return self.annotator.stream((row.dialogue for row in rows.values()), partial(_reject_unlabelled, fragment, rows, reject))


def _reject_unlabelled(
    fragment: Fragment, rows: Mapping[str, NumberedDialogue], reject: Reject, dialogue: Dialogue, error: Exception
) -> None:
    problem = f"could not be labelled ({type(error).__name__}: {error})"
    reject(RecordError(fragment.file, rows[dialogue.id].row, dialogue.id, "record", problem))


def _chunks(rows: Iterable[NumberedDialogue], length: int) -> Iterator[list[NumberedDialogue]]:
    """Runs of `length` dialogues, or of fewer if they are large. They include labelled dialogues, so that every run makes the same."""
    chunk: list[NumberedDialogue] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += len(row.dialogue.model_dump_json())
        if len(chunk) == length or size > SHARD_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    yield chunk
