"""Cached states states: as computed, computed once, under the fingerprint of all they depend on, never half written."""

import logging
import os
import pickle
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labelgen.dialogue import Dialogue
from labelgen.inputs.batch import Batch, Collator, Encoding
from labelgen.model.encoder import Encoder
from labelgen.training import cache
from labelgen.training.cache import FrozenStates
from labelgen.training.data import texts_of

HALF = {"rtol": 2e-3, "atol": 2e-3}  # states are kept in 16 bits


def frozen_states(encoder: Encoder, collate: Collator, dialogues: list[Dialogue], folder: Path) -> FrozenStates:
    states = FrozenStates(encoder.turn_encoder, collate.texts([text for dialogue in dialogues for text in texts_of(dialogue)]), folder)
    states.prepare(torch.device("cpu"))
    states.open()
    return states


def cached_batch(encoder: Encoder, collate: Collator, dialogues: list[Dialogue], folder: Path) -> Batch:
    states = frozen_states(encoder, collate, dialogues, folder)
    return Collator(collate.texts, collate.features, collate.targets, states)(dialogues)


@pytest.mark.parametrize("frozen", [1, 2])
def test_cached_states_are_the_computed_ones(
    frozen: int, make_encoder: Callable[..., Encoder], collate: Collator, dialogues: list[Dialogue], tmp_path: Path
) -> None:
    encoder = make_encoder(frozen_layers=frozen)
    batch = cached_batch(encoder, collate, dialogues[:4], tmp_path)
    plain = collate(dialogues[:4])
    assert batch.frozen_states is not None
    torch.testing.assert_close(batch.frozen_states.float(), encoder.turn_encoder.frozen_states(plain.ids, plain.groups), **HALF)
    for found, wanted in zip(encoder(batch), encoder(plain), strict=True):
        torch.testing.assert_close(found, wanted, **HALF)


def test_gradients_above_the_cache_are_those_without_it(
    make_encoder: Callable[..., Encoder], collate: Collator, dialogues: list[Dialogue], tmp_path: Path
) -> None:
    gradients: list[dict[str, torch.Tensor]] = []
    for read in (lambda encoder: cached_batch(encoder, collate, dialogues[:2], tmp_path), lambda encoder: collate(dialogues[:2])):
        encoder = make_encoder(frozen_layers=1)
        encoder(read(encoder)).utterances.square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in encoder.named_parameters() if parameter.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert any(name.startswith("turn_encoder.backbone.layers.1") for name in gradients[0])
    assert not any(name.startswith("turn_encoder.backbone.layers.0") for name in gradients[0])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], **HALF)


