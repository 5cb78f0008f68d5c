"""Sums, however they are asked for; held out by the operands, never by the wording alone.

Whatever the calculator can do is done by it: so small a model copies well and calculates badly.
The sentence after a call reads the call aloud, whatever words the question had ("double 6" is "2
times 6 is 12."), so there is one thing to learn and not thirty.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nanochat.data.tinyworld.calls import called, result_of, typed_with
from nanochat.data.tinyworld.english import capital, in_words
from nanochat.data.tinyworld.keys import is_held_out
from nanochat.data.tinyworld.questions import Asked, Part
from nanochat.data.tinyworld.rng import Rng, Weighted
from nanochat.tasks.calculator import calculate

if TYPE_CHECKING:
    from nanochat.data.tinyworld.world import World

Parts = dict[str, object]
Sum = tuple[str, Parts, str]  # a template, its parts, the expression

SPOKEN = {
    "+": "plus",
    "-": "minus",
    "*": "times",
    "/": "divided by",
    "**": "to the power of",
}


def aloud(expression: str) -> str:
    """The expression as one says it.

    >>> aloud("3+4-2"), aloud("-2*10")
    ('3 plus 4 minus 2', '-2 times 10')
    """
    return re.sub(r"(?<=\d)(?:\*\*|[-+*/])", lambda sign: f" {SPOKEN[sign[0]]} ", expression)


def numbers_of(expression: str) -> list[str]:
    """The numbers in it, without their signs."""
    return re.findall(r"\d+(?:\.\d+)?", expression)


def sum_key(expression: str) -> str:
    """What a sum is held out by: 3+4, 4-3 and "multiply 4 by 3" all have the same numbers."""
    return "sum " + " ".join(sorted(numbers_of(expression), key=float))


# ---- sums

FRAMES = (
    "What is {e}?", "What is {e}?", "What is {e}?", "{e}", "{e}", "{e}?", "{e}?", "{e} =",
    "{e} = ?", "{e}=", "How much is {e}?", "Calculate {e}.", "Can you tell me what {e} is?",
    "Please calculate {e}.", "Tell me what {e} is.", "Do you know what {e} is?", "Solve {e}.",
    "What does {e} equal?", "What does {e} make?", "I need to know how much {e} is.", "Do {e}.",
    "Work out {e}.", "Hi! What is {e}?", "What do you get for {e}?", "Can you do {e}?",
    "What's the answer to {e}?", "What would {e} be?", "{e} equals what?", "{e} is what?",
    "Quick, what is {e}?", "I need {e}.", "Could you work out {e}, please?", "{e} makes?",
    "Do the math: {e}.", "And what is {e}?", "Compute {e}.", "{e} equals?", "Find {e}.",
)  # fmt: skip
SIGNED = {
    "+": ("{a} + {b}", "{a}+{b}"),
    "-": ("{a} - {b}", "{a}-{b}"),
    "*": ("{a} * {b}", "{a}*{b}", "{a} x {b}", "{a}x{b}", "{a} × {b}"),
    "/": ("{a} / {b}", "{a}/{b}", "{a} ÷ {b}"),
}
# What everybody says comes up about as often as all that some people say.
IN_WORDS = {
    "+": (*["{a} plus {b}"] * 6, "the sum of {a} and {b}", "{a} added to {b}", "{a} more than {b}",
          "{a} and {b} together", "{a} and {b} added together", "the total of {a} and {b}"),
    "-": (*["{a} minus {b}"] * 6, "{a} take away {b}", "{a} take away {b}", "{a} less {b}",
          "{a} subtract {b}", "the difference between {a} and {b}", "{b} less than {a}",
          "{b} subtracted from {a}", "{b} taken from {a}"),
    "*": (*["{a} times {b}"] * 5, "{a} multiplied by {b}", "{a} multiplied with {b}",
          "the product of {a} and {b}"),
    "/": (*["{a} divided by {b}"] * 5, "{a} over {b}", "{a} divided into {b} parts",
          "{a} shared by {b}"),
}  # fmt: skip
COMMANDS = {
    "+": ("add {a} and {b}", "add {a} and {b}", "add {a} to {b}", "add {a} plus {b}",
          "add up {a} and {b}", "sum {a} and {b}"),
    "-": ("subtract {b} from {a}", "subtract {b} from {a}", "take {b} from {a}",
          "take {b} away from {a}", "take away {b} from {a}"),
    "*": ("multiply {a} by {b}", "multiply {a} and {b}", "multiply {a} with {b}",
          "multiply {a} times {b}"),
    "/": ("divide {a} by {b}", "divide {a} by {b}", "split {a} into {b} equal parts"),
}  # fmt: skip
COMMAND_FRAMES = (
    "{C}.", "{C}.", "{C}.", "Please {c}.", "Can you {c}?", "Could you {c} for me?", "{C}, please.",
    "What do you get if you {c}?", "What happens if I {c}?", "I want you to {c}.", "Now {c}.",
    "What is it when you {c}?", "What do I get when I {c}?",
)  # fmt: skip
# The number may come before what is done to it, and so may a word for two or three.
ONE_NUMBER = (
    ("double {a}", "2*{a}"), ("double {a}", "2*{a}"), ("twice {a}", "2*{a}"),
    ("two times {a}", "2*{a}"), ("{a} doubled", "2*{a}"), ("triple {a}", "3*{a}"),
    ("three times {a}", "3*{a}"), ("half of {a}", "{a}/2"), ("half of {a}", "{a}/2"),
    ("half {a}", "{a}/2"), ("a third of {a}", "{a}/3"), ("a quarter of {a}", "{a}/4"),
    ("{a} squared", "{a}*{a}"), ("{a} squared", "{a}*{a}"), ("the square of {a}", "{a}*{a}"),
    ("one more than {a}", "{a}+1"), ("one less than {a}", "{a}-1"),
)  # fmt: skip


def operands(rng: Rng, sign: str) -> tuple[int, int]:
    top = rng.choice((11, 13, 13, 13, 21, 101) if sign in "*/" else (11, 11, 21, 101, 101, 1001))
    a, b = rng.below(top), rng.below(min(top, 21) if sign in "*/" else top)
    if sign == "/":
        b = max(b, 1)
        return (a * b if rng.chance(80) else a), b  # else mostly with a remainder
    if sign == "-" and rng.chance(88):
        return max(a, b), min(a, b)
    return a, b


def _framed(rng: Rng, sign: str, signed: bool = True) -> str:
    """How two numbers, {a} and {b}, are asked for."""
    roll = rng.below(100)
    if roll < 20:
        command = rng.choice(COMMANDS[sign])
        return rng.choice(COMMAND_FRAMES).format(c=command, C=capital(command))
    forms = SIGNED if signed and roll < 65 else IN_WORDS
    return capital(rng.choice(FRAMES).format(e=rng.choice(forms[sign])))


def _two_numbers(rng: Rng) -> Sum:
    sign = rng.choice("+++---**/")
    a, b = operands(rng, sign)
    template = _framed(rng, sign)
    if "difference" in template:  # which has no sign
        a, b = max(a, b), min(a, b)
    return template, {"a": a, "b": b}, f"{a}{sign}{b}"


def _number_words(rng: Rng) -> Sum:
    sign = rng.choice("++-*/")
    while True:
        a, b = operands(rng, sign)
        if max(a, b) <= (20 if rng.chance(50) else 100):
            break
    between = rng.choice((" ", " ", "-"))
    said = {"a": in_words(a, between), "b": in_words(b, between)}
    template = _framed(rng, sign, signed=False)
    if "difference" in template and a < b:
        return template, {"a": said["b"], "b": said["a"]}, f"{b}-{a}"
    return template, {**said}, f"{a}{sign}{b}"


def _large_numbers(rng: Rng) -> Sum:
    sign = rng.choice("++-**/")
    if sign in "*/":
        a = rng.between(1, 12) * 10 ** rng.between(1, 4)
        b = rng.between(2, 99) if rng.chance(40) else 10 ** rng.between(1, 4)
        if sign == "/":
            a *= b
    else:
        a, b = (rng.below(10 ** rng.between(3, 6)) for _ in range(2))
        a, b = max(a, b), min(a, b)
    # Some write the thousands: the calculator takes 1,000, and says 1000 itself.
    shown = [f"{n:,}" if rng.chance(12) else str(n) for n in (a, b)]
    return _framed(rng, sign), {"a": shown[0], "b": shown[1]}, f"{a}{sign}{b}"


def _decimals(rng: Rng) -> Sum:
    sign = rng.choice("+-*")
    a, b = (f"{rng.between(0, 20)}.{rng.choice('123455789')}" for _ in range(2))
    if rng.chance(40):
        b = str(rng.between(1, 10))
    return _framed(rng, sign), {"a": a, "b": b}, f"{a}{sign}{b}"


def _three_numbers(rng: Rng) -> Sum:
    signs = rng.choice(("++", "++", "++", "+-", "-+", "--", "**", "*+", "+*"))
    top = 11 if "*" in signs else rng.choice((11, 21, 101))
    a, b, c = (rng.between(1, top) for _ in range(3))
    if signs == "++" and rng.chance(25):
        command = rng.choice(("add {a}, {b} and {c}", "add up {a}, {b} and {c}"))
        template = rng.choice(COMMAND_FRAMES).format(c=command, C=capital(command))
    else:
        first, second = (
            rng.choice((f" {s} ", f" {s} ", s, f" {SPOKEN[s]} ")) for s in signs
        )  # fmt: skip
        second = first if signs[0] == signs[1] else second
        template = rng.choice(FRAMES).format(e=f"{{a}}{first}{{b}}{second}{{c}}")
    return template, {"a": a, "b": b, "c": c}, f"{a}{signs[0]}{b}{signs[1]}{c}"


def _one_number(rng: Rng) -> Sum:
    form, expression = rng.choice(ONE_NUMBER)
    a = rng.between(1, rng.choice((12, 12, 50, 100)))
    if "/" in expression and rng.chance(85):
        a *= int(expression[-1])
    template = capital(rng.choice(FRAMES).format(e=form))
    return template, {"a": a}, expression.format(a=a)


def _percent(rng: Rng) -> Sum:
    percent, a = (
        rng.choice((10, 10, 20, 25, 50, 50, 5)),
        rng.between(1, 20) * rng.choice((10, 20, 4)),
    )
    form = rng.choice(("{p}% of {a}", "{p} percent of {a}", "{p} % of {a}"))
    template = rng.choice(FRAMES).format(e=form)
    return template, {"p": percent, "a": a}, f"{percent}*{a}/100"


def _power(rng: Rng) -> Sum:
    a, b = rng.between(2, 10), rng.choice((2, 2, 3, 3, 4, 5))
    form = rng.choice(("{a}^{b}", "{a}^{b}", "{a} to the power of {b}", "{a} ** {b}"))
    return rng.choice(FRAMES).format(e=form), {"a": a, "b": b}, f"{a}**{b}"


def _by_zero(rng: Rng) -> Sum:
    a = rng.below(rng.choice((11, 11, 101)))
    template = _framed(rng, "/").replace("equal parts", "parts")
    return template, {"a": a, "b": rng.choice(("0", "0", "0", "zero"))}, f"{a}/0"


SUMS = Weighted((
    (_two_numbers, 65), (_number_words, 8), (_one_number, 8), (_three_numbers, 5),
    (_large_numbers, 5), (_by_zero, 4), (_decimals, 2), (_percent, 2), (_power, 1),
))  # fmt: skip
# Without a call: there is nothing to work out.
BY_ZERO = "You cannot divide by zero."
A_NUMBER = ("What is {a}?", "What is {a}?", "{a}", "{a}?", "What is the number {a}?")


def arithmetic(world: World, rng: Rng, held: bool) -> Asked:
    if not held and rng.chance(2):
        a = rng.below(rng.choice((11, 101, 1001)))
        text = typed_with(rng, rng.choice(A_NUMBER), a=a)
        return Asked("arithmetic", text, f"{a} is a number.", "number", ("number",))
    while True:
        template, parts, expression = rng.weighted(SUMS)(rng)
        result = calculate(expression) or ""
        # A question whose answer stands in it, as in 5 + 0, shows nothing.
        shown = held and result in numbers_of(expression)
        if is_held_out(sum_key(expression)) == held and not shown:
            break
    text = typed_with(rng, template, **parts)
    if text[:1].islower() and rng.chance(30):
        text = capital(text)  # "Twenty five plus seventeen"
    if expression.endswith("/0"):
        accept = ("cannot divide by zero", "can't divide by zero", "undefined")
        return Asked("arithmetic", text, BY_ZERO, accept[0], accept)
    return worked_out("arithmetic", text, expression)


def worked_out(kind: str, text: str, expression: str, sentence: str = "") -> Asked:
    """A sum asked for as `text`, worked out and read aloud."""
    reply = called(expression, sentence or f"{aloud(expression)} is {{r}}.")
    result = result_of(reply) or ""
    accept = (result, f"{int(result):,}") if result.isdigit() else (result,)
    # As whole words, 2 is in -2 as well.
    reject = (f"-{result}",) if result != "0" and not result.startswith("-") else ()
    return Asked(kind, text, reply, result, tuple(dict.fromkeys(accept)), reject)


# ---- and plus 10?

FOLLOWING = {
    "+": ("plus {n}", "plus {n}", "and plus {n}?", "Now plus {n}.", "add {n}", "Add {n} to that.",
          "Now add {n}.", "+ {n}", "+{n}", "And if you add {n}?", "OK, plus {n}?", "And {n} more?",
          "What about plus {n}?", "And plus {n}?", "plus {n} more"),
    "-": ("minus {n}", "minus {n}", "and minus {n}?", "Now minus {n}.", "take away {n}",
          "Take {n} away from that.", "Now subtract {n}.", "subtract {n}", "- {n}", "-{n}",
          "And if you take away {n}?", "OK, minus {n}?", "What about minus {n}?", "And minus {n}?"),
    "*": ("times {n}", "times {n}", "and times {n}?", "Now times {n}.", "multiply by {n}",
          "Multiply that by {n}.", "Now multiply it by {n}.", "* {n}", "x {n}", "OK, times {n}?",
          "And if you multiply that by {n}?", "And times {n}?", "What about times {n}?"),
    "/": ("divided by {n}", "divided by {n}", "and divided by {n}?", "Now divide by {n}.",
          "divide by {n}", "Divide that by {n}.", "Now divide it by {n}.", "/ {n}",
          "OK, divided by {n}?", "And divided by {n}?"),
}  # fmt: skip
FOLLOWING_TWO = {
    "*": ("double it", "Double that.", "And twice that?", "Now double it.", "And double?"),
    "/": ("half of that", "And half of that?", "Halve it.", "Now half of that.", "And half?"),
}


def follow_up(
    world: World, rng: Rng, result: str, held: bool = False
) -> tuple[str, list[Part], str]:
    """(what is typed, the reply, the new result) after a sum that gave `result`."""
    value = float(result)
    while True:
        # Neither endless digits nor ever longer numbers.
        sign = rng.choice("++--*/" if abs(value) < 1000 and "." not in result else "+-")
        n = rng.between(1, 10) if sign in "*/" else rng.between(1, rng.choice((10, 10, 20, 100)))
        if sign == "/" and value % n:
            continue
        if is_held_out(f"follow {result} {sign} {n}") == held:
            break
    if n == 2 and sign in "*/" and rng.chance(60):
        text = typed_with(rng, rng.choice(FOLLOWING_TWO[sign]))
    else:
        said = in_words(n) if n <= 20 and rng.chance(10) else n
        text = typed_with(rng, rng.choice(FOLLOWING[sign]), n=said)
    asked = worked_out("arithmetic", text, f"{result}{sign}{n}")
    assert not isinstance(asked.reply, str)
    return text, asked.reply, asked.answer


def follow_ups(world: World, rng: Rng, asked: Asked) -> list[tuple[str, str | list[Part]]]:
    """One to three turns that continue with the last result; none if there isn't one."""
    result, turns = result_of(asked.reply), list[tuple[str, str | list[Part]]]()
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if result is None or not re.fullmatch(r"-?\d{1,7}(?:\.\d{1,2})?", result):
            break
        text, reply, result = follow_up(world, rng, result)
        turns.append((text, reply))
    return turns


