"""Questions to a chat model, answered greedily and judged: accuracy by kind, and repetition."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nanochat.conversation import render_prompt
from nanochat.data.tinyworld import REPORTED_ONLY, Question
from nanochat.engine import Engine, Sampling
from nanochat.system.cli import UserError

ANSWER_TOKENS = 80
BATCH = 32


@dataclass
class ChatResult:
    """What came out: right and asked by kind, and each (question, reply, right)."""

    right: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    asked: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    replies: list[tuple[Question, str, bool]] = field(default_factory=list)

    def accuracy(self) -> dict[str, float]:
        """Share of right answers of each kind."""
        return {kind: self.right[kind] / n for kind, n in sorted(self.asked.items())}

    def mean(self) -> float:
        """Mean over the kinds that count."""
        counted = [a for kind, a in self.accuracy().items() if kind not in REPORTED_ONLY]
        return sum(counted) / len(counted)

    def repetition(self) -> float:
        """Share of replies with a repeated 4-gram."""
        return sum(repeats(reply) for _, reply, _ in self.replies) / len(self.replies)


def repeats(text: str, n: int = 4) -> bool:
    """Whether a run of n words stands in the text twice.

    >>> repeats("the cat sat on the mat and the cat sat on it"), repeats("The cat sat.")
    (True, False)
    """
    words = text.lower().split()
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(grams)) < len(grams)


def ask(
    engine: Engine, questions: Sequence[Question], progress: Callable[[int], None] = lambda n: None
) -> ChatResult:
    """Ask all the questions, some at a time, those of about one length together.

    A question that is too long for the model's context is answered by silence.
    """
    result = ChatResult()
    length = engine.model.config.max_seq_len
    room = min(ANSWER_TOKENS, length // 2)
    prompts: dict[int, list[int]] = {}
    for i, question in enumerate(questions):
        try:
            prompts[i], _ = render_prompt(question.messages, engine.tokenizer, length - room)
        except UserError:
            _judge(result, question, "")
    order = sorted(prompts, key=lambda i: len(prompts[i]))
    for start in range(0, len(order), BATCH):
        some = order[start : start + BATCH]
        replies = engine.complete([prompts[i] for i in some], Sampling(max_new_tokens=room))
        for i, reply in zip(some, replies, strict=True):
            _judge(result, questions[i], reply)
        progress(len(result.replies))
    return result


def _judge(result: ChatResult, question: Question, reply: str) -> None:
    right = question.is_right(reply)
    result.asked[question.kind] += 1
    result.right[question.kind] += right
    result.replies.append((question, reply, right))
