"""The calculator that a model may call in the middle of an answer.

Arithmetic and `'text'.count('x')`, read as a syntax tree of which only a few kinds of nodes are
known. No eval, no signals, bounded in size: it works in any thread and can't hang.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable

LONGEST_EXPRESSION = 200  # characters
LARGEST_NUMBER = 10**18
LARGEST_POWER = 64
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
    """The result as text, or None for anything that is not a small calculation.

    >>> calculate("12 + 7"), calculate(" 'strawberry'.count('r')"), calculate("6/4")
    ('19', '3', '1.5')
    >>> calculate("__import__('os')") is None, calculate("9**9**9") is None
    (True, True)
    """
    if len(expression) > LONGEST_EXPRESSION or "\\" in expression:  # an escape may warn on stderr
        return None
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
            raise ValueError("no truth values")
        case ast.Constant(value=int() | float() | str() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _number(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            base, power = _number(left), _number(right)
            if abs(power) > LARGEST_POWER or abs(base) > 10**6:
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
    if not abs(value) <= LARGEST_NUMBER:  # nor is nan within
        raise ValueError("too large")
    return value


def _as_text(value: Number) -> str:
    if value == int(value):
        return str(int(value))
    digits = f"{value:.6g}" if abs(value) < 1 else f"{value:.6f}"
    return digits.rstrip("0").rstrip(".") if "e" not in digits else digits