# ---- in a story

PROBLEMS = {
    "+": (
        "{N} has {a} {t}. {P} gets {b} more. How many {t} does {N} have now?",
        "{N} finds {a} {t} in the morning and {b} in the evening. How many {t} does {N} have?",
        "There are {a} {t} in a box. {N} puts {b} more in. How many {t} are in the box now?",
        "{N} has {a} {t} and {M} has {b} {t}. How many {t} do they have together?",
        "{N} buys {a} {t} and then {b} more. How many {t} does {p} have?",
        "I have {a} {t} and buy {b} more. How many {t} do I have?",
        "I have {a} {t}. {N} gives me {b} more. How many do I have now?",
        "If I have {a} {t} and get {b} more, how many do I have?",
        "There are {a} {t} on the table and {b} on the floor. How many {t} are there in all?",
        "{a} {t} and {b} {t}, how many {t} is that?",
    ),
    "-": (
        "{N} has {a} {t}. {P} gives {b} to {M}. How many {t} does {N} have left?",
        "There are {a} {t} on the table. {N} takes {b}. How many {t} are left?",
        "{N} has {a} {t} and loses {b}. How many {t} are left?",
        "{N} had {a} {t}. {P} sold {b} of them. How many {t} does {p} have now?",
        "I have {a} {t} and lose {b}. How many {t} do I have left?",
        "I have {a} {t}. I give {N} {b}. How many are left?",
        "If I have {a} {t} and give away {b}, how many are left?",
        "If you have {a} {t} and I take {b}, how many do you have?",
        "{N} needs {a} {t} and has {b}. How many more does {p} need?",
    ),
    "*": (
        "{N} has {a} boxes with {b} {t} in each. How many {t} does {N} have?",
        "There are {a} bags. There are {b} {t} in each bag. How many {t} are there in all?",
        "{N} buys {a} bags of {b} {t}. How many {t} does {p} have?",
        "There are {a} children, and each has {b} {t}. How many {t} do they have together?",
        "I have {a} boxes with {b} {t} in each. How many {t} do I have?",
    ),
    "/": (
        "{N} shares {a} {t} among {b} friends. How many {t} does each friend get?",
        "{a} {t} go into {b} boxes. How many {t} are in each box?",
        "I want to share {a} {t} among {b} people. How many does each one get?",
    ),
}  # fmt: skip


def word_problem(world: World, rng: Rng, held: bool) -> Asked:
    while True:
        sign = rng.choice("+++---**/")
        top = 11 if sign in "*/" else rng.choice((11, 31, 100))
        a, b = rng.between(2, top), rng.between(2, top)
        if sign == "-":
            a, b = max(a, b), min(a, b)
        if sign == "/":
            a *= b
        result = calculate(f"{a}{sign}{b}")
        told = str(a), str(b), "0", "1"
        if result not in told and is_held_out(f"problem {min(a, b)} {max(a, b)}") == held:
            break
    girl = rng.chance(50)
    girls, boys = world.lists["girls"], world.lists["boys"]
    name, other = rng.choice(girls if girl else boys), rng.choice(boys if girl else girls)
    p = "she" if girl else "he"
    things = rng.choice(world.lists["countable_things"])
    template = rng.choice(PROBLEMS[sign]).replace("{P}", capital(p)).replace("{p}", p)
    text = typed_with(rng, template, a=a, b=b, t=things, N=name, M=other)
    return worked_out("word_problem", text, f"{a}{sign}{b}", "The answer is {r}.")
