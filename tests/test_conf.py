"""The configuration: every object of every yaml is what its target takes, everything composes, every verb runs on a tiny case."""

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from hydra.utils import get_object
from omegaconf import OmegaConf

from labelgen.config import CONF, explain, load_config, main, run, verbs
from labelgen.corpora.simulated import Simulated
from labelgen.io import files
from labelgen.model.encoder import EncoderSettings

SUPPLIED = {  # what train gives to the `_partial_` objects of a group
    "encoder": {"features"},
    "data": {"output"},
    "augment": {"dialogues"},
    "model": {"encoder", "tasks"},
    "optimizer": {"params"},
    "trainer": {"default_root_dir", "callbacks", "logger", "plugins", "num_sanity_val_steps", "use_distributed_sampler"},
}
DATACLASSES = {"labelgen.model.encoder.Encoder": EncoderSettings}  # a target -> what its `**settings` are
NEEDS_CORPUS = ("train", "pretrain", "evaluate", "convert")
HYDRAS_OWN = {"_target_", "_partial_"}
EXPERIMENTS = sorted((CONF / "experiment").glob("*.yaml"))


class Object(NamedTuple):
    """A mapping with a `_target_`, found at `place` in a file or composed config; `group` is the config group that holds it."""

    place: str
    group: str
    settings: dict[str, Any]


def objects(node: Any, place: str, group: str) -> Iterator[Object]:
    """Every object in a tree of plain values."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield Object(place, group, node)
        for key, value in node.items():
            yield from objects(value, f"{place}.{key}", group)
    elif isinstance(node, list):
        for k, value in enumerate(node):
            yield from objects(value, f"{place}[{k}]", group)


def read_option(file: Path) -> Any:
    """A config file, over the other options of its group that its defaults name."""
    tree = yaml.safe_load(file.read_text("utf-8"))
    below = [name for name in tree.pop("defaults", []) if isinstance(name, str) and name != "_self_" and "/" not in name]
    for name in below:
        tree = {**read_option(file.with_name(f"{name}.yaml")), **tree}
    return tree


def in_files() -> list[Object]:
    files = [(file, read_option(file)) for file in sorted(CONF.rglob("*.yaml"))]
    return [found for file, tree in files for found in objects(tree, str(file.relative_to(CONF)), file.parent.name)]


def compose(name: str, *overrides: str) -> dict[str, Any]:
    """As plain values, interpolations as written: `data.corpus` is `${corpus}`, so each object appears once."""
    chosen = any(override.startswith(("corpus=", "experiment=")) for override in overrides) or name not in NEEDS_CORPUS
    return OmegaConf.to_container(load_config(name, *([] if chosen else ["corpus=simulated"]), *overrides))  # type: ignore[return-value]


def command_of(experiment: Path) -> list[str]:
    """Verb and overrides in the leading comment of an experiment's file."""
    found = re.search(rf"^# labelgen (\w+ experiment={experiment.stem}\b.*)$", experiment.read_text("utf-8"), re.MULTILINE)
    assert found, f"{experiment.name}: the first comment is the command, `# labelgen VERB experiment={experiment.stem} ...`"
    return [word.rstrip(",;") for word in takewhile(lambda word: word in verbs() or "=" in word, found[1].split())]


def check(found: Object) -> None:
    """The keys are exactly the parameters of a target of ours, and among those of a third party's."""
    target = found.settings["_target_"]
    parameters = {*inspect.signature(get_object(target)).parameters}
    if target in DATACLASSES:  # takes its fields as keywords
        parameters = parameters - {"settings"} | {field.name for field in fields(DATACLASSES[target])}
    keys = found.settings.keys() - HYDRAS_OWN
    assert keys <= parameters, f"{found.place}: {target} does not take {sorted(keys - parameters)}"
    partial = found.settings.get("_partial_", False)
    supplied = SUPPLIED.get(found.group, set()) if partial else set()
    assert not keys & supplied, f"{found.place}: train gives {sorted(keys & supplied)}"
    left_out = parameters - keys - supplied if target.startswith("labelgen.") else set()
    assert not left_out, f"{found.place}: {target} has {sorted(left_out)} too; every parameter stands in the yaml"


