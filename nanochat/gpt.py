"""The model: a decoder-only transformer, whole on one page.

Pre-norm blocks, weightless RMSNorm, rotary positions, QK-norm, squared-ReLU MLP, no biases, an
untied head with soft-capped logits: the architecture that `transformers` calls
NanoChatForCausalLM. It knows neither optimizer nor logger.

Shapes: B batch, T time, S time with the cache, C width, H heads, D head dim, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanochat.fused import LogitsPass, linear_cross_entropy, relu_squared, rms_norm, rotate
from nanochat.gpt_config import GPTConfig
from nanochat.kv_cache import KVCache


class Linear(nn.Linear):
    """A matrix without bias; weights stay float32 and are cast to the activations' type."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out, bias=False)

    def reset_parameters(self) -> None:
        """Draw nothing: init_weights does, or a checkpoint is loaded."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight.to(input.dtype))


class Attention(nn.Module):
    """Causal self-attention with rotary positions and normalized queries and keys."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        width = config.n_embd
        self.c_q, self.c_k, self.c_v = (Linear(width, width) for _ in range(3))
        self.c_proj = Linear(width, width)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, cache: KVCache | None, mask: Tensor | None
    ) -> Tensor:
        """x (B, T, C); cos, sin (T, 1, D/2); mask (B, 1, T, S) of what is seen in the cache."""
        batch, time, width = x.shape
        # For a single token joining the matrices would cost more than its three small products.
        q, k, v = self.project(x, joined=cache is None and x.device.type == "cuda")
        # Queries and keys of length 1: their products can't grow during training, which is what
        # makes attention diverge at high learning rates (QK-norm, arXiv 2010.04245).
        q = rms_norm(rotate(q, cos, sin), self.config.norm_eps)
        k = rms_norm(rotate(k, cos, sin), self.config.norm_eps)
        q, k, v = (a.transpose(1, 2) for a in (q, k, v))  # (B, H, T, D)
        if cache is None:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            k, v = cache.extend(self.layer, k, v)  # (B, H, S, D)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.c_proj(y.transpose(1, 2).reshape(batch, time, width))

    def project(self, x: Tensor, joined: bool) -> list[Tensor]:
        """x (B, T, C) -> queries, keys and values, (B, T, H, D) each.

        joined: by one product, which fills a GPU better than three narrow ones, the more so in the
        backward pass. The matrices stay three: checkpoints and Muon see them one by one.
        """
        matrices = (self.c_q, self.c_k, self.c_v)
        if joined:
            weight = torch.cat([matrix.weight for matrix in matrices])  # (3C, C)
            parts = F.linear(x, weight.to(x.dtype)).chunk(3, dim=-1)
        else:
            parts = [matrix(x) for matrix in matrices]
        heads = (*x.shape[:2], self.config.n_head, self.config.head_dim)
        return [part.view(heads) for part in parts]


class MLP(nn.Module):
    """Two matrices with a squared ReLU between them: two thirds of a layer's weights."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.c_proj(relu_squared(self.c_fc(x)))


class Block(nn.Module):
    """One layer: attention and MLP, each added to the residual stream."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.attn = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, cache: KVCache | None, mask: Tensor | None
    ) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        # Each part reads a normalized copy and adds to x, which is never normalized itself: so
        # gradients reach every layer through these two sums, undiminished.
        x = x + self.attn(rms_norm(x, self.eps), cos, sin, cache, mask)
        return x + self.mlp(rms_norm(x, self.eps))


