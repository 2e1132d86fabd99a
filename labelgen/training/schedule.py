"""The learning rate over a run: linear warm-up, linear decay to 0 at the end of the budget, and how it continues with a changed budget."""

from __future__ import annotations

from dataclasses import dataclass, replace

UNITS = 1_000_000  # a budget that is bounded by time alone has so many pseudo-steps


@dataclass(frozen=True)
class Schedule:
    """The share of the peak rate at each step.

    The share rises linearly from 0 to 1 over the share `warmup` of the budget, then falls linearly to 0 at its end. The budget is a number
    of `steps`, of `seconds`, or both (None: no such bound). If both are given, the one that is used up more counts. So the rate also decays
    to 0 in a run that ends by time, but then the rates, and with them the weights, depend on the speed of the machine.

    A run that is resumed with another budget (`resumed`) starts at the share that it had, `base`. Over the share `warmup` of what is left
    of the new budget it moves linearly to the share of the budget that is left. Then it falls linearly to 0 at the new end, without a jump.
    """

    warmup: float
    steps: int | None
    seconds: float | None = None
    start: float = 0.0  # position at which this budget was set
    base: float = 0.0  # factor at `start`

    def __post_init__(self) -> None:
        if self.steps is None and self.seconds is None:
            raise ValueError("the run has no end: give trainer.max_epochs, trainer.max_steps or trainer.max_time")

    @property
    def total(self) -> int:
        """The position at the end: the number of steps if that is bounded."""
        return UNITS if self.steps is None else self.steps

    def position(self, step: int, elapsed: float) -> float:
        """How far the run is after so many steps and seconds."""
        by_time = 0.0 if self.seconds is None else self.total * elapsed / max(self.seconds, 1e-9)
        return by_time if self.steps is None else max(float(step), by_time)

    def factor(self, step: int, elapsed: float = 0.0) -> float:
        """The share of the peak rate at a step, counted from 0."""
        rest = max(self.total - self.start, 0.0)
        peak = rest / max(1, self.total)
        warm = max(1, round(self.warmup * rest))
        passed = max(self.position(step, elapsed) - self.start, 0.0)
        if passed + 1 <= warm:
            return self.base + (peak - self.base) * (passed + 1) / warm
        return peak * max(0.0, min(1.0, (rest - passed) / max(1.0, rest - warm)))

    def resumed(self, step: int, elapsed: float, steps: int | None, seconds: float | None) -> Schedule:
        """The schedule from here on, for a budget that may have changed."""
        if (steps, seconds) == (self.steps, self.seconds):
            return self
        changed = replace(self, steps=steps, seconds=seconds)
        return replace(changed, start=changed.position(step, elapsed), base=self.factor(step, elapsed))
