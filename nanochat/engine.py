"""Token ids in, answers out: prefill, decode one token, sample, and tool calls on the way.

The engine knows token ids and the tokenizer, not checkpoints. `stream` yields what a person is to
see, as it comes; `complete` answers many prompts at once, for evaluation.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nanochat.gpt import GPT
from nanochat.gpt_config import GPTConfig
from nanochat.tasks.calculator import calculate
from nanochat.tokenizer import Tokenizer

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


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; temperature 0 takes the most likely one."""

    temperature: float = 0.0
    top_k: int | None = 50
    max_new_tokens: int = 256
    seed: int | None = None


@dataclass(frozen=True)
class Event:
    """kind: text (a piece of the answer), tool_call, tool_result, or done (why, of how many)."""

    kind: str
    text: str
    tokens: int = field(default=0, compare=False)


def sample(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """(B, V) -> (B,) ids."""
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    ids = None
    if sampling.top_k is not None and sampling.top_k < logits.size(-1):
        # Only these are drawn from: quicker than a mask, and MPS has drawn what a mask forbids.
        logits, ids = logits.topk(sampling.top_k, dim=-1)
    weights = torch.softmax(logits / sampling.temperature, dim=-1)
    drawn = torch.multinomial(weights, 1, generator=generator)
    return (drawn if ids is None else ids.gather(-1, drawn)).squeeze(-1)


class _Answer:
    """One row's answer: what was said, a tool call being written, tokens that are forced."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.forced: deque[int] = deque()
        self.call: list[int] | None = None
        self.in_output = False
        self.tokens = 0
        self.done = ""

    def take(self, token: int) -> list[Event]:
        """Events of the next token."""
        self.tokens += 1
        tokenizer, special = self.engine.tokenizer, self.engine.tokenizer.special
        if token == special["<|python_start|>"]:
            self.call = []
        elif token == special["<|python_end|>"] and self.call is not None:
            expression = tokenizer.decode(self.call)
            result = calculate(expression)
            self.call = None
            if result is not None:
                marks = special["<|output_start|>"], special["<|output_end|>"]
                self.forced.extend([marks[0], *tokenizer.encode(result), marks[1]])
                return [Event("tool_call", expression), Event("tool_result", result)]
            return [Event("tool_call", expression)]
        elif token in (special["<|output_start|>"], special["<|output_end|>"]):
            self.in_output = token == special["<|output_start|>"]
        elif token >= len(tokenizer.pieces):
            return self.end("stop")
        elif self.call is not None:
            self.call.append(token)
        elif not self.in_output:
            text = self.decoder.decode(tokenizer.pieces[token])
            return [Event("text", text)] if text else []
        return []

    def end(self, why: str) -> list[Event]:
        """Close the answer: what is left of a broken character, and why it ended."""
        self.done = why
        rest = self.decoder.decode(b"", final=True)
        return ([Event("text", rest)] if rest else []) + [Event("done", why, self.tokens)]


class Engine:
    """A model and its tokenizer, answering."""

    def __init__(self, model: GPT, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, KVCache]:
        """Read the prompts at once: logits of what comes next (B, V), and the cache."""
        device = self.model.wte.weight.device
        longest = max(len(prompt) for prompt in prompts)
        ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts], device=device)
        cache = KVCache(self.model.config, [longest - len(p) for p in prompts], device)
        return self.model(ids, cache), cache

    @torch.inference_mode()
    def decode_one_token(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """tokens (B,) at the cache's end -> logits of what comes next (B, V)."""
        return self.model(tokens[:, None], cache)

    def events(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling
    ) -> Iterator[tuple[int, Event]]:
        """(row, event) of all prompts' answers as they come; each row ends with a done event."""
        device = self.model.wte.weight.device
        generator = torch.Generator(device=device)
        if sampling.seed is None:
            generator.seed()
        else:
            generator.manual_seed(sampling.seed)
        answers = [_Answer(self) for _ in prompts]
        longest = max(len(prompt) for prompt in prompts)
        assert longest <= self.model.config.max_seq_len, "render_prompt keeps prompts within it"
        room = min(sampling.max_new_tokens, self.model.config.max_seq_len - longest)
        logits, cache = self.prefill(prompts)
        for i in range(room):
            tokens = sample(logits, sampling, generator)
            chosen = tokens.tolist()  # the one time a token that a GPU is waited for
            forced = [row for row, answer in enumerate(answers) if answer.forced]
            for row in forced:
                chosen[row] = answers[row].forced.popleft()
            if forced:
                tokens = torch.tensor(chosen, device=device)
            for row, answer in enumerate(answers):
                if not answer.done:
                    for event in answer.take(chosen[row]):
                        yield row, event
            if all(answer.done for answer in answers):
                return
            if i + 1 < room:
                logits = self.decode_one_token(tokens, cache)
        for row, answer in enumerate(answers):
            if not answer.done:
                for event in answer.end("length"):
                    yield row, event

    def stream(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[Event]:
        """Events of one answer."""
        for _, event in self.events([prompt], sampling):
            yield event

    def complete(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[str]:
        """The texts that a person would see, one a prompt."""
        texts = [""] * len(prompts)
        for row, event in self.events(prompts, sampling):
            if event.kind == "text":
                texts[row] += event.text
        return texts
