"""The four pieces of a GPT whose backward pass is worth writing by hand.

Autograd would keep and move several times the memory, and on a CPU moving memory is most of the
time of everything that is not a matmul. Each function here keeps one or two tensors, works in
place on buffers that it owns, and is held to plain torch by tests/test_fused.py.

Shapes: N rows (batch x time), B batch, T time, H heads, D head dim, C width, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from nanochat.gpt_config import CHUNK_FLOATS

# Products that one number may sum: torch on M1 and M2 takes longer sums wrong (before 2.14, pytorch
# #177116) or slowly (since).
MPS_LONGEST_SUM = 2**15


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
    """Weightless RMSNorm over the last dimension (arXiv 1910.07467). (..., C) -> (..., C).

    CUDA has kernels for both passes, which also round bfloat16 less often. Torch's own keep and
    move several tensors more elsewhere (on MPS too as soon as gradients are wanted).
    """
    if x.device.type == "cuda":
        return F.rms_norm(x, x.shape[-1:], eps=eps)
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


# Logits (n, V), already divided by the cap, and targets (n,): their summed loss, and dlogits where
# they are wanted. A row whose target is negative teaches nothing: its loss and dlogits are zero.
LogitsPass = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]


def _pass_in_place(
    logits: Tensor, targets: Tensor, softcap: float, wanted: bool
) -> tuple[Tensor, Tensor | None]:
    """The pass for a device without a compiler: few buffers, each used again."""
    t = logits.to(_wide(logits)).tanh_()  # (n, V)
    p = torch.mul(t, softcap).exp_()
    sums = p.sum(dim=-1, keepdim=True)
    kept, target = (targets >= 0).unsqueeze(-1), targets.clamp(min=0).unsqueeze(-1)
    loss = torch.where(kept, sums.log() - softcap * t.gather(-1, target), 0.0).sum()
    if not wanted:
        return loss, None
    # Divided by infinity a masked row becomes zero without another pass over the logits.
    p.div_(sums.masked_fill_(~kept, torch.inf)).scatter_add_(-1, target, -kept.to(p.dtype))
    return loss, p.addcmul_(t.square_(), p, value=-1).to(logits.dtype)


def logits_pass(logits: Tensor, targets: Tensor, softcap: float) -> tuple[Tensor, Tensor]:
    """The same, written for torch.compile: everything between the two products in two kernels.

    Eager passes move some 70 bytes a logit on a GPU, which is most of a small model's step;
    compiled it is about 6.
    """
    # tanh by way of the exponential, which a GPU has an instruction for: a library's tanh takes
    # some twenty, and at four bytes moved per logit this pass would wait for arithmetic.
    t = 2 * torch.sigmoid(2 * logits.to(_wide(logits))) - 1
    p = torch.exp(softcap * t)
    sums = p.sum(dim=-1, keepdim=True)
    kept, target = (targets >= 0).unsqueeze(-1), targets.unsqueeze(-1)
    right = softcap * t.gather(-1, target.clamp(min=0))
    loss = torch.where(kept, sums.log() - right, 0.0).sum()
    is_right = torch.arange(logits.size(-1), device=logits.device) == target
    dlogits = torch.where(kept, (p / sums - is_right.to(p.dtype)) * (1 - t * t), 0.0)
    return loss, dlogits.to(logits.dtype)


def _rows_at_once(rows: int, vocab: int, device_type: str, compiled: bool) -> int:
    """Rows of a chunk. compiled: all chunks of one size, where such a size exists (one compile)."""
    floats = CHUNK_FLOATS[device_type]
    if device_type == "cuda" and not compiled:
        floats //= 4  # an eager pass holds four times the bytes for each logit
    most = max(1, min(rows, floats // vocab))
    return _divisor(rows, most) if compiled else most


@functools.cache
def _divisor(rows: int, most: int) -> int:
    return next((n for n in range(most, most // 2, -1) if rows % n == 0), most)


def _mm_into(out: Tensor, a: Tensor, b: Tensor, most: int) -> None:
    """out = a b, in sums of at most so many products."""
    torch.mm(a[:, :most], b[:most], out=out)
    for start in range(most, a.size(1), most):
        out.addmm_(a[:, start : start + most], b[start : start + most])


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a b, summed in total's type, which may be wider than that of a and b."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    elif total.device.type == "cuda" and _wide_sums_in_place(a.dtype):
        torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
    else:
        total += torch.mm(a, b)


@functools.cache
def _wide_sums_in_place(dtype: torch.dtype) -> bool:
    """Whether this torch adds a bfloat16 product to a float32 matrix without a copy of it.

    Asked by doing it: the argument came with 2.8 for some of the products, with later ones for
    the rest, and no version says which.
    """
    total, a = torch.ones(16, 16, device="cuda"), torch.ones(16, 16, device="cuda", dtype=dtype)
    try:
        torch.addmm(total, a, a, out_dtype=total.dtype, out=total)
    except (RuntimeError, TypeError):
        return False
    return bool((total == 17).all())


def _scaled(x: Tensor, scale: Tensor) -> Tensor:
    """x times a number of one element, in place where x has its type; rounded only once."""
    return x.mul_(scale) if x.dtype == scale.dtype else (x.to(scale.dtype) * scale).to(x.dtype)


class _LinearCrossEntropy(torch.autograd.Function):
    """Loss and both gradients in one pass over chunks of rows, so logits never exist at once.

    With t = tanh(x W^T / cap), p = softmax(cap t): dlogits = (p - onehot(target)) (1 - t^2).
    The soft cap bounds the logits by 15, so exp needs no maximum taken off first.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        targets: Tensor,
        softcap: float,
        wanted: bool,
        compiled: LogitsPass | None,
    ) -> Tensor:
        matrix = weight.to(x.dtype)
        step = _rows_at_once(x.size(0), weight.size(0), x.device.type, compiled is not None)
        longest = MPS_LONGEST_SUM if x.device.type == "mps" else weight.size(0)
        scaled = x / softcap
        wide = _wide(x)  # sums over many chunks are kept in this type
        dx = torch.empty_like(x) if wanted else None
        dweight = torch.zeros_like(weight, dtype=wide) if wanted else None
        total = x.new_zeros((), dtype=wide)
        for start in range(0, x.size(0), step):
            part = slice(start, start + step)
            logits = torch.mm(scaled[part], matrix.T)
            if compiled is not None and wanted:
                loss, dlogits = compiled(logits, targets[part], softcap)
            else:
                loss, dlogits = _pass_in_place(logits, targets[part], softcap, wanted)
            del logits  # or the next chunk's product would find two chunks still alive
            total += loss
            if dx is None or dweight is None or dlogits is None:
                continue
            _mm_into(dx[part], dlogits, matrix, longest)
            _add_product(dweight, dlogits.T, x[part])
            del dlogits
        if wanted:
            ctx.save_for_backward(dx, dweight)
            ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        dx, dweight = ctx.saved_tensors
        dweight = _scaled(dweight, grads[0]).to(ctx.weight_dtype)
        return _scaled(dx, grads[0]), dweight, None, None, None, None


def linear_cross_entropy(
    x: Tensor, weight: Tensor, targets: Tensor, softcap: float, compiled: LogitsPass | None = None
) -> Tensor:
    """Summed cross-entropy (nats) of soft-capped logits. x (N, C), weight (V, C), targets (N,).

    Rows whose target is negative teach nothing. The gradients are computed with the loss, so one
    call serves one backward. compiled: logits_pass by torch.compile.
    """
    if x.device.type == "cpu":  # elsewhere a mask is cheaper than waiting to count the rows
        kept = targets >= 0
        if not bool(kept.all()):
            x, targets = x[kept], targets[kept]
    # Decided here: inside forward gradients are always off, and needs_input_grad ignores no_grad.
    wanted = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    return _LinearCrossEntropy.apply(x, weight, targets, softcap, wanted, compiled)
