"""What a task is: where its rows come from, what is learned from one, how a reply is judged.

A row is a dict of plain values, and messages are plain text. Tasks know no tokenizer and no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from nanochat import stages

Row = dict[str, Any]
Conversation = list[dict[str, Any]]  # {"role", "content": text, or parts with calculator calls}
T = TypeVar("T")

SPLITS = ("train", "test")  # learned from, asked
ANSWER_TOKENS = 80  # enough for a sentence; a small model that has not stopped by then rambles


@dataclass(frozen=True, eq=False)
class Task:
    """One task. Files to fetch, flags, help, mixture and report are all derived from these fields.

    Its rows are either read from files or generated. Raises ValueError for fields that contradict
    each other.
    """

    name: str  # in --tasks, metrics and the report

    # The user asks, the assistant answers. Evaluation asks the same without the last turn, so what
    # is practiced and what is examined can't drift apart.
    conversation: Callable[[Row], Conversation]

    # The right answer, as a person reads it. None: the task is learned from and never asked.
    answer: Callable[[Row], str] | None = None
    # Whether a reply is right; None: it has to be the answer, letter for letter.
    is_right: Callable[[Row, str], bool] | None = None
    # The letters on offer, for a task that is answered by one. The likeliest of them counts as the
    # reply: a model that can't yet keep to the format shows what it knows all the same.
    letters: Callable[[Row], str] | None = None
    max_answer_tokens: int = ANSWER_TOKENS
    guess: float = 0.0  # accuracy of guessing, in [0, 1)

    # A row as its file has it -> the row that the functions above take; None leaves it out.
    # Raises ValueError or KeyError for a row of another shape: require() says it well.
    read: Callable[[Row], Row | None] = lambda row: row
    hub_repo: str = ""
    hub_files: Mapping[str, str] = field(default_factory=dict)  # split -> pattern of .parquet names
    folder_files: Mapping[str, str] = field(default_factory=dict)  # split -> .jsonl.gz in --data
    by_subject: bool = False  # the files are sorted; training takes the rows in a mixed order
    # (split, words of the source) -> rows, for a task that needs no files.
    generate: Callable[[str, Sequence[str]], Iterable[Row]] | None = None

    # Stage -> share of what it reads, where talk has 6 (data/mixture.py). A small share is enough
    # to teach the format of an answer; knowledge comes from base training.
    shares: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what a new task gets wrong, before its rows are missed in silence."""

        def known(what: str, names: Iterable[str], allowed: tuple[str, ...]) -> None:
            for name in names:
                if name not in allowed:
                    raise ValueError(
                        f"task {self.name}: {what} has {name!r}; it may have {', '.join(allowed)}"
                    )

        known("hub_files", self.hub_files, SPLITS)
        known("folder_files", self.folder_files, SPLITS)
        known("shares", self.shares, stages.CHAT)
        if bool(self.hub_repo) != bool(self.hub_files):
            raise ValueError(f"task {self.name}: hub_repo and hub_files belong together")
        needed = ["test"] * self.asked + ["train"] * bool(self.shares)
        for split in needed:
            if self.generate is None and split not in {**self.hub_files, **self.folder_files}:
                raise ValueError(
                    f"task {self.name} has no {split} rows: name their file in hub_files or "
                    "folder_files, or generate them"
                )
        if not 0 <= self.guess < 1:
            raise ValueError(f"task {self.name}: guess={self.guess} must be from 0 to below 1")

    @property
    def asked(self) -> bool:
        """Whether the task is asked in evaluation."""
        return self.answer is not None

    def question(self, row: Row) -> Conversation:
        """The row as it is asked: its conversation without the answer."""
        return self.conversation(row)[:-1]

    def judge(self, row: Row, reply: str) -> bool:
        """Whether the reply is right."""
        if self.is_right is not None:
            return self.is_right(row, reply)
        return self.answer is not None and reply == self.answer(row)


def exchange(question: str, answer: Any) -> Conversation:
    """One question of the user's and the assistant's answer: text or parts."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def require(row: Row, name: str, kind: type[T]) -> T:
    """A row's field. Raises ValueError that names it where it is missing or of another type.

    >>> require({"answer": "72"}, "answer", str)
    '72'
    >>> require({"answer": 72}, "answer", str)
    Traceback (most recent call last):
    ValueError: answer=72 must be of type str
    """
    if name not in row:
        raise ValueError(f"it has no {name!r}, only {', '.join(row) or 'nothing'}")
    if not isinstance(row[name], kind):
        raise ValueError(f"{name}={row[name]!r:.60} must be of type {kind.__name__}")
    return row[name]
