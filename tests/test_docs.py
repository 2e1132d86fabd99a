"""The README and the pages of docs/ are true: their commands and Python run, their links lead somewhere, the site builds without a warning.

Each page runs in a folder of its own that holds what pages take for granted (`prepare`): logs, annotated dialogues, chats, tables, SGD, and
an export trained on the annotated dialogues. SMALL is added to what trains. A block whose first line is a comment with a file's name is
that file. Blocks of the languages sh, python and yaml run; ELSEWHERE names the commands that something else runs.
"""

import ast
import json
import logging
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from datasets import Dataset
from sphinx.application import Sphinx
from sphinx.util.inventory import InventoryFile

from labelgen import config, dialogue
from labelgen.corpora.simulated import Simulated
from labelgen.evaluation.evaluate import score, table
from labelgen.io import files
from labelgen.tasks.defect import Defect
from labelgen.tasks.goal_evaluation import GoalEvaluation
from labelgen.tasks.goal_segmentation import GoalSegmentation
from labelgen.tasks.intent import Intent
from labelgen.tasks.slot import SlotTask

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
ELSEWHERE = {
    "pip install -c constraints.txt '.[minilm]' && labelgen demo": "test_wheel installs, test_demo runs the demo",
    "pip install -c constraints.txt -e '.[dev]' && pytest": ".ci/run",
    "bash .ci/run": "continuous integration",
    "sphinx-build -W docs site": "test_the_site_builds",
}
TRAINING = [
    "encoder=tiny", "encoder.frozen_layers=1", "data.valid_fraction=0.4", "trainer.max_epochs=1",
    "trainer.limit_train_batches=1", "trainer.log_every_n_steps=1", "trainer.val_check_interval=1.0",
]  # fmt: skip
FIGURE = re.compile(r"\.\d{3} \[[^]]+\]")  # with its interval
SMALL = {"train": TRAINING, "pretrain": TRAINING, "demo": TRAINING}


class Block(NamedTuple):
    """A fenced block: its language, its text, the line that it starts at."""

    language: str
    text: str
    line: int


def pages() -> list[Path]:
    """The Markdown files at the root and below docs/, but for the generated ones."""
    return [*sorted(ROOT.glob("*.md")), *(page for page in sorted(DOCS.rglob("*.md")) if not page.is_relative_to(DOCS / "generated"))]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    found: list[Block] = []
    start: int | None = None
    language, lines = "", []
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if not line.startswith("```"):
            lines.append(line)
        elif start is None:
            language, start, lines = line.removeprefix("```"), number, []
        else:
            found.append(Block(language, "\n".join(lines) + "\n", start))
            start = None
    assert start is None, f"{page}: the block of line {start} has no end"
    return found


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


WITH_CODE = [page for page in pages() if any(block.language in {"sh", "python", "yaml"} for block in blocks(page))]


# -- what pages take for granted -------------------------------------------------------------------------------------------------


def utterance(speaker: str, text: str, action: str) -> dict[str, Any]:
    state = {"active_intent": "FindCafe", "requested_slots": [], "slot_values": {}} if speaker == "USER" else None
    frame = {"service": "Cafes_1", "slots": [], "actions": [{"act": action, "slot": "", "values": [], "canonical_values": []}]}
    return {"speaker": speaker, "utterance": text, "frames": [{**frame, "state": state} if state else frame]}


def prepare_sgd(folder: Path) -> None:
    """A few dialogues in the publisher's format."""
    schema = [{"service_name": "Cafes_1", "slots": [], "intents": [{"name": "FindCafe", "is_transactional": False}]}]
    turns = [utterance("USER", "A café nearby?", "INFORM"), utterance("SYSTEM", "Try Luna.", "OFFER")]
    rows = [{"dialogue_id": f"1_{k:05}", "services": ["Cafes_1"], "turns": turns} for k in range(12)]
    for split in ("train", "dev"):
        (folder / split).mkdir(parents=True)
        (folder / split / "schema.json").write_text(json.dumps(schema), "utf-8")
        (folder / split / "dialogues_001.json").write_text(json.dumps(rows), "utf-8")


