"""Questions, letters and judgements, with engines that are rigged to know the answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from nanochat.data.dataset import Source, find_source
from nanochat.data.tinyworld import Question, held_out
from nanochat.engine import Engine
from nanochat.evals import chat
from nanochat.gpt import GPT
from nanochat.gpt_config import GPTConfig
from nanochat.sampling import Sampling
from nanochat.tasks import ASKED
from nanochat.tokenizer import Tokenizer


class Parrot(Engine):
    """Answers every prompt with what `says` gives for its text, and counts the calls."""

    def __init__(self, model: GPT, tokenizer: Tokenizer, says) -> None:
        super().__init__(model, tokenizer)
        self.says, self.asked, self.calls = says, [], 0

    def complete(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[str]:
        self.calls += 1
        texts = [
            self.tokenizer.decode([i for i in p if i < len(self.tokenizer.pieces)]) for p in prompts
        ]
        self.asked += texts
        return [self.says(text) for text in texts]


def question(i: int, kind: str = "k") -> Question:
    return Question(kind, [{"role": "user", "content": f"q{i}?"}], f"a{i}", (f"a{i}",))


def test_every_question_is_asked_once_and_judged_by_its_own(
    tiny_model: GPT, tokenizer: Tokenizer
) -> None:
    questions = [question(i, "even" if i % 2 == 0 else "odd") for i in range(300)]
    engine = Parrot(tiny_model, tokenizer, lambda text: f"It is {text.strip('q?')} a0.")
    result = chat.ask(engine, questions)
    assert len(set(engine.asked)) == len(result.replies) == 300
    assert result.accuracy() == {"even": 1 / 150, "odd": 0.0}
    assert result.mean() == 1 / 300


def test_time_is_up_but_many_kinds_were_asked(tiny_model: GPT, tokenizer: Tokenizer) -> None:
    questions = chat.tinyworld_questions(20)
    engine = Parrot(tiny_model, tokenizer, lambda text: "no")
    engine.model.config = GPTConfig(2, tokenizer.vocab_size, 512)
    result = chat.ask(engine, questions, seconds=0.0)
    assert len(result.replies) == chat.BATCH
    assert engine.calls == 1
    kinds = {q.kind for q in held_out()}
    assert len({q.kind for q in questions[: len(kinds)]}) == len(kinds)
    assert len(questions) == 20 * len(kinds)


def test_a_question_longer_than_the_context_is_wrong_and_counted(
    tiny_model: GPT, tokenizer: Tokenizer
) -> None:
    long = Question("k", [{"role": "user", "content": "word " * 100}], "yes", ("yes",))
    engine = Parrot(tiny_model, tokenizer, lambda text: "yes")
    result = chat.ask(engine, [question(1), long])
    assert result.too_long == 1
    assert result.accuracy() == {"k": 0.0}
    assert len(engine.asked) == 1


def test_the_likeliest_of_the_letters_on_offer_is_taken(
    tiny_model: GPT, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(tiny_model, tokenizer)
    engine.model.config = GPTConfig(2, tokenizer.vocab_size, 512)
    ids = {letter: tokenizer.encode(letter)[0] for letter in "ABCDE"}

    def prefill(prompts):
        logits = torch.zeros(len(prompts), tokenizer.vocab_size)
        logits[:, 0] = 9.0  # no letter at all
        logits[:, ids["E"]] = 5.0
        logits[:, ids["B"]] = 3.0
        return logits, None

    monkeypatch.setattr(engine, "prefill", prefill)
    row = {"question": "q", "choices": ["x", "y", "z"], "answer": 1}
    three = chat.TaskQuestion(ASKED["mmlu"], row)
    five = chat.TaskQuestion(ASKED["mmlu"], {**row, "choices": list("vwxyz")})
    result = chat.ask(engine, [three, five])
    assert {reply for _, reply, _ in result.replies} == {"B", "E"}
    assert result.accuracy() == {"mmlu": 0.5}


def test_chatcore_counts_what_is_there() -> None:
    guessing = {"arc_easy": 0.25, "arc_challenge": 0.25, "mmlu": 0.25, "gsm8k": 0}
    guessing["spelling_bee"] = 1 / 3
    assert chat.chatcore(guessing) == (0.0, 5)
    assert chat.chatcore({"arc_easy": 1.0, "gsm8k": 0.5, "colors": 1.0}) == (0.75, 2)
    assert chat.chatcore({"colors": 1.0}) == (0.0, 0)
    assert not set(ASKED) & {question.kind for question in held_out()}


def test_real_tasks_are_asked_over_all_their_rows(shared_data: Path) -> None:
    source = find_source(str(shared_data))
    for name, task in ASKED.items():
        questions = chat.task_questions(task, source, 50)
        assert len(questions) == 50
        assert {q.kind for q in questions} == {name}
        for q in questions:
            assert q.is_right(q.answer)
            assert not q.is_right("")
    mmlu = chat.task_questions(ASKED["mmlu"], source, 100)
    assert {q.answer for q in mmlu} == set("ABCD")


def test_a_task_without_rows_has_no_questions(base_dir: Path) -> None:
    source = Source("fineweb", (), Path("none"))
    assert [chat.task_questions(task, source, 5) for task in ASKED.values()] == [[]] * len(ASKED)


def test_repetition() -> None:
    assert chat.repeats("a b c d a b c d")
    assert not chat.repeats("a b c d e f")
