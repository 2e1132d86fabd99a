"""An export stands alone and labels as the checkpoint does; one that was damaged or tampered with is refused by name."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file

from labelgen.config import load_config, run
from labelgen.dialogue import Dialogue, Turn
from labelgen.inputs.batch import Collator
from labelgen.inputs.features import FeatureSpace
from labelgen.inputs.pretrained import read_pretrained
from labelgen.io.files import read, write
from labelgen.io.paths import error_message
from labelgen.labelling import export as export_module
from labelgen.labelling.export import export, load, task_classes
from labelgen.model.encoder import Encoder
from labelgen.tasks.defect import Defect
from labelgen.training.checkpoint import write_checkpoint
from labelgen.training.labeler import Labeler

ALONE = """
import socket, sys
def refuse(*_, **__): raise AssertionError("no network")
socket.socket.connect = socket.getaddrinfo = refuse
import labelgen
folder, logs, output = sys.argv[1:]
annotator = labelgen.load(folder)
labelgen.write(annotator(labelgen.read(logs)), output)
heavy = {"pytorch_lightning", "lightning", "hydra", "omegaconf", "wandb"} & sys.modules.keys()
assert not heavy, heavy
"""


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    """To be damaged."""
    return copytree(exported, tmp_path / "copy")


def test_a_bare_process_gives_the_labels_of_the_checkpoint(
    exported: Path, labeler: Labeler, collate: Collator, dialogues: list[Dialogue], tmp_path: Path
) -> None:
    write(dialogues, tmp_path / "logs.jsonl")
    subprocess.run([sys.executable, "-c", ALONE, exported, tmp_path / "logs.jsonl", tmp_path / "labelled.jsonl"], check=True)
    with torch.no_grad():
        batch = collate(dialogues)
        said = labeler.network.predict(labeler.network(batch), batch, json.loads((exported / "config.json").read_text())["fingerprint"])
    wanted = {dialogue.id: [label for p in row.values() for label in p.labels] for dialogue, row in zip(batch.dialogues, said, strict=True)}
    labelled = list(read(tmp_path / "labelled.jsonl"))
    assert [dialogue.id for dialogue in labelled] == [dialogue.id for dialogue in dialogues], "in the order given"
    tasks = set()
    for dialogue, original in zip(labelled, dialogues, strict=True):
        assert dialogue.labels is not None
        assert dialogue.model_copy(update={"labels": None}) == original, "nothing else changes"
        for found, label in zip(dialogue.labels, wanted[dialogue.id], strict=True):
            tasks.add(found.task)
            assert found.model_copy(update={"confidence": 1.0}) == label.model_copy(update={"confidence": 1.0})
            assert found.confidence == pytest.approx(label.confidence, abs=1e-5)
    assert tasks == {"goal_segmentation", "goal_evaluation", "intent", "slot", "defect"}


def test_annotators_stream_whole_dialogues_in_order(exported: Path, dialogues: list[Dialogue]) -> None:
    annotator = load(exported)
    annotator.batch_tokens = 50
    long = Dialogue(id="long", turns=[Turn(request=f"request {k % 9}", response="yes") for k in range(120)])
    taken: list[str] = []

    def rows() -> Any:
        for dialogue in (dialogues[0], long, dialogues[1], dialogues[0]):
            taken.append(dialogue.id)
            yield dialogue

    stream = annotator.stream(rows())
    first = next(stream)
    assert first.id == dialogues[0].id
    assert len(taken) < 4, "streamed"
    rest = list(stream)
    assert [dialogue.id for dialogue in rest] == ["long", dialogues[1].id, dialogues[0].id]
    assert [label.turns for label in rest[0].labels or () if label.task == "intent"] == [[t] for t in range(120)], "never cut"
    assert rest[-1].labels == first.labels
    assert annotator([]) == []
    with pytest.raises(ValueError, match=r"dict is not a Dialogue; give a list: annotator\(\[dialogue\]\)"):
        annotator([{"id": "a"}])  # type: ignore[list-item]


def retell(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    parsed = json.loads((folder / "config.json").read_text())
    change(parsed)
    (folder / "config.json").write_text(json.dumps(parsed))


def resign(folder: Path) -> None:
    """As one who knows how the fingerprint is made."""
    retell(folder, lambda parsed: parsed.update(fingerprint=export_module._fingerprint(folder, parsed)))


def reweigh(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")
    resign(folder)


def test_an_export_of_an_older_format_is_refused_with_the_command_that_makes_it_again(exported: Path, tmp_path: Path) -> None:
    folder = copytree(exported, tmp_path / "export")
    retell(folder, lambda parsed: parsed.update(format=3))
    with pytest.raises(ValueError, match=r"format 3, this version reads 4; `labelgen export checkpoint=RUN output=FOLDER` makes it again"):
        load(folder)


def test_a_checkpoint_with_the_weights_of_an_older_version_is_refused(
    labeler: Labeler, save_checkpoint: Callable[..., str], features: FeatureSpace, tmp_path: Path
) -> None:
    path = save_checkpoint(labeler, features, tmp_path / "x.ckpt")
    read = torch.load(path, weights_only=True)
    read["state_dict"] = {key.replace(".turn_encoder.", ".turn."): value for key, value in read["state_dict"].items()}
    write_checkpoint(read, Path(path))
    with pytest.raises(ValueError, match=r"an older version \(labelgen 0\) trained it; train it again"):
        export(path, str(tmp_path / "export"))


KEY = "heads.intent.linear.weight"
CONFIGS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another format": lambda parsed: parsed.update(format=99),
    "no format": lambda parsed: parsed.pop("format"),
    "no encoder": lambda parsed: parsed.pop("encoder"),
    "encoder is a list": lambda parsed: parsed.update(encoder=[1]),
    "no setting": lambda parsed: parsed["encoder"].pop("causal"),
    "width is text": lambda parsed: parsed["encoder"]["backbone"].update(hidden_size="wide"),
    "width is negative": lambda parsed: parsed["encoder"]["backbone"].update(hidden_size=-32),
    "width is another": lambda parsed: parsed["encoder"]["backbone"].update(hidden_size=64),
    "heads do not divide": lambda parsed: parsed["encoder"].update(dialogue_heads=5),
    "no heads": lambda parsed: parsed["encoder"].update(dialogue_heads=0),
    "too many frozen": lambda parsed: parsed["encoder"].update(frozen_layers=9),
    "unknown architecture": lambda parsed: parsed["encoder"]["backbone"].update(model_type="nothing"),
    "a name on the hub": lambda parsed: parsed["encoder"].update(backbone="attacker/model"),
    "a package": lambda parsed: parsed["encoder"].update(backbone="package:evil.sub"),
    "an error of another library": lambda parsed: parsed["encoder"]["backbone"].update(model_type="distilbert", dim=[]),
    "unknown activation": lambda parsed: parsed["encoder"]["backbone"].update(hidden_act="nothing"),
    "a layer less": lambda parsed: parsed["encoder"]["backbone"].update(num_hidden_layers=1),
    "features are text": lambda parsed: parsed["features"].update(numerical="x"),
    "statistics are text": lambda parsed: parsed["features"]["numerical"].update(recogniser_confidence=["a", "b"]),
    "a category less": lambda parsed: parsed["features"]["categorical"]["device_type"].pop(),
    "a label less": lambda parsed: parsed["tasks"]["intent"]["labels"].pop(),
    "labels are numbers": lambda parsed: parsed["tasks"]["defect"].update(labels=[0, 1]),
    "labels in another order": lambda parsed: parsed["tasks"]["defect"]["labels"].reverse(),
    "other labels": lambda parsed: parsed["tasks"]["goal_evaluation"].update(labels=["good", "recovered", "bad"]),
    "labels are one text": lambda parsed: parsed["tasks"]["defect"].update(labels="no"),
    "an unknown field": lambda parsed: parsed["tasks"]["defect"].update(kind="x"),
    "a task of another name": lambda parsed: parsed["tasks"].update(fault=parsed["tasks"].pop("defect")),
    "a function elsewhere": lambda parsed: parsed["tasks"]["defect"].update(_target_="os.system"),
    "a function of ours": lambda parsed: parsed["tasks"]["defect"].update(_target_="labelgen.training.train.train"),
    "a name that is no task": lambda parsed: parsed["tasks"]["defect"].update(_target_="labelgen.tasks.defect.VALUES"),
    "a class that is no task": lambda parsed: parsed["tasks"]["defect"].update(_target_="labelgen.tasks.slot.TokenHead"),
    "a module that is not there": lambda parsed: parsed["tasks"]["defect"].update(_target_="labelgen.tasks.nothing.Nothing"),
    "a path out": lambda parsed: parsed["tasks"]["defect"].update(_target_="labelgen.tasks...os.system"),
    "no target": lambda parsed: parsed["tasks"]["defect"].pop("_target_"),
}


@pytest.mark.parametrize("damage", CONFIGS)
def test_a_config_that_does_not_fit_is_refused(damage: str, copy: Path) -> None:
    retell(copy, CONFIGS[damage])
    resign(copy)  # else that it was changed is all that is seen
    with pytest.raises(ValueError, match=r"copy/(config\.json|model\.safetensors)"):
        load(copy)


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "labels swapped": lambda parsed: parsed["tasks"]["intent"]["labels"].reverse(),
    "a feature's statistics": lambda parsed: parsed["features"]["numerical"].update(recogniser_confidence=[5.0, 2.0]),
    "features in another order": lambda parsed: parsed["features"].update(
        categorical=dict(reversed(parsed["features"]["categorical"].items()))
    ),
    "direction": lambda parsed: parsed["encoder"].update(causal=not parsed["encoder"]["causal"]),
    "cut": lambda parsed: parsed["encoder"].update(max_tokens=parsed["encoder"]["max_tokens"] - 1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_config_that_fits_but_means_something_else_is_noticed(change: str, copy: Path) -> None:
    retell(copy, CHANGES[change])
    with pytest.raises(ValueError, match=r"copy/config\.json: .* were changed since"):
        load(copy)
    resign(copy)
    load(copy)  # nothing else is wrong with it


def test_a_backbone_by_name_is_not_looked_up(copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "evil"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("attacker/model", "package:evil.sub"):
        retell(copy, lambda parsed, name=name: parsed["encoder"].update(backbone=name))
        resign(copy)
        with pytest.raises(ValueError, match=r"encoder\.backbone is not an architecture"):
            load(copy)
    with pytest.raises(ValueError, match="top level"):
        read_pretrained("package:evil.sub")


@pytest.mark.parametrize("content", ["", "{", "null", "[]", '"x"', "[" * 100_000, "\udcff"])
def test_a_config_that_is_none_is_refused(content: str, copy: Path) -> None:
    (copy / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=r"copy/config\.json"):
        load(copy)


WEIGHTS: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "wrong shape": lambda weights: weights.update({KEY: weights[KEY][:-1].clone()}),
    "missing": lambda weights: weights.pop(KEY),
    "one too many": lambda weights: weights.update(more=torch.zeros(1)),
    "not a number": lambda weights: weights[KEY][0, 0].fill_(torch.nan),
    "infinite": lambda weights: weights[KEY][0, 0].fill_(torch.inf),
}


@pytest.mark.parametrize("damage", WEIGHTS)
def test_weights_that_do_not_fit_are_refused(damage: str, copy: Path) -> None:
    reweigh(copy, WEIGHTS[damage])
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        load(copy)


@pytest.mark.parametrize("name", export_module.FILES)
def test_a_missing_or_cut_file_is_refused(name: str, copy: Path) -> None:
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        load(copy)
    if name != "config.json":  # even where the fingerprint was made again
        resign(copy)
        with pytest.raises(ValueError, match=name.replace(".", r"\.")):
            load(copy)
    (copy / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing".replace(".", r"\.")):
        load(copy)
    (copy / name).mkdir()
    with pytest.raises(ValueError, match=f"{name} is missing".replace(".", r"\.")):
        load(copy)


def test_changed_weights_are_noticed(copy: Path) -> None:
    load(copy)
    parsed = (copy / "config.json").read_text()
    reweigh(copy, lambda weights: weights[KEY].mul_(2))
    load(copy)
    (copy / "config.json").write_text(parsed)
    with pytest.raises(ValueError, match="were changed since"):
        load(copy)


@dataclass(frozen=True)
class Fault(Defect):
    """A user's own label type."""

    name: ClassVar[str] = "fault"


