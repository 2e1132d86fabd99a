"""The demo leaves what it promises, and trivial predictions score what one computes by hand."""

import io
import json
import sys
from pathlib import Path

import pytest

import labelgen
from labelgen.dialogue import Dialogue, parse
from labelgen.evaluation.baselines import BASELINES, Baselines
from labelgen.evaluation.evaluate import score, short
from labelgen.io.files import read
from labelgen.tasks import Task
from labelgen.tasks.defect import Defect
from labelgen.tasks.goal_evaluation import GoalEvaluation
from labelgen.tasks.goal_segmentation import GoalSegmentation
from labelgen.tasks.intent import Intent
from labelgen.tasks.slot import SlotTask, known_values
from labelgen.training.data import fit_labels

SMALL = (
    "encoder=tiny",
    "encoder.frozen_layers=1",
    "simulated.train.num_dialogues=30",
    "simulated.test.num_dialogues=6",
    "trainer.max_epochs=1",
)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The demo's folder and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", written := io.StringIO())
        labelgen.run(labelgen.load_config("demo", f"output={folder}", "+trainer.enable_progress_bar=false", *SMALL))
    return folder, written.getvalue()


def test_labels_the_dialogues_that_it_held_out(ran: tuple[Path, str]) -> None:
    folder, _ = ran
    train, test, raw, labelled = (list(read(folder / name)) for name in ("train.jsonl", "test.jsonl", "raw.jsonl", "labelled"))
    assert len(train) == 30
    assert not {dialogue.id for dialogue in train} & {dialogue.id for dialogue in test}
    assert [dialogue.content() for dialogue in test] == raw
    assert raw != test
    assert [dialogue.id for dialogue in labelled] == [dialogue.id for dialogue in test]
    source = json.loads((folder / "export" / "config.json").read_text("utf-8"))["fingerprint"]
    assert {label.source for dialogue in labelled for label in dialogue.labels or ()} == {source}


def test_shows_figures_beside_trivial_ones(ran: tuple[Path, str]) -> None:
    folder, printed = ran
    parsed = json.loads((folder / "metrics.json").read_text("utf-8"))
    assert set(parsed["baselines"]) == set(BASELINES)
    for name, figure in parsed["metrics"].items():
        trivial = [rows["metrics"][name] for rows in parsed["baselines"].values()]
        assert {row["count"] for row in trivial} == {figure["count"]}, "both are scored on the same items"
        if not figure["count"]:  # nobody asks simulated users whether they reached their goals
            assert "no labels" in next(line for line in printed.splitlines() if name in line.split())
            assert name.startswith("goal_evaluation/user_agreement")
            continue
        best = (min if name.endswith(("pk", "window_diff")) else max)(row["value"] for row in trivial if row["value"] is not None)
        row = next(line for line in printed.splitlines() if name in line.split())
        assert short(figure["value"]) in row
        assert row.split("│")[3].split() == [short(best)]


def test_ends_with_two_dialogues_and_what_to_do_next(ran: tuple[Path, str]) -> None:
    folder, printed = ran
    after = printed[printed.index("5. two labelled dialogues") :]
    assert sum(dialogue.id in after for dialogue in read(folder / "labelled")) == 2
    last = printed.splitlines()[-3:]
    assert all("labelgen " in line for line in last)
    assert f"export={folder / 'export'}" in last[0]


def test_says_nothing_of_its_tools(ran: tuple[Path, str]) -> None:
    assert not [word for word in ("Tip", "arning", "INFO", "GPU", "ckpt") if word in ran[1]]


def dialogue(number: int, intents: str, defects: str, goals: list[tuple[list[int], str | None]], places: str) -> Dialogue:
    """Turn t has an intent, a defect (x), and the request `from PLACE to PLACE`, whose second place is a slot."""
    turns = []
    for intent, defect, place in zip(intents, defects, places.split(), strict=True):
        text = f"From Rome to {place}, please"
        slot = {"name": "to", "start": 13, "end": 13 + len(place)}
        turns.append({"request": text, "response": "Fine.", "intent": intent, "defect": defect == "x", "request_slots": [slot]})
    rows = [{"turns": turns, "outcome": outcome} for turns, outcome in goals]
    return parse({"id": str(number), "turns": turns, "goals": rows})


