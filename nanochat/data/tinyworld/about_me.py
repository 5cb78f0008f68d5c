"""What a person says of himself, and asks for later: his name, age, pet, town, job, favorites.

To remember is to copy from what was said, so most of what is said occurs nowhere else: a model that
had learned names by heart would fail on the next one.
"""

from __future__ import annotations

from typing import NamedTuple

from nanochat.data.tinyworld import words
from nanochat.data.tinyworld.facts import listed
from nanochat.data.tinyworld.rng import Rng
from nanochat.data.tinyworld.wordings import article, capital, is_held_out, typed

# {v} is what is to be remembered, {a} what it is of: my {dog}, my favorite {color}.
SAY = {
    "name": (
        "My name is {v}.", "I am {v}.", "I'm {v}.", "Hi, I am {v}.", "Hello, my name is {v}.",
        "Call me {v}.", "Hi! I'm {v}.", "I am called {v}.", "Hello! I am {v}.", "The name is {v}.",
        "My name's {v}.", "Hi, my name is {v}.", "Hey, I'm {v}.", "You can call me {v}.",
        "Hello dear, my name is {v}.", "My name is {v}, nice to meet you.", "I'm {v}, and you?",
    ),
    "age": (
        "I am {v} years old.", "I'm {v} years old.", "My age is {v}.", "I am {v}.",
        "I just turned {v}.", "I am now {v} years old.", "Hi, I am {v} years old.",
    ),
    "pet": (
        "I have {n} called {v}.", "My {a} is called {v}.", "My {a}'s name is {v}.",
        "I have {n}. Its name is {v}.", "We have {n} named {v}.", "The name of my {a} is {v}.",
        "I have {n} and it is called {v}.", "My {a} {v} is very nice.",
    ),
    "favorite": (
        "My favorite {a} is {v}.", "{V} is my favorite {a}.", "My favourite {a} is {v}.",
        "I like {v} best, it is my favorite {a}.", "The {a} that I like most is {v}.",
    ),
    "town": (
        "I live in {v}.", "I'm from {v}.", "I come from {v}.", "My home is in {v}.",
        "I live in a house in {v}.", "We live in {v}.",
    ),
    "job": (
        "I am {m}.", "I work as {m}.", "I'm {m}.", "My job is {v}.", "I am {m} at work.",
    ),
}  # fmt: skip
REPLY = {
    "name": "Nice to meet you, {v}.", "age": "So you are {v} years old.",
    "pet": "{V} is a nice name.", "favorite": "{V} is a good choice.",
    "town": "So you live in {v}.", "job": "So you are {m}.",
}  # fmt: skip
ASK = {
    "name": (
        "What is my name?", "Who am I?", "Do you know my name?", "Do you remember my name?",
        "What am I called?", "Say my name.", "Can you tell me my name?", "Tell me my name.",
        "What did I say my name was?", "Do you still know my name?", "And what is my name?",
    ),
    "age": (
        "How old am I?", "What is my age?", "Do you remember how old I am?",
        "How old did I say I am?", "Do you know my age?", "Tell me how old I am.",
        "And how old am I?",
    ),
    "pet": (
        "What is my {a} called?", "What is the name of my {a}?", "What is my {a}'s name?",
        "Do you remember the name of my {a}?", "How is my {a} called?", "Who is my {a}?",
        "Do you know my {a}'s name?", "And what is my {a} called?",
    ),
    "favorite": (
        "What is my favorite {a}?", "Which {a} do I like best?", "Do you know my favorite {a}?",
        "What is my favourite {a}?", "Do you remember my favorite {a}?", "Tell me my favorite {a}.",
        "What {a} do I like?",
    ),
    "town": (
        "Where do I live?", "Where am I from?", "Which city do I live in?",
        "Do you remember where I live?", "Where did I say I live?", "Tell me where I live.",
    ),
    "job": (
        "What is my job?", "What do I do?", "What do I work as?", "Do you remember my job?",
        "What is my work?", "Tell me what my job is.",
    ),
}  # fmt: skip
ANSWER = {
    "name": "Your name is {v}.", "age": "You are {v} years old.", "pet": "Your {a} is called {v}.",
    "favorite": "Your favorite {a} is {v}.", "town": "You live in {v}.", "job": "You are {m}.",
}  # fmt: skip
CORRECTIONS = (
    "Actually my name is {v}.", "No, my name is {v}.", "Sorry, my name is {v}.",
    "I mean, my name is {v}.", "Actually, call me {v}.",
)  # fmt: skip
NOT_TOLD = "I do not know that. You did not tell me."

