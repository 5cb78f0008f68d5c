"""Token ids in, answers out: prefill, decode one token, sample, and tool calls on the way.

The engine knows token ids and the tokenizer, not checkpoints. `stream` yields what a person sees,
as it comes; `complete` answers many prompts at once, for evaluation.
"""

from __future__ import annotations

import codecs
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nanochat.decode_graph import GraphDecoder
from nanochat.gpt import GPT
from nanochat.kv_cache import KVCache
from nanochat.sampling import Sampling, sample
from nanochat.tasks.calculator import calculate
from nanochat.tokenizer import Tokenizer

# What a model of a small world says where it is not sure of its own words. It has learned to say so
# itself, but only of questions like those that it was taught.
UNSURE = "I do not know that."
MAX_HELD = 32  # tokens that wait until it is clear whether they can be said: a long sentence
# What is longer is a story or a count. A story could begin in many ways, each of them unlikely.
LONGER_TEXTS = 0.7  # times the confidence of a sentence is enough


@dataclass(frozen=True)
class Event:
    """kind: text (a piece of the answer), tool_call, tool_result, or done (why, after how many)."""

    kind: str
    text: str
    tokens: int = field(default=0, compare=False)


class _Answer:
    """One row's answer: the text so far, a tool call being written, tokens that are forced."""

    def __init__(self, engine: Engine, min_confidence: float = 0) -> None:
        self.engine = engine
        self.min_confidence = min_confidence
        self.held: list[Event] | None = [] if min_confidence else None  # None: nothing is held back
        self.log_likelihood, self.own_tokens = 0.0, 0
        # A token may end in the middle of a character: its bytes wait here for the rest.
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.forced: deque[int] = deque()
        self.call: list[int] | None = None
        self.in_output = False
        self.tokens = 0
        self.done = ""

    def say(self, token: int, log_likelihood: float | None) -> list[Event]:
        """Events of the next token, held back until it is clear that the model is sure of them.

        log_likelihood: of a token of its own, None of a forced one.
        """
        if log_likelihood is not None:
            self.log_likelihood += log_likelihood
            self.own_tokens += 1
        return self.hold(self.take(token))

    def hold(self, events: list[Event]) -> list[Event]:
        """What can be said by now: nothing until enough is there to decide."""
        if self.held is None:
            return events
        self.held += events
        if not self.done and self.own_tokens < MAX_HELD:
            return []
        held, self.held = self.held, None
        return self.decide(held)

    def decide(self, held: list[Event]) -> list[Event]:
        """What was held back, or that it does not know: by the mean likelihood of its tokens.

        A geometric mean, as in perplexity: one unlikely word in a long sentence is a choice, many
        are a guess.
        """
        least = self.min_confidence if self.done else self.min_confidence * LONGER_TEXTS
        sure = math.exp(self.log_likelihood / max(1, self.own_tokens)) >= least
        if sure and any(event.kind == "text" and event.text.strip() for event in held):
            return held  # an empty answer tells nobody anything
        self.done = "stop"
        return [Event("text", UNSURE), Event("done", "stop", self.tokens)]

    def take(self, token: int) -> list[Event]:
        """Events of the next token."""
        self.tokens += 1
        tokenizer, special = self.engine.tokenizer, self.engine.tokenizer.special
        if token == special["<|python_start|>"]:
            self.call = []
        elif token == special["<|python_end|>"] and self.call is not None:
            # The model wrote an expression; the calculator's result is put into its mouth, as if it
            # had said it. What it makes of it is its own again.
            expression = tokenizer.decode(self.call)
            result = calculate(expression)
            self.call = None
            if result is not None:
                marks = special["<|output_start|>"], special["<|output_end|>"]
                self.forced.extend([marks[0], *tokenizer.encode(result), marks[1]])
                return [Event("tool_call", expression), Event("tool_result", result)]
            # Not an expression: the model is left to go on without a result.
            return [Event("tool_call", expression)]
        elif token in (special["<|output_start|>"], special["<|output_end|>"]):
            self.in_output = token == special["<|output_start|>"]
        elif token >= len(tokenizer.pieces):
            # Any other special token: <|assistant_end|>, or a model that has lost the thread.
            return self.end("stop")
        elif self.call is not None:
            self.call.append(token)
        elif not self.in_output:
            text = self.decoder.decode(tokenizer.pieces[token])
            return [Event("text", text)] if text else []
        return []

    def end(self, why: str) -> list[Event]:
        """Close the answer: the rest of a broken character, and why it ended."""
        self.done = why
        rest = self.decoder.decode(b"", final=True)
        return ([Event("text", rest)] if rest else []) + [Event("done", why, self.tokens)]


