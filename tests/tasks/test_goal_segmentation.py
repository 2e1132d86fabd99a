"""Goal segmentation: the loss is minus the log of the probability of the gold clustering; decoding partitions the turns."""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labelgen.dialogue import Dialogue, Goal, Turn
from labelgen.inputs.batch import IGNORE, Batch, Collator, Group
from labelgen.model.encoder import Encoder, States
from labelgen.model.losses import marginal_cross_entropy
from labelgen.tasks import goal_segmentation
from labelgen.tasks.goal_segmentation import GoalSegmentation, PointerHead, choice_probabilities, choices, greedy, partition

TASK = GoalSegmentation()
GOALS = st.lists(st.integers(0, 3), min_size=1, max_size=5)


def scores(turns: int, seed: int, width: int | None = None) -> torch.Tensor:
    """Random logits as the head gives them, -inf where a turn is not earlier."""
    logits = torch.randn(turns, 1 + turns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    earlier = torch.cat([torch.ones(turns, 1), torch.ones(turns, turns).tril(-1)], 1).bool()
    return torch.nn.functional.pad(logits.masked_fill(~earlier, -math.inf), (0, (width or turns + 1) - turns - 1), value=-math.inf)


def loss_of(logits: torch.Tensor, goals: list[int]) -> float:
    return float(marginal_cross_entropy(logits, *choices(torch.tensor(goals), [Group(1, len(goals))], logits.shape[1])).total)


def clusters(pointers: tuple[int, ...]) -> list[int]:
    """A cluster number a turn; pointer 0 opens one, k joins turn k - 1's."""
    found: list[int] = []
    for t, pointer in enumerate(pointers):
        found.append(t if pointer == 0 else found[pointer - 1])
    return found


def numbered(goals: list[int]) -> list[int]:
    return [goals.index(goal) for goal in goals]


@given(GOALS, st.integers(0, 999))
def test_loss_equals_brute_force_over_all_antecedents(goals: list[int], seed: int) -> None:
    logits = scores(len(goals), seed)
    probabilities = logits.softmax(1).numpy()
    total = 0.0
    for pointers in product(*(range(t + 1) for t in range(len(goals)))):  # every turn: new, or one of the turns before
        if numbered(clusters(pointers)) == numbered(goals):
            total += math.prod(probabilities[t, pointer] for t, pointer in enumerate(pointers))
    assert loss_of(logits, goals) == pytest.approx(-math.log(total), abs=1e-5)


@given(GOALS, GOALS, st.integers(0, 999))
def test_dialogues_of_a_batch_do_not_meet(one: list[int], other: list[int], seed: int) -> None:
    width = 1 + max(len(one), len(other))
    logits = torch.cat([scores(len(one), seed, width), scores(len(other), seed + 1, width)])
    groups = [Group(1, len(one)), Group(1, len(other))] if len(one) != len(other) else [Group(2, len(one))]
    together = marginal_cross_entropy(logits, *choices(torch.tensor(one + other), groups, width))
    apart = loss_of(scores(len(one), seed), one) + loss_of(scores(len(other), seed + 1), other)
    assert float(together.total) == pytest.approx(apart, abs=1e-5)
    assert together.count == len(one) + len(other) - 2, "a first turn has no choice"


@given(GOALS, st.integers(0, 999), st.data())
def test_unannotated_turns_say_nothing(goals: list[int], seed: int, data: st.DataObject) -> None:
    """Their own scores do not matter, nor do scores that point to them from turns whose goal is known to go on."""
    hidden = data.draw(st.sets(st.integers(0, len(goals) - 1), max_size=3))
    known = [IGNORE if t in hidden else goal for t, goal in enumerate(goals)]
    logits = scores(len(goals), seed).requires_grad_()
    right, allowed = choices(torch.tensor(known), [Group(1, len(goals))], logits.shape[1])
    loss = marginal_cross_entropy(logits, right, allowed)
    loss.total.backward()
    assert logits.grad is not None
    goes_on = [t for t, goal in enumerate(known) if goal != IGNORE and goal in known[:t]]
    for t in range(len(goals)):
        if t in hidden or t == 0:
            assert not logits.grad[t].any()
        for u in hidden:
            if t in goes_on:
                assert logits.grad[t, 1 + u] == 0
    assert loss.count == sum(goal != IGNORE for goal in known[1:])


def test_a_goal_of_unknown_beginning_may_return_to_an_unknown_turn() -> None:
    right, allowed = choices(torch.tensor([IGNORE, 0, 0]), [Group(1, 3)], 4)
    assert right.tolist() == [[False] * 4, [True, True, False, False], [False, False, True, False]]
    assert allowed[1:].tolist() == [[True, True, False, False], [True, False, True, False]]


def interleaved(order: list[int]) -> tuple[np.ndarray, Dialogue]:
    """Probabilities that point surely to the last turn of the same goal, and the dialogue."""
    rows = np.full((len(order), 1 + len(order)), 1e-3)
    for t, goal in enumerate(order):
        earlier = [k for k in range(t) if order[k] == goal]
        rows[t, 1 + earlier[-1] if earlier else 0] = 1.0
    return rows / rows.sum(1, keepdims=True), Dialogue(id="a", turns=[Turn() for _ in order])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_interleaved_goals_are_decoded(order: list[int]) -> None:
    probabilities, dialogue = interleaved(order)
    found = TASK.decode(probabilities, dialogue, [], {})
    wanted = [[t for t, goal in enumerate(order) if goal == which] for which in dict.fromkeys(order)]
    assert [label.turns for label in found] == wanted
    assert [label.value for label in found] == [str(k) for k in range(len(wanted))]


@given(st.integers(1, 12), st.integers(0, 999))
def test_decoding_partitions_the_turns(turns: int, seed: int) -> None:
    probabilities = scores(turns, seed, turns + 4).softmax(1).numpy()
    labels = TASK.decode(probabilities, Dialogue(id="a", turns=[Turn() for _ in range(turns)]), [], {})
    assert sorted(turn for label in labels for turn in label.turns) == list(range(turns))
    assert all(0 <= label.confidence <= 1 for label in labels)


def test_what_may_belong_to_a_goal_lowers_its_confidence() -> None:
    rows = np.array([[1.0, 0.0, 0.0], [0.51, 0.49, 0.0]])
    first, second = TASK.decode(rows, Dialogue(id="a", turns=[Turn(), Turn()]), [], {})
    assert (first.turns, second.turns) == ([0], [1])
    assert (first.confidence, second.confidence) == pytest.approx((0.51, 0.51))


def partitions(turns: int) -> Iterator[list[int]]:
    """All of them, as goal numbers by first turns."""
    for goals in partitions(turns - 1) if turns > 1 else [[]]:
        for goal in range(max(goals, default=-1) + 2):
            yield [*goals, goal]


def probability(rows: np.ndarray, goals: Sequence[int]) -> float:
    """Of a partition, written out: each turn opens its goal or points to any earlier turn of it; a first turn has no choice."""
    factors = [
        sum(rows[t, 1 + u] for u in range(t) if goals[u] == goal) if goal in goals[:t] else rows[t, 0] for t, goal in enumerate(goals) if t
    ]
    return math.prod(factors)


@given(st.integers(1, 7), st.integers(0, 9_999), st.sampled_from([0.5, 1.0, 3.0]))
def test_the_decoded_partition_is_the_most_probable_of_all(turns: int, seed: int, sharpness: float) -> None:
    rows = (sharpness * scores(turns, seed)).softmax(1).numpy()
    best = max(partitions(turns), key=lambda goals: probability(rows, goals))
    found = partition(rows)
    assert numbered(found.tolist()) == numbered(best)
    assert choice_probabilities(rows, found).prod() == pytest.approx(probability(rows, best))


def test_a_turn_may_take_the_second_best_goal_for_what_comes_after_it() -> None:
    rows = np.array([[1.0, 0, 0, 0], [0.51, 0.49, 0, 0], [0, 0.5, 0.5, 0]])
    assert greedy(rows).tolist() == [0, 1, 0], "probability .51 * .5"
    assert partition(rows).tolist() == [0, 0, 0], "probability .49 * 1"


@given(st.integers(8, 14), st.integers(0, 999))
def test_a_beam_never_finds_less_than_greedy(turns: int, seed: int) -> None:
    rows = scores(turns, seed).softmax(1).numpy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(goal_segmentation, "HYPOTHESES", 4)
        found = partition(rows)
    assert choice_probabilities(rows, found).prod() >= choice_probabilities(rows, greedy(rows)).prod()


def test_equal_chances_open_a_goal_and_are_decoded_alike_each_time() -> None:
    rows = np.array([[1.0, 0, 0], [0.5, 0.5, 0]])
    assert partition(rows).tolist() == [0, 1]


def calls(turns: int) -> int:
    """Calls of functions, Python's and C's, in decoding as many goals as turns, each unsure."""
    rows = np.zeros((turns, 1 + turns), np.float32)
    rows[:, 0], rows[1:, 1] = 0.9, 0.1
    count = 0

    def watch(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    dialogue = Dialogue(id="a", turns=[Turn() for _ in range(turns)])
    sys.setprofile(watch)
    try:
        labels = TASK.decode(rows, dialogue, [], {})
    finally:
        sys.setprofile(None)
    assert len(labels) == turns
    return count


def test_many_goals_take_a_number_of_calls_that_grows_with_the_turns() -> None:
    """And not with their square, as it would if each turn asked each goal. A call handles arrays of the size of the turns."""
    assert calls(400) < 2.2 * calls(200)


@given(st.integers(1, 6), st.integers(0, 999))
def test_confidence_equals_brute_force_over_all_assignments(turns: int, seed: int) -> None:
    """Every turn joins a goal decoded before it, or opens one, by itself: how often are a goal's turns the very ones?"""
    rows = scores(turns, seed).softmax(1).numpy()
    labels = TASK.decode(rows, Dialogue(id="a", turns=[Turn() for _ in range(turns)]), [], {})
    for label in labels:
        total = 0.0
        for pointers in product(*(range(t + 1) for t in range(turns))):
            joined = [t for t in range(label.turns[0] + 1, turns) if pointers[t] and pointers[t] - 1 in label.turns]
            if pointers[label.turns[0]] == 0 and [label.turns[0], *joined] == label.turns:
                total += math.prod(rows[t, pointer] for t, pointer in enumerate(pointers))
        assert label.confidence == pytest.approx(total, abs=1e-9)


def test_annotations_round_trip_through_encode() -> None:
    dialogue = Dialogue(id="a", turns=[Turn() for _ in range(5)], goals=[Goal(turns=[0, 3]), Goal(turns=[1, 2])])
    assert TASK.encode(dialogue, []).tolist() == [0, 1, 1, 0, IGNORE]
    assert TASK.encode(dialogue.model_copy(update={"goals": None}), []).tolist() == [IGNORE] * 5


def test_the_head_scores_earlier_turns_of_its_dialogue_only(
    make_encoder: Callable[..., Encoder], collate: Collator, dialogues: list[Dialogue]
) -> None:
    encoder, head = make_encoder().eval(), TASK.head(32, 0.0)

    def logits_of(batch: Batch) -> list[torch.Tensor]:
        return list(head(encoder(batch), batch).split(batch.num_turns))

    batch = collate(dialogues)
    for dialogue, found in zip(batch.dialogues, logits_of(batch), strict=True):
        turns = len(dialogue.turns)
        assert torch.equal(found[:, 1 : 1 + turns].isfinite(), torch.ones(turns, turns).tril(-1).bool())
        assert found[:, 0].isfinite().all()
        assert (found[:, 1 + turns :] == -math.inf).all()
        torch.testing.assert_close(found[:, : 1 + turns], logits_of(collate([dialogue]))[0], rtol=0.0, atol=1e-5)


def test_what_favours_staying_adds_to_the_score_of_the_turn_right_before_only(collate: Collator, dialogues: list[Dialogue]) -> None:
    batch, head = collate(dialogues), PointerHead(8)
    utterances = torch.randn(2 * sum(batch.num_turns), 8, generator=torch.Generator().manual_seed(0))
    states = States(torch.zeros(0, 8), utterances)
    with torch.no_grad():
        favoured, stay = head(states, batch), head.stay(states.request)[:, 0]
        head.stay.weight.zero_()
        head.stay.bias.zero_()
        added = (favoured - head(states, batch)).nan_to_num()  # NaN = -inf + inf where a turn is not earlier
    expected = torch.zeros_like(added)
    for row, t in enumerate(t for turns in batch.num_turns for t in range(turns)):
        if t:
            expected[row, t] = stay[row]  # choice 0 is a new goal, so choice t is turn t - 1
    torch.testing.assert_close(added, expected, rtol=0.0, atol=1e-5)
