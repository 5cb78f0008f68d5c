"""The only training loop. Base, mid and SFT give it a model, batches, a schedule and hooks.

At a step boundary the hooks run in the order given (save, evaluate, sample); then one optimiser
update from grad_accum micro-batches, its loss the true mean over all supervised tokens.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from nanochat.data.dataloader import Batch, Position
from nanochat.system.device import Device
from nanochat.system.log import Metrics, StepLine, duration
from nanochat.training.optim import MuonAdamW


class Diverged(Exception):
    """Loss or gradient norm is not finite; raised before the update, so nothing is spoilt."""


@dataclass
class TrainState:
    """What can be resumed besides weights and optimiser; nothing else may matter to a step."""

    step: int = 0  # optimiser updates done
    tokens: int = 0  # read so far, supervised or not
    position: Position | None = None  # in the stream, after the last update
    metrics: dict[str, float] = field(default_factory=dict)  # of the last evaluation


class StepStats(NamedTuple):
    """One update: loss in nats a supervised token, gradient norm, tokens read."""

    loss: float
    grad_norm: float
    tokens: int
    position: Position


class Hook(Protocol):
    """Something done at step boundaries."""

    def due(self, step: int, last: bool) -> bool:
        """Whether to run before the update after `step` updates; `last`: no update follows."""
        ...

    def __call__(self, state: TrainState, last: bool) -> dict[str, float]:
        """Do it; what it returns is logged as an evaluation."""
        ...


@dataclass(frozen=True)
class LoopConfig:
    """How long, how much at once, and how fast."""

    name: str  # shown at the head of the step line
    num_iterations: int
    grad_accum: int  # micro-batches an update
    multiplier: Callable[[float], float]  # progress in [0, 1] -> learning-rate multiplier


def train_step(
    loss_of: Callable[[Tensor, Tensor], Tensor],
    optimizer: MuonAdamW,
    batches: Iterator[Batch],
    grad_accum: int,
    multiplier: float,
    device: Device,
    tick: Callable[[int], None] = lambda micro: None,
) -> StepStats:
    """One update from grad_accum batches; loss_of(inputs, targets) is a sum in nats.

    Raises Diverged before the update where loss or gradient norm is not finite.
    """
    micro = [next(batches) for _ in range(grad_accum)]
    n_valid = sum(batch.n_valid for batch in micro)
    total = torch.zeros((), device=device.torch)
    for i, batch in enumerate(micro):
        inputs, targets = batch.inputs.to(device.torch), batch.targets.to(device.torch)
        loss = loss_of(inputs, targets) / n_valid
        loss.backward()
        total += loss.detach()
        tick(i + 1)
    norm = optimizer.clip()
    stats = StepStats(
        total.item(),
        norm.item(),
        sum(batch.inputs.numel() for batch in micro),
        micro[-1].position,
    )
    if not (math.isfinite(stats.loss) and math.isfinite(stats.grad_norm)):
        raise Diverged(f"loss {stats.loss}, gradient norm {stats.grad_norm}")
    optimizer.step(multiplier)
    optimizer.zero_grad()
    return stats


def train(
    loss_of: Callable[[Tensor, Tensor], Tensor],
    optimizer: MuonAdamW,
    batches: Iterator[Batch],
    config: LoopConfig,
    state: TrainState,
    hooks: Sequence[Hook],
    metrics: Metrics,
    device: Device,
) -> bool:
    """Train from state.step to num_iterations, updating `state` in place.

    Returns False where a signal stopped it early: the step was finished and the first hook (the
    save) has run. Raises Diverged with the step and the position in the data.
    """
    line = StepLine(config.num_iterations)
    seconds = 0.0  # of the steps of this run, without hooks; its first step is not counted
    first = state.step
    with _signals_noted() as signals:
        while True:
            last = state.step >= config.num_iterations
            for hook in hooks:
                if hook.due(state.step, last):
                    line.close()
                    found = hook(state, last)
                    if found:
                        state.metrics |= found
                        metrics.write(step=state.step, eval=found)
            if last:
                return True
            if signals:
                line.close()
                hooks[0](state, last)
                return False
            started = time.monotonic()
            multiplier = config.multiplier((state.step + 0.5) / config.num_iterations)
            shown = f"{config.name} {state.step + 1:05d}/{config.num_iterations:05d}"

            def tick(micro: int, shown: str = shown) -> None:
                if line.terminal and config.grad_accum > 1:
                    line.show(state.step, f"{shown} | micro-batch {micro}/{config.grad_accum}")

            try:
                stats = train_step(
                    loss_of, optimizer, batches, config.grad_accum, multiplier, device, tick
                )
            except Diverged as error:
                line.close()
                raise Diverged(
                    f"step {state.step + 1}: {error}; data at {state.position}"
                ) from None
            device.synchronize()
            step_s = time.monotonic() - started
            if state.step > first:
                seconds += step_s
            state.step += 1
            state.tokens += stats.tokens
            state.position = stats.position
            memory = device.memory_bytes()
            counted = max(1, state.step - first - 1)
            left = (config.num_iterations - state.step) * (seconds / counted or step_s)
            line.show(
                state.step,
                f"{shown} | loss {stats.loss:.3f} | {stats.tokens / step_s:,.0f} tok/s | "
                f"{step_s:.2f} s | {memory / 1e9:.1f} GB | {duration(left)} left",
            )
            metrics.write(
                step=state.step,
                num_iterations=config.num_iterations,
                loss=stats.loss,
                lr=multiplier,
                tokens=state.tokens,
                tokens_per_s=round(stats.tokens / step_s, 1),
                step_s=round(step_s, 4),
                grad_norm=stats.grad_norm,
                memory_bytes=memory,
            )
            if state.step == config.num_iterations:
                line.close()


@contextlib.contextmanager
def _signals_noted() -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGHUP instead of dying; a second SIGINT interrupts at once.

    An ignored SIGHUP stays ignored, so that nohup works.
    """
    noted: list[int] = []

    def note(number: int, frame: Any) -> None:
        if noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        noted.append(number)

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
