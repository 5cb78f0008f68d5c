"""Questions with choices (MMLU, ARC): the answer is a letter.

The model answers with the letter alone, at the very start of its turn, so the letter there is a
token without a space before it. In the question the letter stands after "=", which begins a new
piece for the tokenizer: the same token again, which only has to be copied. After a space it would
be another token, " B", and the model would have to learn which of the two belong together.
"""

from __future__ import annotations

from typing import Any

from nanochat.tasks.task import Row, Task, exchange, require

LETTERS = "ABCDE"


def task(name: str, **rest: Any) -> Task:
    """A task of questions with choices; `rest`: its guess, files and shares.

    A row has "question", "choices" (texts) and "answer" (the index of the right one).
    """
    return Task(
        name,
        read=read,
        conversation=lambda row: exchange(question(row), LETTERS[row["answer"]]),
        answer=lambda row: LETTERS[row["answer"]],
        letters=lambda row: LETTERS[: len(row["choices"])],
        by_subject=True,
        **rest,
    )


def question(row: Row) -> str:
    """The question with one choice per line.

    >>> print(question({"question": "Which is red?", "choices": ["snow", "blood"], "answer": 1}))
    Which is red?
    - snow =A
    - blood =B
    Answer with the letter.
    """
    choices = (f"- {text} ={letter}" for text, letter in zip(row["choices"], LETTERS, strict=False))
    return "\n".join((row["question"], *choices, "Answer with the letter."))


def read(row: Row) -> Row | None:
    """A row in the layout of MMLU, ARC or CORE; None without a right choice or with too many.

    >>> read({"query": "Question: Which is red?", "choices": ["snow", "blood"], "gold": 1})
    {'question': 'Which is red?', 'choices': ['snow', 'blood'], 'answer': 1}
    """
    row = row.get("train") or row  # MMLU's auxiliary split is nested
    if "query" in row:
        asked = require(row, "query", str).removeprefix("Question: ")
        choices, answer = require(row, "choices", list), _index(row, "gold")
    elif "answerKey" in row:
        asked, found = require(row, "question", str), require(row, "choices", dict)
        choices, labels = require(found, "text", list), require(found, "label", list)
        if row["answerKey"] not in labels:  # letters, or digits in some rows
            raise ValueError(f"answerKey={row['answerKey']!r} must be one of {labels}")
        answer = labels.index(row["answerKey"])
    else:
        asked = require(row, "question", str)
        choices, answer = require(row, "choices", list), _index(row, "answer")
    # A public file has a few of these among thousands: not worth stopping for.
    if not 2 <= len(choices) <= len(LETTERS) or not 0 <= answer < len(choices):
        return None
    return {"question": asked, "choices": choices, "answer": answer}


def _index(row: Row, name: str) -> int:
    value: Any = require(row, name, object)
    try:
        return int(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value!r} must be the number, from 0, of a choice") from None
