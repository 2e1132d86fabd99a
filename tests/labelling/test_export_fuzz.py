"""Whatever an export's files hold, `load` gives an annotator that labels, or a ValueError that names the file; and it does nothing else.

The damage is signed again, as by one who knows how the fingerprint is made. Other damages, one by one, are in test_export.py.
"""

import json
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from labelgen.dialogue import Dialogue
from labelgen.inputs.pretrained import known_config
from labelgen.labelling.export import FILES, _fingerprint, load

few = settings(derandomize=True, deadline=None, database=None, max_examples=60, suppress_health_check=list(HealthCheck))
WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"
ABSURD = "which no architecture has|far larger network"
FORBIDDEN = (
    *("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.startfile", "subprocess.", "pty.", "socket.", "urllib."),
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod", "os.chown", "os.truncate", "shutil."),
    *("pickle.find_class", "tempfile.", "webbrowser.", "http.", "ftplib.", "smtplib."),
)
watching: list[bool] = []  # a hook cannot be taken out again; without an entry it records nothing
events: list[str] = []


def _record(event: str, args: tuple[Any, ...]) -> None:
    if watching and (event == "import" or event == "open" or event.startswith(FORBIDDEN)):
        read = event == "open" and (not (args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or "__pycache__" in str(args[0]))
        if not read and (event != "import" or str(args[0]).startswith("evil")):
            events.append(f"{event} {args!r}"[:200])


@contextmanager
def nothing_else_happens() -> Iterator[None]:
    """No process, no network, no file written, nothing unpickled, no module imported that a file names."""
    events.clear()
    watching.append(True)
    try:
        yield
    finally:
        watching.clear()
    assert not events


@pytest.fixture(scope="module", autouse=True)
def hook() -> None:
    """Imports first what loading may import: that opens libraries."""
    known_config({"model_type": "distilbert"}, ("input_ids",))
    sys.addaudithook(_record)


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that could be imported."""
    (tmp_path / "evil.py").write_text("class Task: ...")
    monkeypatch.syspath_prepend(str(tmp_path))


class Damaged:
    """A folder to damage again and again, and the one dialogue that it is to label."""

    def __init__(self, whole: Path, folder: Path, dialogue: Dialogue) -> None:
        self.whole, self.folder, self.dialogue = whole, folder, dialogue

    def renew(self) -> Path:
        rmtree(self.folder, ignore_errors=True)
        return copytree(self.whole, self.folder)

    def sign(self, parsed: dict[str, Any] | None = None) -> None:
        parsed = json.loads((self.folder / "config.json").read_text()) if parsed is None else parsed
        if (self.folder / WEIGHTS).is_file() and (self.folder / TOKENIZER).is_file():
            parsed["fingerprint"] = _fingerprint(self.folder, parsed)
        (self.folder / "config.json").write_text(json.dumps(parsed))

    def loads_or_is_refused(self, *names: str) -> str | None:
        """The refusal, which names one of the files (any, by default); None: it was loaded, and labels."""
        with nothing_else_happens():
            try:
                annotator = load(self.folder)
            except ValueError as error:
                refusal = str(error)
                assert any(f"{self.folder}/{name}" in refusal for name in names or FILES) or "not an export" in refusal, refusal
                return refusal
            (labelled,) = annotator([self.dialogue])
        assert labelled.labels
        return None


@pytest.fixture
def damaged(exported: Path, tmp_path: Path, dialogues: list[Dialogue], evil: None) -> Damaged:
    return Damaged(exported, tmp_path / "copy", dialogues[0])


def places(part: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths to all values."""
    inner = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


words = st.sampled_from(
    [
        *("../../etc/passwd", "/etc/passwd", "os.system", "subprocess.Popen", "evil.Task", "evil", "labelgen.tasks.evil.Task", "x.y"),
        *("labelgen.tasks.slot.SlotTask", "package:evil", "distilbert", "roberta", "relu", "", "0", "nan", "\ud800", "\0", "漢"),
        *("__class__", "_target_", "../x", "auto_map", "labels", "audio", "causal", "model_type", "num_labels", "pad_token_id"),
    ]
)
numbers = st.sampled_from([0, 1, -1, 2, 3, 7, 2**15, 2**20, 2**31, 2**63, 10**30, -(2**63)])
fractions = st.sampled_from([0.5, -1.5, 1e-320, 1e30, 1e308, float("nan"), float("inf"), -0.0])
plain = st.none() | st.booleans() | numbers | fractions | words
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=4)


