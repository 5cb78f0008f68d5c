"""Connections: how many, and how long a client may keep the server waiting.

A process may open a limited number of files, and each connection is one. Without limits here, a
program that opens connections and never finishes a request would lock everyone else out.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from nanochat.server.worker import Worker
from nanochat.system.log import say

PATIENCE_S = 20.0  # for a whole request to arrive, or for a client to resume reading
MAX_CONNECTIONS = 100
BACKLOG = 64  # asyncio accepts this many in one go, before any of them can be counted
NO_MORE_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Connection(H11Protocol):
    """uvicorn's, with a timer that runs while it is the client's turn.

    An answer may take any time. What is limited is how long a client is silent, deaf, or so slow
    that its request never ends.
    """

    timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """If there are too many, drop the one that has kept the server waiting longest.

        Not the newest: then whoever holds the others would decide who else is answered.
        """
        super().connection_made(transport)
        self._watch()
        assert self.limit_concurrency is not None
        if len(self.connections) >= self.limit_concurrency:
            waits = {c: c.timer.when() for c in self.connections if c.timer}  # type: ignore
            slowest = min(waits, key=waits.__getitem__)
            self.connections.discard(slowest)
            slowest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        super().connection_lost(exc)
        if self.timer is not None:
            self.timer.cancel()

    def handle_events(self) -> None:
        """Called when data arrive and, on a kept connection, after each answer."""
        super().handle_events()
        self._watch()

    def pause_writing(self) -> None:
        """The client has stopped reading."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        self._watch()

    def shutdown(self) -> None:
        """Let answers in progress finish; drop requests in progress."""
        if self.timer and self.cycle and not self.cycle.response_complete:
            self.transport.abort()
        else:
            super().shutdown()

    def _watch(self) -> None:
        # Not restarted by each byte: a request that trickles in would last forever.
        owes_request = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        for_client = owes_request or self.flow.write_paused
        if for_client and self.timer is None:
            self.timer = self.loop.call_later(PATIENCE_S, self.transport.abort)
        elif not for_client and self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Server(uvicorn.Server):
    """uvicorn's, but it ends the answers in progress before it waits for them."""

    def __init__(self, app: ASGIApp, worker: Worker) -> None:
        # A quarter of the files at most: the model's, the libraries' and a log's are files too.
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)  # 256 on macOS
        few = files != resource.RLIM_INFINITY and files // 4 < MAX_CONNECTIONS
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_level="error",  # warnings would be a line per broken request
                backlog=BACKLOG,
                limit_concurrency=files // 4 if few else MAX_CONNECTIONS,
                timeout_graceful_shutdown=5,
            )
        )
        self.worker = worker
        self._told = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn inside its event loop."""
        asyncio.get_running_loop().set_exception_handler(self._on_loop_error)
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn after Ctrl-C."""
        self.worker.stop()
        await super().shutdown(sockets)

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in NO_MORE_FILES):
            loop.default_exception_handler(context)
        elif not self._told:  # asyncio retries every second, and would report each failure
            self._told = True
            say(f"no more connections for now ({error.strerror}): new ones have to wait")
