"""Training with the real configuration: the same command gives the same figures, a killed run resumes exactly, two processes make one."""

import csv
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from labelgen.config import LOCK, load_config, main, run
from labelgen.corpora.records import Records
from labelgen.dialogue import Dialogue
from labelgen.inputs.features import Features
from labelgen.io.files import write
from labelgen.io.lock import locked
from labelgen.model.encoder import Encoder
from labelgen.tasks import Task
from labelgen.tasks.slot import SlotTask
from labelgen.training.callbacks import LastCheckpoint, StopAtMaxSteps
from labelgen.training.checkpoint import write_checkpoint
from labelgen.training.data import DialogueData
from labelgen.training.labeler import Labeler
from labelgen.training.resume import find_resume_point
from labelgen.training.train import advice

SMALL = (
    *("encoder=tiny", "encoder.max_tokens=16", "data.batch_tokens=700", "data.valid_fraction=0.2", "data.cache=null"),
    *("trainer.max_epochs=2", "trainer.val_check_interval=0.67", "trainer.log_every_n_steps=1"),
    "+trainer.enable_progress_bar=false",
    *("callbacks.last.every_n_train_steps=1", "callbacks.early_stopping.patience=99", "min_valid_dialogues=0"),
)


class KilledError(Exception):
    """What stops a run in the middle."""


def train(output: Path, *overrides: str, corpus: tuple[str, ...] = ("corpus=simulated", "corpus.num_dialogues=16")) -> float:
    """`labelgen train` with the tiny encoder, in this process."""
    score: float = run(load_config("train", *SMALL, f"output={output}", *corpus, *overrides))
    return score


def kill_at(monkeypatch: pytest.MonkeyPatch, where: type, method: str, call: int) -> None:
    """Raises in place of that call (counted from 0) of a method."""
    whole: Callable[..., Any] = getattr(where, method)
    calls = iter(range(1_000_000))

    def killed(*args: Any, **options: Any) -> Any:
        if next(calls) == call:
            raise KilledError
        return whole(*args, **options)

    monkeypatch.setattr(where, method, killed)


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
    described = checkpoint(whole, "best")["labelgen"]
    assert set(described["tasks"]) == {"goal_segmentation", "goal_evaluation", "intent", "slot", "defect"}
    assert described["config"]["data"]["corpus"]["num_dialogues"] == 16
    assert checkpoint(whole)["global_step"] == len(with_loss(whole)) > 4
    assert len([row for row in rows(whole) if "valid/score" in row]) >= 2


def test_the_same_command_gives_the_same_run(whole: Path, tmp_path: Path) -> None:
    train(tmp_path)
    assert rows(tmp_path) == rows(whole)
    equal(whole, tmp_path)


KILLS = {
    "second step": (Labeler, "training_step", 1),
    "before a validation": (Labeler, "validation_step", 0),
    "after the first validation, which wrote the best": (LastCheckpoint, "on_validation_end", 0),
    "last step of an epoch": (Labeler, "training_step", 2),
    "end of an epoch": (LastCheckpoint, "on_train_epoch_end", 0),
    "first step of the next epoch": (Labeler, "training_step", 3),
    "late": (Labeler, "training_step", 5),
}


@pytest.mark.parametrize("kill", KILLS)
def test_a_killed_run_resumes_as_if_it_had_not_been(whole: Path, tmp_path: Path, kill: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        kill_at(patch, *KILLS[kill])
        with pytest.raises(KilledError):
            train(tmp_path)
    assert 0 < checkpoint(tmp_path)["global_step"] < checkpoint(whole)["global_step"]
    train(tmp_path)
    equal(whole, tmp_path)
    assert rows(tmp_path) == rows(whole)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    scores = [(float(row["valid/score"]), int(row["step"])) for row in rows(tmp_path) if "valid/score" in row]
    assert checkpoint(tmp_path, "best")["global_step"] == 1 + max(scores)[1]


def test_the_best_checkpoint_stands_in_for_a_damaged_last_one(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        kill_at(patch, Labeler, "training_step", 4)
        with pytest.raises(KilledError):
            train(tmp_path)
    last = tmp_path / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-100])
    assert checkpoint(tmp_path, "best")["global_step"] < 4
    train(tmp_path)
    assert f"{last}: the checkpoint is damaged (it has no checksum: truncated, or written by an earlier version), but" in caplog.text
    assert "best.ckpt, after step" in caplog.text
    equal(whole, tmp_path)
    assert rows(tmp_path) == rows(whole)


