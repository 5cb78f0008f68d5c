"""Talk to a model in the browser. `python -m scripts.chat_web -i sft`, then http://localhost:8000"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from nanochat.model_choice import ChatModelChoice
from nanochat.sampling import Sampling
from nanochat.system import cli
from nanochat.system.errors import UserError

# What bind() says on a machine where IPv6 is turned off or was never built in.
NO_IPV6 = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)


@dataclass(frozen=True)
class Config:
    """Serve a model to the browsers and programs of this machine, and to no others."""

    port: Annotated[int, tyro.conf.arg(aliases=["-p"])] = 8000
    """of http://localhost"""
    model: ChatModelChoice = field(default_factory=ChatModelChoice)
    """which model to serve"""
    sampling: Sampling = field(default_factory=Sampling)
    """defaults for whatever a request leaves open"""

    def __post_init__(self) -> None:
        """Check the port; raises ValueError."""
        if not 1 <= self.port <= 65535:
            raise ValueError(f"port={self.port}: it must be from 1 to 65535")


def main(config: Config) -> None:
    """Take the port, load the model, serve until Ctrl-C."""
    # First what can be refused at once: the port, then the model's name. Torch takes seconds.
    listening = listen(config.port)
    found = config.model.find()
    from nanochat.engine import Engine
    from nanochat.server.app import create_app
    from nanochat.server.connections import Server
    from nanochat.server.worker import Worker

    model, tokenizer, _ = config.model.load(found)
    worker = Worker(Engine(model, tokenizer))  # from here on, only its thread runs the model
    app = create_app(worker, f"{found.tag} {config.model.source}", config.sampling)
    print(
        f"{found.tag} ({config.model.source}) is at http://localhost:{config.port}; "
        "press Ctrl-C to stop",
        flush=True,
    )
    try:
        Server(app, worker).run(sockets=listening)
    finally:
        worker.close()


def listen(port: int) -> list[socket.socket]:
    """Sockets that listen on this machine's port, and only this machine's. Port 0: any free one.

    On both of localhost's addresses: a browser may try either, and on one that we left open another
    program could answer in our place. Raises UserError for a port in use.
    """
    taken: list[socket.socket] = []
    # IPv4 first: where it works and IPv6 does not exist, one address is enough.
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            one = socket.socket(family, socket.SOCK_STREAM)
            # Or the port of a server that was just stopped stays unusable for a minute.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((address, port))
            one.listen()  # an early browser waits for the model instead of failing
        except OSError as error:
            if error.errno in NO_IPV6 and taken:
                break
            other = port + 1 if 1024 <= port < 65535 else 8001  # below 1024 only root may listen
            raise UserError(
                f"port={port} can't be used ({error.strerror}): give another, --port={other}"
            ) from None
        taken.append(one)
        port = one.getsockname()[1]
    return taken


if __name__ == "__main__":
    cli.run(main, Config, "python -m scripts.chat_web")
