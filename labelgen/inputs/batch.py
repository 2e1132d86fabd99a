"""Dialogues -> one packed batch: texts are tokenised, equal texts merged, texts of equal length grouped, annotations encoded as targets.

The shape legend of the whole library:
    B dialogues   T turns of all dialogues, one after another   U = 2 T utterances (2 t is the request of turn t, 2 t + 1 its response)
    N distinct texts   L tokens of the distinct texts   M tokens of all utterances that have a text   D width   K classes
Nothing is padded: every tensor is flat, and its groups give the sequences of equal length that it consists of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from tokenizers import Encoding as Tokens
from tokenizers import Tokenizer
from torch import Tensor

from labelgen.dialogue import PARTS, Dialogue
from labelgen.inputs.audio import Recording
from labelgen.inputs.features import FeatureSpace
from labelgen.inputs.tokenizer import is_tokenizer_error, size

CHARACTERS_PER_TOKEN = 100  # a text is cut at this size (inputs/tokenizer.py) for each token that it may have
MAX_CHARACTERS = 2**16  # the largest size at which a text is cut; texts of twice this size are tokenised at once, at most
MAX_TOKENS = 8192  # of a text; ModernBERT reads as many
IGNORE = -100  # in a target: not labelled
Array = TypeVar("Array", np.ndarray, Tensor)


class Group(NamedTuple):
    """`count` sequences of `length` items each, one after another."""

    count: int  # type: ignore[assignment]  # a tuple has a method of that name
    length: int


class Encoding(NamedTuple):
    """A tokenised text: ids [n], and the offsets [n, 2] of each token in code points ((0, 0): a special token)."""

    ids: np.ndarray
    offsets: np.ndarray


class Audio(NamedTuple):
    """Recordings of requests, shortest first: A frames of R recordings."""

    frames: Float[Tensor, "A C"]
    groups: tuple[Group, ...]  # of the A frames
    turn: Int[Tensor, " R"]  # of the T turns


EncodeTarget = Callable[[Dialogue, Sequence[Encoding | None]], np.ndarray]
"""Returns a target for each turn or token: class numbers (IGNORE: not labelled) or distributions [.., K] (NaN: not labelled)."""


def group_equal(lengths: Iterable[int]) -> tuple[Group, ...]:
    """Runs of equal lengths: 3, 3, 5 -> (2 of 3), (1 of 5)."""
    return tuple(Group(sum(1 for _ in run), length) for length, run in groupby(lengths))


def chunks(groups: Sequence[Group], budget: int) -> Iterator[tuple[Group, ...]]:
    """Cuts groups into pieces of at most `budget` items (one sequence at least), in order."""
    piece: list[Group] = []
    room = budget
    for count, length in groups:
        while count:
            take = min(count, max(room, 0) // length)
            if not take and piece:
                yield tuple(piece)
                piece, room = [], budget
                continue
            take = max(take, 1)
            piece.append(Group(take, length))
            count, room = count - take, room - take * length
    if piece:
        yield tuple(piece)


@dataclass(frozen=True)
class Batch:
    """What the model reads. Dialogues are ordered by their number of turns, distinct texts by their number of tokens."""

    dialogues: tuple[Dialogue, ...]  # [B]
    encodings: tuple[tuple[Encoding | None, ...], ...]  # [B], the tokens of each utterance
    texts: tuple[str, ...]  # [N], those that have tokens
    ids: Int[Tensor, " L"]
    groups: tuple[Group, ...]  # of the L tokens
    turns: tuple[Group, ...]  # of the T turns: dialogues of equal length
    utterances: Int[Tensor, " U"]  # the text of each utterance; N: none
    token: Int[Tensor, " M"]  # per token of an utterance: its index among the L tokens
    token_utterance: Int[Tensor, " M"]  # per token of an utterance: the utterance
    categorical: Int[Tensor, "T C"]
    numerical: Float[Tensor, "T F"]  # NaN: missing
    targets: dict[str, Tensor]  # task -> [T] or [M] class numbers, or [T, K] distributions
    frozen_states: Float[Tensor, "L D"] | None = None  # states after the frozen layers, where they are cached
    audio: Audio | None = None  # None: the model reads none, or no turn has a recording

    @property
    def num_turns(self) -> list[int]:
        """Turns of each dialogue, [B]."""
        return [len(dialogue.turns) for dialogue in self.dialogues]

    @property
    def num_tokens(self) -> list[int]:
        """Tokens of all utterances of each dialogue, [B]."""
        return [sum(len(utterance.ids) for utterance in utterances if utterance) for utterances in self.encodings]

    def to(self, device: Any, **options: Any) -> Batch:
        """The batch with its tensors on another device."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {name: value.to(device, **options) for name, value in moved.items() if isinstance(value, Tensor)}
        targets = {name: target.to(device, **options) for name, target in self.targets.items()}
        audio = self.audio
        if audio is not None:
            audio = Audio(audio.frames.to(device, **options), audio.groups, audio.turn.to(device, **options))
        return replace(self, **moved, targets=targets, audio=audio)


