"""Ray's workers write what one process writes; one that dies is replaced, and a run that another engine began goes on."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from hydra.utils import instantiate
from upath import UPath

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
ray = pytest.importorskip("ray")

from labelgen.config import load_config, run  # noqa: E402
from labelgen.corpora.simulated import Simulated  # noqa: E402
from labelgen.io.files import write  # noqa: E402
from labelgen.labelling import shards  # noqa: E402
from labelgen.labelling.backfill import Counts, InProcess, backfill  # noqa: E402
from labelgen.labelling.cluster import OnRay  # noqa: E402

Table = Callable[[Path], Any]
pytestmark = pytest.mark.filterwarnings("default")  # Ray leaves sockets and processes to the collector


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of 25 dialogues; every third one's first is the file before's last, and every file has a bad row."""
    folder = tmp_path_factory.mktemp("logs")
    dialogues = [dialogue.content() for dialogue in Simulated(num_dialogues=200, seed=3).read()]
    for k in range(8):
        with_repeat = dialogues[max(25 * k - (k % 3 == 0), 0) : 25 * k + 25]
        write(with_repeat, folder / f"{k}.{'parquet' if k % 2 else 'jsonl'}")
        if not k % 2:
            with (folder / f"{k}.jsonl").open("a", encoding="utf-8") as file:
                file.write("broken\n")
    return folder


@pytest.fixture(scope="module")
def wanted(exported: Path, logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process writes."""
    output = tmp_path_factory.mktemp("wanted") / "out"
    assert backfill(str(exported), str(logs), str(output), InProcess(), shard_rows=10) == Counts(200, 0, 6, 0)
    return output


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Two cores of this machine."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


class Recorder:
    """A dataset that records how it is mapped, and maps nothing."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def map(self, function: Any, **settings: Any) -> "Recorder":
        self.calls.append(settings)
        return self

    def take_all(self) -> list[dict[str, Any]]:
        return [{"index": 0, "ids": b"", "numbers": b"", "rows": 0}]

    def iter_rows(self) -> list[dict[str, Any]]:
        return []


def test_settings_of_ray_reach_its_processes(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ("ray.address=head:6379", "ray.workers=3", "ray.cpus=0.5", "ray.gpus=0.25")
    engine = instantiate(load_config("backfill", "export=e", "input=i", "output=o", "backfill=ray", *settings).backfill)
    recorder, job = Recorder(), cast(Any, None)
    monkeypatch.setattr(ray.data, "from_items", lambda items, override_num_blocks: recorder)
    engine._tasks(shards.fragments(UPath(logs / "0.jsonl"))[:1])
    engine._label(job, job, [{}] * 8, job)
    scan, label = recorder.calls
    assert scan["num_cpus"] == label["num_cpus"] == 0.5
    assert label["num_gpus"] == 0.25
    assert label["compute"].max_size == 3

    def connect(address: str, **_: Any) -> None:
        raise ConnectionError(address)

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", connect)
    with pytest.raises(ConnectionError, match=r"^head:6379$"):
        engine.run(job, job, job, [], job)


def test_workers_write_what_one_process_writes(exported: Path, logs: Path, wanted: Path, tmp_path: Path, table: Table) -> None:
    overrides = [f"export={exported}", f"input={logs}", f"output={tmp_path / 'out'}", "shard_rows=10", "backfill=ray", "ray.workers=2"]
    assert run(load_config("backfill", *overrides)) == Counts(200, 0, 6, 0)
    assert table(tmp_path / "out") == table(wanted)


def test_a_lost_worker_loses_nothing(exported: Path, logs: Path, wanted: Path, tmp_path: Path, table: Table) -> None:
    killed: list[int] = []

    def kill() -> None:
        """The first worker that has written a part."""
        for _ in range(3000):
            if list((tmp_path / "out").glob("*.parquet")):
                break
            time.sleep(0.02)
        workers = [p for p in psutil.Process().children(recursive=True) if p.cmdline() and p.cmdline()[0].startswith("ray::MapWorker")]
        for process in workers[:1]:
            os.kill(process.pid, signal.SIGKILL)
            killed.append(process.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    counts = backfill(str(exported), str(logs), str(tmp_path / "out"), OnRay(workers=2), shard_rows=3)
    killer.join()
    assert killed, "a worker was killed"
    assert counts.labelled + counts.skipped == 200
    backfill(str(exported), str(logs), str(tmp_path / "alone"), shard_rows=3)
    assert table(tmp_path / "out") == table(tmp_path / "alone")


def test_what_one_engine_began_the_other_ends(
    exported: Path, logs: Path, wanted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: Table
) -> None:
    real: Any = shards.Output.save

    def stopping(self: shards.Output, name: str, content: bytes) -> None:
        if name.startswith("3-"):
            raise OSError("no space left on the device")
        real(self, name, content)

    monkeypatch.setattr(shards.Output, "save", stopping)
    with pytest.raises(OSError, match="no space"):
        backfill(str(exported), str(logs), str(tmp_path / "out"), shard_rows=10)
    monkeypatch.undo()
    counts = backfill(str(exported), str(logs), str(tmp_path / "out"), OnRay(workers=2), shard_rows=10)
    assert counts == Counts(125, 75, 6, 0)
    assert table(tmp_path / "out") == table(wanted)
