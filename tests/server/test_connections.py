"""Clients that leave, that never finish what they say, and that are too many."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import resource
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from nanochat.gpt import GPT
from nanochat.server import connections
from nanochat.server.worker import MAX_WAITING, Job, Worker
from nanochat.system.errors import UserError
from nanochat.tokenizer import Tokenizer
from scripts import chat_web
from tests.server.scripted import HI, URL, Scripted, connect, head, served

BODY = json.dumps({"messages": HI}).encode()
STREAMED = json.dumps({"messages": HI, "stream": True}).encode()
# What a client says before it falls silent or leaves.
BEGINNINGS = {
    "nothing": b"",
    "half a head": b"POST /v1/chat/compl",
    "half a body": head(100) + b'{"mess',
    "half of the next": b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2 + head(100) + b"{",
}


@pytest.fixture
def engine(tiny_model: GPT, tokenizer: Tokenizer) -> Iterator[Scripted]:
    found = Scripted(tiny_model, tokenizer)
    yield found
    found.go.set()


def rest(connection: socket.socket, end: bytes = b"\0") -> bytes:
    """What comes until `end`, or until the server closes; TimeoutError where it does not."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while end not in found and (more := connection.recv(65536)):
            found += more
    return found


def until(true: Any) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("abruptly", [False, True])
def test_who_leaves_leaves_no_word(
    engine: Scripted, capfd: pytest.CaptureFixture, abruptly: bool
) -> None:
    engine.say(*"abcdefgh")
    whole = [head(len(BODY)) + BODY, head(len(STREAMED)) + STREAMED]
    upgrade = (
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    with served(engine) as address:
        for said in [*BEGINNINGS.values(), *whole, b"\0\r\n\r\n", upgrade]:
            with connect(address) as connection:
                connection.sendall(said)
                time.sleep(0.02)  # until it is being read
                if abruptly:
                    at_once = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        assert requests.get(address + "/health", timeout=20).status_code == 200
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("body", [BODY, STREAMED])
def test_the_dead_give_up_their_place_in_the_queue(
    engine: Scripted, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    taken: list[Job] = []
    submit = Worker.submit
    monkeypatch.setattr(Worker, "submit", lambda *args: taken.append(submit(*args)) or taken[-1])
    engine.say("a", "b")
    engine.go.clear()
    with served(engine) as address, contextlib.ExitStack() as alive:
        first = alive.enter_context(connect(address))
        first.sendall(head(len(body)) + body)
        assert engine.begun.wait(10)
        with contextlib.ExitStack() as waiting:
            for _ in range(MAX_WAITING):
                waiting.enter_context(connect(address)).sendall(head(len(body)) + body)
            until(lambda: len(taken) == MAX_WAITING + 1)
            wanted = {"json": {"messages": HI, "stream": True}, "stream": True, "timeout": 20}
            assert requests.post(address + URL, **wanted).status_code == 429
        until(lambda: requests.post(address + URL, **wanted).status_code == 200)
        assert len(engine.prompts) == 1  # the first is still being answered


def test_who_leaves_while_his_conversation_is_read_is_not_answered(
    engine: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading: list[socket.socket] = []
    read: list[str] = []

    def leave(*_: Any) -> tuple[list[int], int]:
        reading.pop().close()
        time.sleep(0.1)
        read.append("")
        return [0], 0

    monkeypatch.setattr("nanochat.server.app.prompt_with_room", leave)
    engine.say("x")
    with served(engine) as address:
        for body in (BODY, STREAMED):
            reading.append(connect(address))
            reading[0].sendall(head(len(body)) + body)
            until(lambda: not reading)
        until(lambda: len(read) == 2)
        monkeypatch.undo()
        assert requests.post(address + URL, json={"messages": HI}, timeout=20).status_code == 200
    assert len(engine.prompts) == 1


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_a_request_must_come_in_within_its_time(
    engine: Scripted, monkeypatch: pytest.MonkeyPatch, beginning: str
) -> None:
    """However it trickles; an answer may take longer."""
    monkeypatch.setattr(connections, "PATIENCE_S", 0.3)
    engine.say("a", "b")
    engine.go.clear()
    with served(engine) as address, connect(address) as answered, connect(address) as slow:
        answered.sendall(head(len(STREAMED)) + STREAMED)
        slow.sendall(BEGINNINGS[beginning])
        began = time.monotonic()
        slow.settimeout(0.05)
        while time.monotonic() < began + 5:
            try:
                rest(slow)
                break
            except TimeoutError:
                with contextlib.suppress(OSError):
                    slow.sendall(b"x" if beginning != "nothing" else b"")
        assert 0.2 < time.monotonic() - began < 4
        engine.go.set()
        assert b"[DONE]" in rest(answered, b"[DONE]")


def test_who_does_not_read_is_let_go(engine: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "PATIENCE_S", 0.3)
    engine.say("x" * 8_000_000, "y")
    with served(engine) as address, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # as little as there can be
        deaf.settimeout(20)
        deaf.connect(("127.0.0.1", int(address.split(":")[-1])))
        deaf.sendall(head(len(STREAMED)) + STREAMED)
        time.sleep(0.6)
        assert len(rest(deaf)) < 8_000_000


def test_too_many_connections_shut_nobody_out(
    engine: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that has been slow for longest makes room, not one that is being answered."""
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 10)
    engine.say("a", "b")
    engine.go.clear()
    with served(engine) as address, contextlib.ExitStack() as opened:
        answered = opened.enter_context(connect(address))
        answered.sendall(head(len(STREAMED)) + STREAMED)
        assert engine.begun.wait(10)
        slow = [opened.enter_context(connect(address)) for _ in range(30)]
        assert requests.get(address + "/health", timeout=5).status_code == 200
        for connection in slow[:20]:
            assert rest(connection) == b""
        slow[-1].settimeout(0.05)
        with pytest.raises(TimeoutError):
            rest(slow[-1])
        engine.go.set()
        assert b"[DONE]" in rest(answered, b"[DONE]")


@pytest.mark.parametrize(
    ("files", "most"), [(60, 15), (256, 64), (1024, 100), (resource.RLIM_INFINITY, 100)]
)
def test_connections_never_take_all_files(
    engine: Scripted,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
    files: int,
    most: int,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    worker = Worker(engine)
    server = connections.Server(lambda *_: None, worker)  # type: ignore[arg-type]
    worker.close()
    assert server.config.limit_concurrency == most
    loop = asyncio.new_event_loop()
    for number in (errno.EMFILE, errno.ENFILE) * 50:
        server._on_loop_error(loop, {"exception": OSError(number, "Too many open files")})
    loop.close()
    assert capfd.readouterr() == (
        "no more connections for now (Too many open files): new ones have to wait\n",
        "",
    )


def test_the_servers_end_does_not_wait_for_the_slow(
    engine: Scripted, capfd: pytest.CaptureFixture
) -> None:
    with contextlib.ExitStack() as opened, served(engine) as address:
        for beginning in BEGINNINGS.values():
            opened.enter_context(connect(address)).sendall(beginning)
        requests.get(address + "/health", timeout=20)
        began = time.monotonic()
    assert time.monotonic() - began < 2
    assert capfd.readouterr() == ("", "")


# ---- the port


def test_localhost_is_us_by_either_address(engine: Scripted) -> None:
    with served(engine) as address:
        port = address.split(":")[-1]
        for host in ("127.0.0.1", "localhost", *(["[::1]"] if has_ipv6() else [])):
            assert requests.get(f"http://{host}:{port}/health", timeout=20).status_code == 200


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="NOT TESTED: no IPv6 here")
def test_a_port_that_another_program_has_on_ipv6_is_refused() -> None:
    with socket.socket(socket.AF_INET6) as other:
        other.bind(("::1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port={port} can't be used"):
            chat_web.listen(port)
    for taken in chat_web.listen(port):  # and was let go again
        taken.close()


def test_a_machine_without_ipv6_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old(socket.socket):
        def bind(self, address: Any) -> None:
            if self.family == socket.AF_INET6:
                raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
            super().bind(address)

    monkeypatch.setattr(socket, "socket", Old)
    (taken,) = chat_web.listen(0)
    taken.close()
