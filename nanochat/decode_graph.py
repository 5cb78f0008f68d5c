"""Decoding on a card: one token's kernels recorded once, and replayed for every token after it.

At batch 1 a kernel runs for a few microseconds and takes the host as long to launch, three
hundred of them a token: the card would wait most of the time. A CUDA graph is launched as a whole.
"""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from nanochat.gpt import GPT
from nanochat.kv_cache import FixedCache, KVCache

# Positions of the smallest recording. Each further one has twice as many, so that a token never
# looks at more than twice of what has been read, and few recordings serve every length.
MIN_ROOM = 256


class _Recording:
    """One token of so many rows over so much cache; outside of CUDA the same calls, unrecorded."""

    def __init__(self, model: GPT, batch: int, room: int) -> None:
        device = model.wte.weight.device
        self.model = model
        self.cache = FixedCache(model.config, batch, room, model.dtype, device)
        self.ids = torch.zeros((batch, 1), dtype=torch.long, device=device)
        self.graph: torch.cuda.CUDAGraph | None = None
        if device.type == "cuda":
            self._record()

    def __call__(self, tokens: Tensor) -> Tensor:
        """tokens (B,) at the cache's end -> logits of what comes next (B, V)."""
        self.ids.copy_(tokens[:, None])
        if self.graph is None:
            logits = self.model(self.ids, self.cache)
        else:
            self.graph.replay()
            logits = self.logits.clone()  # the next replay writes there again
        self.cache.length += 1
        return logits

    def _record(self) -> None:
        # Libraries set themselves up in their first calls, which can't be recorded; on a stream of
        # its own, as recording is.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self.model(self.ids, self.cache)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.logits = self.model(self.ids, self.cache)


class GraphDecoder:
    """Decodes the tokens of one answer after another; needs a model that is frozen."""

    def __init__(self, model: GPT) -> None:
        self.model = model
        self._recordings: dict[int, _Recording] = {}  # by room, all for as many rows
        self._batch = 0
        self._now: _Recording | None = None
        self._user: weakref.ref[KVCache] | None = None

    def takes(self, cache: KVCache) -> bool:
        """Whether this answer is decoded here: from now on, unless another one is."""
        user = self._user() if self._user is not None else None
        if user is None:
            self._user = weakref.ref(cache)  # an answer that is left early frees its place
            self._now = None
            return True
        return user is cache

    def step(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """tokens (B,) at the end of this answer's cache -> logits of what comes next (B, V)."""
        before = self._now.cache if self._now is not None else cache
        if self._now is None or before.length == self._now.cache.room:
            self._now = self._recording(len(tokens), before.length + 1)
            self._now.cache.load(before)
        return self._now(tokens)

    def _recording(self, batch: int, length: int) -> _Recording:
        assert length <= self.model.config.max_seq_len, "an answer ends with the context"
        room = min(max(MIN_ROOM, 1 << (length - 1).bit_length()), self.model.config.max_seq_len)
        if batch != self._batch:
            self._recordings.clear()  # caches of another size are not worth a card's memory
            self._batch = batch
        if room not in self._recordings:
            self._recordings[room] = _Recording(self.model, batch, room)
        return self._recordings[room]
