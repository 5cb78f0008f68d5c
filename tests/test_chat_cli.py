"""The conversation in the terminal: what it remembers of its own answers, and what it forgets."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from nanochat.conversation import render
from nanochat.engine import Event, Sampling
from nanochat.tokenizer import Tokenizer
from scripts import chat_cli

ANSWER = [
    Event("text", "Ice"), Event("text", " is cold."), Event("tool_call", " 'cold'.count('hot')"),
    Event("tool_result", "0"), Event("text", " So the answer is"), Event("text", " no."),
    Event("done", "stop"),
]  # fmt: skip


class ScriptedEngine:
    """Gives ANSWER to everything, and keeps what it was asked."""

    def __init__(self) -> None:
        self.tokenizer = Tokenizer([])
        self.model = SimpleNamespace(config=SimpleNamespace(max_seq_len=400))
        self.prompts: list[list[int]] = []

    def stream(self, prompt, sampling):
        self.prompts.append(prompt)
        return iter(ANSWER)


def test_what_was_said_is_remembered_until_it_no_longer_fits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    lines = iter(["Is ice hot?", *["Really?"] * 9, "quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    engine = ScriptedEngine()
    chat_cli.converse(engine, Sampling(max_new_tokens=50))
    talk = [
        {"role": "user", "content": "Is ice hot?"},
        {"role": "assistant", "content": "Ice is cold. So the answer is no."},
    ]
    ids = render(talk, engine.tokenizer).ids
    assert engine.prompts[1][: len(ids)] == ids
    said = capsys.readouterr()
    assert said.out.count("nanochat: Ice is cold. So the answer is no.\n") == 10
    assert engine.prompts[-1][: len(ids)] != ids
    assert said.err.count("forgotten") == 1, "said once, not before every answer"
