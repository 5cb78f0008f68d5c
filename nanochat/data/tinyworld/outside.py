"""Questions from outside the small world, which are answered by "I do not know that."

About half of them are near misses: a known wording about a thing that the table does not have, so
that the model learns to look at the thing.
"""

from __future__ import annotations

from functools import cache

from nanochat.data.tinyworld import words
from nanochat.data.tinyworld.facts import all_facts, bare, listed
from nanochat.data.tinyworld.questions import NOT_KNOWN, Asked
from nanochat.data.tinyworld.rng import Rng, Weighted
from nanochat.data.tinyworld.wordings import (
    ASK_FRAMES,
    CLAUSE_FRAMES,
    NOUN_FRAMES,
    RELATIONS,
    article,
    capital,
    fill,
    fits,
    is_held_out,
    small,
    typed,
)

UNKNOWN = "I do not know that."
OUTSIDE = "I do not know that. I only know simple things."


@cache
def outside_lists() -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    out = {
        "country": words.halves(words.COUNTRIES),
        "city": words.halves(words.CITIES),
        "word": words.halves(words.ODD_WORDS),
        "animal": words.halves(words.ODD_ANIMALS),
        "thing": words.halves(words.ODD_THINGS),
        "person": words.halves(words.PERSONS, ";"),
        "topic": words.halves(words.TOPICS, ";"),
    }
    return out


GROUPS = Weighted((("country", 5), ("city", 1), ("word", 3), ("animal", 3), ("thing", 4)))
WAYS = Weighted((
    ("near", 46), ("topic", 30), ("person", 10), ("mismatch", 8), ("country", 6), ("noise", 4),
))  # fmt: skip
WEIGHTED_ASK = Weighted(ASK_FRAMES)
WEIGHTED_CLAUSE = Weighted(CLAUSE_FRAMES)
WEIGHTED_NOUN = Weighted(NOUN_FRAMES)
NEAR: dict[str, tuple[str, ...]] = {
    "country": ("capital", "capital", "continent", "language"),
    "city": ("capital_of",),
    "word": ("opposite",),
    "animal": ("sound", "baby", "home", "legs", "food", "category"),
    "thing": ("colour", "material", "use", "category", "category"),
}


@cache
def known_pairs() -> frozenset[tuple[str, str]]:
    return frozenset((fact.relation, fact.x) for fact in all_facts())


def near_miss(rng: Rng, held: bool) -> str:
    """A question that is like a known one, about something that is not in the table."""
    group = rng.weighted(GROUPS)
    relation = rng.choice(NEAR[group])
    if rng.chance(25):
        x = words.invented(rng)
        while is_held_out("unknown " + x) != held:
            x = words.invented(rng)
        x = capital(x) if group in ("country", "city") else x
    else:
        x = rng.choice(outside_lists()[group][held])
    if group in ("animal", "thing"):
        x = article(x)
    return outside_wording(rng, relation, x)


def outside_thing(rng: Rng, relation: str) -> str | None:
    """Something to ask this relation of that the table does not have."""
    groups = [group for group, relations in NEAR.items() if relation in relations]
    if not groups:
        return None
    group = rng.choice(groups)
    x = rng.choice(outside_lists()[group][0])
    return article(x) if group in ("animal", "thing") else x


def outside_wording(rng: Rng, relation: str, x: str) -> str:
    """A wording of the relation that asks for x."""
    ways = RELATIONS[relation]

    def filled(templates: tuple[str, ...]) -> str:
        return fill(rng.choice([t for t in templates if fits(t, x)]), x, "")

    roll = rng.below(10 if ways.noun else 7)
    if roll < 5:
        question = filled(ways.ask)
        return rng.weighted(WEIGHTED_ASK).format(Q=question, q=small(question, capital(x)))
    if roll < 8:
        return rng.weighted(WEIGHTED_CLAUSE).format(c=filled(ways.clause))
    noun = filled(ways.noun or ways.clause)
    return rng.weighted(WEIGHTED_NOUN).format(N=capital(noun), n=noun)


