"""Questions that are worked out: sizes, numbers, sums, letters.

What is held out is decided by the operands (the numbers, the things, the word), never by the
wording alone. Whatever the calculator can do is done by it: so small a model copies well and
calculates badly.
"""

from __future__ import annotations

from nanochat.data.tinyworld import words
from nanochat.data.tinyworld.facts import bare, listed, sizes
from nanochat.data.tinyworld.questions import Asked, with_tool
from nanochat.data.tinyworld.rng import Rng
from nanochat.data.tinyworld.wordings import (
    article,
    capital,
    is_held_out,
    plural,
    typed,
    wording_key,
)

COMPARE = (
    "Which is {more}, {a} or {b}?", "What is {more}, {a} or {b}?", "{A} or {b}, which is {more}?",
    "Which one is {more}: {a} or {b}?", "Tell me which is {more}, {a} or {b}.",
    "Do you know which is {more}, {a} or {b}?", "Is {a} or {b} {more}?",
    "I want to know what is {more}, {a} or {b}.", "Between {a} and {b}, which is {more}?",
)  # fmt: skip


def compare(rng: Rng, held: bool) -> Asked:
    while True:
        (a, size_a), (b, size_b) = rng.choice(sizes()), rng.choice(sizes())
        key = "size " + " ".join(sorted((a, b)))
        if size_a != size_b and is_held_out(key, 6) == held:
            break
    big, little = (a, b) if size_a > size_b else (b, a)
    more = rng.choice(("bigger", "bigger", "larger", "smaller"))
    first, second = (little, big) if more == "smaller" else (big, little)
    text = rng.choice(COMPARE).format(more=more, a=a, b=b, A=capital(a))
    reply = f"{capital(first)} is {more} than {second}."
    wrong = tuple(f"{bare(second)} is {w}" for w in (more, "bigger", "larger", "smaller"))
    return Asked("compare", typed(rng, text), reply, bare(first), (bare(first),), wrong[:1])


LARGER = (
    "Which number is {more}, {a} or {b}?", "Which is {more}, {a} or {b}?", "{a} or {b}?",
    "What is {more}, {a} or {b}?", "Which one is {more}: {a} or {b}?", "Is {a} or {b} {more}?",
    "Tell me which number is {more}, {a} or {b}.", "What is the {more} number, {a} or {b}?",
    "Hi! Which number is {more}: {a} or {b}?", "Do you know which is {more}, {a} or {b}?",
)  # fmt: skip


def larger_number(rng: Rng, held: bool) -> Asked:
    """The calculator's sign tells which one is larger."""
    while True:
        top = rng.choice((20, 100, 100, 1000))
        a, b = rng.below(top), rng.below(top)
        if a != b and is_held_out(f"larger {min(a, b)} {max(a, b)}") == held:
            break
    more = rng.choice(("larger", "larger", "bigger", "smaller"))
    template = rng.choice(LARGER)
    if template == "{a} or {b}?":
        template = "Which is {more}? {a} or {b}?"
    first, second = (a, b) if (a > b) != (more == "smaller") else (b, a)
    reply = with_tool(f"{a}-{b}", a - b, f"{first} is {more} than {second}.")
    text = typed(rng, template.format(more=more, a=a, b=b))
    accept, reject = (str(first),), (f"{second} is {more}",)
    return Asked("larger_number", text, reply, str(first), accept, reject)


NEXT_NUMBER = (
    "What number comes {side} {n}?", "Which number comes {side} {n}?", "What comes {side} {n}?",
    "What is the number {side} {n}?", "Tell me the number {side} {n}.", "The number {side} {n}?",
    "Do you know which number comes {side} {n}?", "Which number is just {side} {n}?",
    "I want to know the number {side} {n}.", "Please tell me what number comes {side} {n}.",
)  # fmt: skip


def next_number(rng: Rng, held: bool) -> Asked:
    while True:
        n = rng.between(1, rng.choice((20, 100, 300)))
        side = rng.choice(("after", "after", "before"))
        if is_held_out(f"next {side} {n}", 5) == held:
            break
    result = n + 1 if side == "after" else n - 1
    expression = f"{n}+1" if side == "after" else f"{n}-1"
    reply = with_tool(expression, result, f"{result} comes {side} {n}.")
    text = typed(rng, rng.choice(NEXT_NUMBER).format(side=side, n=n))
    return Asked("next_number", text, reply, str(result), (str(result),))


