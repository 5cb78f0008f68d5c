"""Decoding on a card: one token's kernels recorded once, and replayed for every token after it.

At batch 1 a kernel runs for a few microseconds and takes the host as long to launch, three
hundred of them a token: the card would wait most of the time. A CUDA graph is launched as a whole.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch
from torch import Tensor

from nanochat.gpt import GPT
from nanochat.kv_cache import FixedCache, KVCache

# Positions of the smallest recording. Each further one has twice as many, so that a token never
# looks at more than twice of what has been read, and few recordings serve every length.
MIN_ROOM = 256
# How far fused kernels may be from the plain model, as a share of the logits' norm: bfloat16
# rounds by about 1 % here, and a kernel that is wrong is off by more than 30 %.
APART = 0.1

Step = Callable[[Tensor, FixedCache], Tensor]  # ids (B, 1) -> logits of what comes next (B, V)


def best_step(model: GPT, batch: int) -> tuple[Step, str]:
    """The fastest way to decode one token that gives what the model gives, and why it is that."""
    if model.wte.weight.device.type != "cuda" or model.lm_head.weight.dtype != torch.bfloat16:
        return model, "the model itself: fused kernels are for bfloat16 on CUDA"
    try:
        from nanochat.decode_kernels import MAX_ROWS, FusedStep

        if batch > MAX_ROWS:
            return model, f"the model itself: fused kernels are for up to {MAX_ROWS} rows"
        fused = FusedStep(model, batch)
        right, found = (_tried(model, step, batch) for step in (model, fused))
    except Exception as error:  # Triton is missing, has no C compiler, or does not know the card
        return model, f"the model itself: {type(error).__name__}: {error}"
    apart = ((found - right).norm() / right.norm()).item()
    if not apart < APART:
        return model, f"the model itself: fused kernels are off by {apart:.0%}"
    return fused, f"fused kernels, off by {apart:.1%}"


def _tried(model: GPT, step: Step, batch: int) -> Tensor:
    """Logits after a few tokens, as this step computes them."""
    device = model.wte.weight.device
    cache = FixedCache(model.config, batch, MIN_ROOM, model.dtype, device)
    tokens = min(4, model.config.max_seq_len)
    ids = torch.arange(tokens * batch, device=device).remainder_(model.config.vocab_size)
    return [step(some, cache) for some in ids.view(tokens, batch, 1)][-1].clone()


class _Recording:
    """One token of so many rows over so much cache; outside of CUDA the same calls, unrecorded."""

    def __init__(self, model: GPT, step: Step, batch: int, room: int) -> None:
        device = model.wte.weight.device
        self.step = step
        self.cache = FixedCache(model.config, batch, room, model.dtype, device)
        self.ids = torch.zeros((batch, 1), dtype=torch.long, device=device)
        self.graph: torch.cuda.CUDAGraph | None = None
        if device.type == "cuda":
            self._record()

    def __call__(self, tokens: Tensor) -> Tensor:
        """tokens (B,) at the cache's end -> logits of what comes next (B, V)."""
        self.ids.copy_(tokens[:, None])
        if self.graph is None:
            logits = self.step(self.ids, self.cache)
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
                self.step(self.ids, self.cache)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.logits = self.step(self.ids, self.cache)


class GraphDecoder:
    """Decodes the tokens of one answer after another; needs a model that is frozen."""

    def __init__(self, model: GPT, choose: Callable[[GPT, int], tuple[Step, str]] = best_step):
        self.model, self.choose = model, choose
        self.why = ""  # the step is what it is
        self._recordings: dict[int, _Recording] = {}  # by room, all for as many rows
        self._batch = 0
        self._step: Step = model
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

    def replay_alone(self, tokens: int) -> Callable[[], None] | None:
        """Replays of so many tokens without a host's work, for a benchmark; spoils the answer."""
        now = self._now
        if now is None or now.graph is None:
            return None
        assert tokens <= now.cache.room // 2

        def replay() -> None:
            now.cache.position.fill_(now.cache.room // 2 - 1)
            for _ in range(tokens):
                now.graph.replay()

        return replay

    def _recording(self, batch: int, length: int) -> _Recording:
        assert length <= self.model.config.max_seq_len, "an answer ends with the context"
        room = min(max(MIN_ROOM, 1 << (length - 1).bit_length()), self.model.config.max_seq_len)
        if batch != self._batch:
            self._recordings.clear()  # caches of another size are not worth a card's memory
            self._batch = batch
            self._step, self.why = self.choose(self.model, batch)
        if room not in self._recordings:
            self._recordings[room] = _Recording(self.model, self._step, batch, room)
        return self._recordings[room]
