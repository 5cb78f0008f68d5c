"""Tasks as conversations, and answers that count as right."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from nanochat import tokenizer as tok
from nanochat.conversation import check
from nanochat.data import task_data
from nanochat.data.dataset import find_source
from nanochat.tasks import TASKS, gsm8k, multiple_choice, spelling_bee
from nanochat.tasks.calculator import calculate
from nanochat.tasks.task import Task

# ---- choices


def test_the_letter_in_the_question_is_the_letter_of_the_answer() -> None:
    """The trap: after a space it would be another token, which can't be copied."""
    row = {"question": "Which?", "choices": ["snow", "blood", "3", "a b"], "answer": 1}
    text = multiple_choice.question(row)
    tokenizer = tok.train([text * 3 + " A B C D AB"], 400, trainer="tokenizers")
    ids = tokenizer.encode(text)
    letters = TASKS["mmlu"].letters
    assert letters is not None
    assert letters(row) == "ABCD"
    for letter in letters(row):
        (alone,) = tokenizer.encode(letter)
        assert alone in ids
        (spaced,) = tokenizer.encode(f" {letter}")[:1]
        assert spaced != alone


def test_rows_without_a_right_choice_are_left_out() -> None:
    good = {"question": "q", "choices": ["a", "b"], "answer": 0}
    bad = [{**good, "answer": 2}, {**good, "answer": -1}, {**good, "choices": list("abcdef")}]
    assert [multiple_choice.read(row) for row in [good, *bad]] == [good, None, None, None]
    check(TASKS["mmlu"].conversation(good))


@pytest.mark.parametrize(
    ("name", "row", "words"),
    [
        ("mmlu", {"question": "q", "choices": ["a", "b"]}, "no 'answer', only question, choices"),
        ("mmlu", {"question": "q", "choices": ["a"], "answer": "B"}, "answer='B' must be the num"),
        ("mmlu", {"question": "q", "choices": "ab", "answer": 0}, "choices='ab' must be of type l"),
        (
            "arc_easy",
            {"question": "q", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "E"},
            r"answerKey='E' must be one of \['A'\]",
        ),
        ("gsm8k", {"question": "q", "answer": 72}, "answer=72 must be of type str"),
        ("smoltalk", {}, "no 'messages', only nothing"),
    ],
)
def test_a_row_of_another_shape_says_what_it_needs(name: str, row: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TASKS[name].read(row)


# ---- the registry


def asked(**fields: Any) -> Task:
    return Task("new", conversation=lambda row: [], answer=lambda row: "", **fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "task new has no test rows"),
        ({"folder_files": {"train": "x"}}, "task new has no test rows"),
        ({"folder_files": {"test": "x"}, "shares": {"mid": 1}}, "task new has no train rows"),
        ({"folder_files": {"dev": "x"}}, "folder_files has 'dev'; it may have train, test"),
        ({"folder_files": {"test": "x"}, "shares": {"base": 1}}, "shares has 'base'; it may have"),
        ({"hub_files": {"test": "x"}}, "hub_repo and hub_files belong together"),
        ({"folder_files": {"test": "x"}, "guess": 25}, "guess=25"),
    ],
)
def test_a_new_task_that_would_be_missed_is_refused(fields: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        asked(**fields)
    asked(folder_files={"test": "x"})


# ---- sums in words


def test_marks_become_calls() -> None:
    answer = "She has 48/2 = <<48/2=24>>24 left,\nso 48+24 = <<48+24=72>>72.\n#### 72"
    assert gsm8k.parts(answer) == [
        {"type": "text", "text": "She has 48/2 = "},
        {"type": "python", "text": " 48/2"},
        {"type": "python_output", "text": "24"},
        {"type": "text", "text": "24 left,\nso 48+24 = "},
        {"type": "python", "text": " 48+24"},
        {"type": "python_output", "text": "72"},
        {"type": "text", "text": "72.\n#### 72"},
    ]


@pytest.mark.parametrize(
    "mark",
    [
        "<<2+2=5>>",
        "<<x=5>>",
        "<<2+=4>>",
        "<<import os=1>>",
        "<<5/0=5>>",
        "<<'5'.upper()+'5'[0]=5>>",
        "<<len=5>>",
        "<<'-'.join('57')=5>>",
    ],
)
def test_a_wrong_mark_is_not_a_call(mark: str) -> None:
    assert gsm8k.parts(f"so {mark}5 it is") == [{"type": "text", "text": "so 5 it is"}]


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("#### 1072", True),
        ("It is 1,072.", True),
        ("First 3, then $1,072.00", True),
        ("1072 or rather 3", False),
        ("1,072 #### 3", False),
        ("#### -1072", False),
        ("none", False),
        ("", False),
        ("####", False),
        ("so 1072 + 3\n#### ", False),
        ("#### 2144-1072", False),
        ("1,0,7,2", False),
        ("it is 2144-1072", True),
    ],
)
def test_the_number_of_a_reply(reply: str, right: bool) -> None:
    assert gsm8k.is_right({"answer": "so\n#### 1,072"}, reply) == right


def test_real_sums(shared_data: Path) -> None:
    rows = task_data.rows(TASKS["gsm8k"], "train", find_source(str(shared_data)))
    calls = 0
    for row in rows:
        conversation = gsm8k.conversation(row)
        check(conversation)
        parts = conversation[1]["content"]
        calls += sum(part["type"] == "python" for part in parts)
        assert "<<" not in "".join(part["text"] for part in parts)
        assert gsm8k.is_right(row, "".join(p["text"] for p in parts if p["type"] == "text"))
    assert calls > 2 * len(rows)


# ---- letters


def test_words_of_training_are_not_asked(shared_data: Path) -> None:
    words = task_data.words(find_source(str(shared_data)))
    train = list(spelling_bee.rows(words, "train", 2000))
    test = list(spelling_bee.rows(words, "test", 2000))
    assert not {row["word"] for row in train} & {row["word"] for row in test}
    assert list(spelling_bee.rows(words, "test", 2000)) == test
    counts = Counter(row["answer"] for row in test)
    assert max(counts.values()) < 0.4 * len(test), "the same answer must not be right too often"
    quoted = sum(f"'{row['word']}'" in row["question"] for row in train)
    assert 800 < quoted < 1200
    for row in train:
        conversation = spelling_bee.conversation(row)
        check(conversation)
        call, output, text = conversation[1]["content"]
        assert call["text"].startswith(" '")
        assert calculate(call["text"]) == output["text"] == str(row["answer"])
        assert spelling_bee.is_right(row, text["text"])
        assert not spelling_bee.is_right({**row, "answer": row["answer"] + 1}, text["text"])


@pytest.mark.parametrize(
    ("reply", "count"),
    [
        ("The letter 'o' appears once in 'twice'.", 1),
        ("The letter 'e' appears 2 times in 'once'.", 2),
        ("It appears twice.", 2),
        ("It does not appear in 'once'.", 0),
        ("3", 3),
        ("The letter 'e' appears in 'once'.", None),
    ],
)
def test_counts_are_understood_in_words_and_digits(reply: str, count: int | None) -> None:
    assert spelling_bee.said(reply) == count


def test_no_words_no_rows() -> None:
    assert list(spelling_bee.rows(["A", "no", "naïve", "it's"], "train", 5)) == []
