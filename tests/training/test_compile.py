"""Which compilers are believed: each is a stand-in, wrong in a way that real ones have been."""

from __future__ import annotations

import types
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat import fused, gpt
from nanochat.gpt import GPT, Block
from nanochat.gpt_config import GPTConfig
from nanochat.system.device import Device
from nanochat.training import compiled_loss

Function = Callable[..., Tensor]


def new_model(is_new: bool, dtype: torch.dtype = torch.float32) -> GPT:
    model, generator = GPT(GPTConfig(2, 300, 16)), torch.Generator().manual_seed(1)
    model.init_weights(0)
    if not is_new:  # as after some training: no matrix is zero
        with torch.no_grad():
            for weight in model.parameters():
                weight.copy_(torch.empty(weight.shape).normal_(0, 0.1, generator=generator))
    model.dtype = dtype
    return model


def rows_of(arguments: tuple[object, ...]) -> int:
    """Of the first tensor: a block is the first argument of its own forward."""
    return next(len(each) for each in arguments if isinstance(each, Tensor))


def try_compiling(model: GPT) -> tuple[Function | None, int]:
    return compiled_loss.try_compiling(model, Device("cpu", model.dtype, True), rows=4, parts=1)


def sees_the_future(function: Function, patch: pytest.MonkeyPatch) -> Function:
    functional = types.SimpleNamespace(**vars(F))
    functional.scaled_dot_product_attention = lambda q, k, v, is_causal: (
        F.scaled_dot_product_attention(q, k, v)
    )
    return within(patch, function, "F", functional)


def knows_no_positions(function: Function, patch: pytest.MonkeyPatch) -> Function:
    return within(patch, function, "rotate", lambda x, cos, sin: x * 1.0)


def has_a_wrong_backward_pass(function: Function, patch: pytest.MonkeyPatch) -> Function:
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, *grads):
            return grads[0].flip(0)  # the right numbers, in the wrong rows

    return lambda *args: Wrong.apply(function(*args))


def loses_the_loss(function: Function, patch: pytest.MonkeyPatch) -> Function:
    if function is not fused.logits_pass:
        return function
    return lambda logits, targets, cap: (torch.zeros(()), torch.zeros_like(logits))


def gives_nan(function: Function, patch: pytest.MonkeyPatch) -> Function:
    return function if function is fused.logits_pass else lambda ids: function(ids) * torch.nan


def raises(function: Function, patch: pytest.MonkeyPatch) -> Function:
    raise RuntimeError("Dynamo is not supported on this Python")


def within(patch: pytest.MonkeyPatch, function: Function, name: str, value: object) -> Function:
    def wrong(*args):
        with patch.context() as changed:
            changed.setattr(gpt, name, value)
            return function(*args)

    return wrong


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize(
    "broken",
    [
        sees_the_future,
        knows_no_positions,
        has_a_wrong_backward_pass,
        loses_the_loss,
        gives_nan,
        raises,
    ],
)
def test_a_compiler_that_is_wrong_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, broken: Callable, is_new: bool
) -> None:
    monkeypatch.setattr(torch, "compile", lambda f, dynamic: broken(f, monkeypatch))
    model = new_model(is_new)
    assert try_compiling(model) == (None, 1)
    assert "torch.compile does not work here" in capsys.readouterr().out
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_compiler_that_is_right_is_taken(
    monkeypatch: pytest.MonkeyPatch, is_new: bool, dtype: torch.dtype
) -> None:
    """Its loss runs through each compiled block and the logits, whole batches at once."""
    calls = []

    def compile(function: Function, dynamic: bool) -> Function:
        def compiled(*arguments: object) -> Tensor:
            calls.append((function.__name__, rows_of(arguments)))
            return function(*arguments)

        return compiled

    monkeypatch.setattr(torch, "compile", compile)
    loss_of, _ = try_compiling(new_model(is_new, dtype))
    assert loss_of is not None
    once = [("forward", 4), ("forward", 4), ("logits_pass", 64)]
    assert calls == once
    loss_of(torch.zeros(4, 16, dtype=torch.long), torch.zeros(4, 16, dtype=torch.long))
    assert calls == 2 * once


def test_a_batch_that_does_not_fit_is_cut_before_the_compiler_is_blamed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def compile(function: Function, dynamic: bool) -> Function:
        def compiled(*arguments: object) -> Tensor:
            if function is Block.forward and rows_of(arguments) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return function(*arguments)

        return compiled

    monkeypatch.setattr(torch, "compile", compile)
    loss_of, parts = try_compiling(new_model(is_new=False))
    assert loss_of is not None
    assert parts == 2
