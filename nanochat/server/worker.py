"""One thread that owns the model; what is asked waits in a queue, one answer is made at a time.

The event loop never runs the model, so the server answers while a model thinks. A job that nobody
waits for any more is cancelled and ends at the next piece of its answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncIterator, Sequence

from nanochat.engine import Engine, Event, Sampling

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
        self._jobs: queue.Queue[Job | None] = queue.Queue(maxsize=MOST_WAITING)
        self._live: set[Job] = set()  # waiting or being answered
        self._stopped = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def submit(self, prompt: Sequence[int], sampling: Sampling) -> Job:
        """Ask; raises Busy where too many wait already."""
        job = Job(prompt, sampling)
        self._live.add(job)
        try:
            if self._stopped:
                raise queue.Full
            self._jobs.put_nowait(job)
        except queue.Full:
            self._live.discard(job)
            raise Busy from None
        return job

    def stop(self) -> None:
        """Let go at once of everybody who waits, whatever the model does; take no more."""
        self._stopped = True
        for job in list(self._live):
            job.cancel()
            job.put(Stopped())

    def close(self, timeout_s: float = 10) -> None:
        """Stop, and wait for the thread: a process must not end in the middle of torch's work."""
        self.stop()
        with contextlib.suppress(queue.Full):
            self._jobs.put(None, timeout=timeout_s)
            self._thread.join(timeout_s)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                if not job.cancelled.is_set():
                    for event in self.engine.stream(job.prompt, job.sampling):
                        job.put(event)
                        if job.cancelled.is_set():
                            break
                job.put(None)
            except Exception as error:  # one failed answer must not end the server
                job.put(error)
            finally:
                self._live.discard(job)
