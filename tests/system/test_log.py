"""What a person sees: lines of several threads, the line that moves, odd characters."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nanochat.system import log

ROOT = Path(__file__).parents[2]


@pytest.fixture
def log_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log file, kept until the test's end."""
    monkeypatch.setattr(log, "_log_file", None)
    log.log_to(tmp_path / "a.log")
    return tmp_path / "a.log"


def test_a_line_of_another_thread_does_not_stick_to_the_step_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    line, other = log.StepLine(10), log.StepLine(10)
    line.show(1, "base 1/10")
    thread = threading.Thread(target=log.say, args=("shard 3 is here",))
    thread.start()
    thread.join()
    line.show(2, "base 2/10")
    other.show(1, "fetching")
    line.close()  # not open anymore
    log.close_line()
    log.say("done")
    assert capsys.readouterr().out == (
        "\rbase 1/10\x1b[K\nshard 3 is here\n\rbase 2/10\x1b[K\n\rfetching\x1b[K\ndone\n"
    )


def test_odd_characters_stop_nothing_and_move_no_cursor(
    log_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.say("caf\udce9 \x1b[2J\tis read")
    assert log_file.read_text() == "caf\ufffd \ufffd[2J\tis read\n"
    assert "\x1b" not in capsys.readouterr().out


WORK = """
import signal, sys, time
from dataclasses import dataclass
from nanochat.system import cli, log

@dataclass(frozen=True)
class Config: ...

def main(config):
    signal.signal(signal.SIGHUP, lambda *_: None)
    line = log.StepLine(9)
    line.show(1, "begun")
    while sys.stdout.isatty():
        time.sleep(0.01)
    line.show(2, "still at work")
    log.say("done")

cli.run(main, Config, "work")
"""


def test_a_closed_terminal_stops_no_work() -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", WORK]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=theirs, stderr=subprocess.PIPE, start_new_session=True
    )
    os.close(theirs)
    assert b"begun" in os.read(ours, 999)
    os.close(ours)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, b"")


def test_a_driver_says_it_once(
    log_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    for driven in (False, True):
        if driven:
            monkeypatch.setenv(log.DRIVEN, "1")
        log.say_once("device: cpu")
        log.say_once(f"driven: {driven}")
        said.append(capsys.readouterr().out)
    assert said == ["device: cpu\ndriven: False\n", "driven: True\n"]
