"""A world from its folder: the built-in one, one's own, or both together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from nanochat.data.tinyworld.english import bare
from nanochat.data.tinyworld.files import SLOT, Line, lines
from nanochat.data.tinyworld.keys import plain, wording_key
from nanochat.data.tinyworld.reading import head_of, read_folder
from nanochat.data.tinyworld.world import Fact, Relation, Talk, Turn, World
from nanochat.system.errors import UserError

BUILT_IN = Path(__file__).with_name("world")


@cache
def load(folder: Path | None = None) -> World:
    """The built-in world, or with a folder: that one, alone or added to the built-in world.

    Raises UserError that names file, line and remedy.
    """
    if folder is None:
        return _finished(_built_in())
    if is_added(folder):
        read = _merged(_built_in(), read_folder(folder, _built_in().lists, own=True))
    else:
        read = read_folder(folder, {}, own=True)
    world = _finished(read)
    # The built-in world has none: a test sees to that.
    found = conflicts(world)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise UserError(f"one question has two answers{more}: {found[0]}")
    return world


@cache
def _built_in() -> World:
    """Its files as they are, still to be finished: alone, or together with a world of one's own."""
    return read_folder(BUILT_IN, {}, own=False)


def is_added(folder: Path) -> bool:
    """Whether a world of one's own is learned together with the built-in one."""
    head = head_of(folder)
    with_world = head.one("with", "tinyworld")
    if with_world not in ("tinyworld", "nothing"):
        raise head.fields["with"][0].mistake(f"'with: {with_world}' must be tinyworld or nothing")
    return with_world == "tinyworld"


def _merged(built_in: World, own: World) -> World:
    """Both; where they differ, one's own counts."""
    asked = {
        key for relation in own.relations.values() for key in _keys(own, relation, relation.facts)
    }
    # Somebody may ask in a file of another name what ours answers; two answers would be learned.
    relations = {
        name: replace(
            relation,
            facts=tuple(
                fact for fact in relation.facts if not asked & _keys(built_in, relation, (fact,))
            ),
        )
        for name, relation in built_in.relations.items()
    }
    for name, relation in own.relations.items():
        ours = {fact.x for fact in relation.facts}
        before = relations[name].facts if name in relations else ()
        facts = (*(fact for fact in before if fact.x not in ours), *relation.facts)
        relations[name] = replace(relation, facts=facts)
    said = {wording_key(text) for talk in own.talks for text in talk.turns[0].said}
    return World(
        name=own.name,
        relations=relations,
        claims=_by_name(built_in.claims, own.claims),
        orders=_by_name(built_in.orders, own.orders),
        talks=(*own.talks, *(t for talk in built_in.talks for t in _without(talk, said))),
        memories=_by_name(built_in.memories, own.memories),
        never_known=_by_name(built_in.never_known, own.never_known),
        lists={**built_in.lists, **own.lists},
        outside={**built_in.outside, **own.outside},
        irregular={**built_in.irregular, **own.irregular},
        folders=(*built_in.folders, *own.folders),
    )


def _keys(world: World, relation: Relation, facts: Iterable[Fact]) -> set[str]:
    """The keys of all direct questions for some facts of a relation."""
    return {wording_key(text) for fact in facts for text in world.filled(relation.ask, fact.x)}


def _by_name(before: tuple, own: tuple) -> tuple:
    names = {part.name for part in own}
    return (*(part for part in before if part.name not in names), *own)


def _without(talk: Talk, said: set[str]) -> list[Talk]:
    """The talk without what somebody's own world replies to."""
    first = talk.turns[0]
    left = tuple(text for text in first.said if wording_key(text) not in said)
    return [replace(talk, turns=(Turn(left, first.reply), *talk.turns[1:]))] if left else []


def _finished(world: World) -> World:
    """With what follows from all of it: relations read backwards, what is not known."""
    relations = {
        name: replace(relation, facts=_backwards(world, relation)) if relation.reverse else relation
        for name, relation in world.relations.items()
    }
    # "Name a fruit" has as many right answers as the whole world has fruits.
    examples = relations.get("example")
    if examples:
        members = _members(relations)
        facts = tuple(
            replace(f, accept=tuple(dict.fromkeys((*f.accept, *members.get(bare(f.x), ())))))
            for f in examples.facts
        )
        relations["example"] = replace(examples, facts=facts)
    # What a file calls outside may be known by another file, or by somebody's own world.
    known = {
        bare(text).lower() for r in relations.values() for f in r.facts for text in (f.x, *f.accept)
    }
    outside = {
        kind: tuple(item for item in found if bare(item).lower() not in known)
        for kind, found in world.outside.items()
    }
    _check_lists(world)
    return replace(world, relations=relations, outside=outside, talks=_called(world))


