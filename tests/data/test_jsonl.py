"""Lines of people's files: documents, conversations, and what was skipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nanochat.data.jsonl import read
from nanochat.system.errors import UserError

TALK = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}]
SHORT = [{"role": "system", "content": "Be brief."}, *TALK]
BRIEF = [{"role": "user", "content": "Be brief.\n\nHi?"}, TALK[1]]
SHAREGPT = [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Hello."}]
TOLD = [{"from": "system", "value": "Be brief."}, *SHAREGPT]
ALPACA = {"instruction": "Hi?", "input": "", "output": "Hello."}


def taken(tmp_path: Path, lines: list[Any]) -> tuple[list, list[str]]:
    """What is read of these lines, and what is told of it, without the path."""
    path, told = tmp_path / "mine.jsonl", []
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text("\n".join(texts), encoding="utf-8")
    found = list(read(path, told.append))
    assert all(line.startswith(f"{path}: ") and "\n" not in line for line in told)
    return found, [line.removeprefix(f"{path}: ") for line in told]


@pytest.mark.parametrize(
    ("line", "item", "told"),
    [
        ({"text": "A text."}, "A text.", ""),
        ({"text": "A text.", "messages": TALK}, "A text.", ""),
        (TALK, TALK, ""),
        ({"messages": TALK, "id": 7}, TALK, ""),
        ({"messages": SHORT}, BRIEF, ""),
        ({"text": None, "messages": TALK}, TALK, ""),
        ({"conversations": TALK}, TALK, "`conversations`"),
        ({"conversations": SHAREGPT}, TALK, "ShareGPT's `from` and `value`"),
        ({"messages": SHAREGPT}, TALK, "ShareGPT's `from` and `value`"),
        ({"conversations": TOLD}, BRIEF, "ShareGPT's `from` and `value`"),
        (
            {"conversations": SHAREGPT, "system": "Be brief."},
            BRIEF,
            "ShareGPT's `from` and `value`",
        ),
        (ALPACA, TALK, "Alpaca's `instruction`, `input` and `output`"),
        (
            {"instruction": "Add.", "input": "1, 2", "output": "3"},
            [{"role": "user", "content": "Add.\n\n1, 2"}, {"role": "assistant", "content": "3"}],
            "Alpaca's `instruction`, `input` and `output`",
        ),
        ('{"text": "half \\ud83d, whole \\ud83d\\ude00"}', "half \ufffd, whole \U0001f600", "half"),
        ('{"text": "a\\u0000b"}', "ab", "NULs (removed)"),
        ('{"text": "the words \\\\u0000 and \\\\ud83d"}', "the words \\u0000 and \\ud83d", ""),
    ],
)
def test_shapes(tmp_path: Path, line: Any, item: Any, told: str) -> None:
    found, lines = taken(tmp_path, [line])
    assert found == [item]
    assert told in lines[0] if told else lines == []


def test_half_characters_in_a_conversation(tmp_path: Path) -> None:
    talk = [TALK[0], {"role": "assistant", "content": [{"type": "text", "text": "\ud83d"}]}]
    ((_, answer),), _ = taken(tmp_path, [talk])
    assert answer["content"] == [{"type": "text", "text": "\ufffd"}]


def test_the_second_of_two_joined_files(tmp_path: Path) -> None:
    found, told = taken(tmp_path, ["\ufeff" + json.dumps(TALK), "\ufeff" + json.dumps(TALK)])
    assert (found, told) == ([TALK, TALK], [])


def test_a_few_bad_lines_are_passed_over_and_told(tmp_path: Path) -> None:
    unanswered = TALK[:1]
    lines = [TALK, TALK[1:], TALK, '{"text": "cut', TALK, unanswered, unanswered]
    found, told = taken(tmp_path, lines)
    assert found == [TALK] * 3
    assert told == [
        "2 bad lines skipped, the first: line 2: message 1 must be the user's, not 'assistant''s; "
        "2 conversations without an answer left out"
    ]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([TALK, TALK[1:]], " line 2: message 1 must be the user's"),
        ([TALK, "{", TALK, "[", "]"], r" line 2: .* \(and 2 more\)"),
        (
            [{"prompt": "a", "answer": "b"}],
            " line 1: no `text`, no list of messages .*`instruction`",
        ),
        ([TALK[:1]] * 120, ": none of its 120 conversations has an answer"),
        (["[" * 100_000], " line 1: "),
    ],
)
def test_what_is_mostly_something_else_is_refused(tmp_path: Path, lines: list, words: str) -> None:
    with pytest.raises(UserError, match=f"mine.jsonl{words}") as error:
        taken(tmp_path, lines)
    assert "\n" not in str(error.value)
