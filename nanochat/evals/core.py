"""CORE: 22 tasks from DCLM (arXiv 2406.11794) that ask a base model to continue a text.

A question is some worked examples (shots), a context and one or more continuations. Multiple choice
and schema: the option with the lowest mean loss over its continuation is the answer; in schema the
contexts differ instead of the continuations. Language modelling: every token of the continuation
must be the model's first choice. A task's score is centered, (accuracy - baseline) /
(1 - baseline), so that guessing gives 0; CORE is the mean over all 22 tasks.

Shapes: B rows, T time, C width, V vocabulary, N positions at which a loss is needed.
"""

from __future__ import annotations

import random
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

from nanochat.evals.core_tasks import Example, Task
from nanochat.fused import CHUNK_FLOATS
from nanochat.gpt import GPT
from nanochat.tokenizer import Tokenizer

# Tokens in one forward pass: enough to fill the device, and about a second of a laptop's time.
TOKENS_AT_ONCE = {"cpu": 4096, "mps": 16_384, "cuda": 65_536}


@dataclass(frozen=True)
class TaskScore:
    """The result of a task, and for how many of its questions the context was too short."""

    label: str
    right: int
    asked: int
    baseline: float
    shots_dropped: int  # questions that lost some of their shots
    cropped: int  # questions without shots whose own context lost its beginning
    too_long: int  # questions with a continuation that fills the context by itself
    seconds: float

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.asked

    @property
    def centered(self) -> float:
        """Accuracy on a scale where guessing is 0 and all right is 1."""
        return centered(self.accuracy, self.baseline)

    def overflow(self) -> str:
        """What did not fit, for a person; empty where everything did."""
        counts = (
            (self.shots_dropped, "shots dropped"),
            (self.cropped, "context cropped"),
            (self.too_long, "continuation too long"),
        )
        return ", ".join(f"{what} in {n} of {self.asked}" for n, what in counts if n)


def centered(accuracy: float, baseline: float) -> float:
    """(accuracy - baseline) / (1 - baseline).

    >>> centered(0.25, 0.25), centered(1.0, 0.62), centered(0.0, 0.5)
    (0.0, 1.0, -1.0)
    """
    return (accuracy - baseline) / (1 - baseline)


def mean_centered(scores: Sequence[TaskScore]) -> float:
    """Mean of the centered scores: CORE, where no task is missing."""
    return sum(score.centered for score in scores) / len(scores)


# --- from a question to tokens -------------------------------------------------------------------


class Span(NamedTuple):
    """A sequence of which ids[start:] is the continuation."""

    ids: list[int]
    start: int


class Prompt(NamedTuple):
    """The spans of a question's options, and what was left out so that they fit."""

    spans: list[Span]
    shots_dropped: bool
    cropped: bool
    too_long: bool


def draw_shots(task: Task, index: int) -> list[Example]:
    """The worked examples put before question `index`: always the same, never the question."""
    asked, n = task.examples[index], len(task.examples)
    drawn = random.Random(f"{task.label} shots {index}")
    # A few more than needed, since the question itself and copies of it are left out.
    some = [task.examples[i] for i in drawn.sample(range(n), min(n, task.num_fewshot + 4))]
    return [shot for shot in some if shot != asked][: task.num_fewshot]


def prompt(task: Task, index: int, tokenizer: Tokenizer, max_seq_len: int) -> Prompt:
    """Question `index` in tokens, within max_seq_len inputs.

    What does not fit is dropped from the left: first whole shots, then the beginning of the
    question's own context, but never <|bos|> or the continuation. Only a continuation that is too
    long by itself loses its end.
    """
    # CORE was made for contexts of 2,048 tokens, and a small model here has 256. Half an example is
    # worse than none, so shots go whole. The end of a context is next to what is asked, so it
    # is cut last.
    example, shots = task.examples[index], draw_shots(task, index)
    limit = max_seq_len + 1  # the last token is a target only

    def encode(n_shots: int) -> list[Span]:
        kept = shots[len(shots) - n_shots :]
        before = "".join(_join(task, shot.options[shot.gold]) + "\n\n" for shot in kept)
        return _spans(task, before, example, tokenizer)

    def length(n_shots: int) -> int:
        return max(len(span.ids) for span in encode(n_shots))

    # The most shots that fit. More shots are never shorter, so halving finds it: each try encodes
    # the whole prompt.
    n_shots = bisect_right(range(1, len(shots) + 1), limit, key=length)
    spans = encode(n_shots)
    cropped = max(len(span.ids) for span in spans) > limit
    too_long = False
    if cropped:
        longest = max(len(span.ids) - span.start for span in spans)
        room = limit - 1 - longest  # for the context, <|bos|> apart; the same in every option
        too_long = room < 0
        spans = [_crop(span, max(room, 0), limit) for span in spans]
    return Prompt(spans, n_shots < len(shots), cropped, too_long)


