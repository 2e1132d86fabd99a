"""Few dialogues: how long a run trains, which checkpoint counts, and what the last lines say about it."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from labelgen.dialogue import Dialogue, Turn
from labelgen.tasks import Task
from labelgen.training.callbacks import BestCheckpoint, EarlyStopping
from labelgen.training.selection import Choice, Validation, count_annotated, default_budget, never_right

BUDGETS = [(1, (300, 30)), (2, (150, 15)), (7, (44, 4)), (29, (11, 1)), (100, (3, 1)), (900, (3, 1)), (0, (300, 30))]


@pytest.mark.parametrize(("steps", "wanted"), BUDGETS)
def test_small_data_make_enough_steps_and_about_ten_validations(steps: int, wanted: tuple[int, int]) -> None:
    budget = default_budget(steps, 300)
    assert budget == wanted
    assert budget.max_epochs % budget.check_val_every_n_epoch == 0, "the last epoch is validated"
    assert budget.max_epochs * max(steps, 1) >= 300


def test_only_annotated_dialogues_count(tasks: dict[str, Task], dialogues: list[Dialogue]) -> None:
    bare = Dialogue(id="bare", turns=[Turn(request="hello")])
    assert count_annotated(tasks, [*dialogues[:3], bare]) == 3
    assert count_annotated({}, [*dialogues[:3], bare]) == 4, "pretraining needs no annotation"
    assert Validation(40, 30, 30).decides
    assert not Validation(40, 29, 30).decides
    assert not Validation(0, 0, 0).decides


ROWS = [{"step": "9", "valid/score": "0.5"}, {"step": "14"}, {"step": "19", "valid/score": "0.75"}, {"step": "29", "valid/score": "0.75"}]
ROWS += [{"step": "39", "valid/score": "0.25", "valid/error": "0.1"}]
FEW = "(min_valid_dialogues=30)"
LINES: list[tuple[Any, ...]] = [
    ("best", ROWS, 40, (40, 35, 30), "best.ckpt (step 30), valid/score 0.7500 on 35 validation dialogues, the best of 4 validations"),
    (None, ROWS, 40, (40, 35, 30), "last.ckpt (step 40), valid/score 0.2500 on 35 validation dialogues"),
    (None, ROWS, 40, (2, 1, 30), "last.ckpt (step 40), valid/score 0.2500 on 1 validation dialogue, too few to choose by " + FEW),
    (None, ROWS, 41, (40, 35, 30), "last.ckpt (step 41), not validated"),
    (None, [], 41, (0, 0, 30), "last.ckpt (step 41), without a score: no dialogue was held out (data.valid_fraction)"),
    (None, ROWS, 40, (7, 0, 30), "last.ckpt (step 40), without a score: none of the 7 dialogues held out is annotated"),
]  # fmt: skip


@pytest.mark.parametrize(("best", "rows", "steps", "validation", "line"), LINES)
def test_the_last_line_says_what_the_choice_rests_on(best: str | None, rows: Any, steps: int, validation: Any, line: str) -> None:
    callback = ModelCheckpoint(monitor="valid/score", mode="max") if best else None
    assert Choice.of(rows, steps, callback).describe(Validation(*validation)) == f"checkpoint: {line}"


def test_another_figure_may_choose() -> None:
    choice = Choice.of([*ROWS, {"step": "49", "valid/error": "0.4"}], 50, ModelCheckpoint(monitor="valid/error", mode="min"))
    assert choice == ("best", 40, 0.1, 2, "valid/error")


def test_a_validation_without_a_score_chooses_nothing() -> None:
    rows = [{"step": "0", "valid/score": "nan"}, {"step": "1", "valid/score": "0.5"}]
    assert Choice.of(rows, 2, ModelCheckpoint(monitor="valid/score", mode="max")) == ("best", 2, 0.5, 1, "valid/score")
    assert Choice.of(rows[:1], 1, ModelCheckpoint(monitor="valid/score", mode="max")).score is None


def test_of_equal_scores_the_latest_is_kept() -> None:
    best = BestCheckpoint("checkpoints")
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(reduce_boolean_decision=bool))
    assert best.check_monitor_top_k(trainer, torch.tensor(0.0)), "the first"
    best.best_k_models, best.kth_best_model_path = {"best.ckpt": torch.tensor(0.5)}, "best.ckpt"
    assert [best.check_monitor_top_k(trainer, torch.tensor(score)) for score in (0.4, 0.5, 0.6)] == [False, True, True]
    assert not best.check_monitor_top_k(trainer, None)


def test_scores_of_0_do_not_use_up_the_patience() -> None:
    stopping = EarlyStopping(patience=2)
    assert not any(stopping._evaluate_stopping_criteria(torch.tensor(0.0))[0] for _ in range(9))
    stops = [stopping._evaluate_stopping_criteria(torch.tensor(score))[0] for score in (0.1, 0.0, 0.1)]
    assert stops == [False, False, True]


def test_a_task_that_was_never_right_is_named() -> None:
    rows = [{"step": "1", "a": "0.0", "b": "0.0"}, {"step": "2"}, {"step": "3", "a": "0.0", "b": "0.1"}]
    named = list(never_right({"slot": "a", "intent": "b", "defect": "c"}, rows))
    assert named == ["slot: a was 0 in all validations (2); the model got nothing right for this task"]