PETS = listed("dog cat bird fish rabbit horse hamster pony parrot turtle puppy kitten")
COLORS = listed("red blue green yellow black white pink purple orange brown grey")
FAVORITES = {
    "color": COLORS, "colour": COLORS,
    "food": listed("pizza soup bread rice cake cheese pasta salad ice honey chocolate"),
    "animal": listed("dog cat horse lion tiger elephant monkey bear rabbit owl whale fox"),
    "number": listed("3 4 5 7 8 9 11 12 13 17 21 42 77 99"),
    "sport": listed("football tennis swimming hockey running chess"),
    "fruit": listed("apple banana cherry grape pear melon mango"),
    "song": (), "book": (), "game": (), "movie": (),
}  # fmt: skip
JOBS = listed(
    """
    teacher nurse baker farmer doctor painter singer writer sailor pilot cook driver student
    gardener carpenter engineer plumber lawyer dentist waiter tailor barber
    """
)


class Told(NamedTuple):
    """Something said of oneself, with what asks for it."""

    text: str
    reply: str
    ask: str
    answer: str  # what the reply to `ask` is
    value: str


def about_me(rng: Rng, held: bool, kind: str = "") -> Told:
    """Held out by what is to be remembered."""
    kind = kind or rng.choice(("name", "name", "name", "age", "pet", "pet", "favorite", "favorite",
                               "town", "job"))  # fmt: skip
    while True:
        of, value = _drawn(rng, kind)
        if is_held_out(f"me {kind} {value}") == held:
            break
    form = {
        "v": value, "V": capital(value), "a": of, "n": article(of or "it"), "m": article(value),
    }  # fmt: skip
    return Told(
        typed(rng, rng.choice(SAY[kind]).format(**form)),
        REPLY[kind].format(**form),
        typed(rng, rng.choice(ASK[kind]).format(**form)),
        ANSWER[kind].format(**form),
        value,
    )


def correction(rng: Rng) -> Told:
    """Another name than the one just said."""
    told = about_me(rng, False, "name")
    text = typed(rng, rng.choice(CORRECTIONS).format(v=told.value))
    return told._replace(text=text)


def not_told(rng: Rng) -> tuple[str, str]:
    """(what was never said, and is asked for all the same; the reply)."""
    return about_me(rng, False).ask, NOT_TOLD


def _drawn(rng: Rng, kind: str) -> tuple[str, str]:
    """(what it is of, what is to be remembered)."""
    made_up = rng.chance(30)
    word = words.invented(rng)
    if kind == "age":
        return "", str(rng.between(4, 99))
    if kind == "job":
        return "", word if rng.chance(10) else rng.choice(JOBS)
    if kind == "favorite":
        of = rng.choice(tuple(FAVORITES))
        known = FAVORITES[of]
        return of, word if made_up or not known else rng.choice(known)
    if kind == "town":
        return "", capital(word) if made_up else rng.choice(words.CITIES.replace("|", "").split())
    people = (*words.GIRLS, *words.BOYS, *words.OTHER_NAMES)
    name = capital(word) if made_up else rng.choice(people)
    if kind == "pet":
        name = name if rng.chance(50) else rng.choice(words.PETS)
        return rng.choice(PETS), name
    return "", name
