"""The only training loop. Base, mid and SFT give it a model, batches, a schedule and hooks.

Between two steps the hooks run: save, then evaluate, then sample. A step reads grad_accum
micro-batches, adds up their gradients, and updates the weights once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from nanochat.data.dataloader import Batch, Position
from nanochat.system.device import Device
from nanochat.system.errors import Failure
from nanochat.system.log import Metrics, StepLine, counted, duration, say
from nanochat.training.batch_sizes import TOO_LARGE
from nanochat.training.faults import Diverged, DivergenceGuard, OutOfMemory, is_out_of_memory, split
from nanochat.training.optim import MuonAdamW
from nanochat.training.signals import Signals, noting
from nanochat.training.step_clock import StepClock
from nanochat.training.time_budget import TimeBudget

LossOf = Callable[[Tensor, Tensor], Tensor]  # inputs, targets (B, T) -> nats, summed


@dataclass
class TrainState:
    """All that a resume needs, apart from weights and optimizer: nothing else affects a step."""

    num_iterations: int  # steps in all; fixed by the first steps where there is a time budget
    iterations_fixed: bool = True  # False while a time budget is still being measured
    step: int = 0  # steps done
    tokens: int = 0  # read so far, supervised or not
    position: Position | None = None  # in the stream, after the last step
    parts: int = 1  # that each micro-batch is cut into; more once memory has run out
    metrics: dict[str, float] = field(default_factory=dict)  # of the last evaluation


class StepStats(NamedTuple):
    """One step: loss in nats per supervised token, gradient norm, tokens read."""

    loss: float
    grad_norm: float
    tokens: int
    position: Position


class Hook(Protocol):
    """Something done between two steps."""

    def due(self, step: int, last: bool) -> bool:
        """Whether to run once `step` steps are done; `last`: no step follows."""
        ...

    def __call__(self, state: TrainState, last: bool) -> dict[str, float]:
        """Do it; what it returns is logged as an evaluation."""
        ...


@dataclass(frozen=True)
class LoopConfig:
    """How long, how much at once, and how fast."""

    name: str  # shown at the head of the step line
    grad_accum: int  # micro-batches per step
    multiplier: Callable[[float], float]  # progress in [0, 1] -> learning-rate multiplier
    budget: TimeBudget | None = None  # decides num_iterations
    # Takes the run back to its last checkpoint after a Diverged, or raises it again.
    rollback: Callable[[TrainState, Diverged], None] | None = None
    signals: Signals = field(default_factory=Signals)  # a hook may look at them


def train(
    loss_of: LossOf,
    optimizer: MuonAdamW,
    batches: Iterator[Batch],
    config: LoopConfig,
    state: TrainState,
    save: Hook,
    hooks: Sequence[Hook],
    metrics: Metrics,
    device: Device,
) -> bool:
    """Train from state.step to state.num_iterations, updating `state` in place.

    Returns False where a signal stopped it early, after the step was finished and saved. Raises
    Diverged with the step; state.position is where its data begin.
    """
    line = StepLine(state.num_iterations)
    clock, guard = StepClock(), DivergenceGuard()
    with noting(config.signals) as signals:
        while True:
            last = state.step >= state.num_iterations
            # Saving comes first, so that an evaluation which fails costs nothing.
            for hook in (save, *hooks):
                if hook.due(state.step, last):
                    found = hook(state, last)
                    if found:
                        state.metrics |= found
                        metrics.write(step=state.step, eval=found)
            if last:
                return True

            clock.start()
            try:
                micro = signals.unless_noted(
                    lambda: [next(batches) for _ in range(config.grad_accum)]
                )
            except Exception:  # a damaged shard must not cost what was learned before it
                if state.step > 0:
                    save(state, last)
                raise
            if micro is None:  # a signal came, in the last step or while waiting for a download
                save(state, last)
                return False

            # The rate in the middle of the step: taken at its end, the last step would have 0.
            multiplier = config.multiplier((state.step + 0.5) / state.num_iterations)
            stats, tick = None, _micro_batch_progress(line, config, state)
            try:
                while stats is None:
                    with suppress(OutOfMemory):
                        stats = train_step(
                            loss_of, optimizer, micro, multiplier, device, guard, state.parts, tick
                        )
                    # The same tokens in smaller pieces: slower, but the same step up to rounding.
                    # Not inside the `with`: the exception keeps alive what had been computed.
                    if stats is None:
                        _cut_smaller(state, len(micro[0].inputs), optimizer, device)
            except Diverged as error:
                where = f"step {state.step + 1}: {error}; data at {state.position}"
                diverged = Diverged(where, error.position)
                if config.rollback is None:
                    raise diverged from None
                config.rollback(state, diverged)
                continue

            device.synchronize()  # a GPU is still at work when the calls that feed it have returned
            step_s, asleep_s = clock.stop()
            _advance(state, stats, step_s, config.budget)
            line.total = state.num_iterations
            lr = multiplier * optimizer.config.matrix_lr
            record = _record(state, stats, lr, step_s, device)
            metrics.write(**record, **({"slept_s": round(asleep_s, 1)} if asleep_s else {}))
            if asleep_s:
                say(f"the machine slept for {duration(asleep_s)} in step {state.step}; continuing")
            left_s = (state.num_iterations - state.step) * (clock.mean() or step_s)
            line.show(state.step, step_line(config.name, record, left_s))


def train_step(
    loss_of: LossOf,
    optimizer: MuonAdamW,
    micro: Sequence[Batch],
    multiplier: float,
    device: Device,
    guard: DivergenceGuard,
    parts: int = 1,
    tick: Callable[[int], None] = lambda micro: None,
) -> StepStats:
    """One update of the weights from these micro-batches.

    parts: each micro-batch is cut into so many, which together teach the same. Before the update:
    raises OutOfMemory where that may help, Diverged where loss or gradient norm can't be right.
    """
    # SFT's rows differ in how much they supervise. Dividing by the count over all micro-batches,
    # known before the first one is computed, makes every token count the same; a mean of means
    # would let a token in a short answer teach several times as much.
    n_valid = sum(batch.n_valid for batch in micro)
    total = torch.zeros((), device=device.torch)
    try:
        for number, batch in enumerate(micro, 1):
            for piece in split(batch, parts):
                inputs, targets = piece.inputs.to(device.torch), piece.targets.to(device.torch)
                loss = loss_of(inputs, targets) / n_valid
                loss.backward()  # adds to the gradients of the micro-batches before
                total += loss.detach()  # not .item(): a GPU would be waited for each time
            tick(number)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise OutOfMemory from None
        raise
    norm = optimizer.clip()
    tokens = sum(batch.inputs.numel() for batch in micro)
    stats = StepStats(total.item(), norm.item(), tokens, micro[-1].position)
    # Looked at before the update: afterwards a NaN would be in every weight.
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


def _cut_smaller(state: TrainState, rows: int, optimizer: MuonAdamW, device: Device) -> None:
    """After micro-batches of so many rows, cut into state.parts, did not fit: half as much at once.

    Raises Failure where a single row is too much.
    """
    at_once = -(-rows // state.parts)
    if at_once == 1:
        raise Failure(f"out of memory on {device.type} with one row at once: {TOO_LARGE}")
    optimizer.zero_grad()  # the pieces that did fit have left theirs
    device.empty_cache()
    state.parts *= 2
    say(
        f"out of memory: continuing with {counted(-(-at_once // 2), 'row')} per micro-batch "
        f"instead of {at_once}, as many tokens per step as before; the run is no longer "
        "bit-for-bit reproducible"
    )


def _advance(state: TrainState, stats: StepStats, step_s: float, budget: TimeBudget | None) -> None:
    """Count a step that is done. With a time budget the first ones decide how many follow."""
    state.step += 1
    state.tokens += stats.tokens
    state.position = stats.position
    if budget is not None:
        state.num_iterations = budget.iterations(state.step, step_s)
        state.iterations_fixed = budget.fixed is not None


def _record(
    state: TrainState, stats: StepStats, lr: float, step_s: float, device: Device
) -> dict[str, Any]:
    """What metrics keep of a step; lr is that of the matrices."""
    return {
        "step": state.step,
        "num_iterations": state.num_iterations,
        "loss": stats.loss,
        "lr": lr,
        "tokens": state.tokens,
        "tokens_per_s": round(stats.tokens / step_s, 1),
        "step_s": round(step_s, 4),
        "grad_norm": stats.grad_norm,
        "memory_bytes": device.memory_bytes(),
    }


def step_line(name: str, record: dict[str, Any], left_s: float) -> str:
    """The line of one step, from its metrics record.

    >>> record = {"step": 10, "num_iterations": 50, "loss": 6.2141, "tokens_per_s": 3512.4}
    >>> step_line("base", {**record, "step_s": 0.58, "memory_bytes": 1.2e9}, 24.0)
    'base 00010/00050 | loss 6.214 | 3,512 tok/s | 0.58 s | 1.2 GB | 24 s left'
    """
    return (
        f"{name} {record['step']:05d}/{record['num_iterations']:05d} | loss {record['loss']:.3f} | "
        f"{record['tokens_per_s']:,.0f} tok/s | {record['step_s']:.2f} s | "
        f"{record['memory_bytes'] / 1e9:.1f} GB | {duration(left_s)} left"
    )


def _micro_batch_progress(
    line: StepLine, config: LoopConfig, state: TrainState
) -> Callable[[int], None]:
    """On a terminal a step of many micro-batches shows each, so that it is never long silent."""
    head = f"{config.name} {state.step + 1:05d}/{state.num_iterations:05d}"

    def show(micro: int) -> None:
        if line.terminal and config.grad_accum > 4:
            line.show(state.step, f"{head} | micro-batch {micro}/{config.grad_accum}")

    return show
