"""What goes wrong in a training step, and how it is noticed: divergence, memory."""

from __future__ import annotations

import math

import torch

from nanochat.data.dataloader import Batch, Position

DECAY = 0.98  # of the running means: about the last 50 steps count
SETTLED = 20  # steps until a running mean is trusted
LOSS_JUMP = 4.0  # nats above the running mean; from a good batch to a bad one it is less than 1
NORM_JUMP = 1_000.0  # times the running mean
# How MPS, cuBLAS and cuDNN, and a Metal command buffer say that memory is full.
FULL = ("out of memory", "_status_alloc_failed", "insufficient memory")


class Diverged(Exception):
    """Loss or gradient norm can't be right; raised before the update, so no weight is spoiled.

    position: in the stream, after the batch at which it happened.
    """

    def __init__(self, text: str, position: Position | None = None) -> None:
        super().__init__(text)
        self.position = position


class OutOfMemory(Exception):
    """The device's memory ran out before anything was updated: less at once may fit."""


class DivergenceGuard:
    """Remembers the usual loss and gradient norm, and raises Diverged where one is far off."""

    def __init__(self) -> None:
        self.steps = 0
        self.loss = self.norm = 0.0  # running means

    def check(self, loss: float, norm: float, position: Position | None = None) -> None:
        """loss in nats per supervised token, norm of the whole gradient; remembers both."""
        what = f"loss {loss:.3f}, gradient norm {norm:.3g}"
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise Diverged(what, position)
        # Only once the means have settled: a new model's loss falls by nats within a few steps.
        if self.steps >= SETTLED and loss > self.loss + LOSS_JUMP:
            raise Diverged(f"{what}, after a mean loss of {self.loss:.3f}", position)
        if self.steps >= SETTLED and norm > self.norm * NORM_JUMP:
            raise Diverged(f"{what}, after a mean norm of {self.norm:.3g}", position)
        # The first steps average plainly, or a mean that began at 0 would be trusted too soon.
        decay = min(DECAY, self.steps / (self.steps + 1))
        self.loss = decay * self.loss + (1 - decay) * loss
        self.norm = decay * self.norm + (1 - decay) * norm
        self.steps += 1


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch, one of CUDA's libraries or Metal says that the device's memory is full.

    >>> is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling ..."))
    True
    """
    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(sign in said for sign in FULL)


def split(batch: Batch, parts: int) -> list[Batch]:
    """The batch cut by rows into at most `parts` pieces, which together teach the same."""
    pairs = zip(batch.inputs.chunk(parts), batch.targets.chunk(parts), strict=True)
    return [
        Batch(inputs, targets, int((targets >= 0).sum()), batch.position)
        for inputs, targets in pairs
    ]
