"""The schedule: up and down over steps or over time, without a jump where the budget changes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelgen.training.schedule import Schedule

counts = st.integers(1, 300)


def test_it_rises_and_falls() -> None:
    values = [Schedule(0.2, 50).factor(step) for step in range(51)]
    assert values[0] == pytest.approx(0.1)
    assert 0 < values[0] < values[5] < values[9] == max(values) == 1.0
    assert values[9:] == sorted(values[9:], reverse=True)
    assert values[30] == pytest.approx(0.5)
    assert values[50] == 0.0


def test_without_a_number_of_steps_time_decides() -> None:
    schedule = Schedule(0.1, None, 100.0)
    values = [schedule.factor(step, elapsed) for step, elapsed in enumerate((0, 5, 10, 55, 100))]
    assert values == pytest.approx([0, 0.5, 1.0, 0.5, 0.0], abs=1e-4)


def test_of_two_bounds_the_nearer_one_counts() -> None:
    schedule = Schedule(0.1, 1000, 100.0)
    assert schedule.factor(500, 10.0) == Schedule(0.1, 1000).factor(500)
    assert schedule.factor(100, 100.0) == 0.0


@given(counts, counts, counts, st.floats(0, 1))
def test_a_changed_budget_continues_without_a_jump(steps: int, longer: int, at: int, warmup: float) -> None:
    first = Schedule(warmup, steps)
    at = min(at, steps)
    changed = first.resumed(at, 0.0, steps + longer, None)
    rates = [first.factor(step) for step in range(at)] + [changed.factor(step) for step in range(at, steps + longer + 1)]
    assert changed.base == first.factor(at)
    rest = steps + longer - at
    warm = max(1, round(warmup * rest))
    assert abs(rates[at] - changed.base) <= 1 / warm + 1e-9, "no more than a step of its warm-up"
    assert max(changed.factor(at + warm - 1), 1e-9) == pytest.approx(rest / (steps + longer)), "where a decay over the whole would stand"
    assert rates[-1] == 0.0
    assert all(0 <= rate <= 1 for rate in rates)
    assert changed.resumed(at, 0.0, steps + longer, None) is changed


def test_a_changed_time_continues_too() -> None:
    changed = Schedule(0.0, None, 100.0).resumed(7, 50.0, None, 200.0)
    assert changed.base == pytest.approx(0.5, abs=1e-4)
    assert [changed.factor(8, elapsed) for elapsed in (50.001, 125.0, 200.0)] == pytest.approx([0.75, 0.375, 0.0], abs=1e-3)


def test_a_run_has_an_end() -> None:
    with pytest.raises(ValueError, match="no end"):
        Schedule(0.1, None, None)
