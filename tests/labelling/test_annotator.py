"""Labels do not depend on how they are computed: remembered texts, threads, pieces; what fails is found, and the rest is labelled."""

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import labelgen
from labelgen.dialogue import Dialogue, Label, Turn
from labelgen.inputs.batch import Group
from labelgen.labelling.annotator import Annotator, StateCache, agreement, in_order
from labelgen.model.encoder import Encoder
from labelgen.network import Network
from labelgen.tasks.intent import Intent


@pytest.fixture
def annotator(exported: Path) -> Annotator:
    """Small pieces: many for a dozen dialogues."""
    made = labelgen.load(exported)
    made.batch_tokens = 600
    return made


@pytest.fixture
def repetitive(dialogues: list[Dialogue]) -> list[Dialogue]:
    """Dialogues that say again what others said."""
    return [d.model_copy(update={"id": f"{d.id} {k}"}) for k in range(3) for d in random.Random(k).sample(dialogues, len(dialogues))]


def same(found: list[Dialogue], wanted: list[Dialogue]) -> None:
    """The same labels, confidences to 1e-5."""
    assert [dialogue.id for dialogue in found] == [dialogue.id for dialogue in wanted]
    for one, other in zip(found, wanted, strict=True):
        for label, right in zip(one.labels or (), other.labels or (), strict=True):
            assert label.model_copy(update={"confidence": 0.0}) == right.model_copy(update={"confidence": 0.0})
            assert label.confidence == pytest.approx(right.confidence, abs=1e-5)


def test_remembering_changes_nothing_and_encodes_a_text_once(exported: Path, annotator: Annotator, repetitive: list[Dialogue]) -> None:
    found = annotator(repetitive)
    forgetful = labelgen.load(exported)
    forgetful.cache = StateCache(forgetful._texts, 0)
    wanted = [labelled for dialogue in repetitive for labelled in forgetful([dialogue])]
    same(found, wanted)
    texts = {text for d in repetitive for turn in d.turns for text in (turn.request, turn.response) if text is not None}
    once = sum(len(encoded.ids) for encoded in annotator._texts(texts).values())
    assert annotator.cache.tokens_encoded == once < forgetful.cache.tokens_encoded
    assert annotator.cache.tokens_requested == forgetful.cache.tokens_requested > 2 * once


def test_the_memory_is_bounded_and_forgets_the_oldest(annotator: Annotator) -> None:
    size = len(annotator._texts(["alpha"])["alpha"].ids)
    cache = StateCache(annotator._texts, 2 * size)
    for text in ("alpha", "gamma", "alpha", "delta"):  # of equal length
        cache.get([text])
    assert cache.tokens_encoded == 3 * size
    cache.get(["alpha"])
    assert cache.tokens_encoded == 3 * size, "used last, kept"
    cache.get(["gamma"])
    assert cache.tokens_encoded == 4 * size, "used longest ago, forgotten"


def test_a_text_is_remembered_while_it_becomes_ready(annotator: Annotator) -> None:
    """Its states are there before it is said to be ready: whoever looks in between finds it."""

    class Ready(threading.Event):
        def is_set(self) -> bool:
            (kept,) = cache._cached.values()
            kept.states = torch.zeros(1)  # the other thread ends just now
            return True

    cache = StateCache(annotator._texts, 100)
    (kept,) = cache.get(["alpha"]).texts.values()
    kept.ready = Ready()
    assert not cache.get(["alpha"]).new


def test_half_the_digits_are_near_and_a_text_is_remembered_in_half_the_memory(
    exported: Path, annotator: Annotator, dialogues: list[Dialogue]
) -> None:
    small = labelgen.load(exported, precision="bf16")
    assert min(agreement(annotator(dialogues), small(dialogues)).values()) > 0.8
    assert {text.states.dtype for text in small.cache._cached.values() if text.states is not None} == {torch.bfloat16}


def test_threads_give_the_same_bits(exported: Path, repetitive: list[Dialogue], monkeypatch: pytest.MonkeyPatch) -> None:
    def label(threads: int) -> list[Dialogue]:
        made = labelgen.load(exported)
        made.batch_tokens = 600
        torch.set_num_threads(threads)
        try:
            return made(repetitive)
        finally:
            assert torch.get_num_threads() == threads, "left as it was"
            torch.set_num_threads(1)

    assert label(3) == label(1)


def test_after_forgetting_labels_depend_on_nothing_before(annotator: Annotator, repetitive: list[Dialogue]) -> None:
    first = annotator(repetitive[12:])
    annotator(repetitive[:12])
    annotator.cache.clear()
    assert annotator(repetitive[12:]) == first


class Broken(Intent):
    """Stumbles over one dialogue."""

    def decode(self, probabilities: Any, dialogue: Dialogue, *rest: Any) -> Any:
        if dialogue.turns[0].request == "stumble":
            raise ZeroDivisionError("over this")
        return super().decode(probabilities, dialogue, *rest)