def prepare(folder: Path) -> None:
    """Logs, annotated dialogues, chats and tables."""
    prepare_sgd(folder / "dstc8-schema-guided-dialogue")
    annotated = list(Simulated(num_dialogues=24).read())
    for made in annotated:
        made.turns[0].votes.append(dialogue.Vote(question="gratitude", value="none"))
        made.turns[-1].votes.append(dialogue.Vote(question="satisfaction", value=4.0))
    files.write(annotated, folder / "annotated.jsonl")
    files.write((made.content() for made in annotated[:12]), folder / "logs.jsonl")
    with (folder / "chats.jsonl").open("w", encoding="utf-8") as chats:
        for made in annotated[:12]:
            words = [(role, text) for turn in made.turns for role, text in (("user", turn.request), ("assistant", turn.response)) if text]
            chats.write(json.dumps({"id": made.id, "messages": [{"role": role, "content": text} for role, text in words]}) + "\n")
    own = [{"who": "caller", "words": "hello"}, {"who": "note", "words": "in a hurry"}, {"who": "bot", "words": "line 1 here"}]
    (folder / "own_chats.jsonl").write_text(json.dumps({"id": "1", "log": own}) + "\n", "utf-8")
    calls = [f"{k},hello,line {k} here\n{k},is it {k} o'clock,it is {k} past {k}\n" for k in range(80)]
    (folder / "calls.csv").write_text("call,request,response\n" + "".join(calls), "utf-8")
    rows = [f"{k},caller,hello\n{k},bot,line {k} here\n" for k in range(3)]
    (folder / "messages.csv").write_text("call,who,words\n" + "".join(rows), "utf-8")
    Dataset.from_list([json.loads(line) for line in (folder / "chats.jsonl").read_text("utf-8").splitlines()]).save_to_disk(
        folder / "saved_chats"
    )


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder, with an export; do not change it."""
    folder = tmp_path_factory.mktemp("template")
    prepare(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("LABELGEN_CACHE", str(folder / "cache"))
        config.run(config.load_config("train", *TRAINING, "corpus=jsonl", "corpus.path=annotated.jsonl", "output=run"))
        config.run(config.load_config("export", "checkpoint=run", "output=mine"))
    shutil.rmtree(folder / "run")
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the prepared folder, to be in; what a command leaves in the process (logging, arguments, modules) is taken back."""
    shutil.copytree(template, tmp_path / "page")
    monkeypatch.chdir(tmp_path / "page")
    monkeypatch.setattr(sys, "argv", ["labelgen"])
    monkeypatch.setenv("LABELGEN_CACHE", str(tmp_path / "page" / "cache"))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    compose = config.load_config
    monkeypatch.setattr(config, "load_config", lambda verb, *overrides: compose(verb, *SMALL.get(verb, []), *overrides))
    handlers, level = logging.root.handlers[:], logging.root.level
    modules = set(sys.modules)
    yield tmp_path / "page"
    logging.root.handlers[:], logging.root.level = handlers, level
    for made in [module for module in set(sys.modules) - modules if (tmp_path / "page" / f"{module}.py").exists()]:
        del sys.modules[made]


# -- every block runs ------------------------------------------------------------------------------------------------------------


def commands(block: Block) -> list[list[str]]:
    """The words of each command of a shell block; a comment behind a command is none of them."""
    lines = [line for line in block.text.replace("\\\n", " ").splitlines() if line.strip() and line not in ELSEWHERE]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One `[PYTHONPATH=.] labelgen VERB key=value ... [--flags]`, in this process: its start costs seconds each time."""
    if words[0].startswith("PYTHONPATH="):
        monkeypatch.syspath_prepend(str(Path(words.pop(0).removeprefix("PYTHONPATH=")).resolve()))
    assert words[0] == "labelgen", f"{words}: run labelgen, or say in ELSEWHERE what runs it"
    verb = words[1]
    flags = next((k for k, word in enumerate(words) if word.startswith("-")), len(words))
    sys.argv = [*words[:flags], *SMALL.get(verb, []), *words[flags:]]
    config.main()


def run_block(block: Block, page: Path, folder: Path, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes the file that the block is, or runs its commands or its Python."""
    named = re.match(r"# (\S+\.(?:py|yaml))\n", block.text)
    if named:
        file = folder / named[1]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text, "utf-8")
    elif block.language == "sh":
        for words in commands(block):
            run_command(words, monkeypatch)
    else:
        assert block.language == "python", f"{name(page)}:{block.line}: a yaml block says in its first line which file it is"
        exec(compile("\n" * block.line + block.text, str(page), "exec"), names)


