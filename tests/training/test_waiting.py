"""The loop while it waits for data: a download may take minutes, and Ctrl-C must not."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from nanochat.data.dataloader import Batch, Prefetcher
from nanochat.training.loop import LoopConfig, TrainState, train


class Save:
    """Notes when it was called."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.begun = threading.Event()

    def due(self, step: int, last: bool) -> bool:
        self.begun.set()
        return False

    def __call__(self, state: TrainState, last: bool) -> dict[str, float]:
        self.steps.append(state.step)
        return {}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_wait_and_the_step_before_is_saved(number: int) -> None:
    come, save = threading.Event(), Save()

    def items() -> Iterator[Batch]:
        come.wait()
        yield from ()

    def send() -> None:
        save.begun.wait()
        time.sleep(0.1)  # until it waits; a signal before that is seen at the step boundary
        os.kill(os.getpid(), number)

    stream = Prefetcher(items())
    threading.Thread(target=send, daemon=True).start()
    config, state = LoopConfig("base", 1, lambda progress: 1.0), TrainState(9, step=7)
    unused: Any = None
    assert train(unused, unused, stream, config, state, save, (), unused, unused) is False
    assert save.steps == [7]
    come.set()
    stream.close()