def _join(task: Task, option: tuple[str, str]) -> str:
    context, continuation = option
    return f"{context}{task.delimiter}{continuation}"


def _spans(task: Task, before: str, example: Example, tokenizer: Tokenizer) -> list[Span]:
    """A span per option, all tokenized whole.

    A tokenizer may join the end of a context with what follows, so where the continuation begins
    has to be found by comparing tokens.
    """
    options = [
        [tokenizer.bos, *tokenizer.encode(before + _join(task, option))]
        for option in example.options
    ]
    # Where one option is the beginning of another ("10", "100"), its last token is still judged.
    most = min(len(ids) for ids in options) - 1
    # Schema: "The trophy" or "the suitcase" comes first, and the same end follows. It is the end
    # that is judged, so what the options have in common is counted from the right.
    if task.kind == "schema":
        common = min(common_prefix([ids[::-1] for ids in options]), most)
        return [Span(ids, len(ids) - common) for ids in options]
    if task.kind == "multiple_choice":
        compared = options
    else:
        # Only one option: its beginning is compared with itself cut off before the continuation. A
        # blank at the end would be a token of its own, which the whole text does not have.
        text = before + example.options[0][0] + task.delimiter
        compared = [options[0], [tokenizer.bos, *tokenizer.encode(text.rstrip())]]
    start = min(common_prefix(compared), most)
    return [Span(ids, start) for ids in options]


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """How many items all the sequences begin with.

    >>> common_prefix([[1, 2, 3], [1, 2, 4, 5]]), common_prefix([[1], [2]])
    (2, 0)
    """
    for n, items in enumerate(zip(*sequences, strict=False)):
        if len(set(items)) > 1:
            return n
    return min(len(sequence) for sequence in sequences)


def _crop(span: Span, room: int, limit: int) -> Span:
    bos, context, rest = span.ids[:1], span.ids[1 : span.start], span.ids[span.start :]
    kept = context[max(len(context) - room, 0) :]
    return Span((bos + kept + rest)[:limit], 1 + len(kept))


# --- asking the model ----------------------------------------------------------------------------


class Judged(NamedTuple):
    """How a model takes a continuation: mean loss in nats per token; whether it would say it."""

    loss: float
    greedy: bool


@torch.inference_mode()
def judge(model: GPT, spans: Sequence[Span], tokens_at_once: int) -> list[Judged]:
    """Judge every span. Logits are made for the continuations only, and in chunks.

    Rows of about the same length share a forward pass of at most tokens_at_once tokens (or one
    row).
    """
    # One-token choices ("A", "B") have the same input and differ only in the target: they share a
    # row, which makes such a task as many times faster as it has choices.
    sharing: dict[tuple[int, ...], list[int]] = {}
    for i, span in enumerate(spans):
        sharing.setdefault(tuple(span.ids[:-1]), []).append(i)
    judged: dict[int, Judged] = {}
    for rows in _batches(list(sharing), tokens_at_once):
        members = [(row, i) for row, ids in enumerate(rows) for i in sharing[ids]]
        sizes = [len(spans[i].ids) - spans[i].start for _, i in members]
        losses, firsts = _losses(model, rows, [(row, spans[i]) for row, i in members])
        pieces = zip(members, losses.split(sizes), firsts.split(sizes), strict=True)
        for (_, i), loss, first in pieces:
            judged[i] = Judged(loss.mean().item(), bool(first.all()))
    return [judged[i] for i in range(len(spans))]


