"""The stranger's test: both files are whole, and each item's patterns do what its author meant."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from nanochat.tasks.strangers import Question, judge, load

HALVES = {half: load(half) for half in ("development", "final")}
QUESTIONS = [question for half in HALVES.values() for question in half]
REFUSALS = (
    "I do not know that.",
    "Sorry, I don’t know.",
    "I am sorry, but I have never heard of that.",
    "That is a hard question. I do not know.",
)
ITEM = "kind: colors\n> hi\nright: x\nunknown: no\nexample: x\n"


def named(question: Question) -> str:
    """For messages. Kind and person only: the final half is not to be seen in a log."""
    return f"{question.person}, {question.kind}, item with {len(question.turns)} turns"


def test_eight_people_ask_twenty_questions_in_each_half() -> None:
    people = {half: Counter(q.person for q in questions) for half, questions in HALVES.items()}
    assert people["development"] == people["final"]
    assert sorted(people["final"].values()) == [20] * 8
    # A kind that one half lacks is a kind with a slip of the pen.
    kinds = {half: {q.kind for q in questions} for half, questions in HALVES.items()}
    assert kinds["development"] == kinds["final"]
    assert len(kinds["final"]) == 22, kinds["final"]
    assert len({q.turns for q in QUESTIONS}) == len(QUESTIONS)


def test_examples_are_right_and_refusals_are_told_apart() -> None:
    for q in QUESTIONS:
        for example in q.examples:
            assert judge(q, example) == "right", f"{named(q)}: an example is not right"
        for refusal in REFUSALS:
            wanted = "right" if q.unknown_is_right else "unknown"
            assert judge(q, refusal) == wanted, f"{named(q)}: {refusal}"
        assert judge(q, "") == "wrong", named(q)


def test_answers_to_something_else_are_not_right() -> None:
    """Patterns that are too wide would call anything right: a parrot, or one answer for all."""
    for q in QUESTIONS:
        if q.kind not in ("greeting", "chit-chat"):  # "bye" is a fine answer to "bye"
            assert judge(q, q.turns[-1]) != "right", f"{named(q)}: the question answers itself"
        if not any("Paris" in example for example in q.examples):
            assert judge(q, "Paris.") != "right", named(q)
    for answer in ("Yes.", "No.", "Okay.", "Hello!", "I am sorry.", "I do not know.", "7"):
        share = sum(judge(q, answer) == "right" for q in QUESTIONS) / len(QUESTIONS)
        assert share < 0.15, answer


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("An elephant is bigger.", "right"),
        ("AN   ELEPHANT", "right"),
        ("I don't know if an elephant is bigger.", "unknown"),
        ("I do not know, but an elephant is big.", "right"),
        ("That is hard. I am not sure if the elephant is.", "unknown"),
        ("Sorry, I can't do that.", "unknown"),
        ("I can only do sums.", "unknown"),
        ("It isn’t an elephant.", "wrong"),
        ("I do not know, but it's not an elephant.", "wrong"),
        ("A mouse.", "wrong"),
    ],
)
def test_a_verdict(tmp_path: Path, answer: str, verdict: str) -> None:
    text = ITEM.replace("right: x", r"right: {big}" + "\nwrong: is not an").strip()
    (tmp_path / "patterns.txt").write_text("# big animals\nbig: \\belephant\n", encoding="utf-8")
    (tmp_path / "final.txt").write_text(f"# a comment\nperson: Ann\n\n{text}", encoding="utf-8")
    (question,) = load("final", tmp_path)
    assert (question.person, question.turns) == ("Ann", ("hi",))
    assert judge(question, answer) == verdict


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ITEM, "1: expected one of kind"),
        (f"{ITEM}person: Ann\n", "1: expected one of kind"),
        (f"person: Ann\n{ITEM}colour: red\n", "7: expected one of kind"),
        (f"person: Ann\n{ITEM}red\n", "7: expected 'field: value'"),
        (f"person: Ann\n\n{ITEM}wrong:\n", "8: expected 'field: value'"),
        (f"person: Ann\n{ITEM}right: (\n", "7: '(' is not a regular expression"),
        (f"person: Ann\n{ITEM}right: {{nope}}\n", "7: '{nope}' is not a regular expression"),
        (f"person: Ann\n{ITEM}wrong: cannot\n", "7: write contractions out"),
        (f"person: Ann\n{ITEM}kind: colors\n", "2: 2 lines 'kind' in an item"),
        ("person: Ann\n\n# no turn\nkind: a\n", "4: 0 lines '>' in an item"),
        (f"person: Ann\n{ITEM}".replace(": no", ": maybe"), "2: 'unknown' is 'yes' or 'no'"),
    ],
)
def test_a_slip_is_named_by_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "patterns.txt").touch()
    (tmp_path / "final.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(f"final.txt:{message}")):
        load("final", tmp_path)
