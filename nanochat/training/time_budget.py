"""Iterations that fit into a time: measured on the first steps, then fixed; later only shortened.

The clock is handed in, so that eight hours can be tested in a millisecond.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable

# Share of the budget in which the number of iterations follows the clock. No stage of ours lets its
# learning rate fall so early.
CALIBRATION_SHARE = 0.2
CALIBRATION_STEPS = 3  # at least; the very first one is slow and not counted
SLIP = 0.02  # how much later than the budget the end may look before the run is shortened
# Steps that the guard looks back over: a quarter of those that are left, within these bounds. A
# program that keeps the machine busy for a minute must not cut hours of training short.
LEAST_STEPS, MOST_STEPS = 50, 1_000


class TimeBudget:
    """How many updates a stage makes: `iterations(step, step_s)` after each one.

    seconds: for the whole stage from `started` on the clock, with what comes after the last step
    (save, evaluation), which `end_s` is kept free for.
    """

    def __init__(
        self,
        seconds: float,
        started: float,
        end_s: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.seconds, self.started, self.end_s, self.clock = seconds, started, end_s, clock
        self.fixed: int | None = None
        self.shortened_at: int | None = None  # step at which the guard last shortened the run
        self._elapsed = 0.0
        self._recent: deque[float] = deque(maxlen=MOST_STEPS)
        self._first = True

    def iterations(self, step: int, step_s: float) -> int:
        """Updates in all, as seen after update number `step`, which took step_s seconds."""
        if not self._first:
            self._recent.append(step_s)
        self._first = False
        # The clock on the wall, as it counts sleep; but it may be set back, and steps take time.
        elapsed = self._elapsed = max(self.clock() - self.started, self._elapsed + step_s)
        left = self.seconds - self.end_s - elapsed
        if self.fixed is None:
            pace = self._pace(MOST_STEPS) if self._recent else step_s
            fits = step + max(0, int(left / pace))
            calibrated = elapsed >= CALIBRATION_SHARE * self.seconds
            if calibrated and len(self._recent) >= CALIBRATION_STEPS:
                self.fixed = fits
            return max(fits, step if calibrated else step + 1)
        ahead = self.fixed - step
        if len(self._recent) < max(CALIBRATION_STEPS, min(LEAST_STEPS, ahead // 4)):
            return self.fixed  # a resumed run's first steps are slow and say little
        pace = self._pace(max(LEAST_STEPS, ahead // 4))
        fits = step + max(0, int(left / pace))
        if ahead * pace > left + SLIP * self.seconds and fits < self.fixed:
            self.fixed, self.shortened_at = fits, step
        return self.fixed

    def _pace(self, steps: int) -> float:
        """Median seconds of the last so many steps."""
        return statistics.median(list(self._recent)[-steps:])
