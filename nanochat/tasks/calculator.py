"""The calculator that a model may call in the middle of an answer.

Arithmetic, comparisons, and the letters of a text: `'banana'.count('a')`, `'a' in 'banana'`,
`len('banana')`, `'banana'[0]`, `'banana'[::-1]`, `'-'.join('banana')`, `'banana'.upper()`. It is
read as a syntax tree of which only a few kinds of nodes are allowed. No eval, no signals, bounded
in size: it works in any thread and can't hang. Blanks around a text do not count: `len(' hen')` is
3. Behind a blank a word is the same tokens in a call as in the question, so a model copies it.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from typing import Any

MAX_CHARACTERS = 200  # of an expression, and of a text that it makes
MAX_NUMBER = 10**18
MAX_NUMBERS = 10  # between which max and min choose
MAX_POWER, MAX_BASE = 64, 10**6
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
OTHER_COMMAS = re.compile(r"['\"]|max|min")  # where 7,120 is a text, or two numbers
# A model can copy this word into its sentence, "5 divided by 0 is undefined"; without a result it
# would have to make one up.
UNDEFINED = "undefined"
TOO_DEEP = (RecursionError, MemoryError)  # which of them depends on the version of Python

Number = int | float

_BINARY: dict[type, Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARISONS: dict[type, Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def calculate(expression: str) -> str | None:
    """The result as text; None for anything that is not a small calculation.

    >>> calculate("12 + 7"), calculate("6/4"), calculate("5/0"), calculate("9 > 4")
    ('19', '1.5', 'undefined', 'True')
    >>> calculate(" 'strawberry'.count('r')"), calculate("'-'.join('hen')")
    ('3', 'h-e-n')
    >>> calculate("' strawberry'.count(' r')"), calculate("len(' hen')")
    ('3', '3')
    >>> calculate("__import__('os')") is None, calculate("9**9**9") is None
    (True, True)
    """
    if len(expression) > MAX_CHARACTERS or "\\" in expression:  # an escape may warn on stderr
        return None
    # A model may type anything that it has read anywhere. So a few things are allowed, instead of
    # many forbidden, and a bad call gives None: it must not end the answer that it stands in.
    if not OTHER_COMMAS.search(expression):
        expression = THOUSANDS.sub("", expression)
    try:
        return _result(ast.parse(expression.strip(), mode="eval").body)
    except ZeroDivisionError:
        return UNDEFINED
    except (SyntaxError, ValueError, TypeError, IndexError, ArithmeticError, *TOO_DEEP):
        return None


def _result(node: ast.expr) -> str:
    value = _value(node)
    if isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        return _as_text(_bounded(value))
    # The result is put into the answer as the model's own words. So it is something, on one line,
    # and nothing that steers a terminal; and a text alone is not a calculation.
    if isinstance(node, ast.Constant) or not value or not value.isprintable():
        raise ValueError("not a result")
    return value


def _value(node: ast.expr) -> Number | str | bool:
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
        case ast.Compare(left=left, ops=[ast.In()], comparators=[right]):
            return _text(left) in _text(right)
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARISONS:
            return _compared(op, _value(left), _value(right))
        case ast.Call(func=ast.Name(id="max" | "min" as name), args=args, keywords=[]):
            if not 2 <= len(args) <= MAX_NUMBERS:
                raise ValueError("too few or too many numbers")
            numbers = [_number(argument) for argument in args]
            return max(numbers) if name == "max" else min(numbers)
    return _of_letters(node)


def _of_letters(node: ast.expr) -> int | str:
    """What is asked of a text; an attribute is only ever one of these three methods, called."""
    match node:
        case ast.Call(func=ast.Name(id="len"), args=[text], keywords=[]):
            return len(_text(text))
        case ast.Call(
            func=ast.Attribute(value=text, attr="count"),
            args=[ast.Constant(value=str() as part)],
            keywords=[],
        ):
            return _text(text).count(part.strip() or part)
        case ast.Call(func=ast.Attribute(value=text, attr="join"), args=[letters], keywords=[]):
            return _short(_text(text, as_it_is=True).join(_text(letters)))
        case ast.Call(func=ast.Attribute(value=text, attr="upper"), args=[], keywords=[]):
            return _short(_text(text).upper())  # may be longer: an ß becomes SS
        case ast.Subscript(
            value=text, slice=ast.Slice(lower=None, upper=None, step=ast.expr() as by)
        ):
            if _number(by) == -1:
                return _text(text)[::-1]
        case ast.Subscript(value=text, slice=index):
            place = _number(index)
            if isinstance(place, int):
                return _text(text)[place]
    raise ValueError("not a calculation")


def _compared(op: ast.cmpop, left: Number | str | bool, right: Number | str | bool) -> bool:
    # Texts are the same or not. Which of two is "larger" depends on capitals and accents, and the
    # answer would not be the one that a person expects.
    if isinstance(left, str) and isinstance(right, str) and isinstance(op, ast.Eq | ast.NotEq):
        return _COMPARISONS[type(op)](left.strip(), right.strip())
    return _COMPARISONS[type(op)](_as_number(left), _as_number(right))


def _number(node: ast.expr) -> Number:
    return _as_number(_value(node))


def _as_number(value: Number | str | bool) -> Number:
    if isinstance(value, str | bool):
        raise ValueError("text or a truth value where a number belongs")
    return _bounded(value)


def _text(node: ast.expr, as_it_is: bool = False) -> str:
    value = _value(node)
    if not isinstance(value, str):
        raise ValueError("a number where text belongs")
    return value if as_it_is else value.strip() or value


def _short(text: str) -> str:
    if len(text) > MAX_CHARACTERS:
        raise ValueError("too long")
    return text


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