COUNT = (
    "Count from {a} to {b}.", "Please count from {a} to {b}.", "Can you count from {a} to {b}?",
    "Could you count from {a} to {b}?", "I want you to count from {a} to {b}.",
    "Count for me from {a} to {b}.", "Hi, can you count from {a} to {b}?", "Count {a} to {b}.",
    "Say the numbers from {a} to {b}.", "Tell me the numbers from {a} to {b}.",
)  # fmt: skip
COUNT_TO = (
    "Count to {b}.", "Can you count to {b}?", "Please count to {b}.", "Count up to {b}.",
    "I want you to count to {b}.", "Say the numbers up to {b}.",
)  # fmt: skip


def counting(rng: Rng, held: bool) -> Asked:
    while True:
        a = 1 if rng.chance(35) else rng.between(1, rng.choice((10, 40)))
        b = a + rng.between(3, 19 if a == 1 else 11)
        if is_held_out(f"count {a} {b}") == held:
            break
    numbers = ", ".join(map(str, range(a, b + 1)))
    ways = COUNT_TO if a == 1 and rng.chance(50) else COUNT
    text = typed(rng, rng.choice(ways).format(a=a, b=b))
    wrong = (f"{a - 1}, {a}", f"{b}, {b + 1}")
    return Asked("counting", text, f"I count {numbers}.", numbers, (numbers,), wrong)


SUMS = (
    "What is {e}?", "What is {e}?", "How much is {e}?", "{e}?", "{e}", "{e} =", "Calculate {e}.",
    "Can you tell me what {e} is?", "Please calculate {e}.", "Tell me what {e} is.", "{e} = ?",
    "Do you know what {e} is?", "What does {e} make?", "I need to know how much {e} is.",
    "Work out {e}.", "Hi! What is {e}?", "What do you get for {e}?", "Can you do {e}?",
)  # fmt: skip
SIGNS = {
    "+": ("{a} + {b}", "{a}+{b}", "{a} plus {b}", "the sum of {a} and {b}"),
    "-": ("{a} - {b}", "{a}-{b}", "{a} minus {b}", "{a} less {b}"),
    "*": ("{a} * {b}", "{a}*{b}", "{a} times {b}", "{a} x {b}", "{a} multiplied by {b}"),
    "/": ("{a} / {b}", "{a}/{b}", "{a} divided by {b}", "{a} over {b}"),
}
NUMBERS = listed(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen seventeen eighteen nineteen twenty"
)
SPOKEN = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}