def damage(tree: Any, data: st.DataObject, roots: tuple[str, ...]) -> Any:
    """The tree with one to three values left out, replaced, renamed, doubled or put one deeper."""
    tree = deepcopy(tree)
    for _ in range(data.draw(st.integers(1, 3))):
        root = data.draw(st.sampled_from(roots))
        every = [(root, *path) for path in ((), *places(tree.get(root))) if root in tree]
        if not every:
            continue
        *way, last = every[data.draw(st.integers(0, len(every) - 1))]
        inner = tree
        for key in way:
            inner = inner[key]
        kind = data.draw(st.sampled_from(["leave out", "replace", "replace", "rename", "double", "deeper"]))
        if kind == "leave out":
            del inner[last]
        elif kind == "replace":
            inner[last] = data.draw(values)
        elif kind == "deeper":
            inner[last] = data.draw(st.sampled_from([[inner[last]], {str(last): inner[last]}]))
        elif isinstance(inner, list):
            inner.append(inner[last])
        else:
            inner[data.draw(words)] = inner.pop(last) if kind == "rename" else deepcopy(inner[last])
    return tree


@few
@given(data=st.data())
def test_any_config(damaged: Damaged, data: st.DataObject) -> None:
    parsed = json.loads((damaged.renew() / "config.json").read_text())
    damaged.sign(damage(parsed, data, ("format", "encoder", "features", "tasks")))
    damaged.loads_or_is_refused()


BACKBONE: dict[str, Any] = {
    "layer_norm_eps": ("small", -1.0, float("nan")),
    "num_attention_heads": (-4, 0.5, None),
    "pad_token_id": (-900, 10**4, 0.5),
}
SETTINGS: dict[str, Any] = {
    "max_tokens": (0, -1, 1, 2.5, None),
    "dialogue_heads": (-4, 0, 2.0),
    "causal": ("yes", [], 2.5),
    "dropout": ("x", 2.0),
}
ODD: dict[str, Callable[[dict[str, Any]], Any]] = {
    **{
        f"{key} is {value!r}": lambda parsed, key=key, value=value: parsed["encoder"]["backbone"].update({key: value})
        for key, several in BACKBONE.items()
        for value in several
    },
    **{
        f"{key} is {value!r}": lambda parsed, key=key, value=value: parsed["encoder"].update({key: value})
        for key, several in SETTINGS.items()
        for value in several
    },
    "categories that are lists": lambda parsed: parsed["features"]["categorical"]["locale"].__setitem__(0, []),
    "half a character": lambda parsed: parsed["tasks"]["intent"]["labels"].__setitem__(0, "\ud800"),
}


@pytest.mark.parametrize("change", ODD)
def test_a_config_that_could_be_read_but_not_used_is_refused(change: str, damaged: Damaged) -> None:
    parsed = json.loads((damaged.renew() / "config.json").read_text())
    ODD[change](parsed)
    damaged.sign(parsed)
    assert damaged.loads_or_is_refused("config.json")


SIZES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "width": lambda encoder: encoder["backbone"].update(hidden_size=10**9),
    "width as a fraction": lambda encoder: encoder["backbone"].update(hidden_size=1e12),
    "words": lambda encoder: encoder["backbone"].update(vocab_size=10**12),
    "words and width": lambda encoder: encoder["backbone"].update(vocab_size=2**20, hidden_size=2**20, num_attention_heads=1),
    "inner width": lambda encoder: encoder["backbone"].update(intermediate_size=2**20),
    "layers": lambda encoder: encoder["backbone"].update(num_hidden_layers=10**6),
    "layers beyond counting": lambda encoder: encoder["backbone"].update(num_hidden_layers=10**12),
    "positions": lambda encoder: encoder["backbone"].update(max_position_embeddings=2**20),
    "dialogue layers": lambda encoder: encoder.update(dialogue_layers=10**6),
    "audio layers": lambda encoder: encoder.update(audio={"layers": 10**6, "width": 8, "heads": 1}),
    "audio width": lambda encoder: encoder.update(audio={"layers": 1, "width": 2**20, "heads": 1}),
    "of another library": lambda encoder: encoder.update(backbone={"model_type": "distilbert", "dim": 2**20, "vocab_size": 2**20}),
    "layers of another library": lambda encoder: encoder.update(backbone={"model_type": "distilbert", "dim": 12, "n_layers": 10**6}),
    "labels of another library": lambda encoder: encoder.update(backbone={"model_type": "distilbert", "num_labels": 10**9}),
}


