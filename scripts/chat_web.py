"""Talk to a model in the browser. `python -m scripts.chat_web -i sft`, then http://localhost:8000"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from typing import Annotated

import tyro

from nanochat.system import cli
from nanochat.system.errors import UserError

NO_IPV6 = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)


@dataclass(frozen=True)
class Config:
    """Serve a model to the browsers and programs of this machine, and to no others."""

    source: Annotated[str, tyro.conf.arg(aliases=["-i"])] = "sft"
    """sft or mid"""
    model_tag: Annotated[str | None, tyro.conf.arg(aliases=["-g"])] = None
    """which model (default: the newest)"""
    step: Annotated[int | None, tyro.conf.arg(aliases=["-s"])] = None
    """which step (default: the last)"""
    port: Annotated[int, tyro.conf.arg(aliases=["-p"])] = 8000
    """of http://localhost"""
    temperature: Annotated[float, tyro.conf.arg(aliases=["-t"])] = 0.0
    """where a request says nothing else; 0: always the most likely word"""
    top_k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 50
    """the same for the number of tokens to choose among"""
    max_tokens: int = 256
    """the same for the tokens of an answer at most"""
    device_type: str | None = None
    """cuda, mps or cpu (default: the best there is)"""

    def __post_init__(self) -> None:
        """Refuse nonsense by name."""
        if self.source not in ("mid", "sft"):
            raise ValueError(f"-i {self.source}: it must be sft or mid")
        if not 1 <= self.port <= 65535:
            raise ValueError(f"port={self.port}: it must be from 1 to 65535")
        if self.temperature != 0 and not 0.01 <= self.temperature <= 10:
            raise ValueError(f"temperature={self.temperature}: it must be 0, or from 0.01 to 10")
        for name in ("top_k", "max_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: it must be 1 or more")
        cli.check_device_type(self.device_type)


def main(config: Config) -> None:
    """Take the port, load the model, serve until Ctrl-C."""
    listening = listen(config.port)
    from nanochat.training import checkpoint_manager as checkpoints

    found = checkpoints.find(config.source, config.model_tag, config.step)
    from nanochat.engine import Engine  # torch: after what a user can get wrong
    from nanochat.sampling import Sampling
    from nanochat.server.app import create_app
    from nanochat.server.connections import Server
    from nanochat.server.worker import Worker
    from nanochat.system.device import open_device

    model = found.model(open_device(config.device_type)).freeze()
    engine = Engine(model, found.tokenizer())
    defaults = Sampling(config.temperature, config.top_k, config.max_tokens)
    worker = Worker(engine)
    app = create_app(worker, f"{found.tag} {config.source}", defaults)
    print(
        f"{found.tag} ({config.source}) is at http://localhost:{config.port}; Ctrl-C ends it",
        flush=True,
    )
    try:
        Server(app, worker).run(sockets=listening)
    finally:
        worker.close()


def listen(port: int) -> list[socket.socket]:
    """Take the port at once, so that nobody waits for a model in vain; this machine only.

    Under both of localhost's addresses: a browser takes either, and on the one that we left open
    another program could answer. Port 0: any that is free.
    """
    taken: list[socket.socket] = []
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            one = socket.socket(family, socket.SOCK_STREAM)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((address, port))
            one.listen()  # a browser that is early waits instead of failing
        except OSError as error:
            if error.errno in NO_IPV6 and taken:
                break
            other = port + 1 if 1024 <= port < 65535 else 8001  # below 1024 is the system's
            raise UserError(
                f"port={port} can't be used ({error.strerror}): give another, --port={other}"
            ) from None
        taken.append(one)
        port = one.getsockname()[1]
    return taken


if __name__ == "__main__":
    cli.run(main, Config, "python -m scripts.chat_web")
