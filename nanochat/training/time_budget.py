"""How many steps fit in a time: measured on the first ones, then fixed; later only shortened.

Fixed, because the learning rate follows progress: a number that kept changing would make its
schedule wander. The clock is handed in, so that eight hours can be tested in a millisecond.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable

# Share of the budget in which the number of steps still follows the clock. No stage lets its
# learning rate fall that early.
CALIBRATION_SHARE = 0.2
MIN_CALIBRATION_STEPS = 3  # the very first step is slow and not counted
SLIP = 0.02  # how much later than the budget the end may look before the run is shortened
# Steps whose median is the pace: a quarter of those that are left, within these bounds. A program
# that keeps the machine busy for a minute must not cut hours of training short.
MIN_STEPS, MAX_STEPS = 50, 1_000


class TimeBudget:
    """How many steps a stage makes: `iterations(step, step_s)` after each one.

    seconds: for the whole stage, from `started` on the clock; end_s of them are kept free for what
    follows the last step (save, evaluation).
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
        self._recent: deque[float] = deque(maxlen=MAX_STEPS)
        self._first = True

    def iterations(self, step: int, step_s: float) -> int:
        """Steps in all, as seen after step number `step`, which took step_s seconds."""
        if not self._first:
            self._recent.append(step_s)
        self._first = False
        # The wall clock, since sleep counts; but it can be set back, and a step never takes less
        # than its own time.
        elapsed = self._elapsed = max(self.clock() - self.started, self._elapsed + step_s)
        left = self.seconds - self.end_s - elapsed
        if self.fixed is None:
            pace = self._pace(MAX_STEPS) if self._recent else step_s
            fits = step + max(0, int(left / pace))
            calibrated = elapsed >= CALIBRATION_SHARE * self.seconds
            if calibrated and len(self._recent) >= MIN_CALIBRATION_STEPS:
                self.fixed = fits
            return max(fits, step if calibrated else step + 1)
        ahead = self.fixed - step
        if len(self._recent) < max(MIN_CALIBRATION_STEPS, min(MIN_STEPS, ahead // 4)):
            return self.fixed  # the first steps of a resume are slow and say little
        pace = self._pace(max(MIN_STEPS, ahead // 4))
        fits = step + max(0, int(left / pace))
        if ahead * pace > left + SLIP * self.seconds and fits < self.fixed:
            self.fixed, self.shortened_at = fits, step
        return self.fixed

    def _pace(self, steps: int) -> float:
        """Median seconds of the last so many steps."""
        return statistics.median(list(self._recent)[-steps:])
