"""Questions to a chat model: answered greedily and judged, or by the likeliest letter.

ChatCORE is the mean over six tasks of (accuracy - guessing) / (1 - guessing).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from nanochat.conversation import Conversation, render_prompt
from nanochat.data import task_data, tinyworld
from nanochat.data.dataset import Source
from nanochat.data.tinyworld import World
from nanochat.data.tinyworld.talks import OWN_WORLD
from nanochat.engine import Engine
from nanochat.sampling import Sampling
from nanochat.system.errors import UserError
from nanochat.tasks import CHATCORE, GUESSING
from nanochat.tasks.task import ANSWER_TOKENS, Row, Task

OWN_PER_ROUND = 5  # questions about one's own world for one of every other kind
BATCH = 32
BLOCK = 4 * BATCH  # questions sorted by length together, to pad little


class Question(Protocol):
    """What is asked, and whether a reply is right: a TaskQuestion, or one of tinyworld's."""

    @property
    def kind(self) -> str: ...
    @property
    def messages(self) -> Conversation: ...
    @property
    def answer(self) -> str: ...
    def is_right(self, reply: str) -> bool: ...


@dataclass(frozen=True)
class TaskQuestion:
    """A row of a task as a question."""

    task: Task
    row: Row

    @property
    def kind(self) -> str:
        """The task's name."""
        return self.task.name

    @property
    def messages(self) -> Conversation:
        """What is asked."""
        return self.task.question(self.row)

    @property
    def answer(self) -> str:
        """The right answer, for a person."""
        return self.task.answer(self.row) if self.task.answer is not None else ""

    @property
    def letters(self) -> str:
        """The letters on offer; empty where the answer is in words."""
        return self.task.letters(self.row) if self.task.letters is not None else ""

    @property
    def max_answer_tokens(self) -> int:
        """A letter is one token."""
        return 1 if self.letters else self.task.max_answer_tokens

    def is_right(self, reply: str) -> bool:
        """Whether the reply is right."""
        return self.task.judge(self.row, reply)


@dataclass
class ChatResult:
    """Counts of right and asked by kind, and each (question, reply, right)."""

    right: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    asked: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    replies: list[tuple[Any, str, bool]] = field(default_factory=list)
    too_long: int = 0  # questions that did not fit into the context, counted as wrong

    def accuracy(self) -> dict[str, float]:
        """Share of right answers of each kind."""
        return {kind: self.right[kind] / n for kind, n in sorted(self.asked.items())}

    def mean(self) -> float:
        """Mean over the kinds."""
        # Not over questions: a kind with many questions is not more important.
        accuracy = self.accuracy().values()
        return sum(accuracy) / len(accuracy)

    def repetition(self) -> float:
        """Share of replies with a repeated 4-gram: small models fall into loops."""
        return sum(repeats(reply) for _, reply, _ in self.replies) / max(1, len(self.replies))

    def judge(self, question: Question, reply: str) -> None:
        """Count a reply."""
        right = question.is_right(reply)
        self.asked[question.kind] += 1
        self.right[question.kind] += right
        self.replies.append((question, reply, right))


def repeats(text: str, n: int = 4) -> bool:
    """Whether the same n words in a row appear in the text twice.

    >>> repeats("the cat sat on the mat and the cat sat on it"), repeats("The cat sat.")
    (True, False)
    """
    words = text.lower().split()
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(grams)) < len(grams)


def chatcore(accuracy: dict[str, float]) -> tuple[float, int]:
    """(mean centered accuracy, over how many of the six tasks).

    >>> chatcore({"mmlu": 0.625, "gsm8k": 0.1, "colors": 1.0})
    (0.3, 2)
    """
    # Centered, or a task of four choices would give every model 25 points as a present.
    centered = [
        (accuracy[task] - GUESSING[task]) / (1 - GUESSING[task])
        for task in CHATCORE
        if task in GUESSING and task in accuracy
    ]
    return (sum(centered) / len(centered) if centered else 0.0), len(centered)