class GPT(nn.Module):
    """Token ids in, logits or a loss out."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.dtype = torch.float32  # of activations; set by whoever knows the device
        # Not drawn here either: on the meta device that alone would import torch's compiler, 2 s.
        wte = torch.empty(config.vocab_size, config.n_embd)
        self.wte = nn.Embedding.from_pretrained(wte, freeze=False)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.depth))
        self.lm_head = Linear(config.n_embd, config.vocab_size)
        self._rotary: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Draw the weights: each block starts as the identity, the head near zero.

        Uniform with the variance of 1/C (muP-like, arXiv 2203.03466); the matrices that write
        into the residual stream start at zero.
        """
        # A generator of its own, on the CPU: the same weights on every device.
        generator = torch.Generator().manual_seed(seed)
        bound = math.sqrt(3 / self.config.n_embd)  # a uniform draw has a third of its square
        for name, weight in self.named_parameters():
            if name.endswith("c_proj.weight"):
                weight.zero_()  # what it adds to the residual stream is 0, until it has learned
            elif name == "wte.weight":
                weight.copy_(torch.empty(weight.shape).normal_(0, 1, generator=generator))
            elif name == "lm_head.weight":
                # Nearly equal logits: the first loss is ln(V), with no confidence to unlearn.
                weight.copy_(torch.empty(weight.shape).normal_(0, 1e-3, generator=generator))
            else:
                drawn = torch.empty(weight.shape).uniform_(-bound, bound, generator=generator)
                weight.copy_(drawn)

    def freeze(self) -> GPT:
        """Keep the weights in the activations' type, for answers alone: it can't be trained now.

        The same numbers as before, without a cast of every matrix for every token, which on a card
        moves five times the bytes of the product itself.
        """
        return self.requires_grad_(False).to(self.dtype)

    def rotary(self, at: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of some positions, (T, 1, D/2) each; the tables grow as needed."""
        device, most = self.wte.weight.device, self.config.max_seq_len
        # A position on the device is not read back: it is below max_seq_len, or torch says so.
        end = max(at.stop, most) if isinstance(at, slice) else most
        if self._rotary is None or end > self._rotary[0].size(0):
            half = self.config.head_dim // 2
            # Kept for training even where the engine, in inference mode, is the first to ask.
            with torch.inference_mode(False):
                speed = self.config.rope_base ** (-torch.arange(half, dtype=torch.float64) / half)
                angle = torch.outer(torch.arange(end, dtype=torch.float64), speed)[:, None, :]
                self._rotary = (
                    angle.cos().to(device, self.dtype),
                    angle.sin().to(device, self.dtype),
                )
        cos, sin = self._rotary
        return cos[at], sin[at]

    def hidden(
        self, ids: Tensor, cache: KVCache | None = None, block: Callable[..., Tensor] | None = None
    ) -> Tensor:
        """ids (B, T) -> normalized last hidden states (B, T, C). block: Block.forward, compiled."""
        time = ids.size(1)
        cos, sin = self.rotary(slice(0, time) if cache is None else cache.at(time))
        mask = None if cache is None else cache.mask(time)  # one for all layers
        # Rows of the embedding differ in length by how often their token was seen; after this norm
        # every token enters with the same weight.
        x = rms_norm(self.wte(ids).to(self.dtype), self.config.norm_eps)
        run = block or Block.__call__
        for layer in self.h:
            x = run(layer, x, cos, sin, cache, mask)
        if cache is not None:
            cache.advance(time)
        return rms_norm(x, self.config.norm_eps)

    def loss(
        self,
        ids: Tensor,
        targets: Tensor,
        hidden: Callable[[Tensor], Tensor] | None = None,
        logits_pass: LogitsPass | None = None,
    ) -> Tensor:
        """Summed cross-entropy in nats over targets (B, T) that are not negative.

        hidden, logits_pass: self.hidden and fused.logits_pass, compiled.
        """
        # The logits of a batch never exist at once: at V 65,536 they would be the largest tensor by
        # far. The head and its loss are computed in chunks of rows (fused.py).
        x = (hidden or self.hidden)(ids).flatten(0, 1)
        softcap = self.config.softcap
        return linear_cross_entropy(x, self.lm_head.weight, targets.flatten(), softcap, logits_pass)

    def logits(self, x: Tensor) -> Tensor:
        """Hidden states (..., C) -> soft-capped logits (..., V), float32."""
        # tanh leaves small logits alone and bounds large ones: no answer is ever quite certain.
        cap = self.config.softcap
        return torch.tanh(self.lm_head(x).float() / cap) * cap

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """ids (B, T) -> logits of the last position (B, V), which is all that an answer needs."""
        return self.logits(self.hidden(ids, cache)[:, -1])
