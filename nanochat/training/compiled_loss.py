"""The loss by torch.compile, taken only where it gives what the plain model gives."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nanochat import fused
from nanochat.gpt import GPT, Block
from nanochat.system.device import Device
from nanochat.system.log import say
from nanochat.training.faults import is_out_of_memory
from nanochat.training.loop import LossOf

# How far a compiled loss and its gradients may be from the plain ones, as a share of their norm.
# Rounding alone makes up to 3 % in bfloat16; a mask or a rotation that is lost makes over 40 %.
COMPILED_APART = {torch.float32: 0.01, torch.bfloat16: 0.1}
# One graph for every layer, or one for the whole model: the second is 1.5 % faster per step (depth
# 12 on an H100), but compiling it takes longer the deeper the model is, in each of three stages:
# 30 s before the first step instead of 21 there (bench/gpu.py --modes blocks,whole).
COMPILE_BLOCKS = True


def compiled_loss(model: GPT, blocks: bool = COMPILE_BLOCKS, **options: Any) -> LossOf:
    """model.loss by torch.compile, of fixed shapes; nothing is compiled before the first call."""
    logits_pass = torch.compile(fused.logits_pass, dynamic=False, **options)
    if blocks:
        # The function and not the modules: weights are then arguments, and one graph does for all.
        block = torch.compile(Block.forward, dynamic=False, **options)
        hidden = partial(model.hidden, block=block)
    else:
        hidden = torch.compile(model.hidden, dynamic=False, **options)
    return partial(model.loss, hidden=hidden, logits_pass=logits_pass)


def try_compiling(model: GPT, device: Device, rows: int, parts: int) -> tuple[LossOf | None, int]:
    """(the compiled loss or None, parts that micro-batches of so many rows are cut into).

    Compilers fail in many ways, and some silently: one batch is computed both ways first.
    """
    say("compiling the model; this takes a minute ...")
    try:
        loss_of = compiled_loss(model)
        return loss_of, check_loss(model, device, rows, loss_of, parts)
    except Exception as error:  # whatever it is, the plain model works
        reason = (str(error).splitlines() or [""])[0][:200]
        say(f"torch.compile does not work here ({type(error).__name__}: {reason}): not compiled")
        return None, parts
    finally:
        model.zero_grad(set_to_none=True)
        device.empty_cache()


def check_loss(model: GPT, device: Device, rows: int, loss_of: LossOf, parts: int = 1) -> int:
    """Raise ValueError where loss_of or one of its gradients is not what model.loss gives.

    Of one batch of the size that steps will have, so nothing is compiled twice. Returns into how
    many parts its rows are cut: more than were given where memory ran out.
    """
    shape = (rows, model.config.max_seq_len + 1)
    # Random ids: were all of them the same, attention would give the same whatever it looks at.
    ids = torch.randint(model.config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    while True:
        some = ids.chunk(parts)[0].to(device.torch)
        try:
            found = _loss_and_gradients(model, loss_of, [some])
            break
        except RuntimeError as error:
            if not is_out_of_memory(error) or len(some) == 1:
                raise
        device.empty_cache()
        parts *= 2
    # A row at a time: the plain model keeps more for its backward pass than the compiled one.
    for name, right in _loss_and_gradients(model, model.loss, some.split(1)).items():
        apart = ((found[name] - right).norm() / right.norm().clamp(min=1e-12)).item()
        if not apart <= COMPILED_APART[device.dtype]:
            raise ValueError(f"{name} is off by {apart:.0%}")
    return parts


def _loss_and_gradients(
    model: GPT, loss_of: LossOf, batches: Sequence[Tensor]
) -> dict[str, Tensor]:
    """By name, on the CPU: the loss over batches of (B, T + 1) ids, every weight's gradient."""
    model.zero_grad(set_to_none=True)
    total = torch.zeros(())
    for ids in batches:
        loss = loss_of(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
        loss.backward()
        total += loss.item()
    gradients = {n: w.grad.cpu() for n, w in model.named_parameters() if w.grad is not None}
    return {"loss": total} | gradients