def _called(world: World) -> tuple[Talk, ...]:
    """The talk with the bot's name in it. A bot called Bob no longer says that it is not Bob."""

    def named(text: str) -> str:
        return text.replace("{bot}", world.name)

    of_its_name = {
        plain(named(text)) for t in world.talks for text in t.turns[0].said if "{bot}" in text
    }
    out = []
    for talk in world.talks:
        turns = [Turn(tuple(map(named, turn.said)), named(turn.reply)) for turn in talk.turns]
        said = tuple(
            named(text)
            for text in talk.turns[0].said
            if "{bot}" in text or plain(text) not in of_its_name
        )
        if said:
            out.append(replace(talk, turns=(replace(turns[0], said=said), *turns[1:])))
    return tuple(out)


def _check_lists(world: World) -> None:
    """Raises UserError for a {list} in talk that does not exist."""
    # Only here are the lists of both worlds known.
    for talk in world.talks:
        allowed = {*world.lists, "bot", *(("last",) if talk.at == "after" else ())}
        for turn in talk.turns:
            for text in (*turn.said, turn.reply):
                if not set(SLOT.findall(text)) <= allowed or re.search("[{}]", SLOT.sub("", text)):
                    number = next((i.number for i in lines(talk.path) if text[:-1] in i.text), 1)
                    raise Line(talk.path, number, text).mistake(
                        f"{text!r}: a name in braces must be that of a file in lists/"
                    )


def _backwards(world: World, relation: Relation) -> tuple[Fact, ...]:
    """Who bakes bread: the facts of another relation, from right to left."""
    base = world.relations.get(relation.reverse)
    if base is None:
        raise UserError(
            f"facts/{relation.name}.txt: 'reverse: {relation.reverse}', and there is no "
            f"facts/{relation.reverse}.txt"
        )
    also = {fact.x: fact.accept for fact in relation.facts}
    found: dict[str, list[Fact]] = {}
    for fact in base.facts:
        found.setdefault(fact.y, []).append(fact)
    out = []
    for y, facts in found.items():
        # "Mexico City is the capital of which country" answers itself.
        if any(bare(fact.x).lower() in y.lower() for fact in facts):
            continue
        accept = (*(bare(fact.x) for fact in facts), *also.get(y, ()))
        out.append(Fact(relation.name, y, facts[0].x, accept, facts[0].own))
    return tuple(out)


def _members(relations: Mapping[str, Relation]) -> dict[str, list[str]]:
    """Category -> everything that is known to be one."""
    found: dict[str, list[str]] = {}
    for relation in relations.values():
        for fact in relation.facts:
            if relation.name == "category":
                for category in fact.accept:
                    found.setdefault(category, []).append(bare(fact.x))
            if relation.of:
                found.setdefault(relation.of, []).append(bare(fact.x))
    return found


def conflicts(world: World) -> list[str]:
    """Questions with two different answers, as lines of text."""
    answers: dict[str, tuple[str, str]] = {}
    found = []

    def add(text: str, reply: str, where: str) -> None:
        before = answers.setdefault(key(text), (reply, where))
        if before[0] != reply:
            found.append(f"{where}: {text!r} -> {reply!r}, but {before[1]} -> {before[0]!r}")

    key = wording_key
    for relation in world.relations.values():
        for fact in relation.facts:
            reply = world.fill(relation.say[0], fact.x, fact.y)
            for text in world.filled((*relation.ask, *relation.noun), fact.x):
                add(text, reply, f"facts/{relation.name}.txt")
    key = plain  # of what is said in passing a greeting may be all
    answers = {plain(text): answer for text, answer in answers.items()}
    for talk in world.talks:
        if talk.at != "after":
            for text in talk.turns[0].said:
                add(text, talk.turns[0].reply, f"talk/{talk.name}.txt")
    return found