@pytest.mark.parametrize("size", SIZES)
def test_an_absurd_size_is_refused_before_memory_is_asked_for(size: str, damaged: Damaged) -> None:
    parsed = json.loads((damaged.renew() / "config.json").read_text())
    SIZES[size](parsed["encoder"])
    damaged.sign(parsed)
    start = time.process_time()
    with pytest.raises(ValueError, match=rf"copy/config\.json: .*({ABSURD})"):
        load(damaged.folder)
    assert time.process_time() - start < 10.0, "it takes a moment; to build what is asked for takes hours"


@few
@given(data=st.data())
def test_any_bytes_in_a_file(damaged: Damaged, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([WEIGHTS, TOKENIZER]))
    file = damaged.renew() / name
    held = bytearray(file.read_bytes())
    head = 8 + int.from_bytes(held[:8], "little") if name == WEIGHTS else len(held)
    for _ in range(data.draw(st.integers(0, 3))):
        held[data.draw(st.integers(0, 7) | st.integers(8, head - 1) | st.integers(0, len(held) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(held[: data.draw(st.just(len(held)) | st.integers(0, len(held)))])
    damaged.sign()
    damaged.loads_or_is_refused(name, "config.json" if name == TOKENIZER else name)


KEY = "heads.intent.linear.weight"
TENSORS: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "a path for a name": lambda weights: weights.update({"../x": weights.pop(KEY)}),
    "no name": lambda weights: weights.update({"": weights.pop(KEY)}),
    "none": lambda weights: weights.clear(),
    "another shape": lambda weights: weights.update({KEY: weights[KEY].T.contiguous()}),
    "no numbers": lambda weights: weights.update({KEY: torch.zeros(0)}),
    "too large for single precision": lambda weights: weights.update({KEY: weights[KEY].double() * 1e300}),
    "so large that sums overflow": lambda weights: weights[KEY].fill_(3e38),
    "infinite in eight bits": lambda weights: weights.update({KEY: torch.full_like(weights[KEY], torch.inf).to(torch.float8_e5m2)}),
}


@pytest.mark.parametrize("change", TENSORS)
def test_weights_that_are_no_weights_are_refused(change: str, damaged: Damaged) -> None:
    weights = load_file(damaged.renew() / WEIGHTS)
    TENSORS[change](weights)
    save_file(weights, damaged.folder / WEIGHTS)
    damaged.sign()
    refusal = damaged.loads_or_is_refused()
    assert refusal
    assert WEIGHTS in refusal


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_read(kind: torch.dtype, damaged: Damaged) -> None:
    weights = load_file(damaged.renew() / WEIGHTS)
    save_file({key: value.to(kind) if value.is_floating_point() else value for key, value in weights.items()}, damaged.folder / WEIGHTS)
    damaged.sign()
    assert damaged.loads_or_is_refused() is None


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


def lies(length: int) -> Callable[[Path], Any]:
    """The file says that its header has this length."""
    return lambda file: file.write_bytes(length.to_bytes(8, "little") + file.read_bytes()[8:])


def linked(target: str) -> Callable[[Path], Any]:
    """A link in the place of the file."""

    def link(file: Path) -> None:
        file.unlink()
        file.symlink_to(target)

    return link


def pipe(file: Path) -> None:
    """In the place of the file; to open it would wait for ever."""
    file.unlink()
    os.mkfifo(file)


FORGERIES: dict[str, Callable[[Path], Any]] = {
    "empty": lambda file: file.write_bytes(b""),
    "a pickle": lambda file: file.write_bytes(pickle.dumps(Runs())),
    "a checkpoint": lambda file: torch.save({"x": torch.zeros(3)}, file),
    "a text": lambda file: file.write_text("[]"),
    "no header": lies(0),
    "a longer header": lies(2**20),
    "an endless header": lies(2**63),
    "a shorter header": lies(100),
    "a link to another file": linked("/etc/passwd"),
    "a link to a folder": linked("/tmp"),
    "a link to itself": linked("model.safetensors"),
    "a link to a device": linked("/dev/zero"),
    "a pipe": pipe,
}


@pytest.mark.parametrize("name", [WEIGHTS, TOKENIZER, "config.json"])
@pytest.mark.parametrize("forgery", FORGERIES)
def test_another_thing_in_the_place_of_a_file_is_refused(forgery: str, name: str, damaged: Damaged) -> None:
    file = damaged.renew() / name
    FORGERIES[forgery](file)
    if name != "config.json":
        damaged.sign()
    refusal = damaged.loads_or_is_refused()
    assert refusal, "it is not what it should be"
    assert name in refusal


@few
@given(data=st.data())
def test_any_tokenizer(damaged: Damaged, data: st.DataObject) -> None:
    parsed = json.loads((damaged.renew() / TOKENIZER).read_text())
    (damaged.folder / TOKENIZER).write_text(json.dumps(damage(parsed, data, tuple(parsed))))
    damaged.sign()
    damaged.loads_or_is_refused(TOKENIZER, "config.json")


def step(kind: str, **held: Any) -> dict[str, Any]:
    return {"type": kind, **held}


def template(*ids: int, texts: int = 1) -> dict[str, Any]:
    """A post-processor that puts tokens before the text, which it says several times."""
    said, special = [{"Sequence": {"id": "A", "type_id": 0}}] * texts, {"SpecialToken": {"id": "x", "type_id": 0}}
    held = {"x": {"id": "x", "ids": ids, "tokens": ["x"] * len(ids)}}
    return step("TemplateProcessing", single=[special, *said], pair=[special, *said], special_tokens=held)


def split(expression: str) -> dict[str, Any]:
    return step("Split", pattern={"Regex": expression}, behavior="Isolated", invert=False)


ALL_BYTES = step("ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=False)
DOUBLED = step("Replace", pattern={"String": "o"}, content="oo")
TOKENIZERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "more tokens than the encoder has": lambda parsed: parsed["model"]["vocab"].update({f"word {k}": 1000 + k for k in range(5000)}),
    "a token of a large number": lambda parsed: parsed["model"]["vocab"].update(q=2**32 - 1),
    "merges of what is not there": lambda parsed: parsed["model"].update(merges=["zz zz"]),
    "merges that panic": lambda parsed: parsed["model"].update(vocab={"a": 0}, merges=["a a"], continuing_subword_prefix="###"),
    "no unknown token": lambda parsed: parsed.update(model=step("WordLevel", unk_token="x", vocab={"a": 0})),
    "an unknown token beyond": lambda parsed: parsed.update(model=step("Unigram", unk_id=9, vocab=[["a", 0.0]])),
    "special tokens beyond": lambda parsed: parsed.update(post_processor=template(10**6)),
    "more special tokens than are read": lambda parsed: parsed.update(post_processor=template(*range(200))),
    "every text twice": lambda parsed: parsed.update(post_processor=template(1, texts=2)),
    "an expression of one character": lambda parsed: parsed.update(
        normalizer=step("Replace", pattern={"Regex": "."}, content="x" * 14_000)
    ),
    "a chain of prefixes": lambda parsed: parsed.update(normalizer=step("Sequence", normalizers=[step("Prepend", prepend="▁")] * 3000)),
    "a huge template": lambda parsed: parsed.update(post_processor=template(*[0] * 10_000)),
    "an expression that never ends": lambda parsed: parsed.update(pre_tokenizer=split(r"(.+)+\S$")),
    "a text that doubles": lambda parsed: parsed.update(normalizer=step("Sequence", normalizers=[DOUBLED] * 60)),
    "bytes of bytes": lambda parsed: parsed.update(pre_tokenizer=step("Sequence", pretokenizers=[ALL_BYTES] * 60)),
    "no expression": lambda parsed: parsed.update(pre_tokenizer=split("(")),
    "pieces of no length": lambda parsed: parsed.update(pre_tokenizer=step("FixedLength", length=0)),
    "a table that is none": lambda parsed: parsed.update(normalizer=step("Precompiled", precompiled_charsmap="AAAA")),
    "an unknown step": lambda parsed: parsed.update(normalizer=step("Evil", path="../x")),
}


@pytest.mark.parametrize("change", TOKENIZERS)
def test_a_tokenizer_that_does_not_work_is_refused(change: str, damaged: Damaged) -> None:
    parsed = json.loads((damaged.renew() / TOKENIZER).read_text())
    TOKENIZERS[change](parsed)
    (damaged.folder / TOKENIZER).write_text(json.dumps(parsed))
    damaged.sign()
    refusal = damaged.loads_or_is_refused()
    assert refusal
    assert "tokenizer" in refusal