def mismatch(rng: Rng, held: bool) -> str:
    """A known thing, asked for what the table does not say of it."""
    relations = ("capital", "language", "opposite", "sound", "baby", "food", "job", "sides")
    while True:
        relation, fact = rng.choice(relations), rng.choice(all_facts())
        x = fact.x
        if fact.relation in ("body", "place", "job_of", "how_many", "record", "sound_of"):
            continue
        if fact.relation == "legs" or (relation, x) in known_pairs():
            continue
        if relation == "opposite":
            x = bare(x)
        if (relation, x) in known_pairs() or (relation in ("baby",) and x[0].isupper()):
            continue
        if is_held_out(f"mismatch {relation} {x}") == held:
            return outside_wording(rng, relation, x)


QUESTION_WORDS = listed("how what who where when which why is will do should can")
TOPIC_FRAMES = Weighted((
    ("{Q}", 12), ("Please, {q}", 1), ("Hi! {Q}", 1), ("Hello, {q}", 1), ("OK, {q}", 1),
    ("I have a question. {Q}", 1), ("Nanochat, {q}", 1),
))  # fmt: skip
PERSON_WAYS = (
    "Who is {x}?", "Who was {x}?", "Do you know {x}?", "Tell me about {x}.", "How old is {x}?",
    "Where does {x} live?", "When was {x} born?", "What did {x} do?", "What do you know about {x}?",
    "Can you tell me who {x} is?", "Where is {x}?", "What does {x} do?", "How tall is {x}?",
)  # fmt: skip


COUNTRY_WAYS = (
    "Who is the president of {x}?", "Who is the king of {x}?", "How many people live in {x}?",
    "How big is {x}?", "What is the flag of {x}?", "What money do people use in {x}?",
    "How far is {x}?", "How old is {x}?", "What is {x} famous for?", "What is on TV in {x}?",
    "How is the weather in {x}?", "What do people eat in {x}?", "Who rules {x}?",
)  # fmt: skip


def about_a_country(rng: Rng, held: bool) -> str:
    """A known country, and a question that has nothing to do with the table."""
    while True:
        fact, way = rng.choice(all_facts()), rng.choice(COUNTRY_WAYS)
        if fact.relation == "capital" and is_held_out(f"country {way} {fact.x}") == held:
            return way.format(x=fact.x)


def noise(rng: Rng, held: bool) -> str:
    """Keys that somebody hit, or words of no language."""
    while True:
        if rng.chance(50):
            text = "".join(
                rng.choice("asdfghjklqwertyuiopzxcvbnm") for _ in range(rng.between(4, 12))
            )
        else:
            text = " ".join(words.invented(rng) for _ in range(rng.between(1, 3)))
        if is_held_out("noise " + text) == held:
            return capital(text) + "."


def outside_question(rng: Rng, held: bool) -> tuple[str, str]:
    """(question, reply): the reply is one for all, with a second sentence for whole topics."""
    way = rng.weighted(WAYS)
    if way == "topic":
        topic = rng.choice(outside_lists()["topic"][held])
        asks = topic.split()[0] in QUESTION_WORDS
        text = capital(topic) + ("?" if asks else ".")
        text = rng.weighted(TOPIC_FRAMES).format(Q=text, q=small(text))
        return text, OUTSIDE
    if way == "person":
        text = rng.choice(PERSON_WAYS).format(x=rng.choice(outside_lists()["person"][held]))
    elif way == "near":
        text = near_miss(rng, held)
    elif way == "noise":
        text = noise(rng, held)
    elif way == "country":
        text = about_a_country(rng, held)
    else:
        text = mismatch(rng, held)
    return text, UNKNOWN


def unknown(rng: Rng, held: bool) -> Asked:
    text, reply = outside_question(rng, held)
    return Asked("unknown", typed(rng, text), reply, UNKNOWN, NOT_KNOWN)
