"""The Annotator: dialogues in, the same dialogues with labels out, as a stream. Each distinct text is encoded once.

    one thread:       dialogues -> pieces of a few thousand tokens -> tokens of the texts that are not remembered
    several threads:  piece -> batch -> states of the new texts, beside those remembered -> heads -> labels

The results come in the order given, and depend on the order alone, never on which thread was faster. One stream at a time.
"""

from __future__ import annotations

import warnings
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from labelgen.dialogue import PARTS, Dialogue, Label, Turn
from labelgen.inputs.batch import Batch, Collator, Encoding, TextEncoder, group_equal
from labelgen.inputs.features import FeatureSpace
from labelgen.metrics import Prediction
from labelgen.model.encoder import TurnEncoder
from labelgen.network import Network

A_RECORDING = 128  # tokens that one counts for in a piece, as one of 5 s would
MAX_TURNS = 4096  # the pointers of goal segmentation grow with the square of the turns: 0.5 GB here
MEMORY_BYTES = 256 * 2**20  # of the remembered states
Precision = Literal["fp32", "bf16", "int8"]
Said = dict[str, Prediction]  # what each task says of a dialogue
Item = TypeVar("Item")
Result = TypeVar("Result")


class Remembered:
    """A text: its tokens, and their states [n, D] once the piece that met it first has set `ready`; None: that piece failed."""

    __slots__ = ("encoded", "ready", "states")

    def __init__(self, encoded: Encoding, ready: Event) -> None:
        self.encoded, self.ready = encoded, ready
        self.states: Tensor | None = None

    def read(self) -> Tensor:
        """Waits for the states."""
        self.ready.wait()
        if self.states is None:
            raise RuntimeError("the piece that was to encode this text failed")
        return self.states


class Recalled(NamedTuple):
    """The texts of a piece; those in `new` are for this piece to encode, and to announce by `ready`."""

    texts: Mapping[str, Remembered]
    new: frozenset[str]
    ready: Event


class TextMemory:
    """The texts met last, as many as have `room` tokens together; the least recently used goes first.

    `met` and `encoded` count tokens: of all texts of all turns, and of those that had to be encoded.
    """

    def __init__(self, texts: TextEncoder, room: int) -> None:
        self._encode, self._room = texts, room
        self._kept: OrderedDict[str, Remembered] = OrderedDict()
        self._size = 0
        self.met = self.encoded = 0

    def recall(self, texts: Sequence[str]) -> Recalled:
        """The texts, remembered or new, and from now on remembered. A text may be named several times."""
        ready, found = Event(), {}
        for text in dict.fromkeys(texts):
            kept = self._kept.get(text)
            if kept is not None and (not kept.ready.is_set() or kept.states is not None):  # else its piece failed
                self._kept.move_to_end(text)
                found[text] = kept
        new = dict.fromkeys(text for text in texts if text not in found)
        for text, encoded in self._encode(list(new)).items():
            if failed := self._kept.pop(text, None):
                self._size -= len(failed.encoded.ids)
            found[text] = self._kept[text] = Remembered(encoded, ready)
            self._size += len(encoded.ids)
            self.encoded += len(encoded.ids)
        self.met += sum(len(found[text].encoded.ids) for text in texts)
        while self._size > self._room:
            self._size -= len(self._kept.popitem(last=False)[1].encoded.ids)
        return Recalled(found, frozenset(new), ready)

    def forget(self) -> None:
        """Starts anew: what is labelled next does not depend, in its last digits, on what was labelled before."""
        self._kept.clear()
        self._size = 0