@pytest.mark.parametrize("page", WITH_CODE, ids=name)
def test_every_block_runs(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.language in {"sh", "python", "yaml"}:
            run_block(block, page, folder, names, monkeypatch)
    if "labelgen backfill" in page.read_text("utf-8"):
        outputs = [path.parent for path in folder.glob("*/_backfill.json")]
        assert outputs and all(sum(1 for _ in files.read(path)) == 12 for path in outputs)


@pytest.mark.parametrize("page", pages(), ids=name)
def test_records_are_records(page: Path) -> None:
    for block in blocks(page):
        known = block.language in {"sh", "python", "yaml", "json", "text", ""} or block.language.startswith("{")
        assert known, f"{name(page)}:{block.line}: {block.language}"
        if block.language == "json":
            for line in block.text.splitlines():
                dialogue.parse(json.loads(line), name(page), block.line)


def test_no_block_is_hidden_in_a_list() -> None:
    assert not [name(page) for page in pages() if re.search(r"^[ \t]+```", page.read_text("utf-8"), re.MULTILINE)]


def test_the_readme_has_the_two_commands() -> None:
    found = [block.text.strip() for block in blocks(ROOT / "README.md") if "pip install" in block.text]
    assert found == list(ELSEWHERE)[:2]


def test_the_readme_names_every_verb() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert [verb for verb in config.verbs() if f"labelgen {verb}" in text] == list(config.verbs())


def test_the_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < 200


def test_the_readmes_summary_repeats_its_results() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    summary, results = text.partition("\n## ")[0], text.partition("<!-- results -->")[2].partition("<!-- end of results -->")[0]
    figures = FIGURE.findall(summary)
    assert len(figures) >= 3
    assert not [figure for figure in figures if figure not in results]


def test_the_readmes_results_stand_on_the_pages() -> None:
    results = (ROOT / "README.md").read_text("utf-8").partition("<!-- results -->")[2].partition("<!-- end of results -->")[0]
    stated = " ".join(page.read_text("utf-8") for page in (ROOT / "experiments").glob("*/README.md"))
    figures = FIGURE.findall(results)
    assert len(figures) >= 15
    assert not [figure for figure in figures if figure not in stated], "a figure with its interval stands on a page of experiments/"


def test_the_readme_shows_what_a_demo_prints() -> None:
    block = (ROOT / "README.md").read_text("utf-8").partition("<!-- demo -->")[2].partition("<!-- end of demo -->")[0]
    headings = re.findall(r"rule\(\"(\d\. [^\"]+)\"", (ROOT / "labelgen" / "demo.py").read_text("utf-8"))
    assert len(headings) >= 4
    assert not [heading for heading in headings if f"\n{heading} ─" not in block], "see docs/restate.py"
    tasks = [GoalSegmentation(), GoalEvaluation(), Intent(), SlotTask(), Defect()]
    known = {f"{task.name}/{metric}" for task in tasks for metric in task.metrics()}
    header, *rows = [[cell.strip() for cell in line[1:-1].split(line[0])] for line in block.splitlines() if re.match(r"[┃│] .+[┃│]$", line)]
    unscored = score({task.name: task for task in tasks}, [])
    printed = table({task.name: task for task in tasks}, unscored, {"majority": unscored}, "")
    assert header == [column.header for column in printed.columns], "see docs/restate.py"
    assert {len(row) for row in rows} == {len(header)}, "see docs/restate.py"
    shown = {row[0].removesuffix(" ↓") for row in rows}
    failures = {f"{GoalEvaluation.name}/{metric}" for metric in (GoalEvaluation.score, f"{GoalEvaluation.score}_given_goals")}
    assert failures <= shown <= known, "see docs/restate.py"


# -- the tree --------------------------------------------------------------------------------------------------------------------


def tree() -> dict[str, str]:
    """Path -> what docs/architecture.md says of it; several names in a line stand for themselves."""
    (text,) = [block.text for block in blocks(DOCS / "architecture.md") if block.text.startswith("pyproject.toml")]
    listed: dict[str, str] = {}
    parents: list[str] = []
    for line in text.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        first, *words = line.split()
        several = [word for word in words if word.endswith((".yaml", "/"))] if len(line.split("  ")) <= depth + 1 else []
        del parents[depth:]
        for entry in (first, *several):
            listed["".join(parents) + entry] = " ".join(words)
        parents.append(first)
    return listed


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [Path(line) for line in done.stdout.splitlines() if (ROOT / line).exists()]


def test_the_tree_is_the_real_one() -> None:
    listed = {path.rstrip("/") for path in tree()}
    absent = sorted(path for path in listed if not (ROOT / path).exists())
    assert not absent, "the tree of docs/architecture.md names what is not there"
    paths = tracked()
    expected = {str(path) for path in paths if path.parts[0] == "labelgen"}  # each file of the package
    expected |= {str(Path(*path.parts[:2])) for path in paths if path.parts[0] == "conf"}  # each verb and each group
    expected |= {path.parts[0] for path in paths if not path.parts[0].startswith(".")}
    assert not sorted(expected - listed), "the tree of docs/architecture.md lacks what is there"


def test_the_tree_says_something_of_each_file() -> None:
    assert not [path for path, words in tree().items() if path.endswith(".py") and not words]


# -- links and the site ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", pages(), ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text("utf-8"))
    generated = DOCS / "generated"  # the site's builder checks these
    paths = [(page.parent / target).resolve() for target in targets]
    assert not [str(path) for path in paths if not path.exists() and not path.is_relative_to(generated)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    path = sys.path[:]
    try:
        Sphinx(DOCS, DOCS, folder / "html", folder / "doctrees", "html", status=None, warningiserror=True).build()
    finally:
        sys.path[:] = path
        sys.modules.pop("generate", None)
    return folder / "html"


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:sphinx", "ignore::PendingDeprecationWarning")


def test_the_site_builds(site: Path) -> None:
    assert (site / "index.html").exists()


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    loads = re.compile(r"<(?:script|img|iframe)[^>]+src=\"(https?://[^\"]+)|<link[^>]+rel=\"stylesheet\"[^>]+href=\"(https?://[^\"]+)")
    assert not [found for page in site.rglob("*.html") for found in loads.findall(page.read_text("utf-8"))]


def public_names() -> dict[str, bool]:
    """Dotted name of each public module, class and function -> has it a docstring?"""
    names = {}
    for file in sorted((ROOT / "labelgen").rglob("*.py")):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        parsed = ast.parse(file.read_text("utf-8"))
        names[module] = bool(ast.get_docstring(parsed))
        for node in parsed.body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                names[f"{module}.{node.name}"] = bool(ast.get_docstring(node))
    return names


def test_the_reference_is_complete(site: Path) -> None:
    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, path: path)
    described = {entry for kind, entries in inventory.items() if kind.startswith("py:") for entry in entries}
    names = public_names()
    assert not sorted(names.keys() - described), "the reference lacks them"
    assert not [dotted for dotted, documented in names.items() if not documented], "no docstring"
    linked = re.findall(r"\{py:\w+\}`(?:[^<`]*<)?~?(labelgen[\w.]+)", (DOCS / "reference.md").read_text("utf-8"))
    assert linked and set(linked) <= described


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next of its rank or a higher one."""
    rank = len(heading) - len(heading.lstrip("#"))
    start = text.index(f"\n{heading}\n") + len(heading) + 2
    following = re.search(rf"^#{{1,{rank}}} ", text[start:], re.MULTILINE)
    return text[start : start + following.start()] if following else text[start:]


def test_every_setting_has_a_row(site: Path) -> None:
    assert site
    text = (DOCS / "generated" / "settings.md").read_text("utf-8")
    groups = {file.parent.name for file in config.CONF.glob("*/*.yaml")}
    for verb in config.verbs():
        part = section(text, f"## labelgen {verb}")
        needed = ["corpus=simulated"] if "corpus: ???" in (config.CONF / f"{verb}.yaml").read_text("utf-8") else []
        own = config.load_config(verb, *needed).keys() - groups - {"call", "keep_config"}
        assert not [key for key in own if f"| `{key}" not in part and f"@{key}" not in part], verb
    for file in config.CONF.glob("*/*.yaml"):
        part = section(text, f"### {file.parent.name}={file.stem}")
        keys = yaml.safe_load(file.read_text("utf-8")) or {}
        own = {
            key
            for key, value in keys.items()
            if not key.startswith("_") and key != "defaults" and not re.fullmatch(r"\$\{\w+\}", str(value))
        }
        assert not [key for key in own if f"| `{key}" not in part], file
