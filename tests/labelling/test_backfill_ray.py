"""Ray's workers write what one process writes. A worker that dies is replaced, and Ray continues what another engine began."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

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
TASKS = {"defect": "mortal.Defect"}  # every process that labels imports this module
# A busy machine is not a dead node, and workers of Ray's default priority starve there.
PATIENT = {"health_check_timeout_ms": 60_000, "health_check_failure_threshold": 20, "worker_niceness": 0}
MORTAL = """
import os, signal
from pathlib import Path
from labelgen.labelling import shards
from labelgen.tasks.defect import Defect

save = shards.Output.save

def dying(self, name, content):
    save(self, name, content)
    if self.folder.name == "lost" and name.endswith(".parquet") and os.getpid() != {driver}:
        try:
            Path({once!r}).touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

shards.Output.save = dying
"""


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that the first worker creates when it dies, after it has written a shard of an output with the name `lost`."""
    return tmp_path_factory.mktemp("once") / "died"


@pytest.fixture(scope="module", autouse=True)
def cluster(once: Path) -> Iterator[None]:
    """Two cores of this machine, and workers that find the module `mortal`. One start for all tests."""
    (once.parent / "mortal.py").write_text(MORTAL.format(driver=os.getpid(), once=str(once)), "utf-8")
    save, terminate = shards.Output.save, signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(once.parent))
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(once.parent), os.environ.get("PYTHONPATH")))))
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False, _system_config=PATIENT)
        yield
        ray.shutdown()
    signal.signal(signal.SIGTERM, terminate)  # Ray leaves its own handler there
    shards.Output.save = save  # type: ignore[method-assign]
    sys.modules.pop("mortal", None)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four files of six dialogues. Two begin with the last dialogue of the file before, and two hold a bad row."""
    folder = tmp_path_factory.mktemp("logs")
    dialogues = [dialogue.content() for dialogue in Simulated(num_dialogues=24, seed=3).read()]
    for k in range(4):
        write(dialogues[max(6 * k - (k >= 2), 0) : 6 * k + 6], folder / f"{k}.{'parquet' if k % 2 else 'jsonl'}")
        if not k % 2:
            with (folder / f"{k}.jsonl").open("a", encoding="utf-8") as file:
                file.write("broken\n")
    return folder


@pytest.fixture(scope="module")
def wanted(exported: Path, logs: Path, cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process writes."""
    output = tmp_path_factory.mktemp("wanted") / "out"
    assert backfill(str(exported), str(logs), str(output), InProcess(), tasks=TASKS, shard_rows=4) == Counts(24, 0, 4, 0)
    return output


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
    overrides = [f"export={exported}", f"input={logs}", f"output={tmp_path / 'out'}", "shard_rows=4", "backfill=ray", "ray.workers=2"]
    assert run(load_config("backfill", *overrides, "+tasks.defect=mortal.Defect")) == Counts(24, 0, 4, 0)
    assert table(tmp_path / "out") == table(wanted)


def test_what_one_engine_began_the_other_ends_and_a_lost_worker_loses_nothing(
    exported: Path, logs: Path, wanted: Path, tmp_path: Path, once: Path, monkeypatch: pytest.MonkeyPatch, table: Table
) -> None:
    real: Any = shards.Output.save

    def stopping(self: shards.Output, name: str, content: bytes) -> None:
        if name.startswith("1-"):
            raise OSError("no space left on the device")
        real(self, name, content)

    monkeypatch.setattr(shards.Output, "save", stopping)
    with pytest.raises(OSError, match="no space"):
        backfill(str(exported), str(logs), str(tmp_path / "lost"), tasks=TASKS, shard_rows=4)
    monkeypatch.undo()
    kept = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "lost").glob("*.parquet")}
    assert kept, "the first engine wrote the shards of the first file"
    counts = backfill(str(exported), str(logs), str(tmp_path / "lost"), OnRay(workers=2), tasks=TASKS, shard_rows=4)
    assert once.exists(), "a worker died after it had written a shard"
    assert counts.labelled + counts.skipped == 24
    assert counts.skipped >= 6, "what the first engine labelled is not labelled again"
    assert {name: (tmp_path / "lost" / name).stat().st_mtime_ns for name in kept} == kept
    assert table(tmp_path / "lost") == table(wanted)
