"""One thread that owns the model; what is asked waits in a queue, one answer is made at a time.

The event loop never runs the model, so the server answers while a model thinks. A job that nobody
waits for any more is cancelled: it gives up its place in the queue at once, or ends at the next
piece of its answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Sequence

from nanochat.engine import Engine, Event
from nanochat.sampling import Sampling

MOST_WAITING = 8


class Busy(Exception):
    """Too many wait already."""


class Stopped(Exception):
    """The server is being ended."""


class Job:
    """One answer under way; iterate over its events in the event loop that asked for it."""

    def __init__(self, prompt: Sequence[int], sampling: Sampling) -> None:
        self.prompt, self.sampling = prompt, sampling
        self.cancelled = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | Exception | None] = asyncio.Queue()

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self.cancelled.set()

    def put(self, event: Event | Exception | None) -> None:
        """Hand over an event, an error, or (None) the end; may be called in any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
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
        self._changed = threading.Condition()  # guards what follows
        self._waiting: list[Job] = []
        self._answering: Job | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def submit(self, prompt: Sequence[int], sampling: Sampling) -> Job:
        """Ask; raises Busy where too many wait already, Stopped where the server is ending."""
        job = Job(prompt, sampling)
        with self._changed:
            if self._stopped:
                raise Stopped
            self._waiting = [other for other in self._waiting if not other.cancelled.is_set()]
            if len(self._waiting) >= MOST_WAITING:
                raise Busy
            self._waiting.append(job)
            self._changed.notify()
        return job

    def stop(self) -> None:
        """Let go at once of everybody who waits, whatever the model does; take no more."""
        with self._changed:
            self._stopped = True
            for job in [*self._waiting, *filter(None, [self._answering])]:
                job.cancel()
                job.put(Stopped())
            self._changed.notify()

    def close(self, timeout_s: float = 10) -> None:
        """Stop, and wait for the thread: a process must not end in the middle of torch's work."""
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
            except BaseException as error:  # one failed answer, even a panic, ends no server
                job.put(error if isinstance(error, Exception) else RuntimeError(repr(error)))
