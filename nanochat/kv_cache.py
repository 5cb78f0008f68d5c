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
        self.store: Tensor | None = None  # (L, 2, B, H, S, D)

    def at(self, queries: int) -> slice | Tensor:
        """Positions of the next T tokens."""
        return slice(self.length, self.length + queries)

    def advance(self, queries: int) -> None:
        """T tokens have been read, in every layer."""
        self.length += queries

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add (B, H, T, D) of one layer; returns all of it, (B, H, S, D)."""
        end = self.length + k.size(2)
        if self.store is None or end > self.store.size(4):
            self._grow(end, k)
        assert self.store is not None
        store = self.store[layer]
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
        if self.store is not None:
            bigger[:, :, :, :, : self.length] = self.store[:, :, :, :, : self.length]
        self.store = bigger


class FixedCache(KVCache):
    """A cache of one size for single tokens, with its position on the device.

    A CUDA graph repeats what was recorded, with the same tensors: so no shape may depend on how
    much has been read, and no number that changes may come from Python. The price is that every
    token looks at all of the cache, whatever is in it, so it should not be much too large.
    """

    def __init__(
        self, config: GPTConfig, batch: int, room: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        super().__init__(config, [0] * batch, device)
        self.position = torch.zeros(1, dtype=torch.long, device=device)
        shape = (config.depth, 2, batch, config.n_head, room, config.head_dim)
        self.store: Tensor = torch.zeros(shape, dtype=dtype, device=device)

    @property
    def room(self) -> int:
        """Positions it can hold."""
        return self.store.size(4)

    def load(self, cache: KVCache) -> None:
        """Become a copy of another one, of as many rows."""
        assert cache.store is not None
        self.length = cache.length
        # Beyond its length stays what an earlier answer left: masked, and overwritten in time.
        part = (..., slice(self.length), slice(None))
        self.store[part] = cache.store[part]
        self.position.fill_(self.length)
        self.pad.copy_(cache.pad)

    def at(self, queries: int) -> Tensor:
        """The position, (1,), read where it is needed."""
        return self.position

    def advance(self, queries: int) -> None:
        """A token has been read; `length` is told by whoever replays."""
        self.position += queries

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add (B, H, 1, D) of one layer; returns all of the store, (B, H, room, D)."""
        keys, values = self.store[layer].unbind()
        return keys.index_copy_(2, self.position, k), values.index_copy_(2, self.position, v)

    def mask(self, queries: int) -> Tensor:
        """What is added to the scores, (B, 1, 1, room): 0 for a key that is seen, else -inf."""
        keys = torch.arange(self.room, device=self.pad.device)
        seen = (keys <= self.position) & (keys >= self.pad[:, None])  # (B, room)
        # In the keys' type already: made of truth values, every layer would convert it again.
        mask = torch.zeros(seen.shape, dtype=self.store.dtype, device=seen.device)
        return mask.masked_fill_(~seen, -torch.inf)[:, None, None]