@pytest.fixture(scope="module")
def training() -> list[Dialogue]:
    return [
        dialogue(0, "AAB", "..x", [([0, 1], "success"), ([2], "failure")], "Oslo Bonn Nice"),
        dialogue(1, "AC", "..", [([0, 1], "success")], "Bonn Paris"),
    ]


@pytest.fixture(scope="module")
def tasks(training: list[Dialogue]) -> dict[str, Task]:
    blank: list[Task] = [GoalSegmentation(), GoalEvaluation(), Intent(), SlotTask(), Defect()]
    return {task.name: fit_labels(task, training) for task in blank}


@pytest.fixture(scope="module")
def held_out() -> list[Dialogue]:
    """Four turns: intents A B A A; one defect of four; goals {0, 2} failed and {1, 3} reached: three boundaries of three gaps."""
    return [dialogue(9, "ABAA", ".x..", [([0, 2], "failure"), ([1, 3], "success")], "Oslo Lyon Bonn Rome")]


def test_majority(training: list[Dialogue], tasks: dict[str, Task], held_out: list[Dialogue]) -> None:
    figures = score(tasks, Baselines("majority", tasks, training).predict(held_out)).metrics
    value = {name: figure.value for name, figure in figures.items()}
    assert value["intent/accuracy"] == 3 / 4
    assert value["intent/macro_f1"] == pytest.approx((2 * 3 / (2 * 3 + 1) + 0) / 2)
    assert value["defect/f1"] == value["goal_evaluation/failure_f1"] == value["goal_segmentation/boundary_f1"] == value["slot/span_f1"] == 0
    assert value["defect/ap"] == 1 / 4, "the base rate"
    assert value["goal_evaluation/failure_ap_given_goals"] == 1 / 2
    assert value["goal_segmentation/pk"] == value["goal_segmentation/window_diff"] == 1, "every window holds a boundary that is missed"


def test_eager(training: list[Dialogue], tasks: dict[str, Task], held_out: list[Dialogue]) -> None:
    figures = score(tasks, Baselines("eager", tasks, training).predict(held_out)).metrics
    value = {name: figure.value for name, figure in figures.items()}
    assert value["defect/f1"] == pytest.approx(2 * 1 / (2 * 1 + 3))
    assert value["defect/ap"] == 1 / 4
    assert value["goal_evaluation/failure_f1_given_goals"] == pytest.approx(2 * 1 / (2 * 1 + 1))
    assert value["goal_evaluation/failure_f1"] == 0, "every turn is a goal of its own, and none of these is the failed one"
    assert value["goal_evaluation/failure_f1_by_last_turn"] == pytest.approx(2 * 1 / (2 * 1 + 3))
    assert value["goal_segmentation/boundary_f1"] == 1
    assert value["goal_segmentation/pk"] == 0
    assert value["intent/accuracy"] == 3 / 4
    assert value["slot/span_f1"] == pytest.approx(2 * 2 / (2 * 2 + 0 + 2)), "Oslo and Bonn are known, Lyon and Rome are not"


def test_frequencies_are_over_what_is_labelled(training: list[Dialogue], tasks: dict[str, Task]) -> None:
    def frequencies(name: str, dialogues: list[Dialogue]) -> list[float]:
        baseline = tasks[name].majority(dialogues)
        assert baseline is not None
        return baseline.guess(dialogues[0], {}).probabilities[0].tolist()

    assert frequencies("intent", training) == [3 / 5, 1 / 5, 1 / 5]
    assert frequencies("goal_evaluation", training) == pytest.approx([2 / 3, 0, 1 / 3])
    assert frequencies("defect", [dialogue.content() for dialogue in training]) == [1 / 2, 1 / 2]


def test_longest_known_value_wins_whatever_its_case() -> None:
    def said(text: str, *slots: tuple[str, str]) -> Dialogue:
        spans = [{"name": name, "start": text.index(value), "end": text.index(value) + len(value)} for name, value in slots]
        return parse({"id": text, "turns": [{"request": text, "request_slots": spans}]})

    training = [said("New York", ("city", "New York")), said("a new one", ("state", "new")), said("my york", ("name", "york"))]
    assert known_values(training) == {("new", "york"): "city", ("new",): "state", ("york",): "name"}
    found = SlotTask().eager(training).guess(said("NEW YORK, or York?"), {}).decoded
    assert [(label.value, label.text) for label in found] == [("city", "NEW YORK"), ("name", "York")]