@pytest.mark.parametrize("found", in_files(), ids=lambda found: found.place)
def test_keys_are_parameters(found: Object) -> None:
    check(found)


@pytest.mark.parametrize("file", sorted(CONF.rglob("*/*.yaml")), ids=lambda file: str(file.relative_to(CONF)))
def test_an_option_is_one_object(file: Path) -> None:
    tree = read_option(file)
    if file.parent.name == "experiment":
        assert "# @package _global_" in file.read_text("utf-8")
        assert not list(objects(tree, file.name, "experiment")), "an experiment holds overrides alone"
    elif file.parent.name == "callbacks":  # several by name
        assert all("_target_" in value for value in tree.values())
    elif file.parent.name == "job":  # Hydra's own settings
        assert tree.keys() <= {"run", "sweep", "job", "output_subdir", "callbacks"}
    else:  # one that sets more than its own key has its object below that
        assert "_target_" in (tree[file.parent.name] if "# @package _global_" in file.read_text("utf-8") else tree)


def test_the_check_finds_what_is_wrong() -> None:
    right = {"_target_": "labelgen.corpora.simulated.Simulated", "num_dialogues": 1, "seed": 0, "split": "train", "labelled": 1.0}
    check(Object("right", "corpus", right))
    for wrong in ({**right, "sede": 0}, {key: value for key, value in right.items() if key != "seed"}):
        with pytest.raises(AssertionError):
            check(Object("wrong", "corpus", wrong))


@pytest.mark.parametrize("verb", verbs())
def test_help_lists_every_key_and_option(verb: str) -> None:
    printed = explain(verb)
    config = compose(verb)
    groups = {file.parent.name for file in CONF.glob("*/*.yaml")}
    assert not [key for key in config.keys() - {"call"} - groups if f"{key}:" not in printed and f"{key}." not in printed]
    named = {group for group in groups if f"\n{group}=" in printed}
    assert verb in {"export", "fetch-encoder", "inspect", "schema"} or named, "most verbs have a group"
    for group in named:
        assert all(f"  {file.stem}" in printed for file in (CONF / group).glob("*.yaml")), group
    assert "call:" not in printed


@pytest.mark.parametrize("verb", verbs())
def test_a_primary_composes(verb: str) -> None:
    config = compose(verb)
    assert "_target_" in config["call"]
    for key, value in config.items():
        for found in objects(value, f"{verb}.{key}", key):
            check(found)


@pytest.mark.parametrize("verb", NEEDS_CORPUS)
def test_a_corpus_is_never_chosen_silently(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\ncorpus=... (conf/corpus/), needed\n" in explain(verb)
    wanted = r"corpus is needed; give corpus=\.\.\., one of atis, .*, jsonl, .*, uss \(labelgen \w+ --help\)$"
    with pytest.raises(ValueError, match=f"^{wanted}"):
        load_config(verb)
    for words in ([], ["corpus.path=logs.jsonl"], ["output=x", "--cfg", "job"]):
        monkeypatch.setattr("sys.argv", ["labelgen", verb, *words])
        with pytest.raises(SystemExit, match=f"^labelgen: {wanted}"):
            main()


def test_an_experiment_may_choose_the_corpus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["labelgen", "train", "experiment=sgd_minilm", "corpus.root=x", "--cfg", "job"])
    main()
    assert "labelgen.corpora.sgd" in capsys.readouterr().out


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda file: file.stem)
def test_an_experiment_composes_with_its_primary(experiment: Path) -> None:
    verb, *overrides = command_of(experiment)
    config = compose(verb, *overrides)
    assert config.keys() == compose(verb).keys(), "an experiment overrides, it adds no keys"
    for key, value in config.items():
        for found in objects(value, f"{experiment.stem}.{key}", key):
            check(found)


# -- every verb on a tiny case ---------------------------------------------------------------------------------------------------

