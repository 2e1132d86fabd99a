"""Training with the real configuration: the same command gives the same figures, a killed run goes on exactly, two processes make one."""

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from torch import Tensor

from labelgen.config import load_config, run
from labelgen.corpora.records import Records
from labelgen.dialogue import Dialogue
from labelgen.inputs.features import Features
from labelgen.io.files import write
from labelgen.model.encoder import Encoder
from labelgen.tasks import Task
from labelgen.training.data import DialogueData
from labelgen.training.labeler import Labeler

SMALL = (
    *("encoder=tiny", "encoder.max_tokens=16", "data.batch_tokens=700", "data.valid_fraction=0.2", "data.cache=null"),
    *("trainer.max_epochs=2", "trainer.val_check_interval=0.5", "trainer.log_every_n_steps=1"),
    *("+trainer.enable_model_summary=false", "+trainer.enable_progress_bar=false"),
    *("callbacks.last.every_n_train_steps=1", "callbacks.early_stopping.patience=99"),
)


class KilledError(Exception):
    """What stops a run in the middle."""


def train(output: Path, *overrides: str, corpus: tuple[str, ...] = ("corpus.num_dialogues=16",)) -> float:
    """`labelgen train` with the tiny encoder, in this process."""
    try:
        score: float = run(load_config("train", *SMALL, f"output={output}", *corpus, *overrides))
    except InstantiationException as error:  # hydra's, around ours
        raise error.__cause__ or error from None
    return score


def kill_before(monkeypatch: pytest.MonkeyPatch, epoch: int, number: int) -> None:
    """Raises when that batch is to be trained on."""
    whole: Callable[..., Tensor] = Labeler.training_step

    def step(self: Labeler, batch: Any, batch_idx: int) -> Tensor:
        if (self.current_epoch, batch_idx) == (epoch, number):
            raise KilledError
        return whole(self, batch, batch_idx)

    monkeypatch.setattr(Labeler, "training_step", step)


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "metrics.csv").open() as lines:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(lines)]


def with_loss(output: Path) -> list[dict[str, str]]:
    return [row for row in rows(output) if "train/loss" in row]


