"""The conversation in the terminal: what it remembers, forgets, refuses, and how it is left."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from nanochat.conversation import render
from nanochat.engine import Event
from nanochat.model_choice import ModelChoice
from nanochat.sampling import Sampling
from nanochat.system.cli import ignored_variables, parse
from nanochat.system.errors import UserError
from nanochat.tokenizer import Tokenizer
from scripts import chat_cli

ROOT = Path(__file__).parents[1]
ANSWER = [
    Event("text", "Ice"), Event("text", " is cold."), Event("tool_call", " 'cold'.count('hot')"),
    Event("tool_result", "0"), Event("text", " So the answer is"), Event("text", " no."),
    Event("done", "stop"),
]  # fmt: skip
# A process on a terminal of its own, with an engine that repeats what was asked.
ON_A_TERMINAL = """
from types import SimpleNamespace as Of
from nanochat.system import cli
from nanochat.tokenizer import Tokenizer
from scripts import chat_cli
from dataclasses import dataclass

class Echo:
    tokenizer, model = Tokenizer([]), Of(config=Of(max_seq_len=4000))
    def stream(self, prompt, sampling):
        asked = bytes(i for i in prompt if i < 256).decode()
        yield Of(kind="text", text=f"[{asked!r}]\\x1b[2J")
        yield Of(kind="done", text="stop")

@dataclass(frozen=True)
class Config: ...

cli.run(lambda _: chat_cli.converse(Echo(), Of(max_new_tokens=9)), Config, "chat")
"""


class ScriptedEngine:
    """Gives the same answer to everything, and keeps what it was asked."""

    def __init__(self, answer: list[Event] = ANSWER) -> None:
        self.tokenizer = Tokenizer([])
        self.model = SimpleNamespace(config=SimpleNamespace(max_seq_len=400))
        self.prompts: list[list[int]] = []
        self.answer = answer

    def stream(self, prompt, sampling):
        self.prompts.append(prompt)
        return iter(self.answer)


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch):
    """Whatever is passed is what a user types, line by line; an exception is raised there."""

    def type_(*lines: str | type[BaseException]) -> None:
        left = iter(lines)

        def read(prompt: str = "") -> str:
            line = next(left)
            if not isinstance(line, str):
                raise line
            return line

        monkeypatch.setattr("builtins.input", read)

    return type_


def test_what_was_said_is_remembered_until_it_no_longer_fits(
    typed, capsys: pytest.CaptureFixture
) -> None:
    typed("Is ice hot?", *["Really?"] * 9, "quit")
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
    assert said.err.count("dropping the oldest messages") == 1, "said once, not before every answer"


def test_a_base_model_continues_each_text_by_itself(typed, capsys: pytest.CaptureFixture) -> None:
    """Chat tokens are what base training has never seen."""
    typed("The capital of France is", "Water", "long " * 90, EOFError)
    engine = ScriptedEngine()
    chat_cli.converse(engine, Sampling(max_new_tokens=50), base=True)
    tokenizer = engine.tokenizer
    texts = ["The capital of France is", "Water"]
    assert engine.prompts == [[tokenizer.bos, *tokenizer.encode(text)] for text in texts]
    assert "450 tokens, and the model reads 399 at most" in capsys.readouterr().out


def test_only_two_interrupts_in_a_row_leave_and_the_conversation_stays(
    typed, capsys: pytest.CaptureFixture
) -> None:
    typed("Hello", KeyboardInterrupt, "Are you there?", KeyboardInterrupt, KeyboardInterrupt)
    engine = ScriptedEngine()
    chat_cli.converse(engine, Sampling())
    assert engine.prompts[1][: len(engine.prompts[0])] == engine.prompts[0]
    assert capsys.readouterr().out.count("press Ctrl-C again, or Ctrl-D, to leave") == 2


def test_commands_do_not_go_to_the_model(typed, capsys: pytest.CaptureFixture) -> None:
    typed("/help", "/clea", "/CLEAR", "/two\nlines", "/quit")
    engine = ScriptedEngine()
    chat_cli.converse(engine, Sampling())
    said = capsys.readouterr().out
    assert len(engine.prompts) == 1, "a text of two lines is not a command"
    assert said.count("/clear: start over; /quit or Ctrl-D: leave") == 2
    assert "(/clea is not a command)" in said
    assert "(a new conversation)" in said


def test_an_empty_answer_says_that_it_is_one(capsys: pytest.CaptureFixture) -> None:
    chat_cli.answer(ScriptedEngine([Event("text", " "), Event("done", "stop")]), [1], Sampling())
    assert capsys.readouterr() == (" \n", "(empty answer)")


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--seed", str(2**70)], f"seed={2**70}: it must be a whole number from 0 to"),
        (["--seed=-1"], "seed=-1"),
        (["--device_type=tpu"], "device_type=tpu: it must be one of cuda, mps, cpu"),
        (["-i", "rl"], "^source=rl: it must be base, mid or sft"),
        (["-s", "abc"], "^--step: 'abc' is not a whole number"),
        (["-k", "0"], "^top_k=0: it must be a whole number from 1"),
        (["--max-tokens=0"], "^max_new_tokens=0: it must be"),
        (["-p", "-hello"], "--prompt needs a value .* --prompt=-3"),
    ],
)
def test_nonsense_is_refused_by_name(flags: list[str], named: str) -> None:
    with pytest.raises(UserError, match=named):
        parse(chat_cli.Config, "chat_cli", flags)


def test_flags_of_the_model_and_of_sampling_are_the_commands_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though their fields are in dataclasses that other commands share."""
    flags = ["-i", "mid", "-g", "d2", "-s", "3", "-t", "0.5", "-k", "7", "--max_tokens=9"]
    config = parse(chat_cli.Config, "chat_cli", flags)
    assert config.model == ModelChoice("mid", "d2", 3)
    assert config.sampling == Sampling(0.5, 7, 9)
    monkeypatch.setenv("MODEL_TAG", "d9")
    assert ignored_variables(config, "python -m scripts.chat_cli", flags) == ""
    default = parse(chat_cli.Config, "chat_cli", ["--max_new_tokens=9"])
    assert (default.model.source, default.sampling.max_new_tokens) == ("sft", 9)
    assert "use --model_tag" in ignored_variables(default, "python -m scripts.chat_cli", [])


