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
from nanochat.data.tinyworld import REPORTED_ONLY
from nanochat.engine import Engine
from nanochat.sampling import Sampling
from nanochat.system.errors import UserError
from nanochat.tasks import GUESSING, gsm8k, multiple_choice, spelling_bee

ANSWER_TOKENS = {"gsm8k": 256}  # else:
SHORT_ANSWER_TOKENS = 80
BATCH = 32
BLOCK = 4 * BATCH  # questions sorted by length together, to pad little
BY_LETTER = ("arc_easy", "arc_challenge", "mmlu")
SPELLING_QUESTIONS = 1_000


class Question(Protocol):
    """What is asked, and whether a reply is right."""

    @property
    def kind(self) -> str: ...
    @property
    def messages(self) -> Conversation: ...
    @property
    def answer(self) -> str: ...
    def is_right(self, reply: str) -> bool: ...


@dataclass(frozen=True)
class TaskQuestion:
    """A row of a task as a question; letters: the answers on offer, where it is one letter."""

    kind: str
    messages: Conversation
    answer: str
    judge: Callable[[str], bool]
    letters: str = ""

    def is_right(self, reply: str) -> bool:
        """Whether the reply is right."""
        return self.judge(reply)


@dataclass
class ChatResult:
    """What came out: right and asked by kind, and each (question, reply, right)."""

    right: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    asked: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    replies: list[tuple[Any, str, bool]] = field(default_factory=list)
    too_long: int = 0  # questions that did not fit into the context, counted as wrong

    def accuracy(self) -> dict[str, float]:
        """Share of right answers of each kind."""
        return {kind: self.right[kind] / n for kind, n in sorted(self.asked.items())}

    def mean(self) -> float:
        """Mean over the kinds that count."""
        counted = [a for kind, a in self.accuracy().items() if kind not in REPORTED_ONLY]
        return sum(counted) / len(counted)

    def repetition(self) -> float:
        """Share of replies with a repeated 4-gram."""
        return sum(repeats(reply) for _, reply, _ in self.replies) / max(1, len(self.replies))

    def judge(self, question: Question, reply: str) -> None:
        """Count a reply."""
        right = question.is_right(reply)
        self.asked[question.kind] += 1
        self.right[question.kind] += right
        self.replies.append((question, reply, right))


def repeats(text: str, n: int = 4) -> bool:
    """Whether a run of n words stands in the text twice.

    >>> repeats("the cat sat on the mat and the cat sat on it"), repeats("The cat sat.")
    (True, False)
    """
    words = text.lower().split()
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(grams)) < len(grams)


def chatcore(accuracy: dict[str, float]) -> tuple[float, int]:
    """(mean centered accuracy, over how many of the six tasks).

    >>> chatcore({"mmlu": 0.625, "gsm8k": 0.1, "colours": 1.0})
    (0.3, 2)
    """
    centered = [
        (accuracy[task] - guess) / (1 - guess)
        for task, guess in GUESSING.items()
        if task in accuracy
    ]
    return (sum(centered) / len(centered) if centered else 0.0), len(centered)


def tinyworld_questions(most: int | None) -> list[Question]:
    """The held-out questions, at most so many of each kind, kinds taking turns."""
    by_kind: dict[str, list[Question]] = {}
    for question in tinyworld.held_out():
        by_kind.setdefault(question.kind, []).append(question)
    rounds = max(len(some) for some in by_kind.values()) if most is None else most
    return [some[i] for i in range(rounds) for some in by_kind.values() if i < len(some)]


def task_questions(task: str, source: Source, most: int | None) -> list[Question]:
    """Questions of a task, spread over its rows; empty where its rows are not there."""
    if task == "spelling_bee":
        rows = list(spelling_bee.rows(task_data.words(source), "test", SPELLING_QUESTIONS))
    else:
        rows = task_data.rows(task, "test", source.name) or []
    if task in BY_LETTER:
        rows = multiple_choice.fits(rows)
    stride = max(1, len(rows) // most) if most else 1
    return [_question(task, row) for row in rows[::stride][:most]]


def _question(task: str, row: dict[str, Any]) -> TaskQuestion:
    if task in BY_LETTER:
        text, letters = multiple_choice.question(row), multiple_choice.letters(row)
        right = letters[row["answer"]]
        asked: Conversation = [{"role": "user", "content": text}]
        return TaskQuestion(task, asked, right, lambda reply: reply == right, letters)
    asked = [{"role": "user", "content": row["question"]}]
    if task == "gsm8k":
        right = row["answer"].rsplit("####", 1)[-1].strip()
        return TaskQuestion(task, asked, right, lambda reply: gsm8k.is_right(row, reply))
    count = row["answer"]
    return TaskQuestion(task, asked, str(count), lambda reply: gsm8k.number(reply) == count)


def ask(
    engine: Engine,
    questions: Sequence[Question],
    progress: Callable[[int], None] = lambda n: None,
    seconds: float | None = None,
) -> ChatResult:
    """Ask the questions in their order, some at a time; after `seconds` no more are begun.

    A question that is too long for the model's context counts as wrong.
    """
    result, started = ChatResult(), time.monotonic()
    for start in range(0, len(questions), BLOCK):
        block = [(q, _prompt(engine, q)) for q in questions[start : start + BLOCK]]
        for question, prompt in block:
            if prompt is None:
                result.too_long += 1
                result.judge(question, "")
        fitting = sorted(((q, p) for q, p in block if p is not None), key=lambda qp: len(qp[1]))
        for first in range(0, len(fitting), BATCH):
            if seconds is not None and result.replies and time.monotonic() - started > seconds:
                return result
            some = fitting[first : first + BATCH]
            for (question, _), reply in zip(some, _replies(engine, some), strict=True):
                result.judge(question, reply)
            progress(len(result.replies))
    return result


def _letters(question: Question) -> str:
    """The answers on offer; tinyworld's questions offer none."""
    return question.letters if isinstance(question, TaskQuestion) else ""


def _room(engine: Engine, question: Question) -> int:
    if _letters(question):
        return 1
    wanted = ANSWER_TOKENS.get(question.kind, SHORT_ANSWER_TOKENS)
    return min(wanted, engine.model.config.max_seq_len // 2)


def _prompt(engine: Engine, question: Question) -> list[int] | None:
    length = engine.model.config.max_seq_len - _room(engine, question)
    try:
        return render_prompt(question.messages, engine.tokenizer, length)[0]
    except UserError:
        return None


def _replies(engine: Engine, some: Sequence[tuple[Question, list[int]]]) -> list[str]:
    """Replies to questions of one kind of answer: all by letter, or all in words."""
    prompts = [prompt for _, prompt in some]
    letters = [_letters(question) for question, _ in some]
    if any(letters):
        logits, _ = engine.prefill(prompts)
        replies = []
        for row, offered in enumerate(letters):
            ids = [engine.tokenizer.encode(letter)[0] for letter in offered]
            replies.append(offered[int(logits[row, ids].argmax())])
        return replies
    room = max(_room(engine, question) for question, _ in some)
    return engine.complete(prompts, Sampling(max_new_tokens=room))