@pytest.mark.parametrize("threads", [1, 3])
def test_one_that_fails_goes_aside_and_the_others_are_labelled(
    annotator: Annotator, repetitive: list[Dialogue], network: Network, threads: int
) -> None:
    annotator.network.tasks["intent"] = Broken(labels=annotator.network.tasks["intent"].labels)
    bad = Dialogue(id="bad", turns=[Turn(request="stumble", response=repetitive[0].turns[0].response)])
    long = Dialogue(id="long", turns=[Turn(request="a")] * 4097)
    given = [*repetitive[:5], bad, *repetitive[5:], long]
    aside: list[tuple[str, str]] = []
    torch.set_num_threads(threads)
    try:
        found = list(annotator.stream(given, lambda dialogue, error: aside.append((dialogue.id, str(error)))))
    finally:
        torch.set_num_threads(1)
    assert [dialogue.id for dialogue in found] == [dialogue.id for dialogue in repetitive]
    assert [name for name, _ in aside] == ["bad", "long"]
    assert "over this" in aside[0][1]
    assert "4,097 turns" in aside[1][1]
    assert "split it" in aside[1][1]
    annotator.cache.clear()
    annotator.network.tasks["intent"] = Intent(labels=annotator.network.tasks["intent"].labels)
    same(found, annotator(repetitive))
    with pytest.raises(ValueError, match="split it"):
        annotator([long])


def test_what_every_dialogue_fails_on_is_nobodys_fault(
    annotator: Annotator, dialogues: list[Dialogue], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any) -> Any:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(Encoder, "forward", lost)
    with pytest.raises(RuntimeError, match="the device is gone"):
        list(annotator.stream(dialogues, lambda dialogue, error: None))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_stream_that_is_left_harms_nothing(annotator: Annotator, repetitive: list[Dialogue], threads: int) -> None:
    def failing() -> Iterator[Dialogue]:
        yield from repetitive[:20]
        raise OSError("the disk is gone")

    torch.set_num_threads(threads)
    try:
        next(annotator.stream(repetitive))
        with pytest.raises(OSError, match="disk is gone"):
            annotator(failing())
        left: list[list[Dialogue]] = []
        again = threading.Thread(target=lambda: left.append(annotator(repetitive)), daemon=True)
        again.start()
        again.join(60)
        assert not again.is_alive(), "waits for texts that nobody encodes"
        same(left[0], annotator(repetitive))
        list(in_order(str, range(3), threads + 1))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(1)


def test_two_bad_ones_that_fill_a_piece_are_no_lost_device(annotator: Annotator, dialogues: list[Dialogue]) -> None:
    annotator.network.tasks["intent"] = Broken(labels=annotator.network.tasks["intent"].labels)
    bad = [Dialogue(id=name, turns=[Turn(request="stumble")]) for name in ("a", "b")]
    aside: list[str] = []
    assert not list(annotator.stream(bad, lambda dialogue, error: aside.append(dialogue.id)))
    assert aside == ["a", "b"]


def test_a_text_of_megabytes_is_cut_before_it_is_tokenised(annotator: Annotator) -> None:
    text = "word and " * 300_000
    assert annotator._texts([text])[text].ids.tolist() == annotator._texts([text[:20_000]])[text[:20_000]].ids.tolist()


@pytest.mark.parametrize("threads", [1, 2])
def test_items_are_taken_as_they_are_needed(threads: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for k in range(100):
            taken.append(k)
            yield k

    stream = in_order(lambda k: k * k, items(), threads)
    assert [next(stream) for _ in range(3)] == [0, 1, 4]
    assert len(taken) <= 3 + 2 * threads + 1
    stream.close()


def test_eight_bits_are_near_and_agreement_says_how_near(exported: Path, annotator: Annotator, dialogues: list[Dialogue]) -> None:
    small = labelgen.load(exported, device="cpu:0", precision="int8")
    texts = annotator._texts(["a table for two", "it rains"])
    states = []
    for made in (annotator, small):
        encoder = made.network.encoder.turn_encoder
        states.append(torch.cat([encoder(torch.from_numpy(text.ids).long(), [Group(1, len(text.ids))]) for text in texts.values()]))
    assert 0 < (states[0] - states[1]).abs().max() < 0.2 * states[0].abs().max(), "another model, not far off"
    found = agreement(annotator(dialogues), small(dialogues))
    assert found.keys() == set(annotator.network.tasks)
    assert min(found.values()) > 0.5
    with pytest.raises(ValueError, match="fp32, bf16, or on a cpu int8"):
        labelgen.load(exported, precision="fp4")  # type: ignore[arg-type]


def test_agreement_is_f1_between_labels() -> None:
    def said(*values: str) -> Dialogue:
        labels = [Label(task="intent", value=value, turns=[t], confidence=0.5, source="") for t, value in enumerate(values)]
        return Dialogue(id="a", turns=[Turn()] * 3, labels=labels)

    assert agreement([said("a", "b")], [said("a", "b")]) == {"intent": 1.0}
    assert agreement([said("a", "b", "c")], [said("a")]) == {"intent": pytest.approx(2 * 1 / (3 + 1))}
    assert agreement([said("a", "b")], [said("b", "a")]) == {"intent": 0.0}, "of the same turn"
