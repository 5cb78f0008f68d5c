"""Questions for what a world knows: facts, yes or no, claims, comparisons."""

from __future__ import annotations

from functools import cache

from nanochat.data.tinyworld.english import article, bare, capital
from nanochat.data.tinyworld.keys import is_held_out, wording_key
from nanochat.data.tinyworld.questions import TRIES, Asked, with_tool
from nanochat.data.tinyworld.rng import Rng
from nanochat.data.tinyworld.slips import typed
from nanochat.data.tinyworld.wordings import asking, statement
from nanochat.data.tinyworld.world import Fact, World, fits


def ask_fact(world: World, rng: Rng, fact: Fact, held: bool) -> Asked | None:
    """None: the fact has no wording of that half."""
    relation = world.relations[fact.relation]
    text = asking(world, rng, relation, fact.x, held)
    if text is None:
        return None
    return Asked(relation.kind, typed(rng, text), statement(world, fact), bare(fact.y), fact.accept)


# ---- yes or no

CHECK_FRAMES = (
    "{Q}?", "{Q}?", "{Q}?", "{Q}?", "Hi! {Q}?", "Please tell me, {q}?", "OK, {q}?", "Hey, {q}?",
    "So {q}?", "Tell me, {q}?", "{Q}? Yes or no?", "Yes or no: {q}?", "{Q} y/n", "{Q} yes or no",
)  # fmt: skip


@cache
def checkable(world: World) -> tuple[tuple[Fact, ...], ...]:
    """The facts that can be asked for by yes or no, one tuple a relation."""
    return tuple(r.facts for r in world.relations.values() if r.check and len(r.facts) > 2)


@cache
def wrong_answers(world: World, fact: Fact) -> tuple[str, ...]:
    """What other things of its relation are, and it is not."""
    others = {f.y: bare(f.y) for f in world.relations[fact.relation].facts}
    # Nor a part of the right word ("man" of "woman"), which is a right answer in another form.
    return tuple(
        y for y, word in others.items() if word not in fact.accept and word not in bare(fact.y)
    )


@cache
def right_answers(world: World, fact: Fact) -> tuple[str, ...]:
    """What may be said of it, its own answer most often."""
    if fact.relation not in ("category", "legs", "opposite", "color", "capital"):
        return (fact.y,)  # in other sentences another word would need other grammar
    others = [word for word in fact.accept if word != bare(fact.y) and len(word.split()) == 1]
    if fact.y.startswith(("a ", "an ")):
        others = [article(word) for word in others]
    return (fact.y, fact.y, *others) if others else (fact.y,)


def yes_no(world: World, rng: Rng, held: bool) -> Asked | None:
    """The calculator compares what is so with what was asked, then comes the sentence.

    Left to compare two words by itself, so small a model says the same to every question.
    """
    for _ in range(TRIES):
        fact = rng.choice(rng.choice(checkable(world)))
        wrong = wrong_answers(world, fact)
        is_so = rng.chance(50) or not wrong
        # Any accepted answer may be asked for, and is then what the reply says: "A dog is a
        # mammal", not "an animal", which would make the comparison say no.
        said = rng.choice(right_answers(world, fact)) if is_so else fact.y
        y = said if is_so else rng.choice(wrong)
        relation = world.relations[fact.relation]
        claim = world.small(world.fill(relation.say[0], fact.x, y)).rstrip(".")
        checks = [*world.filled(relation.check, fact.x, y)]
        question = rng.choice([*checks, *checks, f"Is it true that {claim}"])
        if is_held_out(wording_key(question)) == held:
            break
    else:
        return None
    word, other = ("Yes", "No") if is_so else ("No", "Yes")
    text = rng.choice(CHECK_FRAMES).format(Q=question, q=world.small(question))
    stated = world.small(world.fill(relation.say[0], fact.x, said))
    reply = with_tool(f"' {bare(said)}'==' {bare(y)}'", is_so, f"{word}, {stated}")
    return Asked("yes_no", typed(rng, text), reply, word, (word,), (other,))


