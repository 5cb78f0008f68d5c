"""What a model keeps of the tokens it has read: each layer's keys and values.

Without it every new token would cost a pass over all the tokens before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nanochat.gpt_config import GPTConfig

CACHE_ROOM = 64  # positions added at least when a cache grows


class KVCache:
    """Keys and values of the positions read so far, for B rows padded on the left.

    pad counts, for each row, the positions at its beginning that are only there to align it.
    """

    def __init__(self, config: GPTConfig, pad: Sequence[int], device: torch.device) -> None:
        self.config = config
        self.pad = torch.tensor(pad, device=device)  # (B,)
        self.padded = any(pad)  # asked for every token: reading it back would make a GPU wait
        self.length = 0
        self._store: Tensor | None = None  # (L, 2, B, H, S, D)

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add (B, H, T, D) of one layer; returns all of it, (B, H, S, D)."""
        end = self.length + k.size(2)
        if self._store is None or end > self._store.size(4):
            self._grow(end, k)
        assert self._store is not None
        store = self._store[layer]
        store[0, :, :, self.length : end] = k
        store[1, :, :, self.length : end] = v
        return store[0, :, :, :end], store[1, :, :, :end]

    def mask(self, queries: int) -> Tensor | None:
        """Which of S keys each of the last T queries sees, (B, 1, T, S); None: all of them."""
        if queries == 1 and not self.padded:
            return None
        end = self.length + queries
        keys = torch.arange(end, device=self.pad.device)
        positions = torch.arange(self.length, end, device=self.pad.device)
        seen = (keys <= positions[:, None]) & (keys >= self.pad[:, None, None])  # (B, T, S)
        # A padding position sees itself, since a softmax over nothing would be nan.
        seen |= keys == positions[:, None]
        return seen[:, None]

    def _grow(self, end: int, like: Tensor) -> None:
        batch, heads, _, dim = like.shape
        room = max(end + CACHE_ROOM, 2 * self.length)
        bigger = like.new_zeros((self.config.depth, 2, batch, heads, room, dim))
        if self._store is not None:
            bigger[:, :, :, :, : self.length] = self._store[:, :, :, :, : self.length]
        self._store = bigger