def test_a_users_own_task_is_loaded_by_the_class_they_give(
    save_checkpoint: Callable[..., str],
    make_encoder: Callable[..., Encoder],
    features: FeatureSpace,
    dialogues: list[Dialogue],
    tmp_path: Path,
) -> None:
    labeler = Labeler(make_encoder(), {"fault": Fault()}, partial(torch.optim.AdamW))
    export(save_checkpoint(labeler, features, tmp_path / "x.ckpt"), str(tmp_path / "export"))
    with pytest.raises(ValueError, match=r"not one of labelgen's; give its class: labelgen\.load\(folder, tasks=\{'fault': \.\.\.\}\)"):
        load(tmp_path / "export")
    labelled = load(tmp_path / "export", tasks={"fault": Fault})(dialogues[:1])
    assert {label.task for label in labelled[0].labels or ()} == {"fault"}
    write(dialogues[:3], tmp_path / "logs.jsonl")
    given = [f"export={tmp_path / 'export'}", f"+tasks.fault={__name__}.Fault"]
    run(load_config("backfill", *given, f"input={tmp_path / 'logs.jsonl'}", f"output={tmp_path / 'out'}"))
    assert {label.task for dialogue in read(tmp_path / "out") for label in dialogue.labels or ()} == {"fault"}
    run(load_config("evaluate", *given, "corpus=jsonl", f"corpus.path={tmp_path / 'logs.jsonl'}", f"output={tmp_path / 'figures'}"))
    assert {name.split("/")[0] for name in json.loads((tmp_path / "figures" / "metrics.json").read_text())["metrics"]} == {"fault"}


