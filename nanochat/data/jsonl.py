"""Lines of a .jsonl: documents and conversations, in the shapes that people keep them in.

A document is an object with `text`. A conversation is a list of {role, content}, or an object with
such a list as `messages` or `conversations`; ShareGPT's {from, value} and Alpaca's `instruction`,
`input`, `output` are conversations too.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nanochat.conversation import Conversation, check
from nanochat.data.text_files import Tell, read_text
from nanochat.system.errors import UserError
from nanochat.system.log import counted, say

SPEAKERS = {"human": "user", "gpt": "assistant", "chatgpt": "assistant"}
SHAREGPT = "ShareGPT's `from` and `value`"
ALPACA = "Alpaca's `instruction`, `input` and `output`"
# Escapes in JSON that may not be characters: a NUL, and half of a surrogate pair.
NO_CHARACTER = re.compile(r"\\u(0000|[dD][89a-fA-F])")


def read(path: Path, tell: Tell = say) -> Iterator[str | Conversation]:
    """The documents and conversations of a .jsonl or .jsonl.gz, in order.

    Bad lines among good ones are skipped, and so are conversations without an answer; `tell` gets
    one line about them. Raises UserError that names the first bad line if most lines are bad.
    """
    # Scraped and hand-edited files have a few broken lines, and nobody wants to fix 3 of 50,000
    # before training. But if most of them are bad, it is another kind of file.
    found, shapes = Counter(good=0, bad=0, unanswered=0, cleaned=0), Counter[str]()
    first_bad = ""
    # Not splitlines: that also splits at U+2028 and others, which JSON allows inside a string.
    for number, line in enumerate(read_text(path, tell).split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            if NO_CHARACTER.search(line):
                value, before = _cleaned(value), value
                found["cleaned"] += value != before
            item, shape = _item(value)
        except (ValueError, RecursionError, UserError) as error:
            first_bad = first_bad or f"line {number}: {error}"
            found["bad"] += 1
            continue
        if not isinstance(item, str) and not any(turn["role"] == "assistant" for turn in item):
            found["unanswered"] += 1
            continue
        found["good"] += 1
        shapes[shape] += 1
        yield item
    if found["bad"] and found["bad"] >= found["good"] + found["unanswered"]:
        others = f" (and {found['bad'] - 1} more)" if found["bad"] > 1 else ""
        raise UserError(f"{path} {first_bad}{others}")
    if found["unanswered"] and not found["good"]:
        raise UserError(
            f"{path}: none of its {counted(found['unanswered'], 'conversation')} has an answer "
            "from the assistant, so there is nothing to learn: add answers, or remove the file"
        )
    told = [
        f"{counted(count, 'conversation')} from {shape}" for shape, count in shapes.items() if shape
    ]
    if found["bad"]:
        told.append(f"{counted(found['bad'], 'bad line')} skipped, the first: {first_bad}")
    if found["unanswered"]:
        told.append(f"{counted(found['unanswered'], 'conversation')} without an answer left out")
    if found["cleaned"]:
        cleaned = counted(found["cleaned"], "line")
        told.append(f"{cleaned} had half characters (replaced) or NULs (removed)")
    if told:
        tell(f"{path}: {'; '.join(told)}")


def _item(found: Any) -> tuple[str | Conversation, str]:
    """(document or conversation, its shape unless it is ours). Raises UserError."""
    if isinstance(found, list):
        return _conversation(found)
    if isinstance(found, dict):
        if isinstance(found.get("text"), str):
            return found["text"], ""
        for key in ("messages", "conversations"):
            if found.get(key) is not None:
                system = found.get("system")
                shape = "`conversations`" if key == "conversations" else ""
                return _conversation(found[key], shape, system if isinstance(system, str) else "")
        question, answer = found.get("instruction"), found.get("output")
        if isinstance(question, str) and isinstance(answer, str):
            if isinstance(found.get("input"), str) and found["input"].strip():
                question = f"{question}\n\n{found['input']}"
            asked = {"role": "user", "content": question}
            return check([asked, {"role": "assistant", "content": answer}]), ALPACA
    raise UserError(
        "no `text`, no list of messages (or `messages`, `conversations`), "
        "and no `instruction` with `output` in it"
    )


def _conversation(messages: Any, shape: str = "", system: str = "") -> tuple[Conversation, str]:
    """(conversation, its shape): of {role, content}, or of {from, value}."""
    if isinstance(messages, list):
        named = [m for m in messages if isinstance(m, dict) and {"from", "value"} <= m.keys()]
        if named and len(named) == len(messages):
            shape = SHAREGPT
            messages = [
                {"role": SPEAKERS.get(str(m["from"]), m["from"]), "content": m["value"]}
                for m in named
            ]
        if system.strip():
            messages = [{"role": "system", "content": system}, *messages]
    return check(messages), shape


def _cleaned(value: Any) -> Any:
    """JSON with half characters replaced and NULs removed."""
    if isinstance(value, str):
        # Through UTF-16, where two halves side by side are one character again.
        whole = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return whole.replace("\0", "")
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if isinstance(value, dict):
        return {key: _cleaned(item) for key, item in value.items()}
    return value