class Engine:
    """A model and its tokenizer, answering.

    recorded: decode by a recording of the model's calls (default: on CUDA, if the model is frozen;
    one that is being trained has no memory to spare, and answers only a few questions).
    """

    def __init__(self, model: GPT, tokenizer: Tokenizer, recorded: bool | None = None) -> None:
        self.model, self.tokenizer = model, tokenizer
        weight = model.wte.weight
        if recorded is None:
            recorded = weight.device.type == "cuda" and not weight.requires_grad
        self.recorder = GraphDecoder(model) if recorded else None

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, KVCache]:
        """Read the prompts at once: logits of what comes next (B, V), and the cache."""
        device = self.model.wte.weight.device
        longest = max(len(prompt) for prompt in prompts)
        # Padded on the left, so that every row ends at the same position: the next token of all of
        # them is then one more column.
        ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts], device=device)
        cache = KVCache(self.model.config, [longest - len(p) for p in prompts], device)
        return self.model(ids, cache), cache

    @torch.inference_mode()
    def decode_one_token(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """tokens (B,) at the cache's end -> logits of what comes next (B, V)."""
        if self.recorder is not None and self.recorder.takes(cache):
            return self.recorder.step(tokens, cache)
        return self.model(tokens[:, None], cache)

    def events(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling
    ) -> Iterator[tuple[int, Event]]:
        """(row, event) of all prompts' answers as they come; each row ends with a done event."""
        device = self.model.wte.weight.device
        # A generator per call: the same seed gives the same answer, whoever asks beside it.
        generator = torch.Generator(device=device)
        if sampling.seed is None:
            generator.seed()
        else:
            generator.manual_seed(sampling.seed)
        # Only a small world has an honest "I do not know" for everything outside of it; and only an
        # answer can be one: a text that a base model continues is not a question.
        least = sampling.min_confidence if self.tokenizer.plain_typing else 0
        asked = self.tokenizer.special["<|assistant_start|>"]
        answers = [_Answer(self, least if prompt[-1] == asked else 0) for prompt in prompts]
        longest = max(len(prompt) for prompt in prompts)
        assert longest <= self.model.config.max_seq_len, "render_prompt keeps prompts within it"
        # Rows that are done go on being decoded until all are: dropping them would change the shape
        # for the rest, and cost more than it saves at these sizes.
        room = min(sampling.max_new_tokens, self.model.config.max_seq_len - longest)
        logits, cache = self.prefill(prompts)
        for i in range(room):
            tokens = sample(logits, sampling, generator)
            chosen = tokens.tolist()  # the only time per token that a GPU is waited for
            likely: list[float | None] = [None] * len(chosen)
            if least:
                likely = logits.float().log_softmax(-1).gather(1, tokens[:, None])[:, 0].tolist()
            # What the calculator forces on a row replaces what it would have said.
            forced = [row for row, answer in enumerate(answers) if answer.forced]
            for row in forced:
                chosen[row], likely[row] = answers[row].forced.popleft(), None
            if forced:
                tokens = torch.tensor(chosen, device=device)
            for row, answer in enumerate(answers):
                if not answer.done:
                    for event in answer.say(chosen[row], likely[row]):
                        yield row, event
            if all(answer.done for answer in answers):
                return
            if i + 1 < room:  # nobody would look at what follows the last token
                logits = self.decode_one_token(tokens, cache)
        for row, answer in enumerate(answers):
            if not answer.done:
                for event in answer.hold(answer.end("length")):
                    yield row, event

    def stream(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[Event]:
        """Events of one answer."""
        for _, event in self.events([prompt], sampling):
            yield event

    def complete(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[str]:
        """The texts that a person would see, one per prompt."""
        texts = [""] * len(prompts)
        for row, event in self.events(prompts, sampling):
            if event.kind == "text":
                texts[row] += event.text
        return texts
