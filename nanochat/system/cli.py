"""Flags in, a Config out, and how every command ends.

A command is a frozen dataclass and a `main(config)`. `run` parses, calls main, and turns whatever
went wrong into one line and an exit code: 0 done, 1 failed, 2 the user's mistake, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args

from nanochat.system import log, storage, variables
from nanochat.system.errors import Failure, Interrupted, UserError

ConfigT = TypeVar("ConfigT")
DEVICE_TYPES = ("cuda", "mps", "cpu")


def parse(config_class: type[ConfigT], prog: str, args: Sequence[str] | None = None) -> ConfigT:
    """Flags to a config; `--a-b` is `--a_b`, and `--k v` is `--k=v`.

    Field docstrings are the help. Raises UserError for a flag that does not parse.
    """
    import tyro

    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                config_class,
                prog=prog,
                args=args,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
                registry=_our_words(),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(f"{_one_line(complaint.getvalue())} (all flags: {prog} --help)") from None
    except ValueError as error:  # raised by a config's own __post_init__
        raise UserError(str(error)) from None


def run(main: Callable[[Any], None], config_class: type[Any], prog: str) -> None:
    """Parse the command line, call main, end the process with its exit code."""
    _open_streams()
    on_terminal = sys.stdout.isatty()
    # Threads that wait for each other should sleep, not spin: on a machine that is also doing
    # something else, spinning made a training step several times slower. OpenMP reads this once,
    # when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        config = parse(config_class, prog)
        if not log.started_by_driver() and (note := ignored_variables(config, prog, sys.argv[1:])):
            print(note, file=sys.stderr)
        main(config)
        sys.stdout.flush()
    except UserError as error:
        _end(f"error: {error}", 2)
    except Failure as error:
        _end(f"failed: {error}", 1)
    except Interrupted as stop:
        _end(str(stop), 130)
    except KeyboardInterrupt:
        _end("interrupted", 130)
    except BaseException as error:  # also a panic in an extension, which is not an Exception
        if isinstance(error, SystemExit):
            raise
        hung_up = on_terminal and not sys.stdout.isatty()
        # The terminal was closed, or `| head` closed the pipe: nobody is left to tell.
        if isinstance(error, OSError) and (error.errno == errno.EPIPE or hung_up):
            _end("", 1)
        # Usually a file that a run with sudo left behind.
        if isinstance(error, PermissionError) and error.filename:
            _end(f"error: {_not_ours(error)}", 2)
        _end(f"failed: {type(error).__name__}: {error}{keep_traceback(prog)}", 1)


def _not_ours(error: PermissionError) -> str:
    path, top = str(error.filename), str(storage.base_dir())
    whole = top if path.startswith(top) else path  # or a folder above that can't be read
    return (
        f"{path} can't be used ({error.strerror}); "
        f"if another user made it: sudo chown -R {os.geteuid()} {whole}"
    )


def ignored_variables(config: Any, prog: str, args: Sequence[str]) -> str:
    """A line about variables of the drivers that are set but do nothing here; "" if none are.

    Whoever types `DEPTH=6 python -m scripts.base_train` would otherwise train the default depth.
    """
    command = prog.split(".")[-1]
    # A config may embed others, such as ModelChoice; a flag is a flag wherever its field is.
    parts = [config, *(v for f in fields(config) if is_dataclass(v := getattr(config, f.name)))]
    values = {f.name: getattr(part, f.name) for part in parts for f in fields(part)}
    defaults = {f.name: f.default for part in parts for f in fields(part)}
    given = {arg.split("=")[0].lstrip("-").replace("-", "_") for arg in args}
    ignored = {
        variable: f"--{flag}"
        for flag, variable in variables.flags_of(command).items()
        if os.environ.get(variable)
        and flag in defaults.keys() - given
        # A short form such as -g is not among the names; its value gives it away.
        and values[flag] == defaults[flag]
    }
    if not ignored or not prog.startswith("python -m scripts."):
        return ""
    names, flags = " ".join(ignored), " ".join(ignored.values())
    return f"only the drivers in dev/ read {names}, this command does not: use {flags} instead"


def check_device_type(wanted: str | None) -> None:
    """Raise ValueError for an unknown kind of device, before anybody waits for torch."""
    if wanted is not None and wanted not in DEVICE_TYPES:
        raise ValueError(f"device_type={wanted}: it must be one of {', '.join(DEVICE_TYPES)}")


def _end(line: str, code: int) -> None:
    log.close_line()
    if line:
        with contextlib.suppress(OSError):
            print(line, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # otherwise Python flushes again at exit, and complains
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def _our_words() -> Any:
    """How tyro reads one value: `None` is an ordinary word, and errors are in our words.

    By itself, tyro would turn `--model_tag=None` into no tag at all.
    """
    import tyro

    read = {
        str: ("STR", "text"),
        Path: ("PATH", "a path"),
        int: ("INT", "a whole number"),
        float: ("FLOAT", "a number"),
        bool: ("{True,False}", "True or False"),
    }

    def value(kind: type, what: str, texts: list[str]) -> Any:
        try:
            return {"True": True, "False": False}[texts[0]] if kind is bool else kind(texts[0])
        except (ValueError, KeyError):
            raise ValueError(f"{texts[0]!r} is not {what}") from None

    def rule(info: Any) -> Any:
        kinds = [t for t in get_args(info.type) or (info.type,) if t is not type(None)]
        # A plain bool is a flag without a value; tyro knows how.
        if len(kinds) != 1 or kinds[0] not in read or info.type is bool:
            return None
        metavar, what = read[kinds[0]]
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar=metavar,
            instance_from_str=partial(value, kinds[0], what),
            is_instance=lambda _: True,
            str_from_instance=lambda instance: [str(instance)],
        )

    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(rule)
    return registry


def _one_line(box: str) -> str:
    """The message inside the box that tyro draws, on one line, with its suggestion if any.

    >>> _one_line("╭─ Error ─╮\\n│ Error parsing -s/--step: 'a'  │\\n│ is not b │\\n│ ── │\\n│ c │")
    "--step: 'a' is not b"
    >>> _one_line("│ Error parsing Config: port=0: it must be more │")
    'port=0: it must be more'
    >>> _one_line("│ Missing value for argument '-p/--prompt'. Expected 1 values. │")
    '--prompt needs a value (one that begins with a dash so: --prompt=-3)'
    """
    lines = [line.strip("│ ") for line in box.splitlines() if line.startswith("│")]
    rule = next((i for i, line in enumerate(lines) if line.startswith("──")), len(lines))
    message = " ".join(lines[:rule]).strip()
    message = re.sub(r"^Error parsing (-\w/)?(?=--)", "", message)
    message = re.sub(r"^Error parsing \w+: ", "", message)
    message = re.sub(
        r"^Missing value for argument '(-\w/)?(--[\w-]+)'.*",
        r"\2 needs a value (one that begins with a dash so: \2=-3)",
        message,
    )
    rest = " ".join(lines[rule:])
    meant = re.search(r"Perhaps you meant:\D*?(--[a-z0-9-]+)", rest)
    return f"{message}; perhaps you meant {meant[1]}" if meant else message


def keep_traceback(prog: str) -> str:
    """Write the current traceback to logs/ for a bug report; return a remark that says where.

    The line that ends the command must appear even if there is nowhere to write.
    """
    with contextlib.suppress(OSError, UserError):
        name = f"crash-{prog.split('.')[-1]}-{time.strftime('%Y%m%d-%H%M%S')}.txt"
        path = storage.base_dir() / "logs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(traceback.format_exc(), encoding="utf-8", errors="replace")
        return f" (details: {path})"
    return ""


def _open_streams() -> None:
    """Make standard input, output and error usable, whatever the command was given.

    A closed one (`<&-`) becomes /dev/null, or the next file to be opened would take its number and
    receive our output. A character that can't be shown in this locale, or read, becomes a
    replacement mark instead of a traceback.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free number
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
