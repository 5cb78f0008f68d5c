"""How long a step takes, and how long the machine slept in it."""

from __future__ import annotations

import time

ASLEEP_S = 60.0  # a gap in a step that can't be work


class StepClock:
    """Times each step; its mean leaves out the first step, which is slow, and sleep."""

    def __init__(self) -> None:
        self.steps, self.seconds = -1, 0.0
        self._started = self._wall_started = 0.0

    def start(self) -> None:
        """A step begins."""
        self._started, self._wall_started = time.monotonic(), time.time()

    def stop(self) -> tuple[float, float]:
        """(seconds of work, seconds of sleep) of the step that ends."""
        step_s, usual_s = time.monotonic() - self._started, self.mean()
        asleep_s = slept_s(time.time() - self._wall_started, step_s, usual_s)
        if asleep_s:  # a closed lid says nothing about the pace of what is left
            step_s = usual_s or step_s
        self.steps += 1
        if self.steps > 0:
            self.seconds += step_s
        return step_s, asleep_s

    def mean(self) -> float | None:
        """Mean seconds per step so far; None before the second step."""
        return self.seconds / self.steps if self.steps > 0 else None


def slept_s(wall_s: float, step_s: float, usual_s: float | None) -> float:
    """Seconds of a step in which the machine slept or the process was stopped, else 0.

    wall_s by the wall clock, step_s by the monotonic one, which stands still in sleep on most
    systems. Where it runs on, a step far longer than the usual one gives the sleep away.

    >>> slept_s(3600.5, 0.5, 0.5), slept_s(3600.5, 3600.5, 0.5), slept_s(70.0, 70.0, 50.0)
    (3600.0, 3600.0, 0.0)
    """
    asleep = wall_s - (step_s if usual_s is None else min(step_s, 10 * usual_s))
    if asleep <= ASLEEP_S:
        return 0.0
    return wall_s - min(step_s, step_s if usual_s is None else usual_s)
