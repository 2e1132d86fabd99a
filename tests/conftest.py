"""What the tests share: simulated dialogues, the tiny encoder of conf/encoder/tiny.yaml, the five tasks, a network. Shapes are checked."""

import json
import logging
import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # before torch: threads on busy cores cost more than they give
    os.environ[name] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from jaxtyping import install_import_hook  # noqa: E402

CHECKED = ("inputs.batch", "inputs.features", "model", "network", "tasks", "training.cache")
install_import_hook([f"labelgen.{name}" for name in CHECKED], "beartype.beartype")

from collections.abc import Callable, Iterator  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import pyarrow.parquet as pq  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402

from labelgen.config import CONF  # noqa: E402
from labelgen.corpora.simulated import Simulated  # noqa: E402
from labelgen.dialogue import Dialogue  # noqa: E402
from labelgen.inputs.batch import Collator, TextEncoder  # noqa: E402
from labelgen.inputs.features import Features, FeatureSpace  # noqa: E402
from labelgen.model.encoder import Encoder  # noqa: E402
from labelgen.network import Network  # noqa: E402
from labelgen.tasks import Task  # noqa: E402
from labelgen.tasks.defect import Defect  # noqa: E402
from labelgen.tasks.goal_evaluation import GoalEvaluation  # noqa: E402
from labelgen.tasks.goal_segmentation import GoalSegmentation  # noqa: E402
from labelgen.tasks.intent import Intent  # noqa: E402
from labelgen.tasks.slot import SlotTask  # noqa: E402
from labelgen.training.checkpoint import write_checkpoint  # noqa: E402
from labelgen.training.data import fit_labels  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    """Removes the handlers that `main` installs through Hydra: they write to the streams of the test, which are closed after it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture(scope="session")
def dialogues() -> list[Dialogue]:
    """A dozen dialogues with all annotations; do not change them."""
    return list(Simulated(num_dialogues=12, seed=5).read())


@pytest.fixture(scope="session")
def features(dialogues: list[Dialogue]) -> FeatureSpace:
    """Fitted on the dialogues."""
    names = ("device_type", "locale"), ("recogniser_confidence", "understanding_confidence")
    return Features(*names).fit(dialogues)


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """The constructor arguments in conf/encoder/tiny.yaml, over those in base.yaml."""
    base, own = (yaml.safe_load((CONF / "encoder" / f"{name}.yaml").read_text("utf-8")) for name in ("base", "tiny"))
    return {key: value for key, value in {**base, **own}.items() if not key.startswith("_") and key != "defaults"}


@pytest.fixture(scope="session")
def make_encoder(tiny: dict[str, Any], features: FeatureSpace) -> Callable[..., Encoder]:
    """A tiny encoder with seeded random weights; keywords override the settings."""

    def make(**changed: Any) -> Encoder:
        torch.manual_seed(0)
        return Encoder(**{"features": features, **tiny, **changed})

    return make


@pytest.fixture(scope="session")
def tasks(dialogues: list[Dialogue]) -> dict[str, Task]:
    """All five, with label spaces."""
    blank: list[Task] = [GoalSegmentation(), GoalEvaluation(), Intent(), SlotTask(), Defect()]
    return {task.name: fit_labels(task, dialogues) for task in blank}


@pytest.fixture
def network(make_encoder: Callable[..., Encoder], tasks: dict[str, Task]) -> Network:
    """Tiny, random, in evaluation mode."""
    return Network(make_encoder(), tasks).eval()


@pytest.fixture(scope="session")
def collate(make_encoder: Callable[..., Encoder], features: FeatureSpace, tasks: dict[str, Task]) -> Collator:
    """As training collates, for every tiny encoder."""
    encoder = make_encoder()
    return Collator(TextEncoder(encoder.tokenizer, encoder.max_tokens), features, {name: task.encode for name, task in tasks.items()})


@pytest.fixture(scope="session")
def save_checkpoint() -> Callable[..., str]:
    """Writes a labeler as a checkpoint, as training leaves it, to a path."""

    def save(labeler: Any, space: FeatureSpace, path: Path) -> str:
        parsed = {"labelgen": "0", "versions": {"torch": "0"}, "features": space.as_dict(), "config": None}
        parsed["data"] = {"train_dialogues": 1, "valid_dialogues": 0, "sha256": "0" * 64}
        write_checkpoint({"state_dict": labeler.state_dict(), "labelgen": {**parsed, **labeler.describe()}}, path)
        return str(path)

    return save


@pytest.fixture(scope="session")
def labeler(make_encoder: Callable[..., Encoder], tasks: dict[str, Task]) -> Any:
    """A Labeler with random weights, large enough that labels differ."""
    from labelgen.training.labeler import Labeler  # Lightning: seconds to import

    made = Labeler(make_encoder(), tasks, partial(torch.optim.AdamW)).eval()
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in made.network.heads.parameters():
            parameter.normal_()
    return made


@pytest.fixture(scope="session")
def exported(labeler: Any, save_checkpoint: Callable[..., str], features: FeatureSpace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its export; do not change it."""
    from labelgen.labelling.export import export

    folder = tmp_path_factory.mktemp("exported")
    export(save_checkpoint(labeler, features, folder / "x.ckpt"), str(folder / "export"))
    return folder / "export"


@pytest.fixture(scope="session")
def table() -> Callable[[Path], dict[str, list[dict[str, Any]]]]:
    """Output of backfill -> each file's rows, without the times; rejected rows too."""

    def read_output(output: Path) -> dict[str, list[dict[str, Any]]]:
        held = {file.name: pq.read_table(file).drop_columns("time").to_pylist() for file in output.glob("*.parquet")}
        assert held, "parts"
        rejected = {file.name: [json.loads(line) for line in file.read_text("utf-8").splitlines()] for file in output.glob("_rejected/*")}
        others = {file.name for file in output.iterdir()} - held.keys()
        assert others <= {"_backfill.json", "_lock", "_rejected"}, "nothing else stays"
        return held | rejected

    return read_output
