"""Questions for the facts of the table, open ones and those for yes or no."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from nanochat.data.tinyworld.facts import Fact, all_facts, bare
from nanochat.data.tinyworld.questions import Asked, Part, with_tool
from nanochat.data.tinyworld.rng import Rng
from nanochat.data.tinyworld.wordings import (
    RELATIONS,
    article,
    fill,
    fits,
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


@cache
def wrong_answers(fact: Fact) -> tuple[str, ...]:
    """What other things of its relation are, and it is not."""
    others = {f.y: bare(f.y) for f in all_facts() if f.relation == fact.relation}
    # Nor a part of the right word ("man" of "woman"): the calculator counts within words.
    return tuple(
        y for y, word in others.items() if word not in fact.accept and word not in bare(fact.y)
    )


@cache
def right_answers(fact: Fact) -> tuple[str, ...]:
    """What may be said of it, its own answer most often."""
    if fact.relation not in ("category", "legs", "opposite", "colour", "capital"):
        return (fact.y,)  # in other sentences another word would need other grammar
    others = [word for word in fact.accept if word != bare(fact.y) and len(word.split()) == 1]
    if fact.y.startswith(("a ", "an ")):
        others = [article(word) for word in others]
    return (fact.y, fact.y, *others) if others else (fact.y,)


CHECK_FRAMES = ("{Q}?", "{Q}?", "{Q}?", "Hi! {Q}?", "Please tell me, {q}?", "OK, {q}?")


def yes_no(rng: Rng, held: bool) -> Asked:
    """The reply says the fact, and the calculator compares it with what was asked.

    Left to compare two words by itself, so small a model says the same to every question.
    """
    while True:
        fact = rng.choice(rng.choice(checkable()))
        is_so = rng.chance(50)
        # Any accepted answer may be asked for, and is then what the reply says: "A dog is a
        # mammal", not "an animal", which would make the comparison say no.
        said = rng.choice(right_answers(fact)) if is_so else fact.y
        y = said if is_so else rng.choice(wrong_answers(fact))
        relation = RELATIONS[fact.relation]
        claim = small(fill(relation.say[0], fact.x, y)).rstrip(".")
        checks = [fill(check, fact.x, y) for check in relation.check if fits(check, fact.x)]
        question = rng.choice([*checks, f"Is it true that {claim}"])
        if is_held_out(wording_key(question)) == held:
            break
    word, wrong = ("yes", "no") if is_so else ("no", "yes")
    text = rng.choice(CHECK_FRAMES).format(Q=question, q=small(question))
    comparison = f"'{bare(said)}'.count('{bare(y)}')"
    called = with_tool(comparison, int(is_so), f" So the answer is {word}.")
    stated = statement(replace(fact, y=said))
    reply: list[Part] = [{"type": "text", "text": stated}, *called]
    return Asked("yes_no", typed(rng, text), reply, word, (word,), (f"answer is {wrong}",))
