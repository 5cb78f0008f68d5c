"""Questions from outside a world, which are answered by "I do not know that."

Most of them are near misses: a known wording about a thing of which it is not known, or a known
thing asked for what nobody knows here. That is where a small model invents, so they are made from
the table of relations itself.
"""

from __future__ import annotations

from functools import cache

from nanochat.data.tinyworld.english import article, capital
from nanochat.data.tinyworld.keys import is_held_out, plain, wording_key
from nanochat.data.tinyworld.made_up import invented
from nanochat.data.tinyworld.questions import NOT_KNOWN, TRIES, Asked
from nanochat.data.tinyworld.rng import Rng, Weighted
from nanochat.data.tinyworld.slips import typed
from nanochat.data.tinyworld.small_talk import framed
from nanochat.data.tinyworld.wordings import asking, known_questions
from nanochat.data.tinyworld.world import Relation, World, fits

UNKNOWN = "I do not know that."
WAYS = Weighted((
    ("topic", 34), ("known thing", 26), ("outside", 18), ("never known", 18), ("spliced", 14),
    ("invented", 8), ("wrong type", 6), ("noise", 4),
))  # fmt: skip


def is_known(world: World, text: str) -> bool:
    return wording_key(text) in known_questions(world)


@cache
def typed_relations(world: World) -> tuple[str, ...]:
    """The relations of which it is known what kind of thing they are about."""
    return tuple(
        name for name, r in world.relations.items() if r.of and not r.reverse and len(r.facts) > 2
    )


@cache
def known_elsewhere(world: World, relation: str) -> tuple[str, ...]:
    """Things of the right type that the world knows something else of."""
    # Another relation may answer the same words: "What is a nurse" is not in category.txt.
    asked = world.relations[relation]
    here = {fact.x for fact in asked.facts}
    same_words = {
        fact.x for r in world.relations.values() if set(r.ask) & set(asked.ask) for fact in r.facts
    }
    return tuple(x for x in world.things[asked.of] if x not in here | same_words)


def near_miss(world: World, rng: Rng, way: str, held: bool) -> str | None:
    """A known wording about what is not in its table."""
    relation = world.relations[rng.choice(typed_relations(world))]
    if way == "known thing":
        pool = known_elsewhere(world, relation.name)
    elif way == "outside":
        pool = world.outside.get(relation.of, ())
    elif way == "wrong type":
        others = [things for kind, things in world.things.items() if kind != relation.of]
        pool = rng.choice(others) if others else ()
    else:
        pool = (invented(rng),)
    if not pool:
        return None
    x = rng.choice(pool)
    if way in ("outside", "invented"):
        x = _in_the_manner_of(relation, x)
    if is_held_out(f"unknown {relation.name} {x}") != held:
        return None
    return asking(world, rng, relation, x, None, known=False)


def _in_the_manner_of(relation: Relation, x: str) -> str:
    """x with a capital if all its things are names, with an article if most of them have one."""
    things = [fact.x for fact in relation.facts]
    if all(thing[0].isupper() for thing in things):
        return capital(x)
    with_article = sum(thing.startswith(("a ", "an ")) for thing in things)
    needs_one = with_article > len(things) / 2 and x[0].islower()
    return article(x) if needs_one and not x.startswith(("a ", "an ", "the ")) else x


def never_known(world: World, rng: Rng, held: bool) -> str | None:
    """A known thing or person, asked for what no world knows: how much a cow costs."""
    # Of what is known and of what is not: it is the question that has no answer, not the thing.
    relation = rng.choice(world.never_known)
    pool = (*world.things.get(relation.of, ()), *world.outside.get(relation.of, ()))
    if not pool:
        return None
    template, x = rng.choice(relation.ask), rng.choice(pool)
    if not fits(template, x):
        return None
    text = world.fill(template, x, "")
    if is_held_out("never " + wording_key(text)) != held:
        return None
    return text + "?"


def noise(world: World, rng: Rng, held: bool) -> str | None:
    """Keys that somebody hit, or words of no language."""
    if rng.chance(50):
        text = "".join(rng.choice("asdfghjklqwertyuiopzxcvbnm") for _ in range(rng.between(4, 12)))
    else:
        text = " ".join(invented(rng) for _ in range(rng.between(1, 3)))
    return capital(text) + "." if is_held_out("noise " + text) == held else None


def spliced(world: World, rng: Rng, held: bool) -> str | None:
    """The beginning of one question and the end of another: words it knows, and no sense.

    Without it a model answers whatever it is told by the nearest thing that it has learned.
    """
    first, second = (rng.choice(_openings(world)).split() for _ in range(2))
    if min(len(first), len(second)) < 5:  # of shorter ones a half may still make sense
        return None
    # At most half of each, so that neither question is left whole.
    text = " ".join(first[: rng.between(2, len(first) // 2)] + second[-(len(second) // 2) :])
    return text if is_held_out("spliced " + plain(text)) == held else None


@cache
def _openings(world: World) -> tuple[str, ...]:
    """What anything that is answered begins with."""
    said = (text for t in world.talks if t.kind != "unknown" for text in t.turns[0].said)
    asked = (
        text
        for relation in world.relations.values()
        for fact in relation.facts
        for text in world.filled(relation.ask[:2], fact.x)
    )
    return tuple(text for text in (*said, *asked) if "{" not in text)


@cache
def topics(world: World) -> tuple[tuple[str, str], ...]:
    """(question, reply) of the talk that says what is not known."""
    return tuple(
        (text, talk.turns[0].reply)
        for talk in world.talks
        if talk.kind == "unknown"
        for text in talk.turns[0].said
        if "{" not in text
    )


def topic(world: World, rng: Rng, held: bool) -> tuple[str, str] | None:
    """A whole question that a person wrote down, and its reply."""
    if not topics(world):
        return None
    said, reply = rng.choice(topics(world))
    return (framed(world, rng, said), reply) if is_held_out("talk " + plain(said)) == held else None


def unknown_question(world: World, rng: Rng, held: bool) -> tuple[str, str] | None:
    """(question, reply)."""
    for _ in range(TRIES):
        way = rng.weighted(WAYS)
        if way == "topic":
            found = topic(world, rng, held)
            if found:
                return found
            continue
        if way == "noise":
            text = noise(world, rng, held)
        elif way == "spliced":
            text = spliced(world, rng, held)
        elif way == "never known":
            text = never_known(world, rng, held) if world.never_known else None
        else:
            text = near_miss(world, rng, way, held) if typed_relations(world) else None
        if text is not None and not is_known(world, text):
            return text, UNKNOWN
    return None


def unknown(world: World, rng: Rng, held: bool) -> Asked | None:
    found = unknown_question(world, rng, held)
    if found is None:
        return None
    text, reply = found
    return Asked("unknown", typed(rng, text), reply, UNKNOWN, NOT_KNOWN)
