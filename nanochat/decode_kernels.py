"""One token of a few rows in five kernels a layer, for CUDA cards, by Triton.

Decoding at batch 1 reads every weight once and computes almost nothing: 270 MB at d12, 93 us of an
H100's memory. Run as separate operations it is some thirty kernels a layer that wait for each
other. Here each product takes with it what comes before and after (norm, activation, residual),
and begins to read its weights while the kernel before it still runs (programmatic dependent
launch, compute capability 9.0 on): memory never idles, whoever waits for whom.

Shapes: B rows, C width, H heads, D head dim, V vocabulary, S positions of the cache.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from nanochat.gpt import GPT
from nanochat.kv_cache import FixedCache

MAX_ROWS = 8  # beyond, tensor cores do better than products by the row
SPLITS = 8  # programs that share the cache of one head: a head alone would read it by one of 132
TILE = 8192  # weights that a program holds in registers: 64 a thread, all loaded before it waits
WARPS = 4
PROGRAMS = 256  # at least so many for a product, two for each processor of a large card


@triton.jit
def _begin(PDL: tl.constexpr):
    """Let the next kernel start to load weights; wait for the results of the one before."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()


@triton.jit
def _rms(row, K: tl.constexpr, eps):
    return row * tl.rsqrt(tl.sum(row * row, axis=0) / K + eps)


@triton.jit
def _embed(ids, table, x, eps, K: tl.constexpr, BLOCK_K: tl.constexpr, PDL: tl.constexpr):
    """x[b] = norm(table[ids[b]]), float32; a program a row."""
    _begin(PDL)
    b = tl.program_id(0)
    k = tl.arange(0, BLOCK_K)
    row = tl.load(table + tl.load(ids + b) * K + k, mask=k < K, other=0.0).to(tl.float32)
    tl.store(x + b * K + k, _rms(row, K, eps), mask=k < K)


@triton.jit
def _combined(parts, stats, b, k, H: tl.constexpr, D: tl.constexpr, SPLITS: tl.constexpr):
    """Attention's output row from the shares of the splits, each relative to its own maximum."""
    head = b * H + k // D
    inside = k < H * D
    most = tl.full(k.shape, -1e30, tl.float32)
    for s in tl.static_range(SPLITS):
        most = tl.maximum(most, tl.load(stats + (head * SPLITS + s) * 2, mask=inside, other=0.0))
    total = tl.zeros(k.shape, tl.float32)
    weight = tl.zeros(k.shape, tl.float32)
    for s in tl.static_range(SPLITS):
        at = head * SPLITS + s
        scale = tl.exp(tl.load(stats + at * 2, mask=inside, other=0.0) - most)
        total += scale * tl.load(parts + at * D + k % D, mask=inside, other=0.0)
        weight += scale * tl.load(stats + at * 2 + 1, mask=inside, other=1.0)
    return tl.where(inside, total / weight, 0.0)


