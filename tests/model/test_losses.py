"""Losses equal their definitions written out; what is not labelled adds nothing, and leaves a gradient of zero."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from labelgen.inputs.batch import IGNORE
from labelgen.model.losses import info_nce, marginal_cross_entropy, masked_cross_entropy, ranked_probability


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(st.lists(st.sampled_from([IGNORE, 0, 1, 2]), min_size=1, max_size=8), st.integers(0, 99))
def test_masked_cross_entropy_is_torchs_over_the_labelled(target: list[int], seed: int) -> None:
    logits, labels = draw(seed, len(target), 3).requires_grad_(), torch.tensor(target)
    loss = masked_cross_entropy(logits, labels)
    loss.total.backward()
    wanted = F.cross_entropy(logits.detach(), labels, ignore_index=IGNORE, reduction="sum")
    assert loss.count == sum(label != IGNORE for label in target)
    assert loss.total.item() == pytest.approx(wanted.item(), abs=1e-5)
    assert logits.grad is not None
    assert not logits.grad[labels == IGNORE].any()
    moved = torch.where((labels == IGNORE)[:, None], logits.detach() + 7, logits.detach())
    assert masked_cross_entropy(moved, labels).total.item() == pytest.approx(wanted.item(), abs=1e-5)


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.integers(0, 99))
def test_distributions_as_targets(known: list[bool], seed: int) -> None:
    logits, hidden = draw(seed, len(known), 3), ~torch.tensor(known)
    target = draw(seed + 1, len(known), 3).softmax(1)
    target[hidden] = torch.nan
    for loss_of in (masked_cross_entropy, ranked_probability):
        wanted = 0.0
        for row, truth in zip(logits[~hidden], target[~hidden], strict=True):
            said, t = row.softmax(0).tolist(), truth.tolist()
            if loss_of is masked_cross_entropy:
                wanted -= sum(p * math.log(q) for p, q in zip(t, said, strict=True))
            else:
                wanted += sum((sum(said[: k + 1]) - sum(t[: k + 1])) ** 2 for k in range(3))
        free = logits.clone().requires_grad_()
        loss = loss_of(free, target)
        loss.total.backward()
        assert loss.count == sum(known)
        assert loss.total.item() == pytest.approx(wanted, abs=1e-4)
        assert free.grad is not None
        assert not free.grad[hidden].any()
        assert free.grad.isfinite().all()


def test_ranked_probability_knows_the_order() -> None:
    target = torch.tensor([[1.0, 0.0, 0.0]])
    near, far = torch.tensor([[0.0, 9.0, 0.0]]), torch.tensor([[0.0, 0.0, 9.0]])
    assert ranked_probability(near, target).total < ranked_probability(far, target).total
    assert masked_cross_entropy(near, target).total.item() == pytest.approx(masked_cross_entropy(far, target).total.item())


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
def test_marginal_cross_entropy_is_its_definition(rows: int, width: int, seed: int) -> None:
    logits = draw(seed, rows, width)
    allowed = draw(seed + 1, rows, width) > -0.5
    right = allowed & (draw(seed + 2, rows, width) > 0)
    loss = marginal_cross_entropy(logits, right, allowed)
    wanted, number = 0.0, 0
    for row in range(rows):
        some = [math.exp(x) for x, take in zip(logits[row].tolist(), right[row].tolist(), strict=True) if take]
        every = [math.exp(x) for x, take in zip(logits[row].tolist(), allowed[row].tolist(), strict=True) if take]
        if some:
            wanted, number = wanted - math.log(sum(some) / sum(every)), number + 1
    assert loss.count == number
    assert loss.total.item() == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
def test_what_is_not_labelled_may_hold_inf_and_nan(bad: float) -> None:
    """As with torch's `ignore_index`. In a row of choices, what is not allowed may hold them too."""
    plain, hidden = draw(0, 4, 3), torch.tensor([False, True, False, True])
    spoilt = plain.masked_fill(hidden[:, None], bad)
    number = torch.tensor([0, IGNORE, 2, IGNORE])
    shares = draw(1, 4, 3).softmax(1).masked_fill(hidden[:, None], torch.nan)
    right = torch.tensor([[True, False, False], [False] * 3, [False, True, False], [False] * 3])
    allowed = torch.tensor([[True, True, False], [True] * 3, [False, True, True], [False] * 3])
    cases = [
        (masked_cross_entropy, (number,), spoilt),
        (masked_cross_entropy, (shares,), spoilt),
        (ranked_probability, (shares,), spoilt),
        (marginal_cross_entropy, (right, allowed), spoilt.masked_fill(~allowed, bad)),
    ]
    for loss_of, target, logits in cases:
        clean, free = plain.clone().requires_grad_(), logits.requires_grad_()
        wanted, loss = loss_of(clean, *target), loss_of(free, *target)
        for one in (wanted, loss):
            one.total.backward()
        assert loss.total.item() == pytest.approx(wanted.total.item(), abs=1e-6)
        assert loss.count == wanted.count == 2
        torch.testing.assert_close(free.grad, clean.grad)
        assert free.grad is not None
        assert not free.grad[hidden].any()
        free.grad = None


def test_choices_that_do_not_exist_give_no_nan() -> None:
    logits = torch.tensor([[0.3, -torch.inf], [0.1, 0.2]], requires_grad=True)
    right = torch.tensor([[False, False], [False, True]])
    loss = marginal_cross_entropy(logits, right, torch.tensor([[True, False], [True, True]]))
    loss.total.backward()
    assert loss.total.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert not logits.grad[0].any()


def test_nothing_labelled_is_zero_with_a_gradient() -> None:
    for logits in (draw(0, 3, 4).requires_grad_(), torch.zeros(0, 4, requires_grad=True)):
        nothing = torch.zeros(logits.shape, dtype=torch.bool)
        target, shares = torch.full((len(logits),), IGNORE), torch.full(logits.shape, torch.nan)
        for loss in (
            masked_cross_entropy(logits, target),
            masked_cross_entropy(logits, shares),
            ranked_probability(logits, shares),
            marginal_cross_entropy(logits, nothing, ~nothing),
        ):
            logits.grad = None
            loss.total.backward()
            assert loss.total == 0
            assert loss.count == 0
            assert logits.grad is not None
            assert not logits.grad.any()


@given(st.integers(1, 4), st.integers(2, 5), st.integers(0, 99), st.sampled_from([0.05, 1.0]))
def test_info_nce_is_its_definition(number: int, keys: int, seed: int, temperature: float) -> None:
    queries, answers = draw(seed, number, 3), draw(seed + 1, keys, 3)
    right = torch.arange(number) % keys
    wanted = 0.0
    for q in range(number):
        chosen = int(right[q])
        score = [float(F.cosine_similarity(queries[q], key, dim=0)) / temperature for key in answers]
        wanted += math.log(sum(math.exp(score[k] - score[chosen]) for k in range(keys)))
    loss = info_nce(queries, answers, right, temperature)
    assert loss.count == number
    assert loss.total.item() == pytest.approx(wanted, abs=1e-3)
