"""Figures are those of the metrics over what the export says; slices are those that the corpus names."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import labelgen
from labelgen.corpora.records import Records
from labelgen.dialogue import Dialogue, Reject
from labelgen.evaluation.evaluate import evaluate, read_statistics


@dataclass(frozen=True)
class Given:
    """A corpus of given dialogues."""

    dialogues: tuple[Dialogue, ...]

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        yield from self.dialogues


def figures(export: Path, dialogues: list[Dialogue], output: Path) -> dict:
    evaluate(str(export), Given(tuple(dialogues)), str(output))
    return json.loads((output / "metrics.json").read_text("utf-8"))


def sliced(dialogue: Dialogue, name: str) -> Dialogue:
    return dialogue.model_copy(update={"slices": [name]})


def test_accuracy_is_that_of_the_labels(exported: Path, dialogues: list[Dialogue], tmp_path: Path) -> None:
    parsed = figures(exported, dialogues, tmp_path)
    said = [
        (dialogue.turns[label.turns[0]].intent, label.value)
        for dialogue in labelgen.load(exported)(dialogues)
        for label in dialogue.labels or ()
        if label.task == "intent"
    ]
    accuracy = parsed["metrics"]["intent/accuracy"]
    assert accuracy["count"] == len(said)
    assert accuracy["value"] == pytest.approx(sum(gold == value for gold, value in said) / len(said))
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]


def test_slices_are_those_of_the_corpus_and_add_up(exported: Path, dialogues: list[Dialogue], tmp_path: Path) -> None:
    parts = {"even": dialogues[::2], "odd": dialogues[1::2]}
    parsed = figures(exported, [sliced(dialogue, part) for part, some in parts.items() for dialogue in some], tmp_path)
    assert set(parsed["slices"]) == set(parts)
    for name, figure in parsed["metrics"].items():
        assert figure["count"] == sum(rows[name]["count"] for rows in parsed["slices"].values())
    for part, some in parts.items():
        alone = figures(exported, some, tmp_path)["metrics"]
        assert parsed["slices"][part]["slot/span_f1"]["value"] == alone["slot/span_f1"]["value"]


def test_a_corpus_without_annotations_for_any_task_is_an_error(exported: Path, dialogues: list[Dialogue], tmp_path: Path) -> None:
    bare = [dialogue.content() for dialogue in dialogues]
    with pytest.raises(ValueError, match=r"no dialogue is annotated for .*intent.*; give an annotated corpus"):
        evaluate(str(exported), Given(tuple(bare)), str(tmp_path / "out"))
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_tasks_without_annotations_have_no_figures(exported: Path, dialogues: list[Dialogue], tmp_path: Path) -> None:
    one = dialogues[0].content()
    one.turns[0].defect = False
    scored = figures(exported, [one, *(dialogue.content() for dialogue in dialogues[1:])], tmp_path)["metrics"]
    assert {name.split("/")[0] for name, figure in scored.items() if figure["count"]} == {"defect"}
    assert all(figure["value"] is None for figure in scored.values() if not figure["count"])


def test_nothing_to_evaluate_is_an_error(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("no JSON\n", "utf-8")
    with pytest.raises(ValueError, match=r"rejected\.jsonl, such as"):
        evaluate(str(exported), Records(str(tmp_path / "bad.jsonl")), str(tmp_path / "out"))


def test_the_objective_is_the_mean_of_the_scores_of_tasks_with_positives(exported: Path, dialogues: list[Dialogue], tmp_path: Path) -> None:
    value = evaluate(str(exported), Given(tuple(dialogues)), str(tmp_path))
    parsed = json.loads((tmp_path / "metrics.json").read_text("utf-8"))["metrics"]
    names = "goal_segmentation/boundary_f1", "goal_evaluation/failure_f1", "intent/accuracy", "slot/span_f1", "defect/f1"
    known = [parsed[name]["value"] or 0.0 for name in names if parsed[name]["positives"]]
    assert value == pytest.approx(sum(known) / len(known))


def test_a_dialogue_may_belong_to_several_slices(exported: Path, dialogues: list[Dialogue], tmp_path: Path) -> None:
    both, neither = dialogues[0].model_copy(update={"slices": ["a", "b"]}), dialogues[1]
    slices = figures(exported, [both, neither], tmp_path)["slices"]
    assert slices["a"] == slices["b"] == figures(exported, [dialogues[0]], tmp_path)["metrics"]


def test_the_number_of_positives_stands_next_to_every_figure(
    exported: Path, dialogues: list[Dialogue], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures_of = figures(exported, dialogues, tmp_path)["metrics"]
    defects = sum(turn.defect is True for dialogue in dialogues for turn in dialogue.turns)
    failures = sum(goal.outcome == "failure" for dialogue in dialogues for goal in dialogue.goals or ())
    assert figures_of["defect/f1"]["positives"] == figures_of["defect/ap"]["positives"] == defects > 0
    assert figures_of["goal_evaluation/failure_f1"]["positives"] == failures
    printed = capsys.readouterr().out.splitlines()
    header = next(line for line in printed if "positives" in line)
    place = [cell.strip() for cell in header.split("┃")].index("positives")
    row = next(line for line in printed if "defect/f1" in line)
    assert row.split("│")[place].strip() == str(defects)


def test_what_a_user_gets_is_printed_first(
    exported: Path, dialogues: list[Dialogue], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(str(exported), Given(tuple(dialogues)), str(tmp_path))
    rows = [line.split()[1] for line in capsys.readouterr().out.splitlines() if "goal_evaluation/" in line]
    assert rows[0] == "goal_evaluation/failure_f1"
    assert [name.endswith("given_goals") for name in rows] == [False] * 3 + [True] * 3


def test_statistics_hold_what_each_dialogue_adds(exported: Path, dialogues: list[Dialogue], tmp_path: Path) -> None:
    figures_of = figures(exported, dialogues, tmp_path)["metrics"]
    tasks = labelgen.load(exported).network.tasks
    for name, figure in figures_of.items():
        metric = tasks[name.split("/")[0]].metrics()[name.split("/")[1]].metric
        each = read_statistics(tmp_path / "statistics.npz", name)
        assert list(each) == [dialogue.id for dialogue in dialogues]
        merged = metric.merge(list(each.values()))
        assert metric.items(merged) == figure["count"]
        if figure["value"] is not None:
            assert float(metric.value(merged)) == pytest.approx(figure["value"])
    assert read_statistics(tmp_path / "statistics.npz", "intent/none") == {}


def test_device_and_limit_are_keys_of_the_command(exported: Path, dialogues: list[Dialogue], tmp_path: Path) -> None:
    labelgen.write(dialogues, tmp_path / "in.jsonl")
    given = (f"export={exported}", "corpus=jsonl", f"corpus.path={tmp_path}/in.jsonl", f"output={tmp_path}/out")
    labelgen.run(labelgen.load_config("evaluate", *given, "limit=3"))
    assert json.loads((tmp_path / "out" / "metrics.json").read_text("utf-8"))["dialogues"] == 3
    with pytest.raises(Exception, match="device='nowhere' cannot be used"):  # hydra wraps it
        labelgen.run(labelgen.load_config("evaluate", *given, "device=nowhere"))


def test_unusable_records_of_the_reference_are_counted(
    exported: Path, dialogues: list[Dialogue], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labelgen.write(dialogues, tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").write_text((tmp_path / "a.jsonl").read_text("utf-8") + "broken\n", "utf-8")
    evaluate(str(exported), Records(str(tmp_path / "a.jsonl")), str(tmp_path / "out"), Records(str(tmp_path / "b.jsonl")))
    assert re.search(r"reference: 1 record is not usable; the first: .*b\.jsonl, row 13, ", caplog.text)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text("utf-8"))["rejected"] == 0
