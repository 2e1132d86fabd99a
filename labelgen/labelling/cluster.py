"""Backfill on many machines: Ray Data distributes the fragments of the input over processes. Each has an Annotator of its own."""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from upath import UPath

from labelgen.io.paths import error_message
from labelgen.io.wording import counted
from labelgen.labelling.annotator import Annotator
from labelgen.labelling.backfill import Counts, FragmentLabeler, Job, Progress
from labelgen.labelling.shards import RESUME, Fragment, LabelledIndex, fragments, scan

log = logging.getLogger(__name__)


class OnRay:
    """An engine of `backfill`. The pool grows with the work. A lost process is replaced, and its fragment is labelled again.

    `address` is that of the cluster (None: this machine alone; auto: the cluster that this machine belongs to). There are at most `workers`
    processes (None: one per fragment). Each takes `cpus` cores and `gpus` devices, and must see the export, the input and the output.
    """

    in_process = False

    def __init__(self, address: str | None = None, workers: int | None = None, cpus: float = 1, gpus: float = 0) -> None:
        self.address, self.workers, self.cpus, self.gpus = address, workers, cpus, gpus

    def run(self, job: Job, annotator: Annotator, index: LabelledIndex, files: Sequence[UPath], progress: Progress) -> Counts:
        try:
            import ray
        except ImportError:
            raise ValueError("backfill=ray needs Ray: pip install 'labelgen[ray]'") from None
        started_here = not ray.is_initialized()
        if started_here:
            ray.init(address=self.address or "local", log_to_driver=False, logging_level=logging.WARNING)
        for name in ("ray.data", "ray.data._internal"):
            logging.getLogger(name).setLevel(logging.ERROR)  # it logs its plans, and that it shows no bars
        ray.data.DataContext.get_current().enable_progress_bars = False
        to_label = [fragment for file in files for fragment in fragments(file)]
        log.info("reading the ids of %s, in %s; then labelling starts", counted(len(files), "file"), counted(len(to_label), "fragment"))
        try:
            return self._label(job, index, self._tasks(to_label), progress)
        except ray.exceptions.RayError as error:
            cause: BaseException = error
            while (inner := getattr(cause, "cause", None) or cause.__cause__) is not None:
                cause = inner
            message = error_message(cause).partition("\n")[0]
            raise ValueError(f"a worker failed ({type(cause).__name__}: {message}); {RESUME}") from error
        finally:
            if started_here:
                ray.shutdown()

    def _tasks(self, to_label: Sequence[Fragment]) -> list[dict[str, Any]]:
        """The fragments, each with the number of rows before it in its file, and the numbers of its rows whose id came before.

        This reads the input once more, on all processes.
        """
        import ray

        items = [{"index": k, "fragment": json.dumps(fragment)} for k, fragment in enumerate(to_label)]
        found = ray.data.from_items(items, override_num_blocks=len(items)).map(_scan, num_cpus=self.cpus).take_all()
        scans = sorted(found, key=lambda row: row["index"])
        ids = np.concatenate([np.frombuffer(row["ids"], np.uint64) for row in scans])
        first = np.zeros(len(ids), bool)
        first[np.unique(ids, return_index=True)[1]] = True
        start, before, tasks = 0, 0, []
        for fragment, row in zip(to_label, scans, strict=True):
            before = fragment.rows_before(0 if fragment.number == 0 else before)
            numbers = np.frombuffer(row["numbers"], np.int64)
            repeated = numbers[~first[start : start + len(numbers)]] + before
            tasks.append({"fragment": json.dumps(fragment), "before": before, "repeated": repeated.tobytes()})
            start, before = start + len(numbers), before + row["rows"]
        return tasks

    def _label(self, job: Job, index: LabelledIndex, tasks: list[dict[str, Any]], progress: Progress) -> Counts:
        import ray

        pool: Any = Worker  # Ray makes one in each process
        labelled = ray.data.from_items(tasks, override_num_blocks=len(tasks)).map(
            pool,
            fn_constructor_args=(job, ray.put(index)),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(self.workers or len(tasks), len(tasks))),
            num_cpus=self.cpus,
            num_gpus=self.gpus,
        )
        total, size = Counts(), 0
        for row in labelled.iter_rows():
            total, size = total.plus(Counts(*json.loads(row["counts"]))), size + row["size"]
            progress.show(total, size)
        return total


class Worker:
    """A process of the pool."""

    def __init__(self, job: Job, index: Any) -> None:
        import ray

        self.labeler = FragmentLabeler(job, job.annotator(), ray.get(index))

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        fragment, repeated = Fragment(*json.loads(row["fragment"])), set(np.frombuffer(row["repeated"], np.int64).tolist())
        (last,) = deque(self.labeler.label(fragment, row["before"], lambda identity, number: number not in repeated), maxlen=1)
        return {"counts": json.dumps(last.counts), "size": fragment.size}


def _scan(row: Mapping[str, Any]) -> dict[str, Any]:
    """A Ray row that holds a fragment -> the ids in the fragment."""
    found = scan(Fragment(*json.loads(row["fragment"])))
    return {"index": row["index"], "ids": found.ids.tobytes(), "numbers": found.numbers.tobytes(), "rows": found.rows}
