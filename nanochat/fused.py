"""The four pieces of a GPT whose backward pass is worth writing by hand.

Autograd would keep and move several times the memory, and on a CPU moving memory is most of the
time of everything that is not a matmul. Each function here keeps one or two tensors, works in
place on buffers that it owns, and is held to plain torch by tests/test_fused.py.

Shapes: N rows (batch x time), B batch, T time, H heads, D head dim, C width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Floats of logits alive at once: larger products run faster, up to about here on two CPU cores.
CHUNK_FLOATS = {"cpu": 2**23, "mps": 2**25, "cuda": 2**27}


def _wide(x: Tensor) -> torch.dtype:
    """The type in which sums are taken: float32 at least."""
    return torch.promote_types(x.dtype, torch.float32)


class _RMSNorm(torch.autograd.Function):
    """y = x r with r = 1 / sqrt(mean(x^2) + eps); dx = r (g - y mean(g y))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=_wide(x))
        r = torch.rsqrt(norm.square_().div_(x.size(-1)).add_(eps)).to(x.dtype)
        y = x * r
        ctx.save_for_backward(y, r)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        (g,) = grads
        y, r = ctx.saved_tensors
        mean = (g * y).mean(dim=-1, keepdim=True)
        return torch.addcmul(g, y, mean, value=-1).mul_(r), None


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """Weightless RMSNorm over the last dimension (arXiv 1910.07467). (..., C) -> (..., C)."""
    return _RMSNorm.apply(x, eps)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + D/2]) by its angle; a negative sine turns back."""
    a, b = x.chunk(2, dim=-1)
    if torch.compiler.is_compiling():  # the compiler fuses this, and stumbles over out=
        return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)
    out = torch.empty_like(x)
    left, right = out.chunk(2, dim=-1)
    torch.mul(a, cos, out=left).addcmul_(b, sin)
    torch.mul(b, cos, out=right).addcmul_(a, sin, value=-1)
    return out


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(grads[0], cos, -sin), None, None


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (arXiv 2104.09864). x (B, T, H, D); cos, sin (T, 1, D/2).

    The rotation's sign is that of transformers' NanoChatForCausalLM: the second half comes with +.
    """
    return _Rotate.apply(x, cos, sin)


class _ReluSquared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = torch.relu(x)
        ctx.save_for_backward(positive)
        return positive.square()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Tensor:
        (positive,) = ctx.saved_tensors
        return (grads[0] * positive).mul_(2)


def relu_squared(x: Tensor) -> Tensor:
    """max(x, 0)^2 (arXiv 2109.08668), any shape."""
    return _ReluSquared.apply(x)


class _LinearCrossEntropy(torch.autograd.Function):
    """Loss and both gradients in one pass over chunks of rows, so logits never exist at once.

    With t = tanh(x W^T / cap), p = softmax(cap t): dlogits = (p - onehot(target)) (1 - t^2).
    The soft cap bounds the logits by 15, so exp needs no maximum taken off first.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, softcap: float) -> Tensor:
        rows, vocab = x.size(0), weight.size(0)
        wanted = any(ctx.needs_input_grad[:2])
        dx = torch.empty_like(x) if wanted else None
        step = max(1, min(rows, CHUNK_FLOATS[x.device.type] // vocab))
        scaled = x / softcap
        wide = _wide(x)  # sums over many chunks are kept in this type
        dweight = torch.zeros_like(weight, dtype=wide) if wanted else None
        total = x.new_zeros((), dtype=wide)
        for start in range(0, rows, step):
            part = slice(start, start + step)
            t = torch.mm(scaled[part], weight.T).to(wide).tanh_()  # (n, V)
            p = torch.mul(t, softcap).exp_()
            sums = p.sum(dim=-1, keepdim=True)
            target = targets[part].unsqueeze(-1)
            total += (sums.log() - softcap * t.gather(-1, target)).sum()
            if dx is None or dweight is None:
                continue
            p.div_(sums).scatter_add_(-1, target, -torch.ones_like(sums))
            dlogits = p.addcmul_(t.square_(), p, value=-1).to(x.dtype)
            torch.mm(dlogits, weight, out=dx[part])
            if dweight.dtype == x.dtype:
                dweight.addmm_(dlogits.T, x[part])
            else:
                dweight += torch.mm(dlogits.T, x[part])
        if wanted:
            ctx.save_for_backward(dx, None if dweight is None else dweight.to(weight.dtype))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, None, None]:
        dx, dweight = ctx.saved_tensors
        scale = grads[0].to(dx.dtype)
        return dx.mul_(scale), dweight.mul_(scale), None, None


def linear_cross_entropy(x: Tensor, weight: Tensor, targets: Tensor, softcap: float) -> Tensor:
    """Summed cross-entropy (nats) of soft-capped logits. x (N, C), weight (V, C), targets (N,).

    Rows whose target is negative are left out before anything is computed. The gradients are
    computed with the loss, so one call serves one backward.
    """
    kept = targets >= 0
    if not bool(kept.all()):
        x, targets = x[kept], targets[kept]
    return _LinearCrossEntropy.apply(x, weight, targets, softcap)