TINY = ["encoder=tiny", "corpus=simulated", "corpus.num_dialogues=16", "data.valid_fraction=0.4", "data.cache=null", "features=none"]
ONE_BATCH = [*TINY, "trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.log_every_n_steps=1"]
TRAINED = [*ONE_BATCH, "min_valid_dialogues=1"]
# verb -> overrides, files that it writes; {made}: a run and its export; {out}: a new folder
CASES: dict[str, tuple[list[str], list[str]]] = {
    "train": ([*TRAINED, "output={out}"], ["checkpoints/best.ckpt", "checkpoints/last.ckpt", "metrics.csv", "config.yaml"]),
    "pretrain": ([*TRAINED, "output={out}"], ["checkpoints/best.ckpt", "checkpoints/last.ckpt", "metrics.csv", "config.yaml"]),
    "export": (["checkpoint={made}/run", "output={out}/export"], ["export/model.safetensors", "export/config.json", "export/README.md"]),
    "evaluate": (["export={made}/export", "corpus=simulated", "corpus.num_dialogues=4", "output={out}"], ["metrics.json", "config.yaml"]),
    "backfill": (["export={made}/export", "input={made}/logs.jsonl", "output={out}/labelled"], ["labelled/_backfill.json"]),
    "schema": (["output={out}/schema.json"], ["schema.json"]),
    "inspect": (["input={made}/logs.jsonl"], []),
    "convert": (["corpus=simulated", "corpus.num_dialogues=2", "output={out}/records.parquet"], ["records.parquet"]),
    "demo": (
        [
            "encoder=tiny",
            "encoder.frozen_layers=1",
            "data.valid_fraction=0.4",
            "simulated.train.num_dialogues=16",
            "simulated.test.num_dialogues=4",
            "trainer.max_epochs=1",
            "trainer.limit_train_batches=1",
            "trainer.log_every_n_steps=1",
            "output={out}",
        ],
        ["train.jsonl", "export/model.safetensors", "labelled/_backfill.json", "metrics.json"],
    ),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with run/, export/ and logs.jsonl."""
    folder = tmp_path_factory.mktemp("made")
    run(load_config("train", *ONE_BATCH, f"output={folder}/run"))
    run(load_config("export", f"checkpoint={folder}/run", f"output={folder}/export"))
    files.write((dialogue.content() for dialogue in Simulated(num_dialogues=3, seed=1, split="test").read()), folder / "logs.jsonl")
    return folder


@pytest.mark.parametrize("verb", [verb for verb in verbs() if verb != "fetch-encoder"])  # tests/inputs/test_fetch.py
def test_a_verb_runs(verb: str, made: Path, tmp_path: Path) -> None:
    overrides, files = CASES[verb]
    run(load_config(verb, *(override.format(made=made, out=tmp_path) for override in overrides)))
    missing = [name for name in files if not (tmp_path / name).exists()]
    assert not missing, sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))


def test_evaluation_writes_what_it_promises(made: Path, tmp_path: Path) -> None:
    run(load_config("evaluate", f"export={made}/export", "corpus=simulated", "corpus.num_dialogues=4", f"output={tmp_path}"))
    written = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    expected = {
        "goal_segmentation": ["boundary_f1", "pk", "window_diff"],
        "goal_evaluation": ["failure_f1", "failure_f1_by_last_turn", "failure_ap_given_goals"],
        "intent": ["accuracy", "macro_f1"],
        "slot": ["span_f1", "value_f1"],
        "defect": ["f1", "ap"],
    }
    assert {f"{task}/{name}" for task, names in expected.items() for name in names} <= written["metrics"].keys()
    assert all({"value", "low", "high", "count", "positives"} <= figure.keys() for figure in written["metrics"].values())


OPTIONS = [file for group in ("optimizer", "features") for file in sorted((CONF / group).glob("*.yaml"))]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda file: file.stem)
def test_an_option_trains(option: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELGEN_CACHE", str(tmp_path / "cache"))
    chosen = [override for override in ONE_BATCH if not override.startswith(f"{option.parent.name}=")]
    score = run(load_config("train", *chosen, f"{option.parent.name}={option.stem}", f"output={tmp_path}"))
    assert isinstance(score, float)
