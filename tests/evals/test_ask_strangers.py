"""The stranger's test as it is put to a model."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from nanochat.evals import strangers
from nanochat.gpt_config import GPTConfig
from nanochat.sampling import Sampling
from nanochat.tasks.strangers import Question
from nanochat.tokenizer import Tokenizer


def question(*turns: str, kind: str = "memory", unknown: bool = False) -> Question:
    right = (re.compile(r"\btom\b", re.IGNORECASE),)
    return Question("somebody", kind, turns, right, (), unknown, ())


def answering(tokenizer: Tokenizer, answers: dict[str, str]) -> tuple[Any, list[str]]:
    """A stand-in engine that answers by the last user's turn, and the prompts that it got."""
    seen: list[str] = []

    def complete(prompts: list[list[int]], sampling: Sampling) -> list[str]:
        texts = [tokenizer.decode(prompt) for prompt in prompts]
        seen.extend(texts)
        return [answers[max(answers, key=text.rfind)] for text in texts]

    model = SimpleNamespace(config=GPTConfig(1, tokenizer.vocab_size, 256))
    return SimpleNamespace(model=model, tokenizer=tokenizer, complete=complete), seen


def test_each_turn_is_answered_by_the_model_and_the_last_one_judged(tokenizer: Tokenizer) -> None:
    answers = {"i am tom": "Hi, friend.", "my name": "You are Tom.", "moon": "I do not know that."}
    engine, seen = answering(tokenizer, answers)
    asked = [
        question("i am tom", "what is my name"),
        question("who is on the moon", kind="outside", unknown=True),
        question("is tom on the moon", kind="outside"),
    ]
    done: list[int] = []
    result = strangers.ask(engine, asked, done.append)
    assert {kind: dict(counts) for kind, counts in result.by_kind.items()} == {
        "memory": {"right": 1},
        "outside": {"right": 1, "unknown": 1},
    }
    shares = {verdict: result.share(verdict) for verdict in strangers.VERDICTS}
    assert shares == {
        "right": pytest.approx(2 / 3),
        "unknown": pytest.approx(1 / 3),
        "wrong": 0.0,
    }
    assert done == [2, 3], "those of one turn first"
    last = seen[-1]
    assert last.index("i am tom") < last.index("Hi, friend.") < last.index("what is my name")
