"""A world as a value: its facts, talk and lists, and as much grammar as its own names need.

loading.py makes one from text files; docs/world.md says what the files look like.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nanochat.data.tinyworld import english
from nanochat.data.tinyworld.english import bare, capital

OWN_WORLD = "own_world"  # the kind of what is held out of a world of one's own


@dataclass(frozen=True, eq=False)
class Fact:
    """The answer to every wording of one question.

    accept: what counts as right, without articles; the first is what is taught. own: from a world
    of one's own.
    """

    relation: str
    x: str
    y: str
    accept: tuple[str, ...]
    own: bool = False


@dataclass(frozen=True, eq=False)
class Relation:
    """How people ask for the facts of one file, and how they are stated; see docs/world.md.

    of: what its things are ("animal"). reverse: the relation that it is read backwards from.
    """

    name: str
    kind: str
    of: str
    say: tuple[str, ...]
    ask: tuple[str, ...]
    clause: tuple[str, ...]
    noun: tuple[str, ...]
    it: tuple[str, ...]
    check: tuple[str, ...]
    new: tuple[str, ...]
    follow: bool
    reverse: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True, eq=False)
class Claims:
    """What is true and what is not: (thing, what is said of it) pairs."""

    name: str
    kind: str
    ask: tuple[str, ...]
    yes: str
    no: str
    true: tuple[tuple[str, str], ...]
    false: tuple[tuple[str, str], ...]


@dataclass(frozen=True, eq=False)
class Order:
    """Things in an order, the least first: (thing, rank) pairs, and the words that compare them."""

    name: str
    kind: str
    more: tuple[str, ...]
    less: tuple[str, ...]
    most: str
    least: str
    ranks: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Turn:
    """Wordings of one thing that people say, and the reply to all of them."""

    said: tuple[str, ...]
    reply: str


@dataclass(frozen=True, eq=False)
class Talk:
    """A dialogue of one or more turns. at: "", "start", "end" or "after" (an answer)."""

    name: str
    path: Path
    kind: str
    at: str
    framed: bool
    turns: tuple[Turn, ...]
    own: bool = False


@dataclass(frozen=True, eq=False)
class Memory:
    """What a person says of himself and asks for later."""

    name: str
    kind: str
    say: tuple[str, ...]
    reply: str
    ask: tuple[str, ...]
    answer: str
    change: tuple[str, ...]
    confirm: tuple[str, ...]
    yes: str
    no: str
    values: tuple[tuple[str, tuple[str, ...]], ...]  # (what it is of, or "", the values)
    invented: int  # percent of made-up values
    often: bool  # people try it first
    capital: bool


@dataclass(frozen=True, eq=False)
class World:
    """Everything that can be said and asked. Compared by identity, so that caches can key on it."""

    name: str
    relations: Mapping[str, Relation]
    claims: tuple[Claims, ...]
    orders: tuple[Order, ...]
    talks: tuple[Talk, ...]
    memories: tuple[Memory, ...]
    never_known: tuple[Relation, ...]  # without facts: whoever asks is told that it is not known
    lists: Mapping[str, tuple[str, ...]]
    outside: Mapping[str, tuple[str, ...]]  # type -> things of that type which it knows nothing of
    irregular: Mapping[str, str]  # plurals
    folders: tuple[Path, ...]  # what it was read from, the built-in world first

    @cached_property
    def facts(self) -> tuple[Fact, ...]:
        return tuple(fact for relation in self.relations.values() for fact in relation.facts)

    @cached_property
    def things(self) -> Mapping[str, tuple[str, ...]]:
        """Type -> what the world knows something of, in the order of the files."""
        found: dict[str, dict[str, None]] = {}
        for relation in self.relations.values():
            if relation.of:
                found.setdefault(relation.of, {}).update(dict.fromkeys(f.x for f in relation.facts))
        return {kind: tuple(things) for kind, things in found.items()}

    @cached_property
    def countable_words(self) -> tuple[str, ...]:
        """Every word whose letters may be asked for."""
        of_facts = {bare(text) for fact in self.facts for text in (fact.x, fact.y)}
        words = {*of_facts, *self.lists.get("spelled", ()), *self.lists.get("counted", ())}
        return tuple(sorted(w for w in words if w.isalpha() and w.islower() and 2 < len(w) < 15))

    def plural(self, noun: str) -> str:
        return english.plural(noun, self.irregular, self.lists.get("mass", ()))

    def fill(self, template: str, x: str, y: str) -> str:
        """The template with a thing and its answer in it."""
        n, m = bare(x), bare(y)
        p = self.plural(n)
        # "days in a week" is counted, and asked for, in two parts.
        u, *rest = re.split(r" (?=(?:in|on) )", x, maxsplit=1)
        v = rest[0] if rest else " "
        return template.format(
            x=x, X=capital(x), n=n, p=p, P=capital(p), y=y, Y=capital(y), m=m, u=u, v=v,
            V=capital(v), N=capital(n), bot=self.name,
        )  # fmt: skip

    def filled(self, templates: Iterable[str], x: str, y: str = "") -> Iterator[str]:
        """The templates that fit a thing, with it in them."""
        return (self.fill(template, x, y) for template in templates if fits(template, x))

    @cached_property
    def _names(self) -> re.Pattern[str]:
        """The words that keep their capital within a sentence."""
        # "A" is an article more often than the letter.
        names = {bare(text) for fact in self.facts for text in (fact.x, fact.y)} - {"A"}
        names = {name for name in names if name[0].isupper()}
        names |= {"I", self.name.capitalize(), "A is"}
        return re.compile(rf"(?:{'|'.join(map(re.escape, sorted(names)))})\b")

    def small(self, text: str, name: str = "") -> str:
        """The text with a small first letter, unless it begins with a name."""
        if self._names.match(text) or (name and text.startswith(name)):
            return text
        return text[:1].lower() + text[1:]


def fits(template: str, x: str) -> bool:
    """Only what has an article has a plural: not "what color are snow"."""
    return x.startswith(("a ", "an ")) or ("{p}" not in template and "{P}" not in template)
