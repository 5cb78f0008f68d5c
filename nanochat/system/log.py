"""What a person sees during a run, and what a program reads afterwards.

`say` prints a line (and appends it to the log file), `StepLine` is the line that moves, and
`Metrics` is metrics/<stage>_<tag>.jsonl. Nothing else in the package prints.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import json
import os
import re
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

from nanochat.system import storage
from nanochat.system.errors import UserError

DRIVEN = "NANOCHAT_DRIVEN"  # in the environment of the stages that a driver starts
FILE_SECONDS = 5.0  # in a file: a line every 5 s or every 1 % of the steps, whichever is rarer
# Control characters, which a model or the name of a file may contain: they move the cursor and can
# rewrite what is on the screen. And half characters, which can't be written.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class GrowingFile:
    """A file that is appended to. What a full disk refuses waits for the next write."""

    # No disk error here may end a run of hours, and a line must not be lost for good if space is
    # freed. Unbuffered, since a crash would take what is in a buffer with it.

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (open until the end)
        self._waiting = b""

    def write(self, line: str) -> None:
        """Append a line, after those that wait."""
        self._waiting += (line + "\n").encode("utf-8", "replace")
        # A nearly full disk takes half a line: keep the other half, or the file is broken there.
        with contextlib.suppress(OSError):
            while self._waiting:
                self._waiting = self._waiting[self._file.write(self._waiting) :]

    def close(self) -> None:
        """Sync and close."""
        with contextlib.suppress(OSError):
            os.fsync(self._file.fileno())
        self._file.close()


_log_file: GrowingFile | None = None
_lock = threading.RLock()  # reentrant: a signal handler may want to say something
_open_line: StepLine | None = None  # the terminal's last line, while it has no newline


def log_to(path: Path | None) -> None:
    """From now on, append to this file what is said."""
    global _log_file
    if path is not None:
        storage.ensure_folder(path.parent)
        _log_file = GrowingFile(path)


def say(line: str = "") -> None:
    """Print one line, and append it to the log file. Works from any thread."""
    line = printable(line)
    with _lock:
        close_line()
        _print(line + "\n")
        if _log_file is not None:
            _log_file.write(line)


def started_by_driver() -> bool:
    """Whether a driver in dev/ started this command, and not a person."""
    return DRIVEN in os.environ


def say_once(line: str) -> None:
    """Like `say`, unless another stage of the same driver has said it already."""
    # Each stage is a process of its own: what they share is the log file.
    if started_by_driver() and _log_file is not None:
        with contextlib.suppress(OSError):
            said = _log_file.path.read_text(encoding="utf-8", errors="replace")
            if printable(line) in said.split("\n"):
                return
    say(line)


def printable(text: str) -> str:
    """The text, with a mark in place of what a terminal would take for a command.

    >>> printable("\\x1b[2J red\\n")
    '\ufffd[2J red\\n'
    """
    return CONTROL.sub("\ufffd", text)


def close_line() -> None:
    """End the open step line, whichever it is, so that it stays."""
    with _lock:
        if _open_line is not None:
            _open_line.close()


def _print(text: str) -> None:
    """To standard output. A full disk or a closed terminal must not stop training."""
    try:
        print(text, end="", flush=True)
    except OSError as error:
        if error.errno == errno.EIO:  # the terminal is gone for good
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        elif error.errno != errno.ENOSPC:
            raise


def duration(seconds: float) -> str:
    """Seconds for a person.

    >>> duration(24), duration(190), duration(8000)
    ('24 s', '3 min 10 s', '2 h 13 min')
    """
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def counted(n: int, what: str) -> str:
    """A number of things for a person.

    >>> counted(1, "row"), counted(4_096, "row")
    ('1 row', '4,096 rows')
    """
    return f"{n:,} {what}{'' if n == 1 else 's'}"


class StepLine:
    """A line of progress: on a terminal it overwrites itself; a file gets it now and then."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.terminal = sys.stdout.isatty()
        self._written_at = time.monotonic()
        self._written_step = 0

    def show(self, step: int, text: str) -> None:
        """Show the line of this step."""
        global _open_line
        if self.terminal:
            # Cut to one row: of a line that wraps, \r would go back only to the start of its last.
            width = shutil.get_terminal_size().columns - 1
            with _lock:
                if _open_line is not self:
                    close_line()
                _print(f"\r{printable(text)[:width]}\x1b[K")
                _open_line = self
        now = time.monotonic()
        rare_enough = now - self._written_at >= FILE_SECONDS and (
            step - self._written_step >= self.total / 100
        )
        if rare_enough or step >= self.total:
            self._written_at, self._written_step = now, step
            if self.terminal and _log_file is not None:
                _log_file.write(text)
            elif not self.terminal:
                say(text)

    def close(self) -> None:
        """End the line, so that it stays; `say` does this by itself."""
        global _open_line
        with _lock:
            if _open_line is self:
                _open_line = None
                _print("\n")


class Metrics:
    """metrics/<stage>_<tag>.jsonl: one object per line, cut back to the step of a resume."""

    def __init__(self, stage: str, tag: str, step: int, wandb_run: str | None = None) -> None:
        self._wandb = _open_wandb(wandb_run, f"{stage}_{tag}") if wandb_run else None
        self.common = {"stage": stage, "tag": tag}
        self.path = storage.base_dir() / "metrics" / f"{stage}_{tag}.jsonl"
        self._file = self._cut_back(step)

    def _cut_back(self, step: int) -> GrowingFile:
        """Open the file with the records of steps 1 to `step`; later ones and older runs go."""
        # A run that crashed at 900 and resumes at 800 writes 801 to 900 again. Kept twice, every
        # plot would run backwards there.
        kept = []
        if step > 0 and self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    record = json.loads(line)
                except ValueError:
                    break  # a power cut in the middle of a line; what follows was never synced
                if record["step"] <= step:
                    kept.append(line)
        storage.write_text(self.path, "".join(line + "\n" for line in kept))
        return GrowingFile(self.path)

    def roll_back(self, step: int) -> None:
        """Forget what came after the step."""
        self._file.close()
        self._file = self._cut_back(step)

    def write(self, **values: Any) -> None:
        """Append one record; units are in the names of the values."""
        record = {"time": round(time.time(), 3), **self.common, **values}
        self._file.write(json.dumps(record))
        if self._wandb is not None:
            self._wandb.log({**values, **values.get("eval", {})}, step=values["step"])

    def close(self) -> None:
        """Sync and close the file."""
        self._file.close()
        if self._wandb is not None:
            self._wandb.finish()


def check_wandb(run: str | None) -> None:
    """Raise UserError if a Weights & Biases run is asked for and wandb is not installed."""
    if run and importlib.util.find_spec("wandb") is None:
        raise UserError(
            f"WANDB_RUN={run}, but wandb is not installed: run .venv/bin/python -m pip install "
            "wandb, or leave WANDB_RUN out"
        )


def _open_wandb(run: str, name: str) -> Any:
    """A Weights & Biases run that mirrors the file; kept on disk if there is no account."""
    check_wandb(run)
    import wandb  # pyrefly: ignore (an extra of the user's choice)

    mode = "online" if wandb.api.api_key else "offline"
    return wandb.init(
        project="nanochat", name=f"{run}_{name}", dir=str(storage.base_dir()), mode=mode
    )