def claim(world: World, rng: Rng, held: bool) -> Asked | None:
    """What a thing can do or has. Held out by the wording: that a hen flies is not worked out."""
    for _ in range(TRIES):
        claims = rng.choice(world.claims)
        is_so = rng.chance(50)
        x, y = rng.choice(claims.true if is_so else claims.false)
        template = rng.choice(claims.ask)
        if not fits(template, x):
            continue
        question = world.fill(template, x, y)
        if is_held_out("claim " + wording_key(question)) == held:
            break
    else:
        return None
    text = rng.choice(CHECK_FRAMES).format(Q=question, q=world.small(question))
    reply = world.fill(claims.yes if is_so else claims.no, x, y)
    word, other = ("yes", "no") if is_so else ("no", "yes")
    return Asked(claims.kind, typed(rng, text), reply, word, (word,), (other,))


# ---- comparisons

COMPARE = (
    "Which is {more}, {a} or {b}?", "What is {more}, {a} or {b}?", "{A} or {b}, which is {more}?",
    "Which one is {more}: {a} or {b}?", "Tell me which is {more}, {a} or {b}.",
    "Do you know which is {more}, {a} or {b}?", "Is {a} or {b} {more}?",
    "What's {more}: {a} or {b}?",
    "I want to know what is {more}, {a} or {b}.", "Between {a} and {b}, which is {more}?",
    "{More}, {a} or {b}?", "{A} or {b}, {more}?",
    "{A} or {b}: which one is {more}?", "Which is {more}: {b} or {a}?",
)  # fmt: skip
IS_MORE = (
    "Is {a} {more} than {b}?", "Is {a} {more} than {b}?", "Are {pa} {more} than {pb}?",
    "Tell me, is {a} {more} than {b}?", "Is it true that {a} is {more} than {b}?",
    "Do you think {a} is {more} than {b}?",
)  # fmt: skip
MOST = ("Which is {most}: {a}, {b} or {c}?", "What is {most}, {a}, {b} or {c}?")


def compare(world: World, rng: Rng, held: bool) -> Asked | None:
    """Held out by the two things."""
    for _ in range(TRIES):
        order = rng.choice(world.orders) if rng.chance(40) else world.orders[0]
        (a, rank_a), (b, rank_b), (c, rank_c) = (rng.choice(order.ranks) for _ in range(3))
        key = f"{order.name} {' '.join(sorted((a, b)))}"
        if rank_a != rank_b and is_held_out(key, 6) == held:
            break
    else:
        return None
    less = rng.chance(25)
    more = rng.choice(order.less if less else order.more)
    first, second = (a, b) if (rank_a > rank_b) != less else (b, a)
    forms = {"a": a, "b": b, "A": capital(a), "more": more, "More": capital(more)}
    roll = rng.below(100)
    if roll < 12 and not held and rank_c not in (rank_a, rank_b) and order.most and order.least:
        by_rank = sorted(((a, rank_a), (b, rank_b), (c, rank_c)), key=lambda pair: pair[1])
        most, thing = (order.least, by_rank[0][0]) if less else (order.most, by_rank[-1][0])
        text = rng.choice(MOST).format(**forms, c=c, most=most)
        return Asked("compare", typed(rng, text), f"{capital(thing)} is {most}.", thing, (thing,))
    if roll < 45:
        template = rng.choice(IS_MORE)
        if "{pa}" in template and not all(t.startswith(("a ", "an ")) for t in (a, b)):
            template = IS_MORE[0]
        text = template.format(**forms, pa=world.plural(bare(a)), pb=world.plural(bare(b)))
        word, other = ("Yes", "No") if first == a else ("No", "Yes")
        # The calculator sees whether the one that is more is the one that was asked about.
        said = f"{word}, {world.small(first)} is {more} than {second}."
        reply = with_tool(f"' {bare(first)}'==' {bare(a)}'", first == a, said)
        return Asked(order.kind, typed(rng, text), reply, word, (word,), (other,))
    text = rng.choice(COMPARE).format(**forms)
    reply = f"{capital(first)} is {more} than {second}."
    wrong = (f"{bare(second)} is {more}",)
    return Asked(order.kind, typed(rng, text), reply, bare(first), (bare(first),), wrong)
