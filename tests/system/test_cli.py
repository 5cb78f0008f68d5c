"""How every command starts and ends: its flags, its streams, its exit code, what it ignores."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nanochat.system import cli
from nanochat.system.errors import Failure, Interrupted, UserError

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Inner:
    rate: float | None = None

    def __post_init__(self) -> None:
        if self.rate is not None and self.rate < 0:
            raise ValueError(f"rate={self.rate}: it must be 0 or more")


@dataclass(frozen=True)
class Config:
    model_tag: str | None = None
    data: Path | None = None
    depth: int = 4
    steps: int | None = None
    compile: bool | None = None
    resume: bool = False
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        (["--model_tag", "None"], "model_tag", "None"),
        (["--data=None"], "data", Path("None")),
        (["--compile=False"], "compile", False),
        (["--compile", "True"], "compile", True),
        (["--resume"], "resume", True),
        (["--steps=7"], "steps", 7),
        (["--model-tag=-x"], "model_tag", "-x"),
        ([], "steps", None),
    ],
)
def test_flags(flags: list[str], name: str, value: object) -> None:
    assert getattr(cli.parse(Config, "x", flags), name) == value


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--depth=abc", "--depth: 'abc' is not a whole number"),
        ("--depth=1.5", "--depth: '1.5' is not a whole number"),
        ("--steps=None", "--steps: 'None' is not a whole number"),
        ("--rate=x", "--rate: 'x' is not a number"),
        ("--rate=-1", "rate=-1.0: it must be 0 or more"),
        ("--compile=maybe", "--compile: 'maybe' is not True or False"),
        ("--data", "--data needs a value"),
    ],
)
def test_a_wrong_value_is_refused_in_our_words(flag: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        cli.parse(Config, "x", [flag])


def test_a_drivers_variable_is_named_with_its_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    def note(config: Config, *args: str, command: str = "scripts.base_train") -> str:
        return cli.ignored_variables(config, f"python -m {command}", args)

    assert note(Config()) == ""
    monkeypatch.setenv("NANOCHAT_DATA", "~/notes")
    monkeypatch.setenv("DEPTH", "6")
    monkeypatch.setenv("SFT_ITERATIONS", "9")
    said = note(Config())
    assert said.endswith(
        "read DEPTH NANOCHAT_DATA, this command does not: use --depth --data instead"
    )
    assert "--data" not in note(Config(data=Path("x")))
    assert "--depth" not in note(Config(), "--depth=4"), "given, though it is the default"
    assert "--data" not in note(Config(), command="scripts.base_eval"), "there it is another thing"
    assert note(Config(), command="nanochat.run.pipeline plan") == ""


COMMAND = """
import os, sys
from dataclasses import dataclass
from nanochat.system import cli

@dataclass(frozen=True)
class Config: ...

def main(config):
    read = sys.stdin.read()
    print("read", ascii(read), flush=True)
    print("an error", file=sys.stderr)
    with open(os.devnull) as file:
        assert file.fileno() > 2, "a file has the number of a closed stream"

cli.run(main, Config, "python -m command")
"""


@pytest.mark.parametrize(
    ("streams", "code", "out", "err"),
    [
        ("</dev/null", 0, "read ''\n", "an error\n"),
        ("<&-", 0, "read ''\n", "an error\n"),
        (">&-", 0, "", "an error\n"),
        ("2>&-", 0, "read ''\n", ""),
        ("<&- >&- 2>&-", 0, "", ""),
        ("| true", 0, "", ""),
    ],
)
def test_closed_streams_end_quietly(
    streams: str, code: int, out: str, err: str, tmp_path: Path
) -> None:
    (tmp_path / "command.py").write_text(COMMAND)
    line = f'"{sys.executable}" "{tmp_path}/command.py" {streams}'
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NANOCHAT_BASE_DIR": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-c", line], env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, out, err)


def test_input_that_is_not_utf8_is_read(tmp_path: Path) -> None:
    (tmp_path / "command.py").write_text(COMMAND)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, tmp_path / "command.py"], env=env, capture_output=True, input=b"caf\xe9"
    )
    assert done.stdout == rb"read 'caf\ufffd'" + b"\n"


class Panic(BaseException):
    """As a Rust extension raises it."""


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("x=1: it must be 2"), 2, "error: x=1: it must be 2"),
        (Failure("the net is gone"), 1, "failed: the net is gone"),
        (Interrupted("step 3 is saved"), 130, "step 3 is saved"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("division by zero"), 1, "failed: ZeroDivisionError: division by zero"),
        (Panic("index out of bounds"), 1, "failed: Panic: index out of bounds"),
    ],
)
def test_every_end_is_a_line_and_a_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    error: BaseException,
    code: int,
    said: str,
) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["command"])

    def main(config: Config) -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        cli.run(main, Config, "python -m scripts.command")
    assert ended.value.code == code
    err = capsys.readouterr().err
    assert err.startswith(said)
    assert err.count("\n") == 1
    crashes = list(tmp_path.glob("logs/crash-*"))
    assert bool(crashes) == (said.startswith("failed:") and not isinstance(error, Failure))