@pytest.mark.parametrize("path", ["Fault", "nothing.Nothing", "os.system", "labelgen.tasks.defect.Nothing", ".x.Y", ""])
def test_a_path_that_names_no_task_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"tasks\.fault="):
        task_classes({"fault": path})


@pytest.mark.parametrize("word", ["a", "漢", "é漢😀", "word "])
def test_pieces_hold_no_more_tokens_than_they_may(word: str, exported: Path) -> None:
    annotator = load(exported)
    annotator.batch_tokens = limit = 4 * annotator.network.encoder.max_tokens
    turn = [Turn(request=word * 20 + str(k), response=word * 500) for k in range(40)]
    pieces = list(annotator._pieces((Dialogue(id=str(k), turns=[said]) for k, said in enumerate(turn)), None))
    assert [dialogue.id for piece in pieces for dialogue in piece] == [str(k) for k in range(40)]
    texts = [[text for d in piece for text in (d.turns[0].request or "", d.turns[0].response or "")] for piece in pieces]
    tokens = [sum(len(annotator._texts([text])[text].ids) for text in several) for several in texts]
    assert max(tokens) <= limit
    assert max(len(piece) for piece in pieces) > 1, "what is cut is not counted"


def test_an_export_that_cannot_be_replaced_stays(
    exported: Path, save_checkpoint: Callable[..., str], labeler: Labeler, features: FeatureSpace, tmp_path: Path, monkeypatch: Any
) -> None:
    checkpoint, folder = save_checkpoint(labeler, features, tmp_path / "x.ckpt"), tmp_path / "export"
    copytree(exported, folder)
    held, real, calls = (folder / "config.json").read_text("utf-8"), os.replace, []

    def failing(*names: Any) -> None:
        calls.append(names)
        if len(calls) == 2:  # the old one is aside, the new one not yet there
            raise OSError("no")
        real(*names)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="no"):
        export(checkpoint, str(folder))
    assert (folder / "config.json").read_text("utf-8") == held
    assert sorted(file.name for file in tmp_path.iterdir()) == ["export", "x.ckpt"]


