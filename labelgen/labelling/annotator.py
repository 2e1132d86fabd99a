"""The Annotator: dialogues in, the same dialogues with labels out, as a stream. Each distinct text is encoded once.

    one thread:       dialogues -> pieces of a few thousand tokens -> tokens of the texts that are not cached
    several threads:  piece -> batch -> states of the new texts, and of the cached ones -> heads -> labels

Results come in the order given and depend on that order alone, not on which thread is faster. One stream at a time.
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

from labelgen.dialogue import PARTS, Dialogue, Label, Part, Turn
from labelgen.inputs.batch import Batch, Collator, Encoding, TextEncoder, group_equal
from labelgen.inputs.features import FeatureSpace
from labelgen.metrics import Prediction
from labelgen.model.encoder import TurnEncoder
from labelgen.network import Network

RECORDING_TOKENS = 128  # a recording counts as so many tokens of a piece, as one of 5 s would
MAX_TURNS = 4096  # the pointers of goal segmentation grow with the square of the turns: 0.5 GB here
CACHE_BYTES = 256 * 2**20  # of states
Precision = Literal["fp32", "bf16", "int8"]
Predictions = dict[str, Prediction]  # of a dialogue: task -> prediction
RejectDialogue = Callable[[Dialogue, Exception], None]
Item = TypeVar("Item")
Result = TypeVar("Result")


class CachedText:
    """A text: its tokens and their states [n, D]. The first piece that holds it computes the states, then sets `ready`.

    If the states are still None, that piece failed.
    """

    __slots__ = ("encoded", "ready", "states")

    def __init__(self, encoded: Encoding, ready: Event) -> None:
        self.encoded, self.ready = encoded, ready
        self.states: Tensor | None = None

    def wait(self) -> Tensor:
        """The states, as soon as they are ready."""
        self.ready.wait()
        if self.states is None:
            raise RuntimeError("the piece that was to encode this text failed")
        return self.states


class PieceTexts(NamedTuple):
    """The texts of a piece. The piece encodes those in `new`, then sets `ready`."""

    texts: Mapping[str, CachedText]
    new: frozenset[str]
    ready: Event


class Piece(NamedTuple):
    """Dialogues that make one batch, and their texts."""

    dialogues: Sequence[Dialogue]
    texts: PieceTexts


class LabelledPiece(NamedTuple):
    """Dialogues, and for each its predictions or the error."""

    dialogues: Sequence[Dialogue]
    results: list[Predictions | Exception]


class StateCache:
    """Tokens and states of the latest texts, up to `capacity` tokens together; the least recently used text is dropped first.

    `tokens_requested` and `tokens_encoded` count the tokens of all texts, and of those that were not cached.
    """

    def __init__(self, encode: TextEncoder, capacity: int) -> None:
        self._encode, self._capacity = encode, capacity
        self._cached: OrderedDict[str, CachedText] = OrderedDict()
        self._size = 0
        self.tokens_requested = self.tokens_encoded = 0

    def get(self, texts: Sequence[str]) -> PieceTexts:
        """The texts, cached or new. New ones enter the cache. A text may occur several times."""
        ready, found = Event(), {}
        for text in dict.fromkeys(texts):
            cached = self._cached.get(text)
            if cached is not None and (not cached.ready.is_set() or cached.states is not None):  # otherwise its piece failed
                self._cached.move_to_end(text)
                found[text] = cached
        new = dict.fromkeys(text for text in texts if text not in found)
        for text, encoded in self._encode(list(new)).items():
            if failed := self._cached.pop(text, None):
                self._size -= len(failed.encoded.ids)
            found[text] = self._cached[text] = CachedText(encoded, ready)
            self._size += len(encoded.ids)
            self.tokens_encoded += len(encoded.ids)
        self.tokens_requested += sum(len(found[text].encoded.ids) for text in texts)
        while self._size > self._capacity:
            self._size -= len(self._cached.popitem(last=False)[1].encoded.ids)
        return PieceTexts(found, frozenset(new), ready)

    def clear(self) -> None:
        """Empties the cache, so that the last digits of the next labels do not depend on what was labelled before."""
        self._cached.clear()
        self._size = 0


class Annotator:
    """Labels dialogues with an exported network. `batch_tokens` bounds the memory of a piece; one dialogue is always labelled whole.

    With a `precision` (of the turn encoder) of bf16 or int8 the model is another one: compare its labels (`agreement`) before you use it.
    With int8 labels also depend on the other dialogues of the piece, because their inputs share a scale.
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
        except (AssertionError, RuntimeError) as error:  # torch raises either if there is no such device
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
        self.cache = StateCache(self._texts, CACHE_BYTES // (4 * network.encoder.width))

    @property
    def unusable_recordings(self) -> int:
        """The number of recordings that could not be read so far. Their turns were labelled without them."""
        return 0 if self._recordings is None else self._recordings.unusable

    def __call__(self, dialogues: Iterable[Dialogue]) -> list[Dialogue]:
        """The dialogues with their labels, in order."""
        return list(self.stream(dialogues))

    def stream(self, dialogues: Iterable[Dialogue], reject: RejectDialogue | None = None) -> Iterator[Dialogue]:
        """Yields the dialogues with their labels one by one, without holding them all."""
        for dialogue, predictions in self.predict(dialogues, reject):
            labels = [label for prediction in predictions.values() for label in prediction.labels]
            yield dialogue.model_copy(update={"labels": labels})

    def predict(self, dialogues: Iterable[Dialogue], reject: RejectDialogue | None = None) -> Iterator[tuple[Dialogue, Predictions]]:
        """Each dialogue with the predictions of each task, labels and probabilities, in order.

        `reject` takes a dialogue that could not be labelled, with the error, and labelling continues. Without it the first such error
        raises; an error that any dialogue would cause always raises.
        """
        finished = False
        threads = torch.get_num_threads() if self.device.type == "cpu" else 2  # on a GPU: one computes, the other decodes
        try:
            for piece, results in in_order(self._label_piece, self._encoded_pieces(dialogues, reject), threads):
                failed = [result for result in results if isinstance(result, Exception)]
                if failed and (reject is None or (len(failed) == len(piece) and self._always_fails())):
                    raise failed[0]
                for dialogue, result in zip(piece, results, strict=True):
                    if not isinstance(result, Exception):
                        yield dialogue, result
                    elif reject is not None:
                        reject(dialogue, result)
            finished = True
        finally:
            if not finished:  # some of the cached texts will never be encoded
                self.cache.clear()

    def _always_fails(self) -> bool:
        """Whether even a plain dialogue fails, for example because a device is lost."""
        plain = Dialogue(id="plain", turns=[Turn(request="hello", response="hello")])
        return isinstance(self._attempt([plain], StateCache(self._texts, 0).get(["hello"]))[0], Exception)

    def _encoded_pieces(self, dialogues: Iterable[Dialogue], reject: RejectDialogue | None) -> Iterator[Piece]:
        """Pieces with the tokens of their texts. If the tokenizer fails, each dialogue is tried alone, and those at fault are rejected."""
        for piece in self._pieces(dialogues, reject):
            try:
                texts = self.cache.get(_texts_of(piece))
            except Exception:
                yield from filter(None, (self._encoded_alone(dialogue, reject) for dialogue in piece))
            else:
                yield Piece(piece, texts)

    def _encoded_alone(self, dialogue: Dialogue, reject: RejectDialogue | None) -> Piece | None:
        try:
            return Piece([dialogue], self.cache.get(_texts_of([dialogue])))
        except Exception as error:
            if reject is None:
                raise
            self._texts(["hello"])  # raises if the tokenizer fails on every text
            reject(dialogue, error)
            return None

    def _label_piece(self, piece: Piece) -> LabelledPiece:
        return LabelledPiece(piece.dialogues, self._attempt(*piece))

    def _attempt(self, dialogues: Sequence[Dialogue], texts: PieceTexts) -> list[Predictions | Exception]:
        """The predictions for each dialogue, or its error. If a piece fails, each of its dialogues is tried alone."""
        try:
            return [*self._label(dialogues, texts)]
        except Exception as error:
            if len(dialogues) == 1:
                return [error]
        finally:
            texts.ready.set()
        alone = StateCache(self._texts, 0)
        return [result for dialogue in dialogues for result in self._attempt([dialogue], alone.get(_texts_of([dialogue])))]

    @torch.inference_mode()
    def _label(self, dialogues: Sequence[Dialogue], texts: PieceTexts) -> list[Predictions]:
        encoded = {text: cached.encoded for text, cached in texts.texts.items()}
        batch = Collator(lambda _: encoded, self._features, {}, recordings=self._recordings)(dialogues).to(self.device)
        logits = self.network(batch, self._states(batch, texts))
        predictions = dict(zip(map(id, batch.dialogues), self.network.predict(logits, batch, self.source), strict=True))
        return [predictions[id(dialogue)] for dialogue in dialogues]

    def _states(self, batch: Batch, piece: PieceTexts) -> Float[Tensor, "L D"]:
        """States of the batch's tokens: new texts are encoded and cached, the others copied."""
        encode = self.network.encoder.turn_encoder
        texts = [piece.texts[text] for text in batch.texts]
        lengths = [len(text.encoded.ids) for text in texts]
        new = [text in piece.new for text in batch.texts]
        if all(new):
            states: Tensor = encode(batch.ids, batch.groups)
        else:
            rows = torch.from_numpy(np.repeat(new, lengths)).to(self.device)
            states = torch.empty(len(rows), encode.width, dtype=encode.dtype, device=self.device)
            if any(new):
                states[rows] = encode(batch.ids[rows], group_equal(n for n, is_new in zip(lengths, new, strict=True) if is_new))
            states[~rows] = torch.cat([text.wait() for text, is_new in zip(texts, new, strict=True) if not is_new])
        if texts:
            for text, part, is_new in zip(texts, states.split(lengths), new, strict=True):
                if is_new:
                    text.states = part.clone()
        return states.float()

    def _pieces(self, dialogues: Iterable[Dialogue], reject: RejectDialogue | None) -> Iterator[Sequence[Dialogue]]:
        """Runs of dialogues with at most `batch_tokens` tokens together, or single dialogues.

        A text counts as its number of bytes plus two special tokens, at most `max_tokens`.
        """
        limit = self.network.encoder.max_tokens
        piece: list[Dialogue] = []
        size = 0
        for dialogue in dialogues:
            if not isinstance(dialogue, Dialogue):
                raise ValueError(
                    f"{type(dialogue).__name__} is not a Dialogue; give a list: annotator([dialogue]); labelgen.parse(mapping) makes one"
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
                length += sum(RECORDING_TOKENS for turn in dialogue.turns if turn.audio)
            if piece and size + length > self.batch_tokens:
                yield piece
                piece, size = [], 0
            piece.append(dialogue)
            size += length
        if piece:
            yield piece


def quantised(encoder: TurnEncoder) -> TurnEncoder:
    """The encoder with linear layers in 8 bits: weights have a scale per row, inputs a scale per product, computed on the fly."""
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it recommends its successor, torchao, which is slower here
        small: TurnEncoder = quantize_dynamic(encoder, {nn.Linear: per_channel_dynamic_qconfig})
    return small


def agreement(first: Iterable[Dialogue], second: Iterable[Dialogue]) -> dict[str, float]:
    """Task -> twice the number of labels that both have, over all labels of both (F1). Confidences are not compared."""
    common: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for pair in zip(first, second, strict=True):
        a, b = ({LabelContent.of(label) for label in dialogue.labels or ()} for dialogue in pair)
        common.update(2 * [label.task for label in a & b])
        total.update(label.task for labels in (a, b) for label in labels)
    return {task: common[task] / count for task, count in sorted(total.items())}


class LabelContent(NamedTuple):
    """What two labels must share to agree."""

    task: str
    value: str
    turns: tuple[int, ...]
    part: Part | None
    start: int | None
    end: int | None

    @classmethod
    def of(cls, label: Label) -> LabelContent:
        """The content of a label, without its confidence and source."""
        return cls(label.task, label.value, tuple(label.turns), label.part, label.start, label.end)


def _texts_of(dialogues: Sequence[Dialogue]) -> list[str]:
    """All texts of the turns, with repetitions. At least one text."""
    texts = (turn.text(part) for dialogue in dialogues for turn in dialogue.turns for part in PARTS)
    return [text for text in texts if text is not None] or [""]


def in_order(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """`map` on several threads of one core each. Reads ahead by at most two items per thread.

    Two threads of one core each are faster than one thread of two, because of the work between matrix products.
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
        torch.set_num_threads(before)  # the threads have changed the default of later ones
