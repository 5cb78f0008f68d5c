"""The stranger's test: what eight people would type first, and what counts as a right answer.

The questions lie in strangers_questions/, one file per half; the head of each file says its format.
They were written from README.md alone. Whoever improves the model reads the development half and
trains on neither: the final half is worth something only while nobody has looked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Half = Literal["development", "final"]
Verdict = Literal["right", "unknown", "wrong"]
Line = tuple[int, str, str]  # number, field, value
FOLDER = Path(__file__).with_name("strangers_questions")
# Field -> how often an item may have it; it needs at least one of each but "wrong".
FIELDS = {"kind": 1, ">": 6, "right": 20, "wrong": 20, "unknown": 1, "example": 20}

# Patterns see contractions written out. Otherwise every pattern with a "not" needs three spellings,
# and the one that is forgotten calls a right answer wrong.
CONTRACTIONS = {
    r"\bcan(?:no|')t\b": "can not",
    r"\bwon't\b": "will not",
    r"n't\b": " not",
    r"\bi'm\b": "I am",
    r"(?<=[a-z])'re\b": " are",
    r"(?<=[a-z])'ll\b": " will",
    r"(?<=[a-z])'ve\b": " have",
    # Only after these words: in "your cat's name" it is not a verb.
    r"\b(it|that|what|he|she|there|who|where|here)'s\b": r"\1 is",
}
NEVER_SEEN = re.compile(r"cannot|n't\b|\bi'm\b|’", re.I)
_PHRASE = (
    r"(?:I (?:really |just |still )?(?:do|did|could|can|will) not (?:really |yet )?"
    r"(?:know|remember|recall|understand)"
    r"|I am not (?:really |quite )?sure|I have no idea|I know nothing|I (?:only know|know only)"
    r"|I (?:have )?never (?:heard|learned|learnt|seen|met)"
    r"|I (?:have|did) not (?:yet )?(?:heard?|learn(?:ed|t)?|seen?)"
    r"|you (?:have|did) not (?:yet )?(?:told|tell|said|say|mentioned?))\b"
)
# A sentence of not knowing often repeats the question ("I do not know if elephants are bigger"), so
# it must not be searched for a right answer; what stands before and after it may.
NOT_KNOWING = re.compile(
    r"(?:^|(?<=[.!?] ))"
    r"(?:(?:oh|well|hm+|sorry|unfortunately|i am (?:so )?(?:sorry|afraid))\b[,.!]* (?:but )?)*"
    rf"{_PHRASE}(?:(?!, but\b)[^.!?])*(?:, but\b|[.!?]+|$)\s*",
    re.I,
)
UNKNOWN = re.compile(
    rf"\b(?:{_PHRASE}|I (?:can not|could not|can only|am not able|am unable)\b)", re.I
)


@dataclass(frozen=True)
class Question:
    """User turns, of which the last one's answer is judged, and the patterns that judge it."""

    person: str
    kind: str
    turns: tuple[str, ...]
    right: tuple[re.Pattern[str], ...]  # any of them is enough
    wrong: tuple[re.Pattern[str], ...]  # any of them outweighs `right`
    unknown_is_right: bool  # nobody could expect a small model to know
    examples: tuple[str, ...]  # right answers, for the tests


def load(half: Half, folder: Path = FOLDER) -> tuple[Question, ...]:
    """The questions of a half, in the order of its file; ValueError names file and line."""
    path, person, questions = folder / f"{half}.txt", "", []
    named = {name: text for block in _blocks(folder / "patterns.txt") for _, name, text in block}
    for lines in _blocks(path):
        if lines[0][1] == "person":
            person = lines.pop(0)[2]
        if lines:
            questions.append(_question(path, person, lines, named))
    return tuple(questions)


def _blocks(path: Path) -> Iterator[list[Line]]:
    """What stands between blank lines, without the comments."""
    block: list[Line] = []
    # The blank line at the end closes the last block.
    for number, line in enumerate([*path.read_text(encoding="utf-8").splitlines(), ""], start=1):
        if line.strip() and not line.startswith("#"):
            name, value = (">", line[1:]) if line[0] == ">" else line.partition(":")[::2]
            if not name or not value.strip():
                raise ValueError(f"{path}:{number}: expected 'field: value' or '> turn': {line!r}")
            block.append((number, name, value.strip()))
        elif block and not line.strip():
            yield block
            block = []


def _question(path: Path, person: str, lines: list[Line], named: dict[str, str]) -> Question:
    values: dict[str, list[str]] = {name: [] for name in FIELDS}
    patterns: dict[str, list[re.Pattern[str]]] = {"right": [], "wrong": []}
    for number, name, value in lines:
        if name not in FIELDS or not person:
            expected = f"one of {', '.join(FIELDS)} below a line 'person: name'"
            raise ValueError(f"{path}:{number}: expected {expected}, got {name!r}")
        values[name].append(value)
        if name in patterns:
            patterns[name].append(_pattern(f"{path}:{number}", value, named))
    for name, most in FIELDS.items():
        least = 0 if name == "wrong" else 1
        if not least <= (count := len(values[name])) <= most:
            raise ValueError(f"{path}:{lines[0][0]}: {count} lines {name!r} in an item")
    if values["unknown"][0] not in ("yes", "no"):
        raise ValueError(f"{path}:{lines[0][0]}: 'unknown' is 'yes' or 'no'")
    return Question(
        person=person,
        kind=values["kind"][0],
        turns=tuple(values[">"]),
        right=tuple(patterns["right"]),
        wrong=tuple(patterns["wrong"]),
        unknown_is_right=values["unknown"] == ["yes"],
        examples=tuple(values["example"]),
    )


def _pattern(where: str, text: str, named: dict[str, str]) -> re.Pattern[str]:
    try:
        whole = re.sub(r"\{([a-z_]+)\}", lambda match: f"(?:{named[match[1]]})", text)
        pattern = re.compile(whole, re.IGNORECASE | re.DOTALL)
    except (KeyError, re.error) as e:
        raise ValueError(f"{where}: {text!r} is not a regular expression: {e}") from None
    if NEVER_SEEN.search(whole):
        raise ValueError(f"{where}: write contractions out, as in 'can not': {text!r}")
    return pattern


def judge(question: Question, answer: str) -> Verdict:
    """`unknown` is an honest "I do not know that" or "I cannot do that" where more was expected."""
    text = " ".join(answer.replace("’", "'").split())
    for contraction, written_out in CONTRACTIONS.items():
        text = re.sub(contraction, written_out, text, flags=re.I)
    claim = NOT_KNOWING.sub("", text)
    if any(pattern.search(claim) for pattern in question.wrong):
        return "wrong"
    if any(pattern.search(claim) for pattern in question.right):
        return "right"
    if UNKNOWN.search(text):
        return "right" if question.unknown_is_right else "unknown"
    return "wrong"
