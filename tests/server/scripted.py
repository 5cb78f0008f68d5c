"""An engine that says what a test tells it to, when the test tells it to, and a server of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from nanochat.engine import Engine, Event
from nanochat.gpt import GPT
from nanochat.sampling import Sampling
from nanochat.server.app import create_app
from nanochat.server.connections import Server
from nanochat.server.worker import Worker
from nanochat.tokenizer import Tokenizer
from scripts.chat_web import listen

HI = [{"role": "user", "content": "Hi?"}]
URL = "/v1/chat/completions"


class Scripted(Engine):
    """Answers with `events`; waits for `go` before each one but the first where it is held."""

    def __init__(self, model: GPT, tokenizer: Tokenizer) -> None:
        super().__init__(model, tokenizer)
        self.forget()

    def forget(self) -> None:
        """Begin again: nothing was asked, nothing is to be said."""
        self.script: list[Event | Exception] = []
        self.go = threading.Event()
        self.go.set()
        self.begun = threading.Event()
        self.left = threading.Event()  # somebody stopped listening before the end
        self.prompts: list[list[int]] = []
        self.samplings: list[Sampling] = []

    def say(self, *texts: str, why: str = "stop") -> None:
        self.script = [*(Event("text", text) for text in texts), Event("done", why, len(texts))]

    def drip(self) -> bool:
        """Go on piece by piece until nobody listens; whether that came before the end.

        All at once would be over before a server could notice who has gone.
        """
        for _ in range(1000):
            self.go.set()
            self.go.clear()
            if self.left.wait(0.01):
                break
        self.go.set()
        return self.left.is_set()

    def stream(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[Event]:
        self.prompts.append(list(prompt))
        self.samplings.append(sampling)
        self.begun.set()
        try:
            for i, event in enumerate(list(self.script)):
                if i:
                    assert self.go.wait(20), "the test never let it go on"
                if isinstance(event, Exception):
                    raise event
                yield event
        except GeneratorExit:
            self.left.set()
            raise


@contextmanager
def served(engine: Engine) -> Iterator[str]:
    """The address of a server of this engine, in a thread."""
    listening = listen(0)
    worker = Worker(engine)
    server = Server(create_app(worker, "d4 sft", Sampling(0.0, 50, 32)), worker)
    thread = threading.Thread(target=server.run, args=(listening,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(5)


def connect(address: str) -> socket.socket:
    """A connection that a test speaks HTTP on by itself."""
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def head(length: int) -> bytes:
    """Of a question with a body of so many bytes."""
    return (
        f"POST {URL} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()
