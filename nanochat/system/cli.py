"""Flags in, a Config out, and the way every command ends.

A command is a frozen dataclass and a `main(config)`; `run` parses, calls and turns what went wrong
into one line and the exit code: 0 done, 1 failed, 2 the user's mistake, 130 interrupted.
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

from nanochat.system import log, storage
from nanochat.system.errors import Failure, Interrupted, UserError

ConfigT = TypeVar("ConfigT")
DEVICE_TYPES = ("cuda", "mps", "cpu")

_READ_TEXT = ("data", "tokenizer", "base_train", "mid_train", "chat_sft")
# A driver's variable, the flag that says the same to a command, and (if not to all that have such
# a flag) to which.
FLAG_OF_VARIABLE: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("NANOCHAT_DATA", "data", _READ_TEXT),
    ("DATA_SHARDS", "data_shards", ()),
    ("DATA_SHARDS", "num_shards", ()),
    ("DEPTH", "depth", ()),
    ("VOCAB_SIZE", "vocab_size", ()),
    ("MAX_SEQ_LEN", "max_seq_len", ()),
    ("DEVICE_BATCH_SIZE", "device_batch_size", ()),
    ("TOTAL_BATCH_SIZE", "total_batch_size", ()),
    ("EVAL_TOKENS", "eval_tokens", ()),
    ("SPLIT_TOKENS", "split_tokens", ()),
    ("BASE_ITERATIONS", "num_iterations", ("base_train",)),
    ("MID_ITERATIONS", "num_iterations", ("mid_train",)),
    ("SFT_ITERATIONS", "num_iterations", ("chat_sft",)),
    ("TIME_BUDGET", "time_budget_s", ()),
    ("MEMORY_SIZE", "memory_gb", ()),
    ("MODEL_TAG", "model_tag", ()),
    ("WANDB_RUN", "wandb_run", ()),
)


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
                registry=_our_words(),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(f"{_one_line(complaint.getvalue())} (all flags: {prog} --help)") from None
    except ValueError as error:  # raised by a config's own __post_init__
        raise UserError(str(error)) from None


def run(main: Callable[[Any], None], config_class: type[Any], prog: str) -> None:
    """Parse the command line, call main, end the process with the contract's exit code."""
    _open_streams()
    on_terminal = sys.stdout.isatty()
    # Before torch is loaded: threads that wait for each other sleep instead of spinning. On a
    # machine that also does something else, spinning made a training step several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        config = parse(config_class, prog)
        if not log.started_by_driver() and (note := unheeded(config, prog, sys.argv[1:])):
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
        hung_up = on_terminal and not sys.stdout.isatty()  # the terminal was closed
        if isinstance(error, OSError) and (error.errno == errno.EPIPE or hung_up):
            _end("", 1)  # or `| head` closed the pipe; nothing is left to tell anybody
        if isinstance(error, PermissionError) and error.filename:  # as a run with sudo leaves it
            _end(f"error: {_not_ours(error)}", 2)
        _end(f"failed: {type(error).__name__}: {error}{keep_traceback(prog)}", 1)


def _not_ours(error: PermissionError) -> str:
    path, top = str(error.filename), str(storage.base_dir())
    whole = top if path.startswith(top) else path  # it may be a folder above that can't be read
    return (
        f"{path} can't be used ({error.strerror}); "
        f"if another user made it: sudo chown -R {os.geteuid()} {whole}"
    )


def unheeded(config: Any, prog: str, args: Sequence[str]) -> str:
    """A line about drivers' variables that are set and do nothing for a command; or nothing."""
    command = prog.split(".")[-1]
    # A config may embed others, such as ModelChoice; a flag is a flag wherever its field is.
    parts = [config, *(v for f in fields(config) if is_dataclass(v := getattr(config, f.name)))]
    values = {f.name: getattr(part, f.name) for part in parts for f in fields(part)}
    defaults = {f.name: f.default for part in parts for f in fields(part)}
    given = {arg.split("=")[0].lstrip("-").replace("-", "_") for arg in args}
    found = {
        variable: f"--{flag}"
        for variable, flag, commands in FLAG_OF_VARIABLE
        if os.environ.get(variable)
        and command in (commands or (command,))
        and flag in defaults.keys() - given
        and values[flag] == defaults[flag]
    }
    if not found or not prog.startswith("python -m scripts."):
        return ""
    names, flags = " ".join(found), " ".join(found.values())
    return f"only the drivers in dev/ read {names}, this command does not: use {flags} instead"


def check_device_type(wanted: str | None) -> None:
    """Raises ValueError for what is not a kind of device, before anybody waits for torch."""
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
        except OSError:  # else Python tries once more at its end, and says that it could not
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def _our_words() -> Any:
    """How tyro reads one value: `None` is a word like any other, and errors are in our words."""
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
        if len(kinds) != 1 or kinds[0] not in read or info.type is bool:  # bool: a flag by itself
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
    """The message inside tyro's box, on one line, with its suggestion where it makes one.

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
    message = re.sub(r"^Error parsing (-\w/)?(?=--)", "", message)  # its name: not ours to tell
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
    """Write the current traceback to logs/, where a bug report can find it; returns where it is."""
    with contextlib.suppress(OSError, UserError):  # a base dir that is not there to keep it in
        name = f"crash-{prog.split('.')[-1]}-{time.strftime('%Y%m%d-%H%M%S')}.txt"
        path = storage.base_dir() / "logs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(traceback.format_exc(), encoding="utf-8", errors="replace")
        return f" (details: {path})"
    return ""


def _open_streams() -> None:
    """Standard input, output and error that can be used, whatever the command was given.

    A closed one (`<&-`) is /dev/null, or the next file to be opened would take its number. What
    can't be shown in this locale, or read, is a mark instead of a traceback.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
