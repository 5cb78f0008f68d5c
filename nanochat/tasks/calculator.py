"""The calculator that a model may call in the middle of an answer.

Arithmetic and `'text'.count('x')`, read as a syntax tree of which only a few kinds of nodes are
allowed. No eval, no signals, bounded in size: it works in any thread and can't hang.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable

MAX_CHARACTERS = 200  # of an expression
MAX_NUMBER = 10**18
MAX_POWER, MAX_BASE = 64, 10**6
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")

Number = int | float

_BINARY: dict[type, Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def calculate(expression: str) -> str | None:
    """The result as text; None for anything that is not a small calculation.

    >>> calculate("12 + 7"), calculate(" 'strawberry'.count('r')"), calculate("6/4")
    ('19', '3', '1.5')
    >>> calculate("__import__('os')") is None, calculate("9**9**9") is None
    (True, True)
    """
    if len(expression) > MAX_CHARACTERS or "\\" in expression:  # an escape may warn on stderr
        return None
    # A model may type anything that it has read anywhere. So a few things are allowed, instead of
    # many forbidden, and a bad call gives None: it must not end the answer that it stands in.
    if "'" not in expression and '"' not in expression:
        expression = THOUSANDS.sub("", expression)
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body)
        if not isinstance(value, str):
            return _as_text(_bounded(value))
    except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError):
        pass
    return None


def _value(node: ast.expr) -> Number | str:
    match node:
        case ast.Constant(value=bool()):
            raise ValueError("no truth values")  # True is an int in Python
        case ast.Constant(value=int() | float() | str() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _number(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            # The only operation that explodes: bounded before it is done, not after.
            base, power = _number(left), _number(right)
            if abs(power) > MAX_POWER or abs(base) > MAX_BASE:
                raise ValueError("too large")
            result = base**power
            if isinstance(result, complex):
                raise ValueError("not a real number")
            return _bounded(result)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _bounded(_BINARY[type(op)](_number(left), _number(right)))
        case ast.Call(
            func=ast.Attribute(value=text, attr="count"), args=[ast.Constant(value=str() as part)]
        ) if not node.keywords:
            where = _value(text)
            if isinstance(where, str):
                return where.count(part)
    raise ValueError("not a calculation")


def _number(node: ast.expr) -> Number:
    value = _value(node)
    if isinstance(value, str):
        raise ValueError("text where a number belongs")
    return _bounded(value)


def _bounded(value: Number) -> Number:
    if not abs(value) <= MAX_NUMBER:  # nan fails this as well
        raise ValueError("too large")
    return value


def _as_text(value: Number) -> str:
    if value == int(value):
        return str(int(value))
    # Six digits, as a person would write it: a model should not learn to say 0.30000000000000004.
    digits = f"{value:.6g}" if abs(value) < 1 else f"{value:.6f}"
    return digits.rstrip("0").rstrip(".") if "e" not in digits else digits
