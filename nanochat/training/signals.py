"""Ctrl-C, kill and a closed terminal while training: noted, and heeded between two steps."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


class _StopWaiting(BaseException):
    """Raised inside a signal's handler, and only while no step is under way."""


class Signals(list[int]):
    """The signals that came while training."""

    waiting = False  # for data, as a download may take minutes, or for room on the disk

    def unless_noted(self, wait: Callable[[], T]) -> T | None:
        """What `wait` returns; None as soon as a signal has come, also in the middle of it."""
        try:
            try:
                self.waiting = True
                return None if self else wait()
            finally:
                self.waiting = False
        except _StopWaiting:
            return None


@contextlib.contextmanager
def noting(noted: Signals) -> Iterator[Signals]:
    """Collect SIGINT, SIGTERM and SIGHUP instead of dying; a second SIGINT interrupts at once.

    An ignored SIGHUP stays ignored, so that nohup works.
    """

    def note(number: int, frame: Any) -> None:
        if noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        noted.append(number)
        # Python resumes a blocking wait after the handler returns, so only an exception ends it.
        if noted.waiting:
            raise _StopWaiting

    before = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        handler = signal.getsignal(number)
        if number == signal.SIGHUP and handler == signal.SIG_IGN:
            continue
        before[number] = signal.signal(number, note)
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
