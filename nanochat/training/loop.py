"""The only training loop. Base, mid and SFT give it a model, batches, a schedule and hooks.

At a step boundary the hooks run in the order given (save, evaluate, sample); then one optimiser
update from grad_accum micro-batches, its loss the true mean over all supervised tokens.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from nanochat.data.dataloader import Batch, Position
from nanochat.system.device import Device
from nanochat.system.errors import Failure
from nanochat.system.log import Metrics, StepLine, counted, duration, say
from nanochat.training.batch_sizes import TOO_LARGE
from nanochat.training.faults import (
    Diverged,
    DivergenceGuard,
    OutOfMemory,
    is_out_of_memory,
    slept_s,
    split,
)
from nanochat.training.optim import MuonAdamW
from nanochat.training.time_budget import TimeBudget

T = TypeVar("T")


@dataclass
class TrainState:
    """What can be resumed besides weights and optimiser; nothing else may matter to a step."""

    num_iterations: int  # updates in all; fixed by the first steps where there is a time budget
    iterations_fixed: bool = True  # False while a time budget is still being measured
    step: int = 0  # updates done
    tokens: int = 0  # read so far, supervised or not
    position: Position | None = None  # in the stream, after the last update
    parts: int = 1  # that each micro-batch is cut into; more since memory ran out
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
    grad_accum: int  # micro-batches an update
    multiplier: Callable[[float], float]  # progress in [0, 1] -> learning-rate multiplier
    budget: TimeBudget | None = None  # decides num_iterations
    # Takes the run back to its last checkpoint after a Diverged, or raises it again.
    rollback: Callable[[TrainState, Diverged], None] | None = None
    signals: Signals = field(default_factory=lambda: Signals())  # a hook may look at them


def train_step(
    loss_of: Callable[[Tensor, Tensor], Tensor],
    optimizer: MuonAdamW,
    micro: Sequence[Batch],
    multiplier: float,
    device: Device,
    guard: DivergenceGuard,
    parts: int = 1,
    tick: Callable[[int], None] = lambda micro: None,
) -> StepStats:
    """One update from these micro-batches; loss_of(inputs, targets) is a sum in nats.

    parts: each micro-batch is cut into so many, which together teach the same. Before the update:
    raises OutOfMemory where that may help, Diverged where loss or gradient norm can't be right.
    """
    n_valid = sum(batch.n_valid for batch in micro)
    total = torch.zeros((), device=device.torch)
    try:
        for number, batch in enumerate(micro, 1):
            for piece in split(batch, parts):
                inputs, targets = (_moved(ids, device) for ids in (piece.inputs, piece.targets))
                # SFT's rows differ in how much they supervise: each token counts the same.
                loss = loss_of(inputs, targets) / n_valid
                loss.backward()
                total += loss.detach()
            tick(number)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise OutOfMemory from None
        raise
    norm = optimizer.clip()
    tokens = sum(batch.inputs.numel() for batch in micro)
    # Both numbers at once: reading one makes the host wait for all that a GPU still has to do.
    loss, norm = torch.stack((total, norm)).tolist()
    stats = StepStats(loss, norm, tokens, micro[-1].position)
    try:
        guard.check(stats.loss, stats.grad_norm, stats.position)
    except Diverged:
        optimizer.zero_grad()
        raise
    try:
        optimizer.step(multiplier)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        # A part of the weights has moved: trying again would move that part twice.
        raise Failure(f"out of memory on {device.type} in the update itself: {TOO_LARGE}") from None
    optimizer.zero_grad()
    return stats


def _moved(ids: Tensor, device: Device) -> Tensor:
    """Token ids on the device. From pinned memory a card fetches them without the host waiting."""
    if device.type != "cuda":
        return ids.to(device.torch)
    return ids.pin_memory().to(device.torch, non_blocking=True)


def fitting_step(
    step: Callable[[int], StepStats],
    rows: int,
    state: TrainState,
    optimizer: MuonAdamW,
    device: Device,
) -> StepStats:
    """`step` of micro-batches of so many rows, cut into state.parts; more for good at OutOfMemory.

    Raises Failure where a single row is too much.
    """
    while True:
        try:
            return step(state.parts)
        except OutOfMemory:
            at_once = -(-rows // state.parts)
        # Outside of the except: until there the error holds on to what had been computed.
        if at_once == 1:
            raise Failure(f"out of memory on {device.type} with one row at once: {TOO_LARGE}")
        optimizer.zero_grad()
        device.empty_cache()
        state.parts *= 2
        fewer = counted(-(-at_once // 2), "row")
        say(
            f"out of memory: continuing with {fewer} per micro-batch "
            f"instead of {at_once}, as many tokens per step as before; the run is no longer "
            "bit for bit what it would have been"
        )


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
    """Train from state.step to state.num_iterations, updating `state` in place.

    Returns False where a signal stopped it early: the step was finished and the first hook (the
    save) has run. Raises Diverged with the step; state.position is where its data begin.
    """
    line = StepLine(state.num_iterations)
    pace, guard = _Pace(), DivergenceGuard()
    with _noting(config.signals) as signals:
        while True:
            last = state.step >= state.num_iterations
            # Save, evaluate, sample, in this order: what fails later costs nothing that is saved.
            for hook in hooks:
                if hook.due(state.step, last):
                    line.close()
                    found = hook(state, last)
                    if found:
                        state.metrics |= found
                        metrics.write(step=state.step, eval=found)
            if last:
                return True
            # The middle of the step's stretch of the schedule: no update is wasted on a rate of 0.
            multiplier = config.multiplier((state.step + 0.5) / state.num_iterations)
            started, wall_started = time.monotonic(), time.time()
            try:
                # None where a signal came, in the last step or while a download is waited for.
                micro = signals.unless_noted(
                    lambda: [next(batches) for _ in range(config.grad_accum)]
                )
            except Exception:  # a damaged shard must not cost what was learned before it
                line.close()
                if state.step > 0:
                    hooks[0](state, last)
                raise
            if micro is None:
                line.close()
                hooks[0](state, last)
                return False
            show = _micro_batch_shower(line, config, state)
            step = partial(
                train_step, loss_of, optimizer, micro, multiplier, device, guard, tick=show
            )
            try:
                rows = micro[0].inputs.size(0)
                stats = fitting_step(step, rows, state, optimizer, device)
            except Diverged as error:
                line.close()
                named = Diverged(
                    f"step {state.step + 1}: {error}; data at {state.position}", error.position
                )
                if config.rollback is None:
                    raise named from None
                config.rollback(state, named)
                continue
            device.synchronize()  # a GPU is still at work when the calls that feed it have returned
            step_s = time.monotonic() - started
            asleep = slept_s(time.time() - wall_started, step_s, pace.mean())
            if asleep:  # a closed lid is not the pace of training, nor of what is left
                line.close()
                say(f"slept for {duration(asleep)} in step {state.step + 1}; continuing")
                step_s = pace.mean() or step_s
            state.step += 1
            state.tokens += stats.tokens
            state.position = stats.position
            # With a time budget the first steps decide how many there are; a guard may shorten it.
            if config.budget is not None:
                state.num_iterations = config.budget.iterations(state.step, step_s)
                state.iterations_fixed = config.budget.fixed is not None
                line.total = state.num_iterations
            record = {
                "step": state.step,
                "num_iterations": state.num_iterations,
                "loss": stats.loss,
                "lr": multiplier * optimizer.config.matrix_lr,
                "tokens": state.tokens,
                "tokens_per_s": round(stats.tokens / step_s, 1),
                "step_s": round(step_s, 4),
                "grad_norm": stats.grad_norm,
                "memory_bytes": device.memory_bytes(),
            }
            metrics.write(**record, **({"slept_s": round(asleep, 1)} if asleep else {}))
            left = (state.num_iterations - state.step) * pace.after(step_s)
            line.show(state.step, step_line(config.name, record, left))
            if state.step >= state.num_iterations:
                line.close()


def step_line(name: str, record: dict[str, Any], left_s: float) -> str:
    """The line of one update, from its metrics record.

    >>> record = {"step": 10, "num_iterations": 50, "loss": 6.2141, "tokens_per_s": 3512.4}
    >>> step_line("base", {**record, "step_s": 0.58, "memory_bytes": 1.2e9}, 24.0)
    'base 00010/00050 | loss 6.214 | 3,512 tok/s | 0.58 s | 1.2 GB | 24 s left'
    """
    return (
        f"{name} {record['step']:05d}/{record['num_iterations']:05d} | loss {record['loss']:.3f} | "
        f"{record['tokens_per_s']:,.0f} tok/s | {record['step_s']:.2f} s | "
        f"{record['memory_bytes'] / 1e9:.1f} GB | {duration(left_s)} left"
    )


def _micro_batch_shower(
    line: StepLine, config: LoopConfig, state: TrainState
) -> Callable[[int], None]:
    """On a terminal a step of many micro-batches shows each, so that it is never long silent."""
    head = f"{config.name} {state.step + 1:05d}/{state.num_iterations:05d}"

    def show(micro: int) -> None:
        if line.terminal and config.grad_accum > 4:
            line.show(state.step, f"{head} | micro-batch {micro}/{config.grad_accum}")

    return show


class _Pace:
    """Mean seconds a step of this run, without its first step, which is slow."""

    def __init__(self) -> None:
        self.steps, self.seconds = -1, 0.0

    def after(self, step_s: float) -> float:
        """The mean with one more step."""
        self.steps += 1
        if self.steps > 0:
            self.seconds += step_s
        return self.mean() or step_s

    def mean(self) -> float | None:
        """The mean so far; None before the second step."""
        return self.seconds / self.steps if self.steps > 0 else None


class _StopWaiting(BaseException):
    """Raised by a signal, and only while nothing of a step is begun."""


class Signals(list[int]):
    """The signals that came while training."""

    waiting = False  # for data, as a download may take minutes, or for room on the disk

    def unless_noted(self, wait: Callable[[], T]) -> T | None:
        """What `wait` returns; None as soon as there is a signal."""
        try:
            try:
                self.waiting = True
                return None if self else wait()
            finally:
                self.waiting = False
        except _StopWaiting:
            return None


@contextlib.contextmanager
def _noting(noted: Signals) -> Iterator[Signals]:
    """Collect SIGINT, SIGTERM and SIGHUP instead of dying; a second SIGINT interrupts at once.

    An ignored SIGHUP stays ignored, so that nohup works.
    """

    def note(number: int, frame: Any) -> None:
        if noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        noted.append(number)
        if noted.waiting:
            raise _StopWaiting

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
