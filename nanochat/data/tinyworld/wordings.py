"""How people ask for the facts of a relation: its own wordings, and what they put around them.

A wording is held out by itself (keys.wording_key), whatever stands around it: its words are then
never asked in training.
"""

from __future__ import annotations

import re
from functools import cache

from nanochat.data.tinyworld.english import capital
from nanochat.data.tinyworld.keys import is_held_out, wording_key
from nanochat.data.tinyworld.rng import Rng, Weighted
from nanochat.data.tinyworld.world import Fact, Relation, World, fits

# Around a direct question ({q}: small first letter, {Q}: capital), a clause or a noun phrase.
ASK_FRAMES = Weighted((
    ("{Q}?", 30), ("Please tell me, {q}?", 2), ("{Q}, please?", 2), ("Hi! {Q}?", 2),
    ("Hello, {q}?", 2), ("Hey, {q}?", 1), ("Hi nanochat, {q}?", 1), ("I have a question. {Q}?", 2),
    ("{Q}? I forgot.", 1), ("{Q}? Do you know?", 2), ("{Q}? Please tell me.", 1),
    ("Can you help me? {Q}?", 2), ("Quick question: {q}?", 1), ("So {q}?", 1), ("OK, {q}?", 2),
    ("Good morning! {Q}?", 1), ("And {q}?", 1), ("Thanks. {Q}?", 1), ("Now tell me, {q}?", 1),
    ("My friend asks: {q}?", 1), ("I was wondering, {q}?", 1), ("Do you happen to know, {q}?", 1),
    ("Um, {q}?", 1), ("Dear nanochat, {q}?", 1), ("{Q}? Thanks.", 1),
))  # fmt: skip
CLAUSE_FRAMES = Weighted((
    ("Tell me {c}.", 6), ("Please tell me {c}.", 3), ("Can you tell me {c}?", 5),
    ("Could you tell me {c}, please?", 2), ("Could you please tell me {c}?", 2),
    ("Do you know {c}?", 6), ("I want to know {c}.", 4), ("I would like to know {c}.", 2),
    ("I wonder {c}.", 1), ("I need to know {c}.", 2), ("I forgot {c}.", 1),
    ("Do you remember {c}?", 1), ("Can you say {c}?", 1), ("Would you tell me {c}?", 1),
    ("Let me know {c}.", 1), ("Hi, can you tell me {c}?", 2), ("Hello! Do you know {c}?", 1),
    ("Hi! Tell me {c}.", 1), ("Can you please tell me {c}?", 1),
    ("Would you kindly tell me {c}?", 1),
))  # fmt: skip
NOUN_FRAMES = Weighted((
    ("{N}?", 6), ("{N}, please.", 2), ("Tell me {n}.", 3), ("Name {n}.", 2), ("Say {n}.", 1),
    ("Give me {n}.", 1), ("Do you know {n}?", 2), ("I need {n}.", 1), ("And {n}?", 1),
    ("{N}", 3), ("I want to know {n}.", 1), ("I need {n} please.", 1),
))  # fmt: skip
NEW_FRAMES = (
    "Any idea {c}?", "Remind me {c}.", "My teacher wants to know {c}.",
    "I am trying to find out {c}.", "Are you able to tell me {c}?",
)  # fmt: skip
# The clauses that fit after "asked" or "I wonder": not "the capital of France".
INDIRECT = re.compile(r"(?:[a-z]+ )?(?:what|which|where|who|how|when|why|if|whether)\b")
WORDING_TRIES = 60  # draws until a wording is of the right half; a thing may have none


def is_indirect(clause: str) -> bool:
    """Whether somebody else can be said to ask it: not "the capital of France", "where I can"."""
    return INDIRECT.match(clause) is not None and " I " not in clause


@cache
def known_questions(world: World) -> frozenset[str]:
    """The keys of every question that has an answer: not knowing it would be false."""
    return frozenset(
        wording_key(text)
        for relation in world.relations.values()
        for fact in relation.facts
        for text in world.filled((*relation.ask, *relation.noun, *relation.clause), fact.x)
    )


def asking(
    world: World, rng: Rng, relation: Relation, x: str, held: bool | None, known: bool = True
) -> str | None:
    """A question of the relation for x, in a frame; of the held-out wordings, or of the others.

    None: x has no such wording. held None: any. known False: only what has no answer.
    """
    for _ in range(WORDING_TRIES):
        roll = rng.below(100)
        if relation.noun and roll < 20:
            form, frames = rng.choice(relation.noun), NOUN_FRAMES
        elif relation.clause and roll < 50:
            form, frames = rng.choice(relation.clause), CLAUSE_FRAMES
        else:
            form, frames = rng.choice(relation.ask), ASK_FRAMES
        if not fits(form, x):
            continue
        words = world.fill(form, x, "")
        key = wording_key(words)
        if held is not None and is_held_out(key) != held:
            continue
        if not known and key in known_questions(world):
            continue
        frame = rng.weighted(frames)
        if "wonder " in frame and not is_indirect(words):
            continue
        text = capital(words) if frame.startswith(("{Q}", "{N}")) else words
        asked = world.small(text, x if x[:1].isupper() else "")
        filled = frame.format(Q=capital(text), q=asked, c=words, N=capital(text), n=words)
        return filled.replace("nanochat", world.name)
    return None


def new_wording(world: World, rng: Rng, fact: Fact) -> str | None:
    """A wording that no training text has."""
    relation = world.relations[fact.relation]
    texts = [text + "?" for text in world.filled(relation.new, fact.x)]
    texts += [frame.format(c=c) for frame in NEW_FRAMES for c in clauses(world, fact)]
    return rng.choice(texts) if texts else None


@cache
def clauses(world: World, fact: Fact) -> tuple[str, ...]:
    """What stands after "asked": "where a bee lives"."""
    found = world.relations[fact.relation].clause
    return tuple(world.filled(filter(is_indirect, found), fact.x))


@cache
def bare_questions(world: World, fact: Fact) -> tuple[str, ...]:
    """The direct questions that are taught, with nothing around them."""
    asks = world.filled(world.relations[fact.relation].ask, fact.x)
    return tuple(q + "?" for q in asks if not is_held_out(wording_key(q)))


@cache
def sayings(world: World, fact: Fact) -> tuple[str, ...]:
    """All ways to state the fact, the answer first."""
    say = world.relations[fact.relation].say
    if fact.relation == "category" and (fact.x[0].isupper() or fact.x.startswith("the ")):
        say = say[:1]  # not "Monday is a kind of day"
    return tuple(world.filled(say, fact.x, fact.y))


def statement(world: World, fact: Fact) -> str:
    """The answer to every wording of the fact."""
    return sayings(world, fact)[0]