def tinyworld_questions(max_per_kind: int | None, world: World | None = None) -> list[Question]:
    """The held-out questions of a world, at most so many of each kind, the kinds taking turns.

    OWN_PER_ROUND times as many about what is somebody's own. Empty where so little is in the world
    that nothing is held out.
    """
    by_kind: dict[str, list[Question]] = {}
    # A world lists them by kind, and the first kinds would use up the time of the last.
    for question in tinyworld.held_out(world):
        by_kind.setdefault(question.kind, []).append(question)
    rounds = max_per_kind or max(map(len, by_kind.values()), default=0)
    # Those about one's own world are listed file by file, and all of its files count.
    own = by_kind.get(OWN_WORLD, [])
    by_kind |= {OWN_WORLD: own[:: max(1, len(own) // (OWN_PER_ROUND * rounds))]} if own else {}
    at_once = {kind: OWN_PER_ROUND if kind == OWN_WORLD else 1 for kind in by_kind}
    return [
        question
        for i in range(rounds)
        for kind, some in by_kind.items()
        for question in some[i * at_once[kind] : (i + 1) * at_once[kind]]
    ]


def task_questions(task: Task, source: Source, max_questions: int | None) -> list[Question]:
    """Questions of a task, spread over its rows; empty where the source has none."""
    rows = task_data.rows(task, "test", source)
    # MMLU's rows are sorted by subject: its first hundred are all algebra.
    stride = max(1, len(rows) // max_questions) if max_questions else 1
    return [TaskQuestion(task, row) for row in rows[::stride][:max_questions]]


def ask(
    engine: Engine,
    questions: Sequence[Question],
    progress: Callable[[int], None] = lambda n: None,
    seconds: float | None = None,
) -> ChatResult:
    """Ask the questions in order, a batch at a time; start no more batches after `seconds`.

    A question that is too long for the model's context counts as wrong.
    """
    # Padding costs as much as text. Sorting everything by length would pad least, and when the time
    # is up only the short kinds would have been asked; so the sorting is within a block.
    result, started = ChatResult(), time.monotonic()
    for start in range(0, len(questions), BLOCK):
        block = [(q, _prompt(engine, q)) for q in questions[start : start + BLOCK]]
        for question, prompt in block:
            if prompt is None:
                result.too_long += 1
                result.judge(question, "")
        fitting = sorted(((q, p) for q, p in block if p is not None), key=lambda qp: len(qp[1]))
        for first in range(0, len(fitting), BATCH):
            # At least one batch, or there would be nothing to take a mean of.
            if seconds is not None and result.replies and time.monotonic() - started > seconds:
                return result
            some = fitting[first : first + BATCH]
            for (question, _), reply in zip(some, _replies(engine, some), strict=True):
                result.judge(question, reply)
            progress(len(result.replies))
    return result


def _letters(question: Question) -> str:
    """The letters on offer; tinyworld's questions offer none."""
    return question.letters if isinstance(question, TaskQuestion) else ""


def _max_answer_tokens(engine: Engine, question: Question) -> int:
    is_task = isinstance(question, TaskQuestion)
    wanted = question.max_answer_tokens if is_task else ANSWER_TOKENS
    return min(wanted, engine.model.config.max_seq_len // 2)


def _prompt(engine: Engine, question: Question) -> list[int] | None:
    length = engine.model.config.max_seq_len - _max_answer_tokens(engine, question)
    try:
        return render_prompt(question.messages, engine.tokenizer, length)[0]
    except UserError:
        return None


def _replies(engine: Engine, some: Sequence[tuple[Question, list[int]]]) -> list[str]:
    """Replies to questions that are all answered by letter, or all in words."""
    prompts = [prompt for _, prompt in some]
    letters = [_letters(question) for question, _ in some]
    if any(letters):
        # One forward pass and no decoding. Only the letters on offer compete, so what is measured
        # is the choice: whether a small model keeps to the format is a question of its own.
        logits, _ = engine.prefill(prompts)
        replies = []
        for row, offered in enumerate(letters):
            ids = [engine.tokenizer.encode(letter)[0] for letter in offered]
            replies.append(offered[int(logits[row, ids].argmax())])
        return replies
    # Decoding stops row by row, and the batch when its last row stops.
    room = max(_max_answer_tokens(engine, question) for question, _ in some)
    return engine.complete(prompts, Sampling(max_new_tokens=room))