def test_a_second_run_computes_nothing(
    make_encoder: Callable[..., Encoder], collate: Collator, dialogues: list[Dialogue], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = frozen_states(make_encoder(frozen_layers=1), collate, dialogues[:2], tmp_path)
    monkeypatch.delattr(cache, "compute")
    again = frozen_states(make_encoder(frozen_layers=1), collate, dialogues[:2], tmp_path)
    assert first.states is not None and again.states is not None
    assert np.array_equal(first.states, again.states)
    assert first.rows == again.rows


def test_the_fingerprint_knows_what_the_states_depend_on(
    make_encoder: Callable[..., Encoder], tiny: dict[str, Any], collate: Collator, dialogues: list[Dialogue]
) -> None:
    def key(encoder: Encoder, texts: list[str]) -> str:
        tokens = collate.texts(texts)
        return cache.fingerprint(encoder.turn_encoder, [tokens[text].ids for text in texts])

    texts = texts_of(dialogues[0])
    encoder = make_encoder(frozen_layers=1)
    assert key(encoder, texts) == key(make_encoder(frozen_layers=1), texts)
    others = [key(encoder, texts[1:]), key(encoder, texts[::-1]), key(make_encoder(frozen_layers=2), texts)]
    heads = {**tiny["backbone"], "num_attention_heads": 4}  # the same weights, other states
    others.append(key(make_encoder(frozen_layers=1, backbone=heads), texts))
    for change in ("word_embeddings.weight", "layers.0.attention_output.bias"):
        changed = make_encoder(frozen_layers=1)
        changed.turn_encoder.backbone.get_parameter(change).data[0] += 1
        others.append(key(changed, texts))
    assert len({key(encoder, texts), *others}) == 1 + len(others)
    above = make_encoder(frozen_layers=1)
    above.turn_encoder.backbone.get_parameter("layers.1.attention_output.bias").data[0] += 1
    assert key(above, texts) == key(encoder, texts), "what learns does not matter"


def test_a_killed_run_leaves_no_file_under_the_name(
    make_encoder: Callable[..., Encoder], collate: Collator, dialogues: list[Dialogue], tmp_path: Path
) -> None:
    encoder = make_encoder(frozen_layers=1).train()
    hook = encoder.turn_encoder.backbone.layers[0].register_forward_hook(lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        frozen_states(encoder, collate, dialogues[:2], tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert encoder.turn_encoder.training
    hook.remove()
    assert len(frozen_states(encoder, collate, dialogues[:2], tmp_path).rows)


def test_a_full_disk_is_told_before_the_work(
    make_encoder: Callable[..., Encoder], collate: Collator, dialogues: list[Dialogue], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(ValueError, match=r"do not fit; set data\.cache"):
        frozen_states(make_encoder(frozen_layers=1), collate, dialogues[:1], tmp_path)


def test_states_beyond_sixteen_bits_are_refused(
    make_encoder: Callable[..., Encoder], collate: Collator, dialogues: list[Dialogue], tmp_path: Path
) -> None:
    encoder = make_encoder(frozen_layers=1)
    hook = encoder.turn_encoder.backbone.layers[0].register_forward_hook(lambda module, given, out: out * 1e9)
    with pytest.raises(ValueError, match=r"data\.cache=null"):
        frozen_states(encoder, collate, dialogues[:1], tmp_path)
    assert list(tmp_path.iterdir()) == []
    hook.remove()


def test_files_of_dead_processes_are_removed_and_no_others(
    make_encoder: Callable[..., Encoder], collate: Collator, dialogues: list[Dialogue], tmp_path: Path
) -> None:
    frozen_states(make_encoder(frozen_layers=1), collate, dialogues[:1], tmp_path)
    [path] = tmp_path.iterdir()
    path.unlink()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    stale, running = (path.with_name(f"{path.stem}.{platform.node()}.{number}") for number in (ended.pid, os.getppid()))
    other = path.with_name(f"{path.stem}.another-machine.{ended.pid}")
    for file in (stale, running, other):
        file.touch()
    frozen_states(make_encoder(frozen_layers=1), collate, dialogues[:1], tmp_path)
    assert set(tmp_path.iterdir()) == {path, running, other}


def test_texts_without_any_token_have_no_states(make_encoder: Callable[..., Encoder], collate: Collator, tmp_path: Path) -> None:
    encoder = make_encoder(frozen_layers=1)
    tokens = dict(collate.texts(["yes"])) | {"": Encoding(np.zeros(0, np.int32), np.zeros((0, 2), np.int32))}
    states = FrozenStates(encoder.turn_encoder, tokens, tmp_path)
    states.prepare(torch.device("cpu"))
    states.open()
    assert states([""]).shape == (0, encoder.turn_encoder.width)
    assert len(states(["", "yes"])) == len(tokens["yes"].ids)


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"", lambda raw: flip(raw, 300), lambda raw: flip(raw, -5)]
)
def test_a_damaged_file_is_computed_again(
    damage: Callable[[bytes], bytes],
    make_encoder: Callable[..., Encoder],
    collate: Collator,
    dialogues: list[Dialogue],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    states = frozen_states(make_encoder(frozen_layers=1), collate, dialogues[:1], tmp_path)
    whole = states.path.read_bytes()
    states.path.write_bytes(damage(whole))
    frozen_states(make_encoder(frozen_layers=1), collate, dialogues[:1], tmp_path)
    assert "computing it again" in caplog.text
    assert states.path.read_bytes() == whole


def flip(raw: bytes, position: int) -> bytes:
    changed = bytearray(raw)
    changed[position] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("size", [0, 200, 5000, None])
def test_a_file_cut_after_it_was_verified_is_a_value_error(
    size: int | None, make_encoder: Callable[..., Encoder], collate: Collator, dialogues: list[Dialogue], tmp_path: Path
) -> None:
    states = frozen_states(make_encoder(frozen_layers=1), collate, dialogues[:1], tmp_path)
    if size is None:
        states.path.unlink()
    else:
        states.path.write_bytes(states.path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"\.npy: not readable .*delete it, the next start computes it again"):
        states.open()


def test_another_shape_is_a_value_error(
    make_encoder: Callable[..., Encoder], collate: Collator, dialogues: list[Dialogue], tmp_path: Path
) -> None:
    states = frozen_states(make_encoder(frozen_layers=1), collate, dialogues[:1], tmp_path)
    np.save(states.path, np.zeros((3, 2), np.float16))
    with pytest.raises(ValueError, match=r"holds \(3, 2\)"):
        states.open()


def test_it_is_computed_where_it_is_asked_for_and_the_encoder_returns(
    make_encoder: Callable[..., Encoder], collate: Collator, dialogues: list[Dialogue], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where: list[torch.device] = []
    monkeypatch.setattr(cache, "compute", lambda turn, ids, path: where.append(next(turn.parameters()).device))
    encoder = make_encoder(frozen_layers=1)
    texts = collate.texts(texts_of(dialogues[0]))
    states = FrozenStates(encoder.turn_encoder, texts, tmp_path)
    monkeypatch.setattr(encoder.turn_encoder, "to", lambda device: where.append(device) or encoder.turn_encoder)
    states.prepare(torch.device("meta"))
    assert where == [torch.device("meta"), torch.device("cpu"), torch.device("cpu")], "there, computed, and home"


def test_progress_on_no_terminal_is_a_few_lines(
    make_encoder: Callable[..., Encoder],
    collate: Collator,
    dialogues: list[Dialogue],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cache, "TOKENS_PER_STEP", 1)
    with caplog.at_level(logging.INFO):
        frozen_states(make_encoder(frozen_layers=1), collate, dialogues[:2], tmp_path)
    lines = [record.message for record in caplog.records if record.message.startswith("frozen layers: ")]
    assert 5 <= len(lines) <= 10, "there are ten tenths, and a text may pass more than one"
    assert "\r" not in capsys.readouterr().err, "no bar"


def test_a_worker_opens_the_file_for_itself(
    make_encoder: Callable[..., Encoder], collate: Collator, dialogues: list[Dialogue], tmp_path: Path
) -> None:
    states = frozen_states(make_encoder(frozen_layers=1), collate, dialogues[:2], tmp_path)
    sent = pickle.dumps(states)
    assert len(sent) < states.path.stat().st_size / 2
    text = texts_of(dialogues[0])[0]
    assert np.array_equal(pickle.loads(sent)([text]), states([text]))
