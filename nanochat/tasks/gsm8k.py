"""GSM8K: sums in words, whose worked answers mark each calculation as <<48/2=24>>.

The marks become calls of the calculator, whose result the model reads instead of working it out.
"""

from __future__ import annotations

import re
from typing import Any

from nanochat.tasks.calculator import calculate

MARK = re.compile(r"<<([^<>=]+)=([^<>]*)>>")
# A minus between two numbers is no sign, a comma only between thousands.
NUMBER = re.compile(r"(?:(?<![\w.)])-)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))(?:\.\d+)?")


def conversation(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The row as something to learn from; the answer ends in "#### 72"."""
    return [
        {"role": "user", "content": row["question"]},
        {"role": "assistant", "content": parts(row["answer"])},
    ]


def parts(answer: str) -> list[dict[str, str]]:
    """Text, calculations and their results, in order; a mark whose result is wrong is left out.

    The expression begins with a space, as every call does (contract 6).

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
        if result is not None and _same(result, mark[2]):
            found.append({"type": "python", "text": f" {expression}"})
            found.append({"type": "python_output", "text": result})
    add_text(answer[end:])
    return found


def _same(result: str, written: str) -> bool:
    value = number(written)
    return value is not None and abs(float(result) - value) < 0.005 * max(1.0, abs(value))


def number(text: str) -> float | None:
    """The number of a text: after "####" where there is one, else the last.

    >>> number("so 3 and 4\\n#### 1,072."), number("It costs $12.50."), number("none")
    (1072.0, 12.5, None)
    """
    _, mark, after = text.rpartition("####")
    found = NUMBER.findall(after)
    if not found:
        return None
    return float((found[0] if mark else found[-1]).replace(",", ""))


def is_right(row: dict[str, Any], reply: str) -> bool:
    """Whether the reply has the row's number."""
    wanted, given = number(row["answer"]), number(reply)
    return wanted is not None and given is not None and abs(wanted - given) < 1e-6