def test_what_a_killed_export_left_is_replaced_or_put_back(
    save_checkpoint: Callable[..., str], labeler: Labeler, features: FeatureSpace, tmp_path: Path, monkeypatch: Any
) -> None:
    checkpoint = save_checkpoint(labeler, features, tmp_path / "x.ckpt")
    export(checkpoint, str(tmp_path / "export"))
    (tmp_path / ".export.partial").mkdir()
    (tmp_path / ".export.partial" / "model.safetensors").touch()
    (tmp_path / "export").rename(tmp_path / ".export.before")  # killed between two renames
    monkeypatch.setattr(export_module, "save_file", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        export(checkpoint, str(tmp_path / "export"))
    assert {path.name for path in tmp_path.iterdir()} == {"x.ckpt", "export"}
    load(tmp_path / "export")
    copytree(tmp_path / "export", tmp_path / ".export.before")  # killed before it was deleted
    monkeypatch.undo()
    export(checkpoint, str(tmp_path / "export"))
    assert {path.name for path in tmp_path.iterdir()} == {"x.ckpt", "export"}


def test_a_run_that_diverged_is_not_exported(
    save_checkpoint: Callable[..., str], labeler: Labeler, features: FeatureSpace, tmp_path: Path
) -> None:
    diverged = deepcopy(labeler)
    with torch.no_grad():
        next(diverged.network.heads.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match=r"x\.ckpt: .* holds NaN or infinite weights; the run diverged"):
        export(save_checkpoint(diverged, features, tmp_path / "x.ckpt"), str(tmp_path / "export"))
    assert [path.name for path in tmp_path.iterdir()] == ["x.ckpt"]


def test_exports_replace_exports_and_nothing_else(
    exported: Path, save_checkpoint: Callable[..., str], labeler: Labeler, features: FeatureSpace, tmp_path: Path
) -> None:
    checkpoint = save_checkpoint(labeler, features, tmp_path / "x.ckpt")
    for held in ("notes.txt", "config.json"):
        other = tmp_path / held.partition(".")[0]
        other.mkdir()
        (other / held).write_text("{}")
        with pytest.raises(ValueError, match="exists and is not an export"):
            export(checkpoint, str(other))
        assert (other / held).read_text() == "{}"
    with pytest.raises(ValueError, match="exists and is not an export"):
        export(checkpoint, str(tmp_path / "x.ckpt"))
    copytree(exported, tmp_path / "export")
    before = (tmp_path / "export" / "model.safetensors").stat().st_mtime_ns
    export(checkpoint, str(tmp_path / "export"))
    assert (tmp_path / "export" / "model.safetensors").stat().st_mtime_ns != before
    assert {path.name for path in tmp_path.iterdir()} == {"x.ckpt", "notes", "config", "export"}, "nothing is left aside"


def test_the_working_directory_is_never_replaced(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copytree(exported, tmp_path / "export")
    (tmp_path / "empty" / "below").mkdir(parents=True)
    for working, output in (("export", "."), ("empty", "."), ("empty", ""), ("empty/below", ".."), ("empty", f"{tmp_path}/empty")):
        monkeypatch.chdir(tmp_path / working)
        with pytest.raises(ValueError, match="is the working directory or holds it; name a folder of its own"):
            export(str(tmp_path / "none.ckpt"), output)  # refused before the checkpoint is read
    assert {path.name for path in tmp_path.iterdir()} == {"export", "empty"}


def test_an_output_in_a_file_and_the_folder_of_a_run_are_refused(
    save_checkpoint: Callable[..., str], labeler: Labeler, features: FeatureSpace, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    save_checkpoint(labeler, features, run / "checkpoints" / "best.ckpt")
    with pytest.raises(ValueError, match=r"best\.ckpt is a file; name another folder"):
        export(str(run), str(run / "checkpoints" / "best.ckpt" / "export"))
    for output in (run, run / "checkpoints"):
        with pytest.raises(ValueError, match="exists and is not an export; name another folder"):
            export(str(run), str(output))
    export(str(run), str(run / "export"))
    (tmp_path / "link").symlink_to(run / "export")
    export(str(run), str(tmp_path / "link"))  # the export is replaced, the link stays
    assert (tmp_path / "link").is_symlink()
    assert {path.name for path in run.iterdir()} == {"checkpoints", "export"}
    load(tmp_path / "link")


def test_a_full_disk_is_named_by_the_export(
    save_checkpoint: Callable[..., str], labeler: Labeler, features: FeatureSpace, tmp_path: Path
) -> None:
    checkpoint = save_checkpoint(labeler, features, tmp_path / "x.ckpt")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    length = len(labeler.describe()["tokenizer"].encode())
    for limit, name in ((length - 1, ""), (length + 1, "model.safetensors")):  # the tokenizer does not fit, or it alone does
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(OSError, match="File too large") as caught:
                export(checkpoint, str(tmp_path / "export"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        message = error_message(caught.value)
        assert message.startswith(f"{tmp_path / 'export'}: {name}"), message
        assert "[Errno" not in message
    assert [path.name for path in tmp_path.iterdir()] == ["x.ckpt"]


def test_what_is_no_checkpoint_is_refused(labeler: Labeler, tmp_path: Path) -> None:
    (tmp_path / "cut.ckpt").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match=r"cut\.ckpt: the checkpoint is damaged \(it is truncated\)"):
        export(str(tmp_path / "cut.ckpt"), str(tmp_path / "x"))
    write_checkpoint({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other\.ckpt: not a checkpoint of `labelgen train`"):
        export(str(tmp_path / "other.ckpt"), str(tmp_path / "x"))
    write_checkpoint({"labelgen": SimpleNamespace()}, tmp_path / "code.ckpt")  # would run code when unpickled
    with pytest.raises(ValueError, match=r"code\.ckpt: not a checkpoint \("):
        export(str(tmp_path / "code.ckpt"), str(tmp_path / "x"))
    with pytest.raises(ValueError, match=r"no checkpoints/best\.ckpt and no checkpoints/last\.ckpt"):
        export(str(tmp_path), str(tmp_path / "x"))
    write_checkpoint({"state_dict": {}, "labelgen": {"encoder": {}, "tokenizer": ""}}, tmp_path / "pretrained.ckpt")
    with pytest.raises(ValueError, match="a pretraining checkpoint has no labels"):
        export(str(tmp_path / "pretrained.ckpt"), str(tmp_path / "x"))


def test_the_model_card_names_the_labels(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    for words in ("| defect | ok, defect |", "2 layers of width 32", "goal numbers", "success, recovered, failure"):
        assert words in card
