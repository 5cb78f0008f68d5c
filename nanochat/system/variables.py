"""What a user may set: the table nanochat/variables.txt, which dev/lib.sh reads as well.

A driver's variable becomes a flag of every stage that it starts, and the same flag can be typed by
hand; so the limits are checked twice, from one table.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

TABLE = Path(__file__).resolve().parents[1] / "variables.txt"


class Variable(NamedTuple):
    """One row; the head of the table explains the columns."""

    name: str
    kind: str
    least: int | None
    most: int | None
    example: str
    continued: str
    flags: tuple[str, ...]
    commands: tuple[str, ...]
    help: str


def parse(line: str) -> Variable:
    """One row of the table.

    >>> parse("DEPTH whole 1 64 4 fixed depth - layers, 1 to 64")[:7]
    ('DEPTH', 'whole', 1, 64, '4', 'fixed', ('depth',))
    """
    name, kind, least, most, example, continued, flags, commands, text = line.split(None, 8)
    return Variable(
        name=name,
        kind=kind,
        least=None if least == "-" else int(least),
        most=None if most == "-" else int(most),
        example=example,
        continued=continued,
        flags=() if flags == "-" else tuple(flags.split(",")),
        commands=() if commands == "-" else tuple(commands.split(",")),
        help=text,
    )


@cache
def variables() -> tuple[Variable, ...]:
    """All rows; read at first use, since nothing happens at import."""
    lines = (line.strip() for line in TABLE.read_text(encoding="utf-8").splitlines())
    return tuple(parse(line) for line in lines if line and not line.startswith("#"))


@cache
def limits() -> dict[str, tuple[int, int]]:
    """Flag -> its least and most, for the whole numbers."""
    return {
        flag: (row.least, row.most)
        for row in variables()
        # Not the times: a driver's budget is a minute at least, a stage's share of it may be less.
        if row.kind == "whole" and row.least is not None and row.most is not None
        for flag in row.flags
    }


def check(config: Any) -> None:
    """Raise ValueError for a field of a config that is given and outside its limits."""
    for name, (least, most) in limits().items():
        value = getattr(config, name, None)
        if value is not None and not least <= value <= most:
            raise ValueError(f"{name}={value}: it must be from {least} to {most}")


def flags_of(command: str) -> dict[str, str]:
    """Flag -> the variable that says the same to a driver, for one command of scripts/.

    >>> flags_of("mid_train")["num_iterations"], "data" in flags_of("base_loss")
    ('MID_ITERATIONS', False)
    """
    return {
        flag: row.name
        for row in variables()
        if not row.commands or command in row.commands
        for flag in row.flags
    }


def variable_of(field: str) -> str:
    """What a user typed for a field of PlanConfig; a field without a variable is a flag.

    >>> variable_of("data"), variable_of("time_budget_s"), variable_of("seed")
    ('NANOCHAT_DATA', 'TIME_BUDGET', '--seed')
    """
    return next((row.name for row in variables() if row.flags[:1] == (field,)), f"--{field}")


def changeable() -> tuple[str, ...]:
    """Fields of PlanConfig that may change when a run is continued."""
    return tuple(row.flags[0] for row in variables() if row.continued == "changeable")