class TextEncoder:
    """Text -> token ids and offsets, cut at `max_tokens`. `keep` keeps the tokens of texts in memory."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()  # its truncation also returns the rest, with special tokens for each `max_tokens` of it
        self._max_tokens = max_tokens
        self._kept: dict[str, Encoding] = {}
        self._max_characters = min(CHARACTERS_PER_TOKEN * max_tokens, MAX_CHARACTERS)

    def keep(self, texts: Iterable[str]) -> None:
        """Tokenises texts and keeps their tokens."""
        self._kept.update(self._encode(sorted({text for text in texts if text not in self._kept})))

    def __call__(self, texts: Iterable[str]) -> Mapping[str, Encoding]:
        """The tokens of each text."""
        new = {text for text in texts if text not in self._kept}
        return {**{text: self._kept[text] for text in texts if text in self._kept}, **self._encode(sorted(new))}

    def _encode(self, texts: list[str]) -> dict[str, Encoding]:
        """The tokens of each text. The tokens beyond the cut take memory, too, so few characters are tokenised at once."""
        encodings: dict[str, Encoding] = {}
        try:
            read = [self._cut_text(text) for text in texts]
            pieces = np.cumsum([size(text) for text in read], dtype=np.int64) // MAX_CHARACTERS
            for _, piece in groupby(range(len(texts)), key=pieces.__getitem__):
                indices = list(piece)
                encoded = self._tokenizer.encode_batch([read[k] for k in indices])
                encodings.update((texts[k], self._cut_tokens(tokens, read[k])) for k, tokens in zip(indices, encoded, strict=True))
        except BaseException as error:
            if not is_tokenizer_error(error):
                raise
            raise ValueError(f"the tokenizer fails on a text ({error})") from error
        return encodings

    def _cut_text(self, text: str) -> str:
        """The beginning of a text, of at most `self._max_characters` in size: megabytes take a minute."""
        text = text[: self._max_characters]
        while size(text) > self._max_characters:
            text = text[: len(text) // 2]
        return text

    def _cut_tokens(self, tokens: Tokens, text: str) -> Encoding:
        """The first `max_tokens` tokens of a text. Special tokens after the text are kept in place of the text's last ones."""
        kept = np.arange(len(tokens.ids))
        if len(kept) > self._max_tokens:
            after = int(np.argmin(tokens.special_tokens_mask[::-1]))  # how many special tokens end the text
            end = max(self._max_tokens - after, 0)
            kept = np.concatenate([kept[:end], kept[len(kept) - after :]])
        spans = (tokens.token_to_chars(k) or (0, 0) for k in kept.tolist())  # those of millions of tokens would take gigabytes
        offsets = [_without_space(text, start, end) for start, end in spans]
        return Encoding(np.array(tokens.ids, np.int32)[kept], np.array(offsets, np.int32).reshape(-1, 2))


def _without_space(text: str, start: int, end: int) -> tuple[int, int]:
    """A token's span without the space around its word, which some tokenizers count to the word. A token of space alone keeps its span."""
    if start == end or not (text[start].isspace() or text[end - 1].isspace()) or not (word := text[start:end].strip()):
        return start, end
    first = text.index(word, start)
    return first, first + len(word)


