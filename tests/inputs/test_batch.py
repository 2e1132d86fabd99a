"""Nothing is padded, nothing twice, nothing lost: packed batches hold each distinct text once and say where each token belongs."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace

from labelgen.dialogue import PARTS, Dialogue, Turn
from labelgen.inputs.batch import IGNORE, Collator, Group, TextEncoder, chunks, group_equal
from labelgen.inputs.features import FeatureSpace
from labelgen.inputs.pretrained import byte_tokenizer
from labelgen.model.encoder import Encoder

PLAIN = Collator(TextEncoder(Tokenizer.from_str(byte_tokenizer()), 16), FeatureSpace(), {})
TEXTS = st.none() | st.sampled_from(["", "yes", "no", "שלום", "e\u0301 🙏🏽"]) | st.text(max_size=30)
DIALOGUES = st.lists(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4), min_size=1, max_size=5)


def records(rows: list[list[tuple[str | None, str | None]]]) -> list[Dialogue]:
    return [Dialogue(id=str(k), turns=[Turn(request=a, response=b) for a, b in row]) for k, row in enumerate(rows)]


def lengths_of(groups: tuple[Group, ...] | list[Group]) -> list[int]:
    return [length for count, length in groups for _ in range(count)]


@given(st.lists(st.integers(1, 9)))
def test_groups_are_runs(lengths: list[int]) -> None:
    groups = group_equal(lengths)
    assert lengths_of(groups) == lengths
    assert all(one.length != other.length for one, other in pairwise(groups))


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 9))), st.integers(1, 20))
def test_chunks_keep_sequences_whole_and_in_order(rows: list[tuple[int, int]], budget: int) -> None:
    pieces = list(chunks([Group(*row) for row in rows], budget))
    assert [length for piece in pieces for length in lengths_of(piece)] == lengths_of([Group(*row) for row in rows])
    for piece in pieces:
        assert sum(lengths_of(piece)) <= budget or len(lengths_of(piece)) == 1


@given(DIALOGUES)
def test_each_distinct_text_is_there_once_and_unpadded(rows: list[list[tuple[str | None, str | None]]]) -> None:
    given_dialogues = records(rows)
    batch = PLAIN(given_dialogues)
    distinct = {text for dialogue in given_dialogues for turn in dialogue.turns for part in PARTS if (text := turn.text(part)) is not None}
    tokens = PLAIN.texts(sorted(distinct))
    if distinct:
        assert len(batch.ids) == sum(len(encoded.ids) for encoded in tokens.values())
        assert sum(group.count for group in batch.groups) == len(distinct)
    assert sum(group.count * group.length for group in batch.groups) == len(batch.ids)
    assert lengths_of(batch.groups) == sorted(lengths_of(batch.groups))


@given(DIALOGUES)
def test_tokens_of_each_side_are_found_again(rows: list[list[tuple[str | None, str | None]]]) -> None:
    batch = PLAIN(records(rows))
    assert sum(batch.num_turns) * 2 == len(batch.utterances)
    assert sum(batch.num_tokens) == len(batch.token) == len(batch.token_utterance)
    assert [len(dialogue.turns) for dialogue in batch.dialogues] == lengths_of(batch.turns)
    texts = [turn.text(part) for dialogue in batch.dialogues for turn in dialogue.turns for part in PARTS]
    starts = np.cumsum([0, *lengths_of(batch.groups)])
    for utterance, text in enumerate(texts):
        mine = batch.ids[batch.token[batch.token_utterance == utterance]].tolist()
        assert mine == ([] if text is None else PLAIN.texts([text])[text].ids.tolist())
        if text is not None:
            at = int(batch.utterances[utterance])
            assert mine == batch.ids[starts[at] : starts[at + 1]].tolist()


def test_targets_follow_their_dialogues(dialogues: list[Dialogue], collate: Collator) -> None:
    batch = collate(dialogues)
    wanted = [IGNORE if goal is None else goal for dialogue in batch.dialogues for goal in dialogue.goal_of_turns()]
    assert batch.targets["goal_segmentation"].tolist() == wanted
    assert len(batch.targets["slot"]) == sum(batch.num_tokens)
    assert sorted(dialogue.id for dialogue in batch.dialogues) == sorted(dialogue.id for dialogue in dialogues)


def test_texts_without_any_token_count_as_absent() -> None:
    tokenizer = Tokenizer.from_str(byte_tokenizer())
    tokenizer.post_processor = None  # no <s>, no </s>: the empty text has no token
    bare = Collator(TextEncoder(tokenizer, 16), FeatureSpace(), {})
    batch = bare(records([[("", "yes"), ("", None)]]))
    assert batch.groups == (Group(1, 3),)
    assert batch.utterances.tolist() == [1, 0, 1, 1]


def test_a_batch_without_a_single_token_still_has_states(make_encoder: Callable[..., Encoder], collate: Collator) -> None:
    tokenizer = Tokenizer.from_str(byte_tokenizer())
    tokenizer.post_processor = None
    bare = Collator(TextEncoder(tokenizer, 16), collate.features, {})
    batch = bare(records([[(None, ""), ("", None)]]))
    encoder = make_encoder().eval()
    states = encoder(batch)
    assert len(batch.token) == sum(batch.num_tokens) == 0
    with_text = bare(records([[(None, None), (None, None)], [("yes", None), (None, None)]]))
    torch.testing.assert_close(states.utterances, encoder(with_text).utterances[: len(states.utterances)])
    cached = Collator(bare.texts, bare.features, {}, lambda texts: np.zeros((len(texts), 32), np.float16))(batch.dialogues)
    assert cached.frozen_states is not None
    assert len(cached.frozen_states) == len(cached.ids)


def test_kept_texts_are_cut_alike() -> None:
    texts = TextEncoder(Tokenizer.from_str(byte_tokenizer()), 8)
    words = ["", "yes", "a text that is far too long", "ü" * 50]
    before = texts(words)
    texts.keep(words)
    after = texts(words)
    for text in words:
        assert before[text].ids.tolist() == after[text].ids.tolist()
        assert before[text].offsets.tolist() == after[text].offsets.tolist()
        assert len(after[text].ids) == len(after[text].offsets) <= 8


def test_every_tensor_moves(dialogues: list[Dialogue], collate: Collator) -> None:
    moved = collate(dialogues[:2]).to("meta")
    tensors = [value for value in vars(moved).values() if isinstance(value, torch.Tensor)] + list(moved.targets.values())
    assert len(tensors) == 6 + 5
    assert all(tensor.is_meta for tensor in tensors)


@pytest.mark.parametrize("text", ["to Lisbon", "to  Lisbon "])
def test_a_token_does_not_cover_the_space_before_its_word(text: str) -> None:
    """Sentencepiece counts it to the word, so that no slot would begin where its token does."""
    tokenizer = Tokenizer(Unigram([("<unk>", 0.0), ("\u2581to", -1.0), ("\u2581Lisbon", -1.0), ("\u2581", -2.0)], 0))
    tokenizer.pre_tokenizer = Metaspace()
    assert (2, 9) in tokenizer.encode("to Lisbon").offsets
    words = [text[start:end] for start, end in TextEncoder(tokenizer, 16)([text])[text].offsets.tolist()]
    assert [word for word in words if not word.isspace()] == ["to", "Lisbon"]
