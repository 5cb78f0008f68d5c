"""What a person says of himself, and asks for later: his name, age, pet, town, job, favorites.

To remember is to copy from what was said, so most of what is said occurs nowhere else: a model that
had learned names by heart would fail on the next one.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from nanochat.data.tinyworld.english import article, capital
from nanochat.data.tinyworld.keys import is_held_out
from nanochat.data.tinyworld.made_up import invented
from nanochat.data.tinyworld.questions import Part, with_tool
from nanochat.data.tinyworld.rng import Rng
from nanochat.data.tinyworld.slips import typed
from nanochat.data.tinyworld.small_talk import marked
from nanochat.data.tinyworld.world import Memory, World

NOT_TOLD = "I do not know that. You did not tell me."


class Told(NamedTuple):
    """Something said of oneself, with what asks for it."""

    memory: Memory
    of: str
    value: str
    text: str
    reply: str

    @property
    def answer(self) -> str:
        return self.memory.answer.format(**forms(self.of, self.value))


def forms(of: str, value: str) -> dict[str, str]:
    return {
        "v": value, "V": capital(value), "m": article(value), "a": of, "n": article(of or "it"),
    }  # fmt: skip


def about_me(world: World, rng: Rng, held: bool, name: str = "", like: str = "") -> Told:
    """Held out by what is to be remembered. name: which of the memories; like: of what."""
    while True:
        memory = rng.choice(_pool(world, name, rng.chance(60)))
        of, values = rng.choice([row for row in memory.values if not like or row[0] == like])
        made_up = not values or rng.chance(memory.invented)
        value = invented(rng) if made_up else rng.choice(values)
        value = capital(value) if memory.capital else value
        if is_held_out(f"me {memory.name} {value}") == held:
            break
    return said(rng, memory, of, value, memory.say)


@cache
def _pool(world: World, name: str, often: bool) -> tuple[Memory, ...]:
    """The memories of that name, or all: those that people try first, more often."""
    named = tuple(m for m in world.memories if name in ("", m.name))
    return tuple(m for m in named if m.often) if often and any(m.often for m in named) else named


def said(rng: Rng, memory: Memory, of: str, value: str, ways: tuple[str, ...]) -> Told:
    form = forms(of, value)
    text = marked(rng, rng.choice(ways).format(**form))
    return Told(memory, of, value, whole(rng, text, value), memory.reply.format(**form))


def whole(rng: Rng, text: str, value: str) -> str:
    """As typed, but with no slip in what is to be copied: nobody could know the word from it."""
    while True:
        found = typed(rng, text)
        if value.lower() in found.lower():
            return found


def changed(world: World, rng: Rng, told: Told) -> Told:
    """Another value of the same, said by somebody who changed his mind."""
    other = about_me(world, rng, False, told.memory.name, told.of)
    return said(rng, told.memory, told.of, other.value, told.memory.change)


def asked_for(rng: Rng, told: Told) -> str:
    """A question for what was said."""
    text = rng.choice(told.memory.ask).format(**forms(told.of, told.value))
    return typed(rng, marked(rng, text))


def confirmed(world: World, rng: Rng, told: Told) -> tuple[str, list[Part]]:
    """(yes or no to what was said or to something else, the reply)."""
    other = about_me(world, rng, False, told.memory.name, told.of).value
    value = told.value if rng.chance(50) else other
    asks = rng.choice(told.memory.confirm).format(**forms(told.of, value))
    text = whole(rng, marked(rng, asks), value)
    is_so = value == told.value
    reply = (told.memory.yes if is_so else told.memory.no).format(**forms(told.of, told.value))
    return text, with_tool(f"' {told.value}'==' {value}'", is_so, reply)


def not_told(world: World, rng: Rng) -> tuple[str, str]:
    """(what was never said, and is asked for all the same; the reply)."""
    return asked_for(rng, about_me(world, rng, False)), NOT_TOLD
