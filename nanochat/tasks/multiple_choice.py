"""Questions with choices (MMLU, ARC): the answer is a letter.

The model answers with the letter alone, at the very start of its turn, so the letter there is a
token without a space before it. In the question the letter stands after "=", which begins a new
piece for the tokenizer: the same token again, that only has to be copied. After a space it would be
another token, " B", and the model would have to learn which of the two belong together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LETTERS = "ABCDE"


def question(row: dict[str, Any]) -> str:
    """The question with a choice a line.

    >>> print(question({"question": "Which is red?", "choices": ["snow", "blood"], "answer": 1}))
    Which is red?
    - snow =A
    - blood =B
    Answer with the letter.
    """
    choices = (f"- {text} ={letter}" for text, letter in zip(row["choices"], LETTERS, strict=False))
    return "\n".join((row["question"], *choices, "Answer with the letter."))


def letters(row: dict[str, Any]) -> str:
    """The letters on offer."""
    return LETTERS[: len(row["choices"])]


def conversation(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The row as something to learn from."""
    return [
        {"role": "user", "content": question(row)},
        {"role": "assistant", "content": LETTERS[row["answer"]]},
    ]


def fits(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with as many choices as there are letters, and one of them right."""
    return [r for r in rows if 2 <= len(r["choices"]) <= 5 and 0 <= r["answer"] < len(r["choices"])]