class Collator:
    """Dialogues -> Batch. `targets` maps a task's name to the function that encodes its annotations."""

    def __init__(
        self,
        texts: Callable[[Sequence[str]], Mapping[str, Encoding]],
        features: FeatureSpace,
        targets: Mapping[str, EncodeTarget],
        frozen_states: Callable[[Sequence[str]], np.ndarray] | None = None,
        recordings: Callable[[Sequence[Dialogue]], Sequence[Recording]] | None = None,
    ) -> None:
        self.texts, self.features, self.targets, self.frozen_states = texts, features, dict(targets), frozen_states
        self.recordings = recordings

    def __call__(self, dialogues: Sequence[Dialogue]) -> Batch:
        dialogues = sorted(dialogues, key=lambda dialogue: len(dialogue.turns))
        texts = [[turn.text(part) for turn in dialogue.turns for part in PARTS] for dialogue in dialogues]
        distinct = dict.fromkeys(text for utterances in texts for text in utterances if text is not None)
        tokens = self.texts(list(distinct) or [""])
        order = sorted((text for text in tokens if len(tokens[text].ids)), key=lambda text: len(tokens[text].ids))  # shortest first
        index = {text: n for n, text in enumerate(order)}
        ids = [tokens[text].ids for text in order] or [np.zeros(1, np.int32)]  # without any: one token that belongs to no utterance
        starts = np.cumsum([0, *map(len, ids)])
        utterances = [index.get(text, len(ids)) if text is not None else len(ids) for row in texts for text in row]
        present = [(s, n) for s, n in enumerate(utterances) if n < len(ids)]
        encodings = tuple(tuple(None if text is None else tokens[text] for text in row) for row in texts)
        return Batch(
            dialogues=tuple(dialogues),
            encodings=encodings,
            texts=tuple(order),
            ids=_integers(ids),
            groups=group_equal(map(len, ids)),
            turns=group_equal(len(dialogue.turns) for dialogue in dialogues),
            utterances=torch.tensor(utterances, dtype=torch.long),
            token=_integers([np.arange(starts[n], starts[n + 1]) for _, n in present]),
            token_utterance=_integers([np.full(starts[n + 1] - starts[n], s) for s, n in present]),
            categorical=torch.from_numpy(self.features.encode_categorical(dialogues)),
            numerical=torch.from_numpy(self.features.encode_numerical(dialogues)),
            targets={
                name: _targets([encode(dialogue, row) for dialogue, row in zip(dialogues, encodings, strict=True)])
                for name, encode in self.targets.items()
            },
            frozen_states=None if self.frozen_states is None else torch.from_numpy(_at_least_one_row(self.frozen_states(order))),
            audio=None if self.recordings is None else _audio(self.recordings(dialogues)),
        )


def _audio(recordings: Sequence[Recording]) -> Audio | None:
    """Recordings, shortest first, as one tensor."""
    if not recordings:
        return None
    frames = torch.from_numpy(np.concatenate([recording.frames for recording in recordings]).astype(np.float32))
    groups = group_equal(len(recording.frames) for recording in recordings)
    return Audio(frames, groups, torch.tensor([recording.turn for recording in recordings], dtype=torch.long))


def _at_least_one_row(states: np.ndarray) -> np.ndarray:
    """The states. Without any: a row for the token that belongs to no utterance."""
    return states if len(states) else np.zeros((1, *states.shape[1:]), states.dtype)


def labelled(target: Array) -> Array:
    """Which rows of a target are labelled, bool."""
    rows: Array = target != IGNORE if target.ndim == 1 else (target == target).all(1)
    return rows


def _targets(arrays: Sequence[np.ndarray]) -> Tensor:
    return _integers(arrays) if arrays[0].ndim == 1 else torch.from_numpy(np.concatenate(arrays).astype(np.float32))


def _integers(arrays: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *arrays]).astype(np.int64))