def _batches(rows: list[tuple[int, ...]], tokens: int) -> Iterator[list[tuple[int, ...]]]:
    """Rows in batches that have at most `tokens` tokens when padded to their longest row."""
    batch: list[tuple[int, ...]] = []
    for row in sorted(rows, key=len):
        if batch and (len(batch) + 1) * len(row) > tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _losses(
    model: GPT, rows: list[tuple[int, ...]], members: list[tuple[int, Span]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss (nats) at each token of the continuations, and whether it is the most likely: (N,)."""
    device = model.wte.weight.device
    # On MPS every new shape is compiled and kept, so lengths are rounded up to a few.
    step = 64 if device.type == "mps" else 1
    longest = -(-len(rows[-1]) // step) * step
    # Padding on the right is never seen: attention looks to the left only.
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
    at = [row * longest + t - 1 for row, span in members for t in range(span.start, len(span.ids))]
    targets = [i for _, span in members for i in span.ids[span.start :]]
    # A vocabulary of 65,536 for every position of a batch would be gigabytes; only the positions of
    # the continuations are needed, a few per row.
    x = model.hidden(ids).flatten(0, 1)[torch.tensor(at, device=device)]  # (N, C)
    wanted = torch.tensor(targets, device=device)
    chunk = max(1, CHUNK_FLOATS[device.type] // model.config.vocab_size)
    losses, firsts = [], []
    for some, right in zip(x.split(chunk), wanted.split(chunk), strict=True):
        logits = model.logits(some)  # (chunk, V)
        losses.append(F.cross_entropy(logits, right, reduction="none"))
        firsts.append(logits.argmax(dim=-1) == right)
    return torch.cat(losses).cpu(), torch.cat(firsts).cpu()


# --- tasks ---------------------------------------------------------------------------------------


def is_right(task: Task, example: Example, prompt: Prompt, judged: Sequence[Judged]) -> bool:
    """Whether the answer is the right one. A continuation that was cut is never said exactly."""
    if task.kind == "language_modeling":
        return judged[0].greedy and not prompt.too_long
    return min(range(len(judged)), key=lambda i: judged[i].loss) == example.gold


def evaluate_task(
    model: GPT,
    tokenizer: Tokenizer,
    task: Task,
    max_problems: int | None = None,
    max_seconds: float | None = None,
    progress: Callable[[int, int], None] = lambda asked, of: None,
) -> TaskScore:
    """Ask a task's questions, or the first max_problems, in a shuffled order: always the same.

    max_seconds: stop where the next questions would, at the speed so far, take longer than that.
    One question is always asked. progress gets the numbers of questions asked and to ask.
    """
    # Shuffled, since files are often sorted: whoever stops early has asked a fair sample. Seeded by
    # the label, so that two models are asked the same.
    started = time.monotonic()
    order = list(range(len(task.examples)))
    random.Random(f"{task.label} order").shuffle(order)
    order = order[:max_problems]
    at_once = TOKENS_AT_ONCE[model.wte.weight.device.type]
    right, tokens, prompts = 0, 0, []
    pending: list[tuple[int, Prompt]] = []
    for n, index in enumerate(order, 1):
        pending.append((index, prompt(task, index, tokenizer, model.config.max_seq_len)))
        waiting = sum(len(span.ids) for _, found in pending for span in found.spans)
        limit = 2 * at_once
        if max_seconds is not None:
            elapsed = time.monotonic() - started
            if prompts and waiting > tokens / elapsed * (max_seconds - elapsed):
                break
            # The first question alone, to learn the speed; then no more than half of what is left,
            # so that a wrong guess at the speed costs little.
            limit = min(limit, tokens / elapsed * (max_seconds - elapsed) / 2) if prompts else 0
        if waiting < limit and n < len(order):
            continue
        judged = iter(judge(model, [s for _, found in pending for s in found.spans], at_once))
        for i, found in pending:
            answers = [next(judged) for _ in found.spans]
            right += is_right(task, task.examples[i], found, answers)
            prompts.append(found)
        tokens += waiting
        pending = []
        progress(len(prompts), len(order))
    return TaskScore(
        task.label,
        right,
        len(prompts),
        task.baseline,
        sum(found.shots_dropped for found in prompts),
        sum(found.cropped for found in prompts),
        sum(found.too_long for found in prompts),
        time.monotonic() - started,
    )


def evaluate(
    model: GPT,
    tokenizer: Tokenizer,
    tasks: Sequence[Task],
    max_problems: int | None = None,
    max_seconds: float | None = None,
    progress: Callable[[Task, int, int], None] = lambda task, asked, of: None,
) -> Iterator[TaskScore]:
    """The score of every task that is not missing, as soon as it is known.

    max_seconds is for all of them: each gets an equal share of what is left when it begins, so
    what a short task does not use goes to the later ones.
    """
    present = [task for task in tasks if not task.missing]
    end = None if max_seconds is None else time.monotonic() + max_seconds
    for done, task in enumerate(present):
        left = None if end is None else max(0.0, end - time.monotonic()) / (len(present) - done)

        def on_progress(asked: int, of: int, task: Task = task) -> None:
            progress(task, asked, of)

        yield evaluate_task(model, tokenizer, task, max_problems, left, on_progress)