def test_without_any_sound_checkpoint_nothing_is_removed(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    files = list((tmp_path / "run" / "checkpoints").iterdir())
    for file in files:
        file.write_bytes(b"")
    wanted = r"last\.ckpt: the checkpoint is damaged \(it is truncated\), and .* no sound one: .*resume=null"
    with pytest.raises(ValueError, match=wanted):
        train(tmp_path / "run")
    assert all(file.exists() for file in files)


def rates(output: Path) -> list[float]:
    return [float(row["lr"]) for row in with_loss(output)]


def test_a_longer_budget_continues_and_resume_null_starts_again(tmp_path: Path) -> None:
    train(tmp_path, "trainer.max_epochs=1")
    one = rows(tmp_path)
    train(tmp_path, "trainer.max_epochs=2")
    assert rows(tmp_path)[: len(one)] == one
    assert checkpoint(tmp_path)["global_step"] == len(with_loss(tmp_path)) == 6
    falling, after = rates(tmp_path)[:3], rates(tmp_path)[3:]
    assert falling == sorted(falling, reverse=True)
    assert after[0] == 0.0, "continuous: the first budget ended there"
    assert max(after) <= 0.5e-3, "half of the new budget is left, and so much of the peak"
    train(tmp_path, "trainer.max_epochs=1", "call.resume=null")
    assert rows(tmp_path) == one


def test_an_epoch_that_a_budget_cut_is_finished_by_a_longer_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, ...]] = []
    step: Callable[..., Tensor] = Labeler.training_step

    def spy(self: Labeler, batch: Any, batch_idx: int) -> Tensor:
        seen.append(tuple(dialogue.id for dialogue in batch.dialogues))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Labeler, "training_step", spy)
    for steps in (1, 2, 4):
        train(tmp_path, "trainer.max_epochs=9", f"trainer.max_steps={steps}")
    assert len(seen) == 4
    epoch = [name for batch in seen[:3] for name in batch]
    assert len(epoch) == len(set(epoch)) > 8, "each dialogue once"
    validated = [int(row["step"]) for row in rows(tmp_path) if "valid/score" in row]
    assert validated == [0, 1, 3], "each by the step before it"


BUDGETS = {
    "steps within an epoch": (["trainer.max_steps=2", "trainer.val_check_interval=1.0"], 2, True),
    "steps beyond an epoch": (["trainer.max_epochs=-1", "trainer.max_steps=4", "trainer.val_check_interval=1.0"], 4, True),
    "no epochs": (["trainer.max_epochs=0"], 0, False),
    "no batch": (["trainer.limit_train_batches=0"], 0, False),
    "few batches": (["trainer.limit_train_batches=1", "trainer.val_check_interval=1.0"], 2, True),
    "no time": (["trainer.max_epochs=-1", "trainer.max_time={seconds: 0}"], 0, False),
    "some time": (["trainer.max_epochs=-1", "trainer.max_time={milliseconds: 400}"], None, True),
    "no validation": (["trainer.max_steps=2", "data.valid_fraction=0"], 2, False),
}


@pytest.mark.parametrize("budget", BUDGETS)
def test_every_budget_ends_with_checkpoints_and_an_export(tmp_path: Path, budget: str) -> None:
    overrides, steps, validates = BUDGETS[budget]
    train(tmp_path / "run", *overrides)
    done = checkpoint(tmp_path / "run")["global_step"]
    assert done == steps if steps is not None else done > 0
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").exists() == validates
    run(load_config("export", f"checkpoint={tmp_path}/run", f"output={tmp_path}/export"))
    assert (tmp_path / "export" / "model.safetensors").exists()
    again = checkpoint(tmp_path / "run")
    train(tmp_path / "run", *overrides)
    assert checkpoint(tmp_path / "run")["global_step"] == again["global_step"], "there is nothing left to do"


def test_a_run_without_an_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no end: give trainer\.max_epochs"):
        train(tmp_path, "trainer.max_epochs=-1")


