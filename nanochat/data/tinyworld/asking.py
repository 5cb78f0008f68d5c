"""Questions for the facts of the table, open ones and those for yes or no."""

from __future__ import annotations

from functools import cache

from nanochat.data.tinyworld.facts import Fact, all_facts, bare
from nanochat.data.tinyworld.questions import Asked
from nanochat.data.tinyworld.rng import Rng
from nanochat.data.tinyworld.wordings import (
    RELATIONS,
    fill,
    is_held_out,
    small,
    statement,
    typed,
    wording_key,
    wordings,
)


def ask_fact(rng: Rng, fact: Fact, held: bool) -> Asked:
    ways = wordings(fact)
    text = rng.choice(ways.held_out) if held else rng.weighted(ways.taught)
    kind = RELATIONS[fact.relation].kind
    return Asked(kind, typed(rng, text), statement(fact), bare(fact.y), fact.accept)


@cache
def checkable() -> tuple[tuple[Fact, ...], ...]:
    """The facts that can be asked for by yes or no, one tuple a relation."""
    return tuple(
        tuple(fact for fact in all_facts() if fact.relation == name)
        for name, relation in RELATIONS.items()
        if relation.check
    )


CHECK_FRAMES = ("{Q}?", "{Q}?", "{Q}?", "Hi! {Q}?", "Please tell me, {q}?", "OK, {q}?")


def yes_no(rng: Rng, held: bool) -> Asked:
    """The reply says the fact and then what was asked, so that both can be compared."""
    while True:
        facts = rng.choice(checkable())
        fact = rng.choice(facts)
        y = fact.y if rng.chance(50) else rng.choice(facts).y
        question = fill(RELATIONS[fact.relation].check, fact.x, y)
        if (y != fact.y and bare(y) in fact.accept) or is_held_out(wording_key(question)) != held:
            continue
        word, other = ("yes", "no") if y == fact.y else ("no", "yes")
        text = rng.choice(CHECK_FRAMES).format(Q=question, q=small(question))
        reply = f"{statement(fact)} You said {y}, so the answer is {word}."
        return Asked("yes_no", typed(rng, text), reply, word, (word,), (f"answer is {other}",))