def checkpoint(output: Path, name: str = "last") -> dict[str, Any]:
    read: dict[str, Any] = torch.load(output / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return read


def equal(one: Path, other: Path) -> None:
    first, second = checkpoint(one)["state_dict"], checkpoint(other)["state_dict"]
    assert first.keys() == second.keys()
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=0.0, atol=0.0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody stopped."""
    output = tmp_path_factory.mktemp("whole")
    score = train(output)
    assert 0 <= score <= 1
    return output


def test_a_run_leaves_what_it_promises(whole: Path) -> None:
    assert {"config.yaml", "metrics.csv", "checkpoints"} <= {path.name for path in whole.iterdir()}
    told = checkpoint(whole, "best")["labelgen"]
    assert set(told["tasks"]) == {"goal_segmentation", "goal_evaluation", "intent", "slot", "defect"}
    assert told["config"]["data"]["corpus"]["num_dialogues"] == 16
    assert checkpoint(whole)["global_step"] == len(with_loss(whole)) > 4
    assert len([row for row in rows(whole) if "valid/score" in row]) >= 4


def test_the_same_command_gives_the_same_run(whole: Path, tmp_path: Path) -> None:
    train(tmp_path)
    assert rows(tmp_path) == rows(whole)
    equal(whole, tmp_path)


@pytest.mark.parametrize(("epoch", "number"), [(0, 1), (0, -1), (1, 0), (1, 2)], ids=["early", "last batch", "new epoch", "late"])
def test_a_killed_run_goes_on_as_if_it_had_not_been(
    whole: Path, tmp_path: Path, epoch: int, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = checkpoint(whole)["global_step"] // 2
    with monkeypatch.context() as patch:
        kill_before(patch, epoch, number % steps)
        with pytest.raises(KilledError):
            train(tmp_path)
    assert checkpoint(tmp_path)["global_step"] == epoch * steps + number % steps
    before = with_loss(tmp_path)
    train(tmp_path)
    equal(whole, tmp_path)
    assert with_loss(tmp_path) == with_loss(whole)
    assert with_loss(tmp_path)[: len(before)] == before
    assert len(before) == epoch * steps + number % steps


def test_a_finished_run_can_be_prolonged_and_started_anew(whole: Path, tmp_path: Path) -> None:
    train(tmp_path, "trainer.max_epochs=1")
    one = rows(tmp_path)
    train(tmp_path, "trainer.max_epochs=2")
    assert rows(tmp_path)[: len(one)] == one
    assert checkpoint(tmp_path)["global_step"] == 2 * checkpoint(whole)["global_step"] // 2
    train(tmp_path, "trainer.max_epochs=1", "call.resume=null")
    assert rows(tmp_path) == one, "resume=null forgets"


def test_accumulated_and_frozen_with_cache(tmp_path: Path) -> None:
    overrides = ("encoder.frozen_layers=2", f"data.cache={tmp_path / 'cache'}", "trainer.accumulate_grad_batches=2", "trainer.max_epochs=1")
    train(tmp_path / "a", *overrides)
    [states] = (tmp_path / "cache").iterdir()
    written = states.stat().st_mtime_ns
    train(tmp_path / "b", *overrides)
    assert states.stat().st_mtime_ns == written
    equal(tmp_path / "a", tmp_path / "b")


def test_without_validation_the_last_weights_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert train(tmp_path, "data.valid_fraction=0", "trainer.max_epochs=1", "callbacks.last.every_n_train_steps=500") == 0.0
    assert "no dialogue to validate on" in caplog.text
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]


def test_logs_with_one_kind_of_annotation_train_what_they_can(tmp_path: Path, dialogues: list[Dialogue]) -> None:
    bare = [dialogue.content() for dialogue in dialogues]
    for dialogue, full in zip(bare, dialogues, strict=True):
        for turn, annotated in zip(dialogue.turns, full.turns, strict=True):
            turn.defect = annotated.defect
    write(bare, tmp_path / "logs.jsonl")
    train(tmp_path, "trainer.max_epochs=1", corpus=("corpus=jsonl", f"corpus.path={tmp_path / 'logs.jsonl'}"))
    assert list(checkpoint(tmp_path)["labelgen"]["tasks"]) == ["defect"]


def test_pretrained_encoders_are_taken_over(whole: Path, tmp_path: Path) -> None:
    train(tmp_path, f"call.pretrained={whole}", "lr=0", "trainer.max_epochs=1")
    mark = "network.encoder."
    before, after = checkpoint(whole, "best")["state_dict"], checkpoint(tmp_path)["state_dict"]
    for key in after:
        if key.startswith(mark) and not key.startswith(f"{mark}feature_encoder."):
            assert torch.equal(before[key], after[key]), key
    with pytest.raises(ValueError, match="its encoder is another one"):
        train(tmp_path / "x", f"call.pretrained={whole}", "encoder.dialogue_layers=2")
    older = checkpoint(whole, "best")
    older["state_dict"] = {key.replace(".turn_encoder.", ".turn."): value for key, value in older["state_dict"].items()}
    torch.save(older, tmp_path / "older.ckpt")
    with pytest.raises(ValueError, match=r"no place for turn\..* train it again with this version"):
        train(tmp_path / "y", f"call.pretrained={tmp_path / 'older.ckpt'}")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # from 3.12 on Python warns of threads
def test_two_processes_make_the_steps_of_one(
    tmp_path: Path, make_encoder: Callable[..., Encoder], tasks: dict[str, Task], dialogues: list[Dialogue]
) -> None:
    write(dialogues, tmp_path / "logs.jsonl")
    results = []
    for devices, strategy in ((1, "auto"), (2, "ddp_fork")):
        results.append(two_steps(tmp_path, make_encoder(max_tokens=16), tasks, devices, strategy))
    (one, start), (two, _) = results
    assert any(not torch.equal(value, start[key]) for key, value in one.items())
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-6, msg=lambda told, key=key: f"{key}: {told}")
    logged = [[float(row["train/loss"]) for row in with_loss(tmp_path / str(devices))] for devices in (1, 2)]
    assert logged[0] == pytest.approx(logged[1], rel=1e-4)
    assert len(logged[0]) == 2
    figures = [[row for row in rows(tmp_path / str(devices)) if "valid/score" in row] for devices in (1, 2)]
    assert figures[0] == figures[1]
    assert len(figures[0]) == 2


Weights = dict[str, Tensor]


def two_steps(folder: Path, encoder: Encoder, tasks: dict[str, Task], devices: int, strategy: str) -> tuple[Weights, Weights]:
    """Weights after two epochs of one global batch, and before."""
    corpus, budget = Records(str(folder / "logs.jsonl")), 10_000 // devices
    module = DialogueData(corpus, Features(), tasks, folder, batch_tokens=budget, valid_fraction=0.3)
    module.features = Features(("device_type", "locale"), ("recogniser_confidence", "understanding_confidence")).fit(module.train)
    module.prepare(encoder)
    labeler = Labeler(encoder, tasks, partial(torch.optim.SGD), lr=0.5, encoder_rate=1.0)
    for part in labeler.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    start = {key: value.clone() for key, value in labeler.state_dict().items()}
    trainer = pl.Trainer(
        accelerator="cpu", devices=devices, strategy=strategy, max_epochs=2, log_every_n_steps=1, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False, use_distributed_sampler=False, gradient_clip_val=1.0,
        logger=pl.loggers.CSVLogger(folder, name="", version=str(devices)),
    )  # fmt: skip
    trainer.fit(labeler, datamodule=module)
    return {key: value.clone() for key, value in labeler.state_dict().items()}, start


@pytest.mark.parametrize("change", ["lr=0.01", "encoder.causal=true", "corpus.seed=3", "model.warmup=0.5"])
def test_another_run_in_the_same_folder_is_refused(whole: Path, change: str) -> None:
    before = (whole / "config.yaml").read_text("utf-8"), rows(whole), checkpoint(whole)["global_step"]
    with pytest.raises(ValueError, match=r"another run.*resume=null"):
        train(whole, change)
    assert before == ((whole / "config.yaml").read_text("utf-8"), rows(whole), checkpoint(whole)["global_step"])


def test_a_run_that_starts_anew_leaves_no_earlier_best(tmp_path: Path) -> None:
    train(tmp_path, "trainer.max_epochs=1")
    assert (tmp_path / "checkpoints" / "best.ckpt").exists()
    train(tmp_path, "trainer.max_epochs=1", "call.resume=null", "data.valid_fraction=0.0", "lr=0.01")
    assert [file.name for file in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]


def test_wandb_mirrors_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(tmp_path, "logger=wandb", "trainer.max_epochs=1")
    import wandb

    wandb.finish()
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert with_loss(tmp_path)


def test_a_short_run_that_is_killed_goes_on_from_its_last_epoch(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = checkpoint(whole)["global_step"] // 2
    with monkeypatch.context() as patch:
        kill_before(patch, 1, 1)
        with pytest.raises(KilledError):
            train(tmp_path, "callbacks.last.every_n_train_steps=1000")
    assert checkpoint(tmp_path)["global_step"] == steps
    train(tmp_path, "callbacks.last.every_n_train_steps=1000")
    equal(whole, tmp_path)
