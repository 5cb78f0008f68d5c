"""Flags in, a Config out, and the way every command ends.

A command is a frozen dataclass and a `main(config)`; `run` parses, calls and turns what went wrong
into one line and the exit code: 0 done, 1 failed, 2 the user's mistake, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

ConfigT = TypeVar("ConfigT")


class UserError(Exception):
    """A mistake of the user's. The text is one line: the value, the rule, the fix. Exit code 2."""


class Failure(Exception):
    """Something failed that is nobody's mistake. The text is one line, with the way on. Code 1."""


class Interrupted(Exception):
    """Stopped by a signal after everything was saved. The text says how to go on. Exit code 130."""


def parse(config_class: type[ConfigT], prog: str, args: Sequence[str] | None = None) -> ConfigT:
    """Flags to a config; dashes and underscores, `--k=v` and `--k v` are the same.

    Field docstrings are the help. Raises UserError for a flag that does not parse.
    """
    import tyro  # here, so that importing a script costs nothing

    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                config_class,
                prog=prog,
                args=args,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(f"{_one_line(complaint.getvalue())} (all flags: {prog} --help)") from None
    except ValueError as error:  # raised by a config's own __post_init__
        raise UserError(str(error)) from None


def run(main: Callable[[Any], None], config_class: type[Any], prog: str) -> None:
    """Parse the command line, call main, end the process with the contract's exit code."""
    _be_readable_in_any_locale()
    # Before torch is loaded: threads that wait for each other sleep instead of spinning. On a
    # machine that also does something else, spinning made a training step several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        main(parse(config_class, prog))
        sys.stdout.flush()
    except UserError as error:
        _end(f"error: {error}", 2)
    except Failure as error:
        _end(f"failed: {error}", 1)
    except Interrupted as stop:
        _end(str(stop), 130)
    except KeyboardInterrupt:
        _end("interrupted", 130)
    except BrokenPipeError:  # `| head` closed the pipe; nothing is left to tell anybody
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        _end(f"failed: {type(error).__name__}: {error}{_keep_traceback(prog)}", 1)


def _end(line: str, code: int) -> None:
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    print(line, file=sys.stderr)
    sys.exit(code)


def _one_line(box: str) -> str:
    """The message inside tyro's box, on one line, with its suggestion where it makes one.

    >>> _one_line("╭─ Error ─╮\\n│ --depth: 'a'   │\\n│ is no int   │\\n│ ───── │\\n│ help │")
    "--depth: 'a' is no int"
    """
    lines = [line.strip("│ ") for line in box.splitlines() if line.startswith("│")]
    rule = next((i for i, line in enumerate(lines) if line.startswith("──")), len(lines))
    message = " ".join(lines[:rule]).strip()
    rest = " ".join(lines[rule:])
    meant = re.search(r"Perhaps you meant:\D*?(--[a-z0-9-]+)", rest)
    return f"{message}; perhaps you meant {meant[1]}" if meant else message


def _keep_traceback(prog: str) -> str:
    """Write the traceback to logs/, where a bug report can find it; returns where it is."""
    from nanochat.system import storage

    with contextlib.suppress(OSError):
        name = f"crash-{prog.split('.')[-1]}-{time.strftime('%Y%m%d-%H%M%S')}.txt"
        path = storage.base_dir() / "logs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(traceback.format_exc())
        return f" (details: {path})"
    return ""


def _be_readable_in_any_locale() -> None:
    """A terminal that cannot show ✓ or é gets a mark instead of a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
