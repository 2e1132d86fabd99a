"""Slots: named spans of requests and responses. The model tags tokens (BIO); annotations and labels are spans of characters."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from labelgen.dialogue import PARTS, Dialogue, Label, Part, Slot
from labelgen.inputs.batch import IGNORE, Batch
from labelgen.io.display import DISPLAYS, SLOT
from labelgen.metrics import Compared, Figure, Prediction, SpanF1
from labelgen.model.encoder import States
from labelgen.model.losses import Loss, masked_cross_entropy
from labelgen.tasks import Aligned, Baseline, Decoded, Earlier, Guess, Task, Utterances

WORD = re.compile(r"\w+")


class TokenHead(nn.Module):
    """Classifies the states of tokens, fused with that of their utterance: [M, K]."""

    def __init__(self, width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.token = nn.Linear(width, width)
        self.utterance = nn.Linear(width, width, bias=False)
        self.activation = nn.GELU()
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, num_classes)

    def forward(self, states: States, batch: Batch) -> Float[Tensor, "M K"]:
        fused = self.token(states.tokens)[batch.token] + self.utterance(states.utterances)[batch.token_utterance]
        logits: Tensor = self.linear(self.dropout(self.norm(self.activation(fused))))
        return logits


class Span(NamedTuple):
    """A slot and its position in the utterance, in code points."""

    name: str
    start: int | None
    end: int | None


class TokenSpan(NamedTuple):
    """A slot in the tokens of an utterance: the indices of its first and last token and of its name, and the confidence."""

    first: int
    last: int
    label: int
    confidence: float


class TokenRuns(NamedTuple):
    """Runs of tokens that share characters: the first token of each, and its span [runs, 2]."""

    firsts: np.ndarray
    spans: np.ndarray


class AnnotatedUtterance(NamedTuple):
    """An utterance of a dialogue, and its annotated slots. None: not annotated."""

    turn: int
    part: Part
    slots: list[Slot] | None


@dataclass(frozen=True)
class SlotTask(Task):
    """Class 0 is O. Slot k begins with class 1 + 2 k and continues with class 2 + 2 k.

    Slots found by value (`categorical`) count as no slot: their tokens are learned as O, and a span predicted there is a false positive.
    Spans begin and end with tokens, in training and when scored (`align`).
    Of nested slots the inner one is learned, and the outer one up to where the inner begins. The rest of the outer one is not labelled.
    """

    name: ClassVar[str] = SLOT
    display: ClassVar = DISPLAYS[name]
    score: ClassVar[str] = "span_f1"
    level: ClassVar = "token"

    labels: Sequence[str] = ()

    def values(self, dialogue: Dialogue) -> Iterable[str]:
        return (slot.name for turn in dialogue.turns for part in PARTS for slot in marked(turn.slots(part)))

    def align(self, dialogue: Dialogue, utterances: Utterances) -> Aligned:
        """Moves the ends of spans to those of the tokens that they touch, because labels begin and end with tokens.

        A span beyond the cut of a text stays as it is: it is not learned, and is missed when scored.
        """
        turns, number, changes = list(dialogue.turns), 0, []
        for (t, part, slots), utterance in zip(_utterances(dialogue), utterances, strict=True):
            if utterance is None or not slots:
                continue
            text = dialogue.turns[t].text(part) or ""
            tokens = without_overlap(utterance.offsets[utterance.offsets[:, 0] != utterance.offsets[:, 1]]).spans
            moved = [slot if slot.categorical else to_tokens(slot, tokens, text) for slot in slots]
            pairs = [(old, new) for old, new in zip(slots, moved, strict=True) if old is not new]
            number += sum(1 for _ in marked(slots))
            changes += [f"dialogue {dialogue.id!r}, turn {t}, {part}: {old.value!r} as {new.value!r}" for old, new in pairs]
            if pairs:
                turns[t] = turns[t].model_copy(update={f"{part}_slots": moved})
        return Aligned(dialogue.model_copy(update={"turns": turns}) if changes else dialogue, number, changes)

    def encode(self, dialogue: Dialogue, utterances: Utterances) -> np.ndarray:
        index = {name: k for k, name in enumerate(self.labels)}
        targets = [np.zeros(0, np.int64)]
        annotated = (turn.slots(part) for turn in dialogue.turns for part in PARTS)
        for slots, utterance in zip(annotated, utterances, strict=True):
            if utterance is None:
                continue
            special = utterance.offsets[:, 0] == utterance.offsets[:, 1]
            target = np.where(special | (slots is None), IGNORE, 0)
            taken = np.zeros(len(target), bool)
            for slot in sorted(marked(slots), key=lambda slot: (slot.start, -slot.end)):  # the outer first
                covered = np.flatnonzero(~special & (utterance.offsets[:, 0] < slot.end) & (utterance.offsets[:, 1] > slot.start))
                label = index.get(slot.name)
                target[covered] = IGNORE if label is None else 2 + 2 * label
                if len(covered) and label is not None:
                    target[covered[0]] = 1 + 2 * label
                taken[covered] = True
                target[taken & (utterance.offsets[:, 0] >= slot.end)] = IGNORE  # the rest of an outer slot
            targets.append(target)
        return np.concatenate(targets)

    def head(self, width: int, dropout: float) -> nn.Module:
        return TokenHead(width, 1 + 2 * len(self.labels), dropout)

    def loss(self, logits: Tensor, batch: Batch) -> Loss:
        return masked_cross_entropy(logits, batch.targets[self.name])

    def metrics(self) -> dict[str, Figure]:
        return {"span_f1": Figure(SpanF1(), self._spans), "value_f1": Figure(SpanF1(), self._values)}

    def _spans(self, dialogue: Dialogue, prediction: Prediction) -> Compared:
        gold = [
            None if slots is None else [Span(slot.name, slot.start, slot.end) for slot in marked(slots)]
            for _, _, slots in _utterances(dialogue)
        ]
        return Compared([[Span(k.value, k.start, k.end) for k in found] for found in _by_utterance(dialogue, prediction.labels)], gold)

    def _values(self, dialogue: Dialogue, prediction: Prediction) -> Compared:
        gold = [
            None if slots is None else [(slot.name, plain(slot.value or "")) for slot in marked(slots)]
            for _, _, slots in _utterances(dialogue)
        ]
        return Compared([[(k.value, plain(k.text or "")) for k in found] for found in _by_utterance(dialogue, prediction.labels)], gold)

    def decode(self, probabilities: np.ndarray, dialogue: Dialogue, utterances: Utterances, earlier: Earlier) -> list[Decoded]:
        """The spans of the best valid tag sequence of each utterance.

        A span's confidence is the probability of its tags and its end, with tokens taken as independent. Tokens that share characters (an
        emoji in several pieces) count as one, with the probabilities of the first, so that spans never overlap.
        """
        labels, start = [], 0
        for (t, part, _), utterance in zip(_utterances(dialogue), utterances, strict=True):
            if utterance is None:
                continue
            rows = probabilities[start : start + len(utterance.ids)]
            start += len(utterance.ids)
            real = np.flatnonzero(utterance.offsets[:, 0] != utterance.offsets[:, 1])
            firsts, spans = without_overlap(utterance.offsets[real])
            rows = rows[real][firsts]
            text = dialogue.turns[t].text(part) or ""
            for found in spans_of(rows):
                a, b = int(spans[found.first, 0]), int(spans[found.last, 1])
                labels.append(Decoded(self.labels[found.label], [t], found.confidence, part, a, b, text[a:b]))
        return labels

    def majority(self, dialogues: Iterable[Dialogue]) -> Baseline:
        """No slots."""
        return KnownValues({})

    def eager(self, dialogues: Iterable[Dialogue]) -> Baseline:
        """Every slot value of these dialogues, wherever it occurs."""
        return KnownValues(known_values(dialogues))


@dataclass(frozen=True)
class KnownValues(Baseline):
    """Marks known values wherever they occur. `names`: the casefolded words of a value -> the name of the slot."""

    names: Mapping[tuple[str, ...], str]

    def guess(self, dialogue: Dialogue, earlier: Earlier) -> Guess:
        found = [
            Decoded(name, [t], 1.0, part, start, end, text[start:end])
            for t, turn in enumerate(dialogue.turns)
            for part in PARTS
            if (text := turn.text(part))
            for name, start, end in self.find(text)
        ]
        return Guess(found, np.zeros((0, 1)))

    def find(self, text: str) -> Iterator[Span]:
        """The known values in a text, from left to right and the longest first, without overlap."""
        words = list(WORD.finditer(text))
        longest = max(map(len, self.names), default=0)
        at = 0
        while at < len(words):
            sizes = range(min(longest, len(words) - at), 0, -1)
            size = next((n for n in sizes if casefolded(words[at : at + n]) in self.names), 0)
            if size:
                piece = words[at : at + size]
                yield Span(self.names[casefolded(piece)], piece[0].start(), piece[-1].end())
            at += max(size, 1)


def casefolded(words: Iterable[re.Match[str]]) -> tuple[str, ...]:
    """The matched words without case."""
    return tuple(word.group().casefold() for word in words)


def known_values(dialogues: Iterable[Dialogue]) -> dict[tuple[str, ...], str]:
    """The words of each marked slot value -> the most frequent name of the slot."""
    names: defaultdict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for dialogue in dialogues:
        for turn in dialogue.turns:
            for part in PARTS:
                for slot in marked(turn.slots(part)):
                    names[casefolded(WORD.finditer(slot.value or ""))][slot.name] += 1
    names.pop((), None)
    return {words: count.most_common(1)[0][0] for words, count in names.items()}


def marked(slots: Sequence[Slot] | None) -> Iterator[Slot]:
    """The slots whose spans an annotator marked."""
    return (slot for slot in slots or () if not slot.categorical)


def to_tokens(slot: Slot, tokens: np.ndarray, text: str) -> Slot:
    """The slot with its ends at those of the tokens [n, 2] that it touches: itself if they are there, or if its text was cut."""
    touched = tokens[(tokens[:, 0] < slot.end) & (tokens[:, 1] > slot.start)]
    if not len(touched):
        return slot
    start, end = int(touched[0, 0]), int(touched[-1, 1])
    is_cut = end == tokens[-1, 1] and bool(text[end : slot.end].strip())
    if is_cut or (start, end) == (slot.start, slot.end):
        return slot
    return slot.model_copy(update={"start": start, "end": end, "value": text[start:end]})


def without_overlap(spans: np.ndarray) -> TokenRuns:
    """The spans of tokens [n, 2], in order -> the runs of those that share characters."""
    ends = np.maximum.accumulate(spans[:, 1])
    shares = np.zeros(len(spans), bool)
    shares[1:] = spans[1:, 0] < ends[:-1]
    firsts = np.flatnonzero(~shares)
    lasts = np.append(firsts[1:], len(spans)) - 1 if len(firsts) else firsts
    return TokenRuns(firsts, np.stack([spans[firsts, 0], ends[lasts]], axis=1))


def plain(value: str) -> str:
    """A value without case and spacing."""
    return " ".join(value.casefold().split())


def _utterances(dialogue: Dialogue) -> Iterator[AnnotatedUtterance]:
    return (AnnotatedUtterance(t, part, turn.slots(part)) for t, turn in enumerate(dialogue.turns) for part in PARTS)


def _by_utterance(dialogue: Dialogue, labels: Sequence[Label]) -> list[list[Label]]:
    found: list[list[Label]] = [[] for _ in range(2 * len(dialogue.turns))]
    for label in labels:
        found[2 * label.turns[0] + PARTS.index(label.part or "request")].append(label)
    return found


def best_tags(scores: np.ndarray) -> np.ndarray:
    """Viterbi over log-probabilities [n, 1 + 2 k], in O(n k): the best sequence in which a slot continues only after itself."""
    n, width = scores.shape
    continues = np.arange(2, width, 2)
    back = np.zeros((n, width), np.int64)
    total = scores[0].copy()
    total[continues] = -np.inf
    for i in range(1, n):
        back[i] = total.argmax()
        step = scores[i] + total.max()
        from_begin, from_continue = total[continues - 1], total[continues]
        back[i, continues] = np.where(from_begin >= from_continue, continues - 1, continues)
        step[continues] = scores[i, continues] + np.maximum(from_begin, from_continue)
        total = step
    tags = np.zeros(n, np.int64)
    tags[-1] = total.argmax()
    for i in range(n - 1, 0, -1):
        tags[i - 1] = back[i, tags[i]]
    return tags


def spans_of(probabilities: np.ndarray) -> Iterator[TokenSpan]:
    """Token probabilities [n, 1 + 2 k] -> the spans of the best valid tag sequence."""
    if not len(probabilities) or not probabilities[:, 1:].size:
        return
    tags = probabilities.argmax(1)
    if not tags.any():
        return
    continues = (tags > 0) & (tags % 2 == 0)
    before = np.append(0, tags[:-1])
    if (continues & (before != tags) & (before != tags - 1)).any():  # else the best tags are a valid sequence
        tags = best_tags(np.log(np.maximum(probabilities, 1e-30)))
    first = 0
    while first < len(tags):
        if tags[first] == 0:
            first += 1
            continue
        label = (tags[first] - 1) // 2
        last = first
        while last + 1 < len(tags) and tags[last + 1] == 2 + 2 * label:
            last += 1
        confidence = float(np.prod(probabilities[np.arange(first, last + 1), tags[first : last + 1]], dtype=np.float64))
        if last + 1 < len(tags):
            confidence *= 1.0 - float(probabilities[last + 1, 2 + 2 * label])
        yield TokenSpan(first, last, int(label), confidence)
        first = last + 1
