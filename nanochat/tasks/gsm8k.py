"""GSM8K: grade-school word problems with worked answers (arXiv 2110.14168).

An answer marks each calculation as <<48/2=24>>. The marks become calls of the calculator, whose
result the model reads instead of working it out.
"""

from __future__ import annotations

import re

from nanochat.tasks.calculator import calculate
from nanochat.tasks.task import Conversation, Row, Task, exchange, require

MARK = re.compile(r"<<([^<>=]+)=([^<>]*)>>")
# A minus between two numbers is not a sign, and a comma belongs to a number only before thousands.
NUMBER = re.compile(r"(?:(?<![\w.)])-)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))(?:\.\d+)?")


def read(row: Row) -> Row:
    """A row of a file; the answer ends in "#### 72"."""
    return {name: require(row, name, str) for name in ("question", "answer")}


def conversation(row: Row) -> Conversation:
    """The problem and its worked answer."""
    return exchange(row["question"], parts(row["answer"]))


def parts(answer: str) -> list[dict[str, str]]:
    """Text, calculations and their results, in order; a mark whose result is wrong is left out.

    The expression begins with a space, as every call does (spelling_bee.py says why).

    >>> [p["text"] for p in parts("48/2 = <<48/2=24>>24 clips")]
    ['48/2 = ', ' 48/2', '24', '24 clips']
    """
    found: list[dict[str, str]] = []

    def add_text(text: str) -> None:
        if found and found[-1]["type"] == "text":
            found[-1]["text"] += text
        elif text:
            found.append({"type": "text", "text": text})

    end = 0
    for mark in MARK.finditer(answer):
        add_text(answer[end : mark.start()])
        end = mark.end()
        expression, result = mark[1].strip(), calculate(mark[1])
        # A wrong mark would teach that the calculator says what it does not say when it is asked.
        if result is not None and _same(result, mark[2]):
            found.append({"type": "python", "text": f" {expression}"})
            found.append({"type": "python_output", "text": result})
    add_text(answer[end:])
    return found


def _same(result: str, written: str) -> bool:
    value = number(written)
    try:
        calculated = float(result)
    except ValueError:  # the calculator also knows letters and truth values
        return False
    # People round what they write down: 1/3=0.33.
    return value is not None and abs(calculated - value) < 0.005 * max(1.0, abs(value))


def number(text: str) -> float | None:
    """The number that a text arrives at: the first after "####", else the last.

    >>> number("so 3 and 4\\n#### 1,072."), number("It costs $12.50."), number("none")
    (1072.0, 12.5, None)
    """
    _, mark, after = text.rpartition("####")
    found = NUMBER.findall(after)
    if not found:
        return None
    return float((found[0] if mark else found[-1]).replace(",", ""))


def is_right(row: Row, reply: str) -> bool:
    """Whether the reply has the row's number."""
    wanted, given = number(row["answer"]), number(reply)
    return wanted is not None and given is not None and abs(wanted - given) < 1e-6


TASK = Task(
    "gsm8k",
    read=read,
    conversation=conversation,
    answer=lambda row: row["answer"].rsplit("####", 1)[-1].strip(),
    is_right=is_right,
    max_answer_tokens=256,  # several steps, each written out
    hub_repo="openai/gsm8k",
    hub_files={"train": "main/train-*.parquet", "test": "main/test-*.parquet"},
    folder_files={
        "train": "evals/chat/gsm8k_train.jsonl.gz",
        "test": "evals/chat/gsm8k_test.jsonl.gz",
    },
    shares={"mid": 1, "sft": 1},
)