@triton.jit
def _linear(
    x, stats, w, out, eps, softcap,
    B: tl.constexpr, N: tl.constexpr, K: tl.constexpr, H: tl.constexpr, D: tl.constexpr,
    BEFORE: tl.constexpr, AFTER: tl.constexpr, SPLITS: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out = after(before(x) W^T), W (N, K); a program computes BLOCK_N numbers of every row."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    keep = (n[:, None] < N) & (k[None, :] < K)
    tile = tl.load(w + n[:, None] * K + k[None, :], mask=keep, other=0.0)
    _begin(PDL)  # after the weights are on their way: no kernel of this step writes them
    for b in tl.static_range(B):
        if BEFORE == "combine":
            row = _combined(x, stats, b, k, H, D, SPLITS)
        else:
            row = tl.load(x + b * K + k, mask=k < K, other=0.0).to(tl.float32)
        if BEFORE == "norm":
            row = _rms(row, K, eps)
        row = row.to(w.dtype.element_ty).to(tl.float32)  # rounded as torch's products have it
        y = tl.sum(tile.to(tl.float32) * row[None, :], axis=1)
        if AFTER == "square":
            y = tl.maximum(y, 0.0)
            y = y * y
        if AFTER == "softcap":
            y = softcap * (1 - 2 / (1 + tl.exp(y * (2 / softcap))))  # tanh
        if AFTER == "add":  # to the residual stream: these numbers are read by no other program
            y += tl.load(out + b * N + n, mask=n < N, other=0.0)
        tl.store(out + b * N + n, y, mask=n < N)


@triton.jit
def _turned(vector, cos, sin, D: tl.constexpr, eps):
    """Both halves of a query or key, rotated and normalized."""
    half = tl.arange(0, D // 2)
    a = tl.load(vector + half)
    b = tl.load(vector + D // 2 + half)
    left = a * cos + b * sin
    right = b * cos - a * sin
    r = tl.rsqrt((tl.sum(left * left, axis=0) + tl.sum(right * right, axis=0)) / D + eps)
    return left * r, right * r


@triton.jit
def _attend(
    qkv, cos, sin, keys, values, position, pad, parts, stats, eps, room, chunk,
    H: tl.constexpr, D: tl.constexpr, SPLITS: tl.constexpr, TILE_S: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """One head's share of attention over `chunk` positions; whose chunk it is writes the token."""
    _begin(PDL)
    head, split = tl.program_id(0), tl.program_id(1)
    b, h = head // H, head % H
    at, first = tl.load(position).to(tl.int32), tl.load(pad + b).to(tl.int32)
    half, full = tl.arange(0, D // 2), tl.arange(0, D)
    c = tl.load(cos + at * (D // 2) + half).to(tl.float32)
    s = tl.load(sin + at * (D // 2) + half).to(tl.float32)
    own = qkv + b * 3 * H * D + h * D
    kind = keys.dtype.element_ty
    q0, q1 = _turned(own, c, s, D, eps)
    k0, k1 = _turned(own + H * D, c, s, D, eps)
    v = tl.load(own + 2 * H * D + full).to(kind)
    k0, k1 = k0.to(kind), k1.to(kind)
    q0, q1 = q0.to(kind).to(tl.float32), q1.to(kind).to(tl.float32)

    keys += head * room * D
    values += head * room * D
    begin = split * chunk
    end = tl.minimum(begin + chunk, room)
    if (at >= begin) & (at < end):
        tl.store(keys + at * D + half, k0)
        tl.store(keys + at * D + D // 2 + half, k1)
        tl.store(values + at * D + full, v)

    most = tl.full((), -1e30, tl.float32)
    weight = tl.full((), 0.0, tl.float32)
    total = tl.zeros((D,), tl.float32)
    for start in range(begin, tl.minimum(end, at + 1), TILE_S):
        where = start + tl.arange(0, TILE_S)
        seen = (where < end) & (where <= at) & (where >= first)
        # What was just stored may not be there for loads yet: the token's own come from registers.
        new, old = (where == at)[:, None], (seen & (where != at))[:, None]
        row = where[:, None] * D
        a = tl.load(keys + row + half[None, :], mask=old, other=0.0)
        e = tl.load(keys + row + D // 2 + half[None, :], mask=old, other=0.0)
        u = tl.load(values + row + full[None, :], mask=old, other=0.0)
        a, e = tl.where(new, k0[None, :], a), tl.where(new, k1[None, :], e)
        u = tl.where(new, v[None, :], u).to(tl.float32)
        scores = tl.sum(a.to(tl.float32) * q0[None, :] + e.to(tl.float32) * q1[None, :], axis=1)
        scores = tl.where(seen, scores * (D**-0.5), -1e30)
        higher = tl.maximum(most, tl.max(scores, axis=0))
        p = tl.where(seen, tl.exp(scores - higher), 0.0)
        fade = tl.exp(most - higher)
        weight = weight * fade + tl.sum(p, axis=0)
        total = total * fade + tl.sum(p[:, None] * u, axis=0)
        most = higher
    out = head * SPLITS + split
    tl.store(parts + out * D + full, total)
    tl.store(stats + out * 2, most)
    tl.store(stats + out * 2 + 1, weight)


class FusedStep:
    """GPT.forward of a single token with a FixedCache, by the kernels above."""

    def __init__(self, model: GPT, batch: int, overlapped: bool | None = None) -> None:
        config, weight = model.config, model.wte.weight
        self.model, self.batch, self.config = model, batch, config
        if overlapped is None:
            overlapped = torch.cuda.get_device_capability(weight.device) >= (9, 0)
        self.overlapped = overlapped
        self.cos, self.sin = (t.flatten(1) for t in model.rotary(slice(config.max_seq_len)))

        def empty(*shape: int) -> Tensor:
            return torch.empty(shape, device=weight.device)

        width, heads = config.n_embd, config.n_head
        self.x, self.qkv = empty(batch, width), empty(batch, 3 * width)
        self.hidden, self.logits = empty(batch, 4 * width), empty(batch, config.vocab_size)
        self.parts = empty(batch, heads, SPLITS, config.head_dim)
        self.stats = empty(batch, heads, SPLITS, 2)

    def __call__(self, ids: Tensor, cache: FixedCache) -> Tensor:
        """ids (B, 1) -> logits of what comes next (B, V); always the same tensor."""
        assert ids.is_contiguous()
        assert cache.store is not None
        model, config = self.model, self.config
        width, options = config.n_embd, self._options(True)
        launch: Any = _embed[(self.batch,)]  # Triton types its constants as what they become
        launch(
            ids, model.wte.weight, self.x, config.norm_eps,
            K=width, BLOCK_K=triton.next_power_of_2(width), **self._options(False),
        )  # fmt: skip
        grid, chunk = (self.batch * config.n_head, SPLITS), triton.cdiv(cache.room, SPLITS)
        attend: Any = _attend[grid]
        layers: list[Any] = list(model.h)
        for layer, store in zip(layers, cache.store, strict=True):
            self._linear(self.x, layer.attn.joined_weight(), self.qkv, before="norm")
            attend(
                self.qkv, self.cos, self.sin, store[0], store[1], cache.position, cache.pad,
                self.parts, self.stats, config.norm_eps, cache.room, chunk,
                H=config.n_head, D=config.head_dim, SPLITS=SPLITS, TILE_S=32, **options,
            )  # fmt: skip
            self._linear(self.parts, layer.attn.c_proj.weight, self.x, "combine", "add")
            self._linear(self.x, layer.mlp.c_fc.weight, self.hidden, "norm", "square")
            self._linear(self.hidden, layer.mlp.c_proj.weight, self.x, after="add")
        self._linear(self.x, model.lm_head.weight, self.logits, "norm", "softcap")
        cache.advance(1)
        return self.logits

    def _linear(
        self, x: Tensor, weight: Tensor, out: Tensor, before: str = "", after: str = ""
    ) -> None:
        config = self.config
        n, k = weight.shape
        block_k = triton.next_power_of_2(k)
        # Narrow outputs get smaller blocks: with fewer programs than processors some would idle.
        # Several rows get larger ones: every program reads (and norms, combines) all the rows.
        programs = PROGRAMS if self.batch == 1 else PROGRAMS // 4
        block_n = min(TILE // block_k, triton.next_power_of_2(max(1, n // programs)))
        launch: Any = _linear[(triton.cdiv(n, block_n),)]
        launch(
            x, self.stats, weight, out, config.norm_eps, config.softcap,
            B=self.batch, N=n, K=k, H=config.n_head, D=config.head_dim,
            BEFORE=before, AFTER=after, SPLITS=SPLITS, BLOCK_N=block_n, BLOCK_K=block_k,
            **self._options(True),
        )  # fmt: skip

    def _options(self, follows: bool) -> dict[str, Any]:
        """follows: starts before the kernel in front of it has ended, and waits by itself."""
        options: dict[str, Any] = {"PDL": self.overlapped, "num_warps": WARPS}
        if self.overlapped and follows:
            options["launch_pdl"] = True
        return options
