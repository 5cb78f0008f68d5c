"""One thread owns the model; requests wait in a queue, and one answer is written at a time.

The event loop never runs the model, so the server responds while the model is busy. A job whose
client has left is cancelled: it gives up its place in the queue at once, or stops at the next piece
of its answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Sequence

from nanochat.engine import Engine, Event
from nanochat.sampling import Sampling

# More would only wait longer: told to come back, a client knows where it stands.
MAX_WAITING = 8


class Busy(Exception):
    """Too many requests are waiting already."""


class Stopped(Exception):
    """The server is shutting down."""


class Job:
    """One answer in the making; iterate over its events in the event loop that asked for it."""

    def __init__(self, prompt: Sequence[int], sampling: Sampling) -> None:
        self.prompt, self.sampling = prompt, sampling
        self.cancelled = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | Exception | None] = asyncio.Queue()

    def cancel(self) -> None:
        """Stop it: its client has left."""
        self.cancelled.set()

    def put(self, event: Event | Exception | None) -> None:
        """Hand over an event, an error, or (None) the end; callable from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and so is the connection
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def events(self) -> AsyncIterator[Event]:
        """The answer's events as they come; leaving early cancels the job."""
        try:
            while (event := await self._events.get()) is not None:
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self.cancel()


class Worker:
    """The thread of one model."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        # A list and a condition, not a queue.Queue: a cancelled job must be able to leave the
        # middle of it, or eight closed tabs would turn everyone away until the answer before them
        # ends.
        self._changed = threading.Condition()  # guards the fields below
        self._waiting: list[Job] = []
        self._answering: Job | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def submit(self, prompt: Sequence[int], sampling: Sampling) -> Job:
        """Queue a request. Raises Busy if too many are waiting, Stopped during shutdown."""
        job = Job(prompt, sampling)
        with self._changed:
            if self._stopped:
                raise Stopped
            self._waiting = [other for other in self._waiting if not other.cancelled.is_set()]
            if len(self._waiting) >= MAX_WAITING:
                raise Busy
            self._waiting.append(job)
            self._changed.notify()
        return job

    def stop(self) -> None:
        """End every answer and accept no more."""
        with self._changed:
            # The client of the answer in progress is told too, without waiting for the model.
            self._stopped = True
            for job in [*self._waiting, *filter(None, [self._answering])]:
                job.cancel()
                job.put(Stopped())
            self._changed.notify()

    def close(self, timeout_s: float = 10) -> None:
        """Stop, and wait for the thread: exiting in the middle of torch's work may crash."""
        self.stop()
        self._thread.join(timeout_s)

    def _next(self) -> Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopped)
            self._answering = None if self._stopped else self._waiting.pop(0)
            return self._answering

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                if not job.cancelled.is_set():
                    for event in self.engine.stream(job.prompt, job.sampling):
                        job.put(event)
                        if job.cancelled.is_set():
                            break
                job.put(None)
            except BaseException as error:  # even a Rust panic: the next answer may succeed
                job.put(error if isinstance(error, Exception) else RuntimeError(repr(error)))