class Annotator:
    """Labels dialogues with an exported network. `batch_tokens` bounds the memory of a piece; one dialogue is always labelled whole.

    `precision` (of the turn encoder) bf16 or int8 is another model: compare its labels (`agreement`) before you use it. With int8 they
    depend on what is labelled beside a dialogue too, since inputs share a scale.
    """

    def __init__(
        self,
        network: Network,
        features: FeatureSpace,
        fingerprint: str,
        info: Mapping[str, Any],
        device: str = "cpu",
        precision: Precision = "fp32",
        batch_tokens: int = 16_384,
    ) -> None:
        try:
            self.device = torch.device(device)
            self.network = network.eval().to(self.device)
        except (AssertionError, RuntimeError) as error:  # as torch says that there is none
            raise ValueError(f"device={device!r} cannot be used here ({str(error).splitlines()[0]}); give cpu") from None
        if precision not in get_args(Precision) or (precision == "int8" and self.device.type != "cpu"):
            raise ValueError(f"precision={precision!r} on {device}: give fp32, bf16, or on a cpu int8")
        if precision == "int8":
            self.network.encoder.turn_encoder = quantised(self.network.encoder.turn_encoder)
        if precision == "bf16":
            self.network.encoder.turn_encoder.bfloat16()
        self.info = info
        self.source = fingerprint
        self.batch_tokens = batch_tokens
        self._features = features
        self._texts = network.text_encoder()
        self._recordings = network.encoder.recordings()
        self.memory = TextMemory(self._texts, MEMORY_BYTES // (4 * network.encoder.width))

    @property
    def unusable_recordings(self) -> int:
        """Files of recordings that could not be read so far; their turns were labelled by the rest."""
        return 0 if self._recordings is None else self._recordings.unusable

    def __call__(self, dialogues: Iterable[Dialogue]) -> list[Dialogue]:
        """The dialogues with their labels, in order."""
        return list(self.stream(dialogues))

    def stream(self, dialogues: Iterable[Dialogue], reject: Callable[[Dialogue, Exception], None] | None = None) -> Iterator[Dialogue]:
        """The same, one by one, without holding them all."""
        for dialogue, said in self.predict(dialogues, reject):
            labels = [label for prediction in said.values() for label in prediction.labels]
            yield dialogue.model_copy(update={"labels": labels})

    def predict(
        self, dialogues: Iterable[Dialogue], reject: Callable[[Dialogue, Exception], None] | None = None
    ) -> Iterator[tuple[Dialogue, Said]]:
        """Each dialogue with what each task says of it, labels and probabilities; in order.

        `reject` takes a dialogue that could not be labelled, with the error, and labelling goes on; without it the first such error
        raises, and so does one that strikes any dialogue: it is not the dialogues' fault.
        """
        ended = False
        pieces = ((piece, self.memory.recall(_words(piece))) for piece in self._pieces(dialogues, reject))
        threads = torch.get_num_threads() if self.device.type == "cpu" else 2  # on a GPU: one computes, the other decodes
        try:
            for piece, said in in_order(lambda item: (item[0], self._attempt(*item)), pieces, threads):
                failed = [one for one in said if isinstance(one, Exception)]
                if failed and (reject is None or (len(failed) == len(piece) and self._is_lost())):
                    raise failed[0]
                for dialogue, one in zip(piece, said, strict=True):
                    if not isinstance(one, Exception):
                        yield dialogue, one
                    elif reject is not None:
                        reject(dialogue, one)
            ended = True
        finally:
            if not ended:  # a text that was to be encoded will not be
                self.memory.forget()

    def _is_lost(self) -> bool:
        """Does a plain dialogue fail as well, as when a device is gone?"""
        plain = Dialogue(id="plain", turns=[Turn(request="hello", response="hello")])
        return isinstance(self._attempt([plain], TextMemory(self._texts, 0).recall(["hello"]))[0], Exception)

    def _attempt(self, piece: Sequence[Dialogue], recalled: Recalled) -> list[Said | Exception]:
        """What is said of each dialogue. Where a piece fails its dialogues are tried alone, to find the one."""
        try:
            return [*self._label(piece, recalled)]
        except Exception as error:
            if len(piece) == 1:
                return [error]
        finally:
            recalled.ready.set()
        alone = TextMemory(self._texts, 0)
        return [one for dialogue in piece for one in self._attempt([dialogue], alone.recall(_words([dialogue])))]

    @torch.inference_mode()
    def _label(self, piece: Sequence[Dialogue], recalled: Recalled) -> list[Said]:
        encoded = {text: kept.encoded for text, kept in recalled.texts.items()}
        batch = Collator(lambda _: encoded, self._features, {}, recordings=self._recordings)(piece).to(self.device)
        logits = self.network(batch, self._states(batch, recalled))
        said = dict(zip(map(id, batch.dialogues), self.network.predict(logits, batch, self.source), strict=True))
        return [said[id(dialogue)] for dialogue in piece]

    def _states(self, batch: Batch, recalled: Recalled) -> Float[Tensor, "L D"]:
        """States of the batch's tokens: new texts are encoded and remembered, the others copied."""
        encode = self.network.encoder.turn_encoder
        texts = [recalled.texts[text] for text in batch.texts]
        lengths = [len(text.encoded.ids) for text in texts]
        new = [text in recalled.new for text in batch.texts]
        if all(new):
            states: Tensor = encode(batch.ids, batch.groups)
        else:
            rows = torch.from_numpy(np.repeat(new, lengths)).to(self.device)
            states = torch.empty(len(rows), encode.width, dtype=encode.dtype, device=self.device)
            if any(new):
                states[rows] = encode(batch.ids[rows], group_equal(n for n, is_new in zip(lengths, new, strict=True) if is_new))
            states[~rows] = torch.cat([text.read() for text, is_new in zip(texts, new, strict=True) if not is_new])
        if texts:
            for text, part, is_new in zip(texts, states.split(lengths), new, strict=True):
                if is_new:
                    text.states = part.clone()
        return states.float()

    def _pieces(self, dialogues: Iterable[Dialogue], reject: Callable[[Dialogue, Exception], None] | None) -> Iterator[Sequence[Dialogue]]:
        """Runs of dialogues of at most `batch_tokens` tokens, or one dialogue.

        A text counts as its bytes and two ends, up to the cut.
        """
        limit = self.network.encoder.max_tokens
        piece: list[Dialogue] = []
        size = 0
        for dialogue in dialogues:
            if not isinstance(dialogue, Dialogue):
                raise ValueError(
                    f"{type(dialogue).__name__} is no Dialogue; give several, as annotator([one]); labelgen.parse(mapping) makes one"
                )
            if len(dialogue.turns) > MAX_TURNS:
                error = ValueError(f"dialogue {dialogue.id!r} has {len(dialogue.turns):,} turns, more than {MAX_TURNS:,}; split it")
                if reject is None:
                    raise error
                reject(dialogue, error)
                continue
            texts = (turn.text(part) or "" for turn in dialogue.turns for part in PARTS)
            length = sum(min(len(text.encode()) + 2, limit) for text in texts)
            if self._recordings is not None:
                length += sum(A_RECORDING for turn in dialogue.turns if turn.audio)
            if piece and size + length > self.batch_tokens:
                yield piece
                piece, size = [], 0
            piece.append(dialogue)
            size += length
        if piece:
            yield piece


def quantised(encoder: TurnEncoder) -> TurnEncoder:
    """The encoder with linear layers in 8 bits: weights with a scale for each row, inputs with one for each product, as they come."""
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells of its successor, torchao, which is slower here
        small: TurnEncoder = quantize_dynamic(encoder, {nn.Linear: per_channel_dynamic_qconfig})
    return small


def agreement(ones: Iterable[Dialogue], others: Iterable[Dialogue]) -> dict[str, float]:
    """Task -> twice the labels that both have, over all labels of both (F1 of one against the other); confidences aside."""
    same: Counter[str] = Counter()
    every: Counter[str] = Counter()
    for one, other in zip(ones, others, strict=True):
        first, second = ({_what(label) for label in dialogue.labels or ()} for dialogue in (one, other))
        same.update(2 * [label[0] for label in first & second])
        every.update(label[0] for labels in (first, second) for label in labels)
    return {task: same[task] / count for task, count in sorted(every.items())}


def _what(label: Label) -> tuple[Any, ...]:
    return label.task, label.value, tuple(label.turns), label.part, label.start, label.end


def _words(dialogues: Sequence[Dialogue]) -> list[str]:
    """All texts of the turns, as often as they are said; never none."""
    said = (turn.text(part) for dialogue in dialogues for turn in dialogue.turns for part in PARTS)
    return [text for text in said if text is not None] or [""]


def in_order(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """`map` on several threads, each computing on one core: two of them beat one on two cores, for what is between the products.

    Reads at most two items a thread ahead.
    """
    if threads == 1:
        yield from map(function, items)
        return
    waiting: deque[Future[Result]] = deque()
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)  # what the threads set is the default of later ones