@pytest.mark.parametrize("text", ["None", "-5 + 3", "=-hello"])
def test_any_text_is_a_prompt(text: str) -> None:
    flags = [f"-p{text}"] if text.startswith("=") else ["-p", text]
    assert parse(chat_cli.Config, "chat_cli", flags).prompt == text.lstrip("=")


@contextlib.contextmanager
def terminal() -> Iterator[tuple[subprocess.Popen, int]]:
    """(process, our end of its terminal) of ON_A_TERMINAL."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL],
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm"},
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        with contextlib.suppress(OSError):
            os.close(ours)


def read_until(ours: int, pattern: str, seconds: float = 30) -> str:
    """What the terminal shows until that comes."""
    shown, end = "", time.monotonic() + seconds
    while not re.search(pattern, shown, re.DOTALL) and time.monotonic() < end:
        if select.select([ours], [], [], 0.1)[0]:
            shown += os.read(ours, 65536).decode(errors="replace")
    assert re.search(pattern, shown, re.DOTALL), shown
    return shown


@pytest.mark.parametrize("bracketed", [True, False])
def test_a_paste_is_one_message_and_a_closed_terminal_ends_it(bracketed: bool) -> None:
    with terminal() as (process, ours):
        read_until(ours, "You: ")
        text = b"What is the capital\rof\rFrance?"
        os.write(ours, b"\x1b[200~" + text + b"\x1b[201~\r" if bracketed else text + b"\r")
        shown = read_until(ours, r"\]\ufffd\[2J.*You: ")
        assert r"['What is the capital\nof\nFrance?']" in shown
        os.close(ours)
        assert process.wait(10) in (0, 1)
