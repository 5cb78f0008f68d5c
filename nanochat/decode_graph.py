"""Decoding on a card: the kernels of one token are recorded once, and replayed for every other.

At batch 1 a kernel runs for a few microseconds and takes the host as long to launch, some three
hundred of them per token: the card would wait most of the time. A CUDA graph launches as a whole.
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
# How far the first replay may be from the model itself, as a share of the logits' norm: bfloat16
# rounds by about 1 % here, and a recording that is wrong is off by more than 30 %.
MAX_APART = 0.1


class _Recording:
    """One token of so many rows over so much cache; outside of CUDA the same calls, unrecorded."""

    def __init__(self, model: GPT, batch: int, room: int) -> None:
        device = model.wte.weight.device
        self.model = model
        self.cache = FixedCache(model.config, batch, room, model.dtype, device)
        self.ids = torch.zeros((batch, 1), dtype=torch.long, device=device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.is_checked = False
        if device.type == "cuda":
            self._record()

    def __call__(self, tokens: Tensor) -> Tensor:
        """tokens (B,) at the cache's end -> logits of what comes next (B, V)."""
        # A replay reads and writes the tensors that were recorded: new values go into them.
        self.ids.copy_(tokens[:, None])
        if self.graph is None:
            logits = self.model(self.ids, self.cache)
        else:
            self.graph.replay()
            logits = self.logits.clone()  # the next replay writes there again
        self.cache.length += 1
        return logits

    def _record(self) -> None:
        # Libraries set themselves up in their first calls, which can't be recorded: those run
        # before, on a stream of their own, as the recording does.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self.model(self.ids, self.cache)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        # thread_local: a server's other threads may go on using the card meanwhile.
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.logits = self.model(self.ids, self.cache)


class GraphDecoder:
    """Decodes the tokens of one answer at a time; needs a model whose weights are frozen."""

    def __init__(self, model: GPT) -> None:
        self.model = model
        self.failed = ""  # why nothing is recorded any more
        self._recordings: dict[int, _Recording] = {}  # by room, all of them for as many rows
        self._batch = 0
        self._now: _Recording | None = None
        self._user: weakref.ref[KVCache] | None = None

    def takes(self, cache: KVCache) -> bool:
        """Whether this answer is decoded here. Another one, meanwhile, is decoded without."""
        if self.failed:
            return False
        user = self._user() if self._user is not None else None
        if user is None:
            self._user = weakref.ref(cache)  # an answer that is left early frees its place
            self._now = None
            return True
        return user is cache

    def step(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """tokens (B,) at the end of this answer's cache -> logits of what comes next (B, V)."""
        if self._now is None:
            return self._begin(tokens, cache)
        if self._now.cache.length == self._now.cache.room:
            before = self._now.cache
            self._now = self._recording(len(tokens), before.length + 1)
            self._now.cache.load(before)
        return self._now(tokens)

    def _begin(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """The first token of an answer; a new recording is compared with the model itself."""
        try:
            recording = self._recording(len(tokens), cache.length + 1)
            recording.cache.load(cache)
            logits = recording(tokens)
        except RuntimeError as error:  # something that can't be recorded: answers are slower
            self.failed = str(error)
            return self.model(tokens[:, None], cache)
        if not recording.is_checked:
            right = self.model(tokens[:, None], cache)
            apart = ((logits - right).norm() / right.norm()).item()
            if not apart < MAX_APART:  # nor where it is NaN
                self.failed = f"the recording is off by {apart:.0%}"
                return right
            recording.is_checked = True
        self._now = recording
        return logits

    def _recording(self, batch: int, length: int) -> _Recording:
        assert length <= self.model.config.max_seq_len, "an answer ends with the context"
        room = min(max(MIN_ROOM, 1 << (length - 1).bit_length()), self.model.config.max_seq_len)
        if batch != self._batch:
            self._recordings.clear()  # caches of another size are not worth a card's memory
            self._batch = batch
        if room not in self._recordings:
            self._recordings[room] = _Recording(self.model, batch, room)
        return self._recordings[room]
