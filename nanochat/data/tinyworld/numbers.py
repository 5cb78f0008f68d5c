"""Comparing numbers and counting; held out by the numbers.

What is larger, odd, or next is the calculator's work. Counting is not: there the model says what it
has learned by heart, one number after another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanochat.data.tinyworld.calls import called, typed_with
from nanochat.data.tinyworld.english import in_words
from nanochat.data.tinyworld.keys import is_held_out
from nanochat.data.tinyworld.questions import Asked
from nanochat.data.tinyworld.rng import Rng
from nanochat.data.tinyworld.sums import (
    IN_WORDS,
    SIGNED,
    SPOKEN,
    operands,
    sum_key,
    worked_out,
)
from nanochat.tasks.calculator import calculate

if TYPE_CHECKING:
    from nanochat.data.tinyworld.world import World

# ---- yes or no

THAN = {
    ">": ("bigger", "bigger", "bigger", "larger", "greater", "more", "higher"),
    "<": ("smaller", "smaller", "less", "less", "lower"),
}
IS_THAN = (
    "Is {a} {w} than {b}?", "Is {a} {w} than {b}?", "Is {a} {w} than {b}?", "{a} is {w} than {b}?",
    "{a} is {w} than {b}, right?", "Is it true that {a} is {w} than {b}?",
    "Is {a} really {w} than {b}?",
    "Is the number {a} {w} than {b}?", "Would you say {a} is {w} than {b}?",
    "Is {a} {w} than {b} or not?", "Do you think {a} is {w} than {b}?", "Hey, is {a} {w} than {b}?",
    "I think {a} is {w} than {b}. Is that right?", "Tell me, is {a} {w} than {b}?",
)  # fmt: skip
IS_SUM = (
    "Is {e} {c}?", "Is {e} {c}?", "Is {e} equal to {c}?", "Does {e} equal {c}?",
    "Does {e} make {c}?",
    "Is it true that {e} is {c}?", "{e} is {c}, right?", "{e} = {c}, right?", "Is {e} = {c}?",
    "{e} is {c}, correct?", "Is {c} {e}?", "I think {e} is {c}. Is that right?",
    "Is {c} the answer to {e}?", "{e}={c}?", "{e} = {c}?", "{e} = {c}, is that right?",
)  # fmt: skip
IS_EVEN = (
    "Is {n} {p}?", "Is {n} {p}?", "Is {n} an {p} number?", "Is the number {n} {p}?",
    "{n} is {p}, right?", "Is it true that {n} is {p}?", "Is {n} {p} or not?", "Hi, is {n} {p}?",
    "Do you know if {n} is {p}?", "Would you call {n} {p}?",
)  # fmt: skip
ODD_OR_EVEN = (
    "Is {n} odd or even?", "Is {n} even or odd?", "{n}: odd or even?", "Odd or even: {n}?",
    "Is {n} an odd number or an even number?", "Tell me if {n} is odd or even.",
    "Is the number {n} even or odd?", "{n} is odd or even?",
)  # fmt: skip


def number_check(world: World, rng: Rng, held: bool) -> Asked:
    """Is 9 bigger than 4; is 3 plus 4 8; is 7 odd."""
    return rng.choice((_is_than, _is_than, _is_than, _is_sum, _is_sum, _parity))(rng, held)


def _yes_no(text: str, expression: str, yes: str, no: str) -> Asked:
    so = calculate(expression) == "True"
    right, wrong = ("yes", "no") if so else ("no", "yes")
    reply = called(expression, f"Yes, {yes}." if so else f"No, {no}.")
    return Asked("number_check", text, reply, right, (right,), (wrong,))


def _is_than(rng: Rng, held: bool) -> Asked:
    while True:
        top = rng.choice((11, 21, 101, 101, 1001))
        a, b = rng.below(top), rng.below(top)
        if rng.chance(5):
            b = a
        if is_held_out(f"than {min(a, b)} {max(a, b)}") == held:
            break
    if (a == b and rng.chance(60)) or rng.chance(4):
        template = rng.choice(
            ("Is {a} equal to {b}?", "Is {a} the same as {b}?", "Does {a} equal {b}?")
        )
        claim = f"{a} is {{no}}equal to {b}"
        yes, no = claim.format(no=""), claim.format(no="not ")
        return _yes_no(typed_with(rng, template, a=a, b=b), f"{a}=={b}", yes, no)
    sign = rng.choice("><")
    word = rng.choice(THAN[sign])
    template = "Is {a} > {b}?" if word == "greater" and rng.chance(40) else rng.choice(IS_THAN)
    text = typed_with(rng, template.replace("{w}", word), a=a, b=b)
    return _yes_no(text, f"{a}{sign}{b}", f"{a} is {word} than {b}", f"{a} is not {word} than {b}")


def _is_sum(rng: Rng, held: bool) -> Asked:
    while True:
        sign = rng.choice("+++--**/")
        a, b = operands(rng, sign)
        result = calculate(f"{a}{sign}{b}") or ""
        if result.isdigit() and is_held_out(sum_key(f"{a}{sign}{b}")) == held:
            break
    c = int(result)
    if rng.chance(50):  # what people are off by
        off = rng.choice((1, 1, 2, 3, 10))
        c += off if c < off or rng.chance(50) else -off
    form = rng.choice((*SIGNED[sign], *IN_WORDS[sign][:4]))
    text = typed_with(rng, rng.choice(IS_SUM).replace("{e}", form), a=a, b=b, c=c)
    said = f"{a} {SPOKEN[sign]} {b}"
    return _yes_no(text, f"{a}{sign}{b}=={c}", f"{said} is {c}", f"{said} is not {c}")


def _parity(rng: Rng, held: bool) -> Asked:
    while True:
        n = rng.below(rng.choice((11, 21, 101, 1001)))
        if is_held_out(f"parity {n}", 5) == held:
            break
    names = ("even", "odd")
    if rng.chance(30):
        text = typed_with(rng, rng.choice(ODD_OR_EVEN), n=n)
        right, wrong = names[n % 2], names[1 - n % 2]
        reply = called(f"{n}%2", f"{n} is {right}.")
        return Asked("number_check", text, reply, right, (right,), (wrong,))
    asked = rng.below(2)
    text = typed_with(rng, rng.choice(IS_EVEN).replace("{p}", names[asked]), n=n)
    yes, no = f"{n} is {names[asked]}", f"{n} is {names[1 - asked]}"
    return _yes_no(text, f"{n}%2=={asked}", yes, no)


# ---- which one

LARGER = (
    "Which number is {w}, {a} or {b}?", "Which is {w}, {a} or {b}?", "What is {w}, {a} or {b}?",
    "Which one is {w}: {a} or {b}?", "Is {a} or {b} {w}?", "{a} or {b}, which is {w}?",
    "Tell me which number is {w}, {a} or {b}.", "What is the {w} number, {a} or {b}?",
    "Hi! Which number is {w}: {a} or {b}?", "Do you know which is {w}, {a} or {b}?",
    "Which is {w}? {a} or {b}?", "What's {w}: {a} or {b}?", "Which is the {w} one, {a} or {b}?",
    "Which is {w}, {a} or {b}?", "Between {a} and {b}, which is {w}?",
    "Of {a} and {b}, which is {w}?",
)  # fmt: skip
LARGEST = (
    "Which is the {w}: {s}?", "Which number is the {w}: {s}?", "What is the {w} of {s}?",
    "What is the {w} number of {s}?", "The {w} of {s}?", "Find the {w} number: {s}.",
    "Which is the {w} number, {s}?", "Tell me the {w} of {s}.", "Which of {s} is the {w}?",
)  # fmt: skip
MORE = ("bigger", "bigger", "larger", "larger", "greater", "higher", "more")
LESS = ("smaller", "smaller", "less", "lower")
MOST = ("biggest", "largest", "highest", "greatest")
LEAST = ("smallest", "smallest", "lowest")


def _drawn(rng: Rng, count: int) -> list[str]:
    """Different numbers; 9.11 and 9.9 among them, which are a famous trap."""
    whole = rng.below(20) if count == 2 and rng.chance(10) else None
    top = rng.choice((11, 21, 101, 101, 1001))
    while True:
        if whole is None:
            drawn = [str(rng.below(top)) for _ in range(count)]
        else:
            drawn = [
                f"{whole}.{rng.choice((rng.between(1, 9), rng.between(11, 19)))}" for _ in "ab"
            ]
        if len(set(drawn)) == count:
            return drawn


def larger_number(world: World, rng: Rng, held: bool) -> Asked:
    """Of two numbers, three or four."""
    while True:
        drawn = _drawn(rng, rng.choice((2, 2, 2, 2, 2, 2, 3, 3, 4)))
        key = "larger " + " ".join(sorted(drawn, key=float))
        if is_held_out(key) == held:
            break
    most = rng.chance(65)
    if len(drawn) == 2:
        word = said = rng.choice(MORE if most else LESS)
        template = rng.choice(LARGER).replace("{w}", word)
        text = typed_with(rng, template, a=drawn[0], b=drawn[1])
    else:
        word = rng.choice(MOST if most else LEAST)
        said = f"the {word}"
        shown = ", ".join(drawn[:-1]) + rng.choice((" and ", " or ", ", ")) + drawn[-1]
        text = typed_with(rng, rng.choice(LARGEST).replace("{w}", word), s=shown)
    right = (max if most else min)(drawn, key=float)
    reply = called(f"{'max' if most else 'min'}({','.join(drawn)})", f"{{r}} is {said}.")
    wrong = tuple(f"{n} is" for n in drawn if n != right)
    return Asked("larger_number", text, reply, right, (right,), wrong)


NEXT_NUMBER = (
    "What number comes {side} {n}?", "Which number comes {side} {n}?", "What comes {side} {n}?",
    "What is the number {side} {n}?", "Tell me the number {side} {n}.", "The number {side} {n}?",
    "Do you know which number comes {side} {n}?", "Which number is just {side} {n}?",
    "I want to know the number {side} {n}.", "Please tell me what number comes {side} {n}.",
    "Number {side} {n}?", "What is {side} {n}?", "What number is right {side} {n}?",
    "And what comes {side} {n}?", "{n}, what comes {side} that?",
)  # fmt: skip
ONE_SIDE = {
    "after": ("What is the next number after {n}?", "What's next after {n}?", "What follows {n}?",
              "Which number follows {n}?", "What number is next after {n}?"),
    "before": ("What is the number just before {n}?", "Which number goes before {n}?",
               "What is the previous number before {n}?", "What number precedes {n}?"),
}  # fmt: skip
PATTERN = (
    "{s}, what comes next?", "What comes next: {s}?", "{s}, ...", "{s}, what is next?", "{s}, ?",
    "What is the next number: {s}?", "What number comes next: {s}?", "Continue: {s}.", "{s} ...",
    "{s}, what is the next number?", "Complete the pattern: {s}.", "What comes after {s}?",
    "What is the next number in {s}?", "Next number: {s}?", "{s}, and then?",
)  # fmt: skip


def next_number(world: World, rng: Rng, held: bool) -> Asked:
    if rng.chance(30):
        return _pattern(rng, held)
    while True:
        n = rng.between(1, rng.choice((20, 100, 300, 1000)))
        side = rng.choice(("after", "after", "before"))
        if is_held_out(f"next {side} {n}", 5) == held:
            break
    templates = ONE_SIDE[side] if rng.chance(25) else NEXT_NUMBER
    text = typed_with(rng, rng.choice(templates).replace("{side}", side), n=n)
    expression = f"{n}+1" if side == "after" else f"{n}-1"
    return worked_out("next_number", text, expression, f"{{r}} comes {side} {n}.")


def _pattern(rng: Rng, held: bool) -> Asked:
    """2, 4, 6 and then: the last number, and once more what was added to the one before."""
    while True:
        step = rng.choice((1, 1, 2, 2, 2, 3, 4, 5, 5, 10, 10, 100, -1, -1, -2, -5, -10))
        count = rng.choice((3, 3, 3, 4, 5))
        start = step if rng.chance(50) else rng.between(0, rng.choice((10, 50)))
        if step < 0:
            start = rng.between(1, 10) * rng.choice((1, -step)) - step * count
        terms = [start + i * step for i in range(count)]
        if is_held_out(f"pattern {start} {step}", 5) == held:
            break
    text = typed_with(
        rng, rng.choice(PATTERN), s=rng.choice((", ", ", ", ", ", " ")).join(map(str, terms))
    )
    # All of it is copying: the model need not know the step.
    expression = f"{terms[-1]}+{terms[-1]}-{terms[-2]}"
    return worked_out("next_number", text, expression, "{r} comes next.")


# ---- counting, without a call

COUNT = (
    "Count from {a} to {b}.", "Please count from {a} to {b}.", "Can you count from {a} to {b}?",
    "Could you count from {a} to {b}?", "I want you to count from {a} to {b}.", "Count {a} to {b}.",
    "Count for me from {a} to {b}.", "Hi, can you count from {a} to {b}?",
    "Numbers from {a} to {b}?",
    "Say the numbers from {a} to {b}.", "Tell me the numbers from {a} to {b}.",
    "List the numbers from {a} to {b}.", "Count up from {a} to {b}.", "Count from {a} up to {b}.",
)  # fmt: skip
COUNT_TO = (
    "Count to {b}.", "Count to {b}.", "Can you count to {b}?", "Please count to {b}.",
    "Count up to {b}.", "I want you to count to {b}.", "Say the numbers up to {b}.",
    "Count till {b}.",
    "Can you count up to {b}?", "Could you count to {b} for me?", "Count until {b}.",
    "Let's count to {b}.", "Now count to {b}.", "Show me how you count to {b}.",
)  # fmt: skip
COUNT_DOWN = (
    "Count down from {a}.", "Count down from {a}.", "Count backwards from {a}.",
    "Can you count down from {a}?", "Can you count backwards from {a}?", "Countdown from {a}.",
    "Please count down from {a}.", "Count backward from {a}.", "Do a countdown from {a}.",
)  # fmt: skip
COUNT_DOWN_TO = (
    "Count down from {a} to {b}.", "Count backwards from {a} to {b}.", "Count from {a} to {b}.",
    "Can you count down from {a} to {b}?", "Count from {a} down to {b}.",
)  # fmt: skip
COUNT_BY = (
    "Count by {s} to {b}.", "Count to {b} by {s}.", "Can you count by {s} to {b}?",
    "Count in {s} up to {b}.", "Count by {s} up to {b}.", "Please count to {b} by {s}.",
    "Skip count by {s} to {b}.", "Count up to {b} in {s}.",
)  # fmt: skip
STEPS = {
    2: ("twos", "2s", "2", "two"),
    3: ("threes", "3s", "3"),
    5: ("fives", "5s", "5", "five"),
    10: ("tens", "10s", "10", "ten"),
}
LONGEST_COUNT = 30  # numbers, of three tokens each: a chat leaves room for about so many
TOO_LONG = "That is too long for me. 1, 2, 3 and so on."


def counting(world: World, rng: Rng, held: bool) -> Asked:
    draw = rng.choice((_up, _up, _up, _up, _up, _up, _down, _down, _by_steps, _by_steps))
    return (_too_far if rng.chance(7) else draw)(rng, held)


def _counted(text: str, counted: range) -> Asked:
    said, step = ", ".join(map(str, counted)), counted.step
    # Neither from before the beginning nor beyond the end.
    reject = (f"{counted[0] - step}, {counted[0]}", f"{counted[-1]}, {counted[-1] + step}")
    return Asked("counting", text, f"{said}.", said, (said,), reject)


def _as_said(rng: Rng, a: int, b: int) -> dict[str, str]:
    """Both numbers in digits, or now and then in words."""
    words = rng.chance(20) and max(a, b) <= 30
    return {"a": in_words(a) if words else str(a), "b": in_words(b) if words else str(b)}


def _up(rng: Rng, held: bool) -> Asked:
    while True:
        a = 1 if rng.chance(40) else rng.between(0, rng.choice((10, 30)))
        length = rng.choice((10, 20)) if rng.chance(30) else rng.between(3, 20 if a == 1 else 12)
        # Few ask for so many, and they cost as much as ten questions.
        length = rng.between(21, LONGEST_COUNT) if a == 1 and not held and rng.chance(6) else length
        b = a + length - 1
        if is_held_out(f"count {a} {b}") == held:
            break
    ways = COUNT_TO if a == 1 and rng.chance(60) else COUNT
    text = typed_with(rng, rng.choice(ways), **_as_said(rng, a, b))
    return _counted(text, range(a, b + 1))


def _down(rng: Rng, held: bool) -> Asked:
    while True:
        b = 1 if rng.chance(65) else rng.between(0, rng.choice((10, 40)))
        a = b + rng.choice((9, 9, 4, 19, rng.between(2, 14)))
        if is_held_out(f"count down {a} {b}") == held:
            break
    ways = COUNT_DOWN if b == 1 and rng.chance(75) else COUNT_DOWN_TO
    text = typed_with(rng, rng.choice(ways), **_as_said(rng, a, b))
    return _counted(text, range(a, b - 1, -1))


def _by_steps(rng: Rng, held: bool) -> Asked:
    while True:
        step = rng.choice((2, 2, 2, 3, 5, 5, 10, 10))
        b = step * rng.choice((10, 10, rng.between(3, 20)))
        if is_held_out(f"count by {step} {b}", 5) == held:
            break
    template = "Count by {s}." if b == 10 * step and rng.chance(25) else rng.choice(COUNT_BY)
    text = typed_with(rng, template, s=rng.choice(STEPS[step]), b=b)
    return _counted(text, range(step, b + 1, step))


def _too_far(rng: Rng, held: bool) -> Asked:
    while True:
        b = rng.choice((100, 100, 100, 1000, 1000, 50, 200, 500, 10_000, 1_000_000, 0))
        b = b or rng.between(LONGEST_COUNT + 1, 300)
        if is_held_out(f"count 1 {b}") == held:
            break
    shown = rng.choice(("a million", "one million", "1,000,000")) if b == 1_000_000 else b
    template = rng.choice(COUNT if rng.chance(30) else COUNT_TO)
    text = typed_with(rng, template, a=1, b=shown)
    return Asked("counting", text, TOO_LONG, "too long for me", ("too long for me",))