def test_a_run_that_was_stopped_early_is_finished(tmp_path: Path) -> None:
    stops = ("callbacks.early_stopping.patience=1", "lr=0", "trainer.max_epochs=9")
    train(tmp_path, *stops)
    done = rows(tmp_path)
    assert 0 < len(with_loss(tmp_path)) < 27
    train(tmp_path, *stops)
    assert rows(tmp_path) == done


def test_accumulated_gradients_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"accumulate_grad_batches.*data\.batch_tokens"):
        train(tmp_path, "+trainer.accumulate_grad_batches=2")


def test_a_missing_device_is_a_value_error(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"^trainer: this machine has no gpu that torch can use; give trainer=cpu$"):
            train(tmp_path, "trainer=gpu")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize(("name", "status", "steps"), [("SIGTERM", 143, 4), ("SIGINT", 130, 4)], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_with_its_status_and_how_to_resume(whole: Path, tmp_path: Path, name: str, status: int, steps: int) -> None:
    child = multiprocessing.get_context("fork").Process(target=train_and_signal, args=(tmp_path, name))
    child.start()
    child.join()
    assert child.exitcode == status
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    wanted = f"stopped by {name} after step {steps}; run the same command (resume=auto) to resume from {last}, after step {steps}\n"
    assert wanted in (tmp_path / "printed").read_text()
    assert checkpoint(tmp_path / "run")["global_step"] == steps
    train(tmp_path / "run")
    equal(whole, tmp_path / "run")
    assert rows(tmp_path / "run") == rows(whole)


def train_and_signal(folder: Path, name: str) -> None:
    """`labelgen train` that sends itself a signal in its fourth step; what it prints goes to FOLDER/printed."""
    step: Callable[..., Tensor] = Labeler.training_step

    def signalling(self: Labeler, batch: Any, batch_idx: int) -> Tensor:
        if self.global_step == 3:
            os.kill(os.getpid(), getattr(signal, name))
        return step(self, batch, batch_idx)

    Labeler.training_step = signalling  # type: ignore[method-assign]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with (folder / "printed").open("w") as printed:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
        sys.stdout = sys.stderr = printed
        sys.argv = ["labelgen", "train", *SMALL, *ONE_CHECKPOINT, "corpus=simulated", "corpus.num_dialogues=16", f"output={folder}/run"]
        main()


ONE_CHECKPOINT = ("callbacks.last.every_n_train_steps=500",)  # none but those of validations, epochs and signals


def signal_in(monkeypatch: pytest.MonkeyPatch, method: str, step: int, *names: str) -> None:
    """Signals to this process in a step's `training_step`, or in the `validation_step`s after it."""
    whole: Callable[..., Any] = getattr(Labeler, method)

    def signalling(self: Labeler, batch: Any, batch_idx: int) -> Any:
        if self.global_step == step:
            for name in names:
                os.kill(os.getpid(), getattr(signal, name))
        return whole(self, batch, batch_idx)

    monkeypatch.setattr(Labeler, method, signalling)


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_a_signal_at_any_step_loses_none(whole: Path, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        signal_in(patch, "training_step", step, "SIGTERM")
        with pytest.raises(SystemExit):
            train(tmp_path, *ONE_CHECKPOINT)
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    assert checkpoint(tmp_path)["global_step"] == step + 1
    train(tmp_path, *ONE_CHECKPOINT)
    equal(whole, tmp_path)
    assert rows(tmp_path) == rows(whole)


ENDS_WITHIN = {
    "a step, by two SIGINTs": ("training_step", 1, ("SIGINT", "SIGINT"), KeyboardInterrupt),
    "a validation": ("validation_step", 2, ("SIGTERM",), SystemExit),
}


@pytest.mark.parametrize("case", ENDS_WITHIN)
def test_within_a_step_or_a_validation_nothing_is_written(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    method, step, names, error = ENDS_WITHIN[case]
    signal_in(monkeypatch, method, step, *names)
    with pytest.raises(error):
        train(tmp_path, *ONE_CHECKPOINT, "data.batch_tokens=300", "data.valid_fraction=0.5", "trainer.val_check_interval=2")
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()
    assert "run the same command again: no checkpoint has been written" in caplog.text


ADVICE = {
    "train": ("auto", "run the same command (resume=auto) to resume from {}, after step 7"),
    "pretrain": (None, "run the same command with resume=auto to resume from {}, after step 7"),
    "demo": (None, "run the same command to start again"),
}


@pytest.mark.parametrize("verb", ADVICE)
def test_the_advice_after_a_signal_is_right_for_the_verb(tmp_path: Path, verb: str) -> None:
    resume, wanted = ADVICE[verb]
    fitter: Any = SimpleNamespace(default_root_dir=tmp_path)
    config: Any = load_config(verb, *(["corpus=simulated"] if verb != "demo" else []))
    if verb != "demo":
        assert advice(fitter, config, resume) == "run the same command again: no checkpoint has been written"
    sound, damaged = (tmp_path / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    write_checkpoint({"labelgen": {}, "global_step": 7}, sound)
    damaged.touch()
    assert advice(fitter, config, resume) == wanted.format(sound)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # from 3.12 on Python warns of threads
def test_ctrl_c_leaves_the_workers_to_the_process_that_they_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Labeler, *args: Any) -> None:
        for process in [*multiprocessing.active_children(), multiprocessing.current_process()]:
            os.kill(process.pid or 0, signal.SIGINT)
        time.sleep(0.2)  # a worker that stops does so

    with monkeypatch.context() as patch:
        patch.setattr(StopAtMaxSteps, "on_before_optimizer_step", interrupt)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                train(tmp_path, *ONE_CHECKPOINT, "data.num_workers=1")
    assert checkpoint(tmp_path)["global_step"] == 2


def test_frozen_with_cache(tmp_path: Path) -> None:
    overrides = ("encoder.frozen_layers=2", f"data.cache={tmp_path / 'cache'}", "trainer.max_epochs=1")
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
    write_checkpoint(older, tmp_path / "older.ckpt")
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
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-6, msg=lambda text, key=key: f"{key}: {text}")
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
    module.setup()
    module.features = Features(("device_type", "locale"), ("recogniser_confidence", "understanding_confidence")).fit(module.train)
    module.attach(encoder)
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


def test_fewer_epochs_than_the_checkpoint_holds_are_refused(whole: Path) -> None:
    last = whole / "checkpoints" / "last.ckpt"
    wanted = (
        f"{last}: it holds 2 epochs, more than trainer.max_epochs=1; give trainer.max_epochs=2 or more, or start again with resume=null"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(wanted)}$"):
        train(whole, "trainer.max_epochs=1")


def test_the_log_gives_the_sizes_once(tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    caplog.set_level("INFO", "labelgen")
    train(tmp_path, "trainer.max_steps=1", "encoder.frozen_layers=1")
    assert re.search(r"training 0\.03 M of 0\.06 M parameters on 1\d dialogues, validating on \d, into", caplog.text)
    assert "FLOPs" not in capsys.readouterr().out, "Lightning's table"


def test_few_validation_dialogues_choose_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = ("callbacks.early_stopping.patience=1", "lr=0", "trainer.max_epochs=4", "trainer.val_check_interval=1.0")
    caplog.set_level("INFO", "labelgen")
    score = train(tmp_path / "few", *settings, "min_valid_dialogues=3")
    few = "only 2 annotated dialogues to validate on (min_valid_dialogues=3)"
    assert f"{few}: the last weights count, without best, early_stopping" in caplog.text
    line = f"checkpoint: last.ckpt (step 12), valid/score {score:.4f} on 2 validation dialogues, too few to choose by"
    assert caplog.messages[-1].startswith(line)
    assert [file.name for file in (tmp_path / "few" / "checkpoints").iterdir()] == ["last.ckpt"]
    assert checkpoint(tmp_path / "few")["global_step"] == 12, "nothing stopped it"
    score = train(tmp_path / "enough", *settings, "min_valid_dialogues=2")
    line = f"checkpoint: best.ckpt (step 6), valid/score {score:.4f} on 2 validation dialogues, the best of 2 validations; "
    assert caplog.messages[-1].startswith(line), "of equal scores the latest"
    assert checkpoint(tmp_path / "enough", "best")["global_step"] == checkpoint(tmp_path / "enough")["global_step"] == 6


def test_a_run_without_validation_has_no_score(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "labelgen")
    assert train(tmp_path, "data.valid_fraction=0", "trainer.max_epochs=1") == 0.0
    line = "checkpoint: last.ckpt (step 4), without a score: no dialogue was held out (data.valid_fraction)"
    assert caplog.messages[-1] == f"{line}; next: labelgen export checkpoint={tmp_path} output=..."


def test_few_dialogues_make_steps_before_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ("trainer.max_epochs=null", "min_steps=7", "data.batch_tokens=100000", "trainer.val_check_interval=1.0")
    settings = (*settings, "callbacks.last.every_n_train_steps=500")
    monkeypatch.setattr("labelgen.training.selection.VALIDATIONS", 3)
    train(tmp_path / "whole", *settings)
    assert checkpoint(tmp_path / "whole")["global_step"] == 8, "an epoch is a step"
    validated = [int(row["step"]) + 1 for row in rows(tmp_path / "whole") if "valid/score" in row]
    assert validated == [2, 4, 6, 8]
    with monkeypatch.context() as patch:
        kill_at(patch, Labeler, "training_step", 5)
        with pytest.raises(KilledError):
            train(tmp_path / "killed", *settings)
    assert checkpoint(tmp_path / "killed")["global_step"] == 4
    train(tmp_path / "killed", *settings)
    equal(tmp_path / "whole", tmp_path / "killed")
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    train(tmp_path / "short", *settings, "trainer.max_steps=5")
    assert checkpoint(tmp_path / "short")["global_step"] == 5, "a given budget is kept"


def test_a_task_that_is_never_right_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SlotTask, "decode", lambda *arguments: [])
    train(tmp_path)
    assert "slot: valid/slot/span_f1 was 0 in all validations (2); the model got nothing right for this task" in caplog.messages
    assert "goal_evaluation: " not in caplog.text, "nothing to be right about in the validation dialogues"


def test_a_folder_belongs_to_one_run_at_a_time(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file: file.read_bytes() for file in whole.rglob("*") if file.is_file()}
    refusal = f"{whole}: another run is writing there; wait for it, stop it, or name another output"
    with locked(whole / LOCK, "free"):
        with pytest.raises(ValueError, match=f"^{re.escape(refusal)}$"):
            train(whole, "lr=0.5", "resume=null")
        monkeypatch.setenv("LOCAL_RANK", "1")
        run(load_config("train", *SMALL, f"output={whole}", "corpus=simulated", "corpus.num_dialogues=16"))  # another rank of the same run
    monkeypatch.delenv("LOCAL_RANK")
    (whole / LOCK).unlink()
    assert {file.name for file in before} == {file.name for file in whole.rglob("*") if file.is_file()}
    assert all(file.read_bytes() == content for file, content in before.items() if file.name in ("config.yaml", "metrics.csv", "best.ckpt"))


def test_a_killed_run_leaves_no_lock(whole: Path, tmp_path: Path) -> None:
    child = multiprocessing.get_context("fork").Process(target=lock_and_die, args=(tmp_path / LOCK,))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert (tmp_path / LOCK).exists()
    train(tmp_path)
    assert not (tmp_path / LOCK).exists()
    equal(whole, tmp_path)


def lock_and_die(lock: Path) -> None:
    with locked(lock, "free"):
        os.kill(os.getpid(), signal.SIGKILL)


OTHER_RUN = [
    *("lr=0.01", "encoder.causal=true", "corpus.seed=3", "model.warmup=0.5", "data.batch_tokens=500", "optimizer.weight_decay=0.5"),
    *("trainer.gradient_clip_val=0.5", "trainer.precision=bf16-mixed", "trainer.limit_train_batches=2", "seed=1"),
    *("trainer.val_check_interval=1.0", "+trainer.detect_anomaly=true", "+callbacks.more={_target_: pytorch_lightning.Callback}"),
]


@pytest.mark.parametrize("change", OTHER_RUN)
def test_another_run_in_the_same_folder_is_refused(whole: Path, change: str) -> None:
    before = (whole / "config.yaml").read_text("utf-8"), rows(whole), checkpoint(whole)["global_step"]
    key, _, value = change.lstrip("+").partition("=")
    wanted = {"corpus.seed": r"data\.sha256: ", "callbacks.more": r"callbacks\.more\._target_: null there, "}.get(
        key, f"{key}: .* there, {value} now"
    )
    with pytest.raises(ValueError, match=rf"another run \(([^;]*; )*{wanted}.*\); name another output, or .*resume=null$"):
        train(whole, change)
    assert before == ((whole / "config.yaml").read_text("utf-8"), rows(whole), checkpoint(whole)["global_step"])


def test_a_refusal_names_what_differs_once(whole: Path) -> None:
    differences = "optimizer.weight_decay: 0.01 there, 0.5 now; lr: 0.001 there, 0.01 now; trainer.gradient_clip_val: 1.0 there, 0.5 now"
    wanted = f"last.ckpt: this checkpoint is of another run ({differences}); name another output, or start again with resume=null"
    with pytest.raises(ValueError, match=f"{re.escape(wanted)}$"):
        train(whole, "lr=0.01", "trainer.gradient_clip_val=0.5", "optimizer.weight_decay=0.5")


def test_a_refused_run_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    for output in (tmp_path / "new" / "run", tmp_path):
        with pytest.raises(ValueError, match="accumulate"):
            train(output, "+trainer.accumulate_grad_batches=2")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_refused_run_that_listed_bad_records_leaves_no_settings(tmp_path: Path, dialogues: list[Dialogue]) -> None:
    logs = tmp_path / "logs.jsonl"
    write(dialogues, logs)
    logs.write_text(logs.read_text("utf-8") + "{}\n", "utf-8")
    with pytest.raises(ValueError, match="accumulate"):
        train(tmp_path / "run", "+trainer.accumulate_grad_batches=2", corpus=("corpus=jsonl", f"corpus.path={logs}"))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["rejected.jsonl"]


@pytest.mark.parametrize("earlier", [False, True], ids=["new folder", "in place of another run"])
def test_a_run_that_failed_later_keeps_its_settings(tmp_path: Path, earlier: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if earlier:
        train(tmp_path, "seed=4", "trainer.max_steps=1")
    kill_at(monkeypatch, Labeler, "training_step", 1)
    with pytest.raises(KilledError):
        train(tmp_path, "resume=null")
    assert "\nseed: 0\n" in (tmp_path / "config.yaml").read_text("utf-8")


def test_another_number_of_processes_is_another_run(whole: Path) -> None:
    ours = checkpoint(whole)["labelgen"]
    assert find_resume_point("auto", whole, ours) is not None
    for key, value in {"world_size": 2, "precision": "16-mixed", "batch_tokens": 1, "gradient_clip_val": None, "seed": 9}.items():
        with pytest.raises(
            ValueError, match=rf"another run \(run\.{key}: .* there, {json.dumps(value)} now\)|precision: 32-true there, 16-mixed now"
        ):
            find_resume_point("auto", whole, {**ours, "config": None, "run": {**ours["run"], key: value}})


def test_what_a_resumed_run_may_change(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "moved")
    free = ("data.cache=elsewhere", "callbacks.last.every_n_train_steps=7", "callbacks.early_stopping.patience=8")
    best = [row["valid/score"] for row in rows(whole) if "valid/score" in row]
    assert train(tmp_path / "moved", *free, "trainer.log_every_n_steps=5") == max(map(float, best)), "the best score is not forgotten"
    train(tmp_path / "moved", "callbacks.best=null")
    assert checkpoint(tmp_path / "moved")["global_step"] == checkpoint(whole)["global_step"]
    with pytest.raises(ValueError, match="another run"):
        train(tmp_path / "other", f"call.resume={whole}/checkpoints/last.ckpt", "lr=0.01")


def test_a_run_that_starts_again_leaves_no_earlier_best(tmp_path: Path) -> None:
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


def test_a_killed_run_without_a_checkpoint_in_its_epoch_resumes_after_the_last_epoch(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rarely = ("callbacks.last.every_n_train_steps=1000", "trainer.val_check_interval=1.0")
    with monkeypatch.context() as patch:
        kill_at(patch, Labeler, "training_step", 4)
        with pytest.raises(KilledError):
            train(tmp_path, *rarely)
    assert checkpoint(tmp_path)["global_step"] == 3
    train(tmp_path, *rarely)
    equal(whole, tmp_path)