def arithmetic(rng: Rng, held: bool) -> Asked:
    while True:
        sign = rng.choice("++--*/")
        top = 13 if sign in "*/" and rng.chance(70) else rng.choice((20, 100, 100, 1000))
        a, b = rng.below(top), rng.below(top)
        if sign == "/":  # without a remainder
            a, b = a * max(b, 1), max(b, 1)
        elif sign == "-":
            a, b = max(a, b), min(a, b)
        result = {"+": a + b, "-": a - b, "*": a * b, "/": a // max(b, 1)}[sign]
        if result not in (a, b) and is_held_out(f"sum {min(a, b)} {max(a, b)}") == held:
            break
    expression = rng.choice(SIGNS[sign]).format(a=a, b=b)
    if max(a, b) < len(NUMBERS) and rng.chance(25):
        expression = f"{NUMBERS[a]} {SPOKEN[sign]} {NUMBERS[b]}"
    text = rng.choice(SUMS).format(e=expression)
    reply = with_tool(f"{a}{sign}{b}", result, f"{a} {SPOKEN[sign]} {b} is {result}.")
    return Asked("arithmetic", typed(rng, capital(text)), reply, str(result), (str(result),))


PROBLEMS = {
    "+": (
        "{N} has {a} {t}. {P} gets {b} more. How many {t} does {N} have now?",
        "{N} finds {a} {t} in the morning and {b} {t} in the evening. How many {t} does {N} have?",
        "There are {a} {t} in a box. {N} puts {b} more into it. How many {t} are in the box?",
        "{N} has {a} {t} and {M} has {b} {t}. How many {t} do they have together?",
        "{N} buys {a} {t}, then {b} more. How many {t} does {p} have?",
        "I have {a} {t} and buy {b} more. How many {t} do I have?",
        "I have {a} {t}. {N} gives me {b} more. How many do I have now?",
    ),
    "-": (
        "{N} has {a} {t}. {P} gives {b} to {M}. How many {t} does {N} have left?",
        "There are {a} {t} on the table. {N} takes {b}. How many {t} are left?",
        "{N} has {a} {t} and loses {b}. How many {t} are left?",
        "{N} had {a} {t}. {P} sold {b} of them. How many {t} does {p} have now?",
        "I have {a} {t} and lose {b}. How many {t} do I have left?",
        "I have {a} {t}. I give {N} {b}. How many are left?",
    ),
    "*": (
        "{N} has {a} boxes with {b} {t} in each. How many {t} does {N} have?",
        "There are {a} bags. In each bag are {b} {t}. How many {t} are there in all?",
        "{N} buys {b} {t} on each of {a} days. How many {t} does {N} have?",
    ),
}


def word_problem(rng: Rng, held: bool) -> Asked:
    while True:
        sign = rng.choice("++--*")
        top = 11 if sign == "*" else rng.choice((11, 31, 100))
        a, b = rng.between(2, top), rng.between(2, top)
        if sign == "-" and a < b:
            a, b = b, a
        result = {"+": a + b, "-": a - b, "*": a * b}[sign]
        if result not in (a, b, 0, 1) and is_held_out(f"problem {min(a, b)} {max(a, b)}") == held:
            break
    girl = rng.chance(50)
    name = rng.choice(words.GIRLS if girl else words.BOYS)
    other = rng.choice(words.BOYS if girl else words.GIRLS)
    thing = rng.choice(words.THINGS)
    p = "she" if girl else "he"
    template = rng.choice(PROBLEMS[sign])
    text = template.format(a=a, b=b, t=thing, N=name, M=other, p=p, P=capital(p))
    reply = with_tool(f"{a}{sign}{b}", result, f"The answer is {result}.")
    return Asked("word_problem", typed(rng, text), reply, str(result), (str(result),))


LETTERS = (
    "How many {l}'s are in {w}?", "How many {l}'s are there in {w}?", "How many {l}s are in {w}?",
    "How many times does the letter {l} appear in {w}?", "Count the {l}'s in {w}.",
    "How many times is the letter {l} in the word {w}?", "Count the letter {l} in {w}.",
    "Tell me how many {l}'s are in {w}.", "How often does {l} appear in {w}?",
    "Can you count the {l}'s in {w}?", "Please count the letter {l} in the word {w}.",
    "Do you know how many {l}'s are in {w}?", "In the word {w}, how many {l}'s are there?",
    "How many {l} are in the word {w}?", "Hi! How many {l}'s does {w} have?",
    "How many times do you see the letter {l} in {w}?", "How many {l}'s in {w}?",
    "How many letters {l} are in {w}?", "How many letters {l} are in the word {w}?",
    "How many {l}s does the word {w} have?", "Count the letters {l} in {w}.",
)  # fmt: skip


def letter_counting(rng: Rng, held: bool) -> Asked:
    """Half of the questions quote the word as the calculator call does: it can be copied."""
    while True:
        word = words.invented(rng) if rng.chance(20) else rng.choice(words.countable_words())
        if is_held_out("letters " + word) == held:
            break
    letter = rng.choice(word) if rng.chance(85) else rng.choice("abcdefghiklmnoprstuwy")
    template = typed(rng, rng.choice(LETTERS))  # before the word is in it: that stays as it is
    quoted = rng.chance(50)
    named = (
        f"'{letter}'" if quoted and "{l}'s" not in template and "{l}s" not in template else letter
    )
    text = template.format(l=named, w=f"'{word}'" if quoted else word)
    count = word.count(letter)
    times = "1 time" if count == 1 else f"{count} times"
    # The word belongs to the answer: "1" alone is right for most words.
    answer = f"{times} in '{word}'"
    reply = with_tool(
        f"'{word}'.count('{letter}')", count, f"The letter '{letter}' comes {answer}."
    )
    return Asked("letter_counting", text, reply, answer, (answer,))


REPEAT = (
    "Say {w}.", "Say the word {w}.", "Repeat {w}.", "Repeat the word {w}.", "Please repeat {w}.",
    "Repeat after me: {w}.", "Can you say {w}?", "Can you repeat the word {w}?", "Please say {w}.",
    "Write the word {w}.", "Put {w} in quotes.", "Which word do I say? {w}.", "My word is {w}.",
)  # fmt: skip


def repeat(rng: Rng, held: bool) -> Asked:
    """Copying a word into quotes: what letter counting begins with, and easier to learn alone.

    Behind a quote a word is another token than behind a space, one that hardly occurs elsewhere.
    So words whose letters are never counted in training are repeated there, and the other way.
    Most of the practice is rows of words: only copying can answer them, nothing learned by heart.
    """
    while True:
        word = any_word(rng)
        if is_held_out("repeat " + word) == held:
            break
    template = typed(rng, rng.choice(REPEAT))  # before the word is in it: that stays as it is
    if not held and rng.chance(60):
        word += "".join(
            rng.choice((" ", ", ", " and ")) + any_word(rng) for _ in range(rng.between(1, 5))
        )
    text = template.format(w=f"'{word}'" if rng.chance(40) else word)
    answer = f"'{word}'"
    return Asked("repeat", text, f"You said {answer}.", answer, (answer,))


def any_word(rng: Rng) -> str:
    """A word of this world, or one that does not exist."""
    return words.invented(rng) if rng.chance(30) else rng.choice(words.countable_words())


# What animals can do: those that can, and those that everybody knows can't.
ABILITIES = {
    "fly": (
        "bird eagle owl parrot duck goose swan bee butterfly bat crow pigeon dragonfly",
        "dog cat horse cow pig sheep fish frog penguin elephant lion mouse snake rabbit bear goat",
    ),
    "swim": (
        "fish duck frog dolphin whale shark seal penguin dog swan crocodile bear otter turtle",
        "bee butterfly owl eagle parrot ant spider",
    ),
    "talk": ("person parrot", "dog cat cow fish horse bird pig sheep frog bear lion snake"),
    "climb trees": ("cat monkey squirrel bear", "cow fish horse dog elephant whale pig sheep"),
    "lay eggs": (
        "hen duck bird snake frog fish turtle goose crocodile penguin chicken",
        "dog cat cow horse pig sheep lion elephant bear rabbit whale goat",
    ),
    "bark": ("dog puppy", "cat cow fish bird horse pig sheep frog lion mouse"),
    "read": ("person teacher", "dog cat cow fish horse bird elephant bee"),
    "live in water": ("fish whale shark dolphin frog", "dog cat horse lion hen cow goat eagle"),
}
CAN = (
    "Can a {x} {v}?", "Can {p} {v}?", "Is a {x} able to {v}?", "Tell me, can a {x} {v}?",
    "Do you know if a {x} can {v}?", "Can the {x} {v}?", "Hey, can {p} {v}?", "Could a {x} {v}?",
    "Do you think a {x} can {v}?", "I want to know if {p} can {v}.",
    "Please tell me if a {x} can {v}.",
)  # fmt: skip


def abilities(rng: Rng, held: bool) -> Asked:
    """Held out by the wording: whether a hen can fly can't be worked out."""
    while True:
        verb = rng.choice(tuple(ABILITIES))
        can = rng.chance(50)
        animal = rng.choice(ABILITIES[verb][0 if can else 1].split())
        way = rng.choice(CAN)
        if is_held_out(f"can {way} {animal} {verb}") == held:
            break
    noun = article(animal)
    text = way.format(x=animal, p=plural(animal), v=verb).replace(f"a {animal}", noun)
    reply = f"Yes, {noun} can {verb}." if can else f"No, {noun} cannot {verb}."
    word, wrong = ("yes", "no") if can else ("no", "yes")
    return Asked("abilities", typed(rng, text), reply, word, (word,), (wrong,))


SPELL = (
    "How do you spell {w}?", "How is {w} spelled?", "Spell {w}.", "Spell the word {w}.",
    "Please spell {w}.", "Can you spell {w}?", "Can you spell the word {w} for me?",
    "Tell me how to spell {w}.", "How do I spell {w}?", "Do you know how to spell {w}?",
    "How do you write the word {w}?", "What is the spelling of {w}?", "Which letters are in {w}?",
    "I want to know how {w} is spelled.", "What letters make the word {w}?",
)  # fmt: skip


def spelling(rng: Rng, held: bool) -> Asked:
    while True:
        word = rng.choice(words.SPELLED)
        text = rng.choice(SPELL).format(w=word)
        if not is_unspelled(word) and is_held_out(wording_key(text), 6) == held:
            break
    return spelled("spelling", rng, text, word)


def is_unspelled(word: str) -> bool:
    """Words kept for the kind `spelling_new`."""
    return is_held_out("never spelled " + word)


def spelled(kind: str, rng: Rng, text: str, word: str) -> Asked:
    letters = "-".join(word)
    return Asked(
        kind, typed(rng, text), f"The word {word} is spelled {letters}.", letters, (letters,)
    )


def spelling_new(rng: Rng, held: bool) -> Asked:
    """Words never spelled in training: reported, not aimed at, by so small a model."""
    word = rng.choice([w for w in words.SPELLED if is_unspelled(w)])
    return spelled("spelling_new", rng, rng.choice(SPELL).format(w=word), word)
