"""Conversations to train on, and the held-out questions: the same makers, from disjoint parts.

A maker draws one question with its answer; `held` says from which part. For a fact the part is
decided by the wording (wordings.wording_key), for a skill by its operands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice

from nanochat.data.tinyworld.about_me import Told, about_me, correction, not_told
from nanochat.data.tinyworld.asking import ask_fact, yes_no
from nanochat.data.tinyworld.facts import Fact, all_facts, bare, listed
from nanochat.data.tinyworld.outside import UNKNOWN, outside_thing, unknown
from nanochat.data.tinyworld.questions import (
    Asked,
    Conversation,
    Maker,
    Message,
    Part,
    Question,
)
from nanochat.data.tinyworld.rng import Rng, Weighted
from nanochat.data.tinyworld.skills import (
    abilities,
    arithmetic,
    compare,
    counting,
    larger_number,
    letter_counting,
    next_number,
    repeat,
    spelling,
    spelling_new,
    word_problem,
)
from nanochat.data.tinyworld.small_talk import small_talk, story
from nanochat.data.tinyworld.texts import Dealer
from nanochat.data.tinyworld.wordings import (
    RELATIONS,
    capital,
    is_held_out,
    plain,
    plural,
    statement,
    typed,
    wordings,
)

# ---- two and more turns

FOLLOW = Weighted((
    ("And {x}?", 5), ("What about {x}?", 4), ("How about {x}?", 2), ("And what about {x}?", 2),
    ("{X}?", 1), ("OK, and {x}?", 1), ("Thanks. And {x}?", 1), ("And for {x}?", 1),
    ("The same for {x}, please.", 1), ("Now {x}.", 1),
))  # fmt: skip
FOLLOWED = listed(
    """
    capital language opposite colour sound baby home legs food material category use job next
    previous sides continent
    """
)


@cache
def by_relation() -> dict[str, tuple[Fact, ...]]:
    return {name: tuple(f for f in all_facts() if f.relation == name) for name in RELATIONS}


def followed(rng: Rng, fact: Fact, held: bool) -> tuple[str, Fact] | None:
    """("And the horse?", the fact it asks for), after a question for `fact`."""
    if fact.relation not in FOLLOWED:
        return None
    for _ in range(40):
        other = rng.choice(by_relation()[fact.relation])
        if other.x == fact.x or is_held_out(f"follow {fact.relation} {fact.x} {other.x}") != held:
            continue
        x = other.x
        if x.startswith(("a ", "an ")):
            x = rng.choice((x, x, "the " + bare(x), "the " + bare(x), plural(bare(x))))
            if fact.relation == "baby":
                x = other.x
        return rng.weighted(FOLLOW).format(x=x, X=capital(x)), other
    return None


@cache
def about_it() -> dict[str, tuple[Fact, ...]]:
    """The facts about a thing that "it" can ask for, by the thing."""
    out: dict[str, list[Fact]] = {}
    for fact in all_facts():
        if RELATIONS[fact.relation].it:
            out.setdefault(fact.x, []).append(fact)
    return {x: tuple(facts) for x, facts in out.items() if len(facts) > 1}


def asked_of_it(rng: Rng, fact: Fact, held: bool) -> tuple[str, Fact] | None:
    """("What does it eat?", the fact it asks for), after a question for `fact`."""
    others = [f for f in about_it().get(fact.x, ()) if f.relation != fact.relation]
    rng.shuffle(others)
    for other in others:
        if is_held_out(f"it {fact.relation} {other.relation} {fact.x}", 5) == held:
            return rng.choice(RELATIONS[other.relation].it) + "?", other
    return None


def messages(*turns: tuple[str, str | list[Part]]) -> Conversation:
    out: Conversation = []
    for text, reply in turns:
        out.append({"role": "user", "content": text})
        out.append({"role": "assistant", "content": reply})
    return out


# Skills take more practice than facts: with all weights alike the facts are known at 10 minutes,
# while counting and copying have hardly begun.
MAKERS: tuple[tuple[Maker, int], ...] = (
    (unknown, 26), (yes_no, 24), (compare, 12), (larger_number, 6), (next_number, 3),
    (counting, 17), (arithmetic, 9), (word_problem, 4), (letter_counting, 22), (repeat, 22),
    (spelling, 8), (small_talk, 24), (story, 3), (abilities, 12),
)  # fmt: skip
WEIGHTED_MAKERS = Weighted(MAKERS)


def one_turn(rng: Rng, facts: Dealer) -> tuple[str, str | list[Part]]:
    asked = (
        ask_fact(rng, facts(), False)
        if rng.chance(33)
        else rng.weighted(WEIGHTED_MAKERS)(rng, False)
    )
    return asked.text, asked.reply


def fact_talk(rng: Rng, facts: Dealer) -> list[tuple[str, str | list[Part]]]:
    """A fact, then one or two more that lean on it."""
    fact = facts()
    asked = ask_fact(rng, fact, False)
    turns = [(asked.text, asked.reply)]
    for _ in range(rng.choice((1, 1, 1, 2, 2))):
        x = outside_thing(rng, fact.relation) if rng.chance(15) else None
        if x:
            follow_text = rng.weighted(FOLLOW).format(x=x, X=capital(x))
            turns.append((typed(rng, follow_text), UNKNOWN))
            continue
        follow = (asked_of_it if rng.chance(60) else followed)(rng, fact, False)
        follow = follow or followed(rng, fact, False)
        if follow is None:
            break
        text, fact = follow
        turns.append((typed(rng, text), statement(fact)))
    return turns


def stream(seed: str = "tinyworld conversations") -> Iterator[Conversation]:
    """Training conversations without end; none has a held-out question in it."""
    rng = Rng(seed)
    facts = Dealer(rng)
    while True:
        roll = rng.below(100)
        turns: list[tuple[str, str | list[Part]]] = []
        if rng.chance(8):
            asked = small_talk(rng, False, ("greeting", "how", "who"))
            turns.append((asked.text, asked.reply))
        told: Told | None = None
        if rng.chance(15):
            told = about_me(rng, False)
            turns.append((told.text, told.reply))
            if told.answer.startswith("Your name") and rng.chance(12):
                told = correction(rng)
                turns.append((told.text, told.reply))
            # At once is when people try it first; a model that never saw that says anything.
            if rng.chance(45):
                turns.append((told.ask, told.answer))
        if roll < 38:
            turns.append(one_turn(rng, facts))
        elif roll < 54:
            turns += fact_talk(rng, facts)
        else:
            for _ in range(rng.choice((2, 2, 3, 3, 4, 5, 8))):
                turns += fact_talk(rng, facts) if rng.chance(20) else [one_turn(rng, facts)]
        if told is not None and rng.chance(60):
            turns.append((told.ask, told.answer))
        elif told is None and rng.chance(4):
            turns.insert(rng.choice((0, len(turns))), not_told(rng))
        if rng.chance(6):
            asked = small_talk(rng, False, ("thanks", "bye", "praise"))
            turns.append((asked.text, asked.reply))
        # The makers keep apart what is held out; but the greetings and the carelessness that
        # `typed` adds can make one wording of two.
        if not any(plain(text) in held_out_texts() for text, _ in turns):
            yield messages(*turns)


def conversations(count: int = 20_000) -> list[Conversation]:
    """The first `count` training conversations."""
    return list(islice(stream(), count))


class Talks(Sequence[Conversation]):
    """As many training conversations as one likes, made when they are first asked for."""

    def __init__(self, count: int = 1_000_000) -> None:
        self.count, self._made, self._stream = count, [], stream()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Conversation:
        if not 0 <= i < self.count:
            raise IndexError(i)
        while len(self._made) <= i:
            self._made.append(next(self._stream))
        return self._made[i]


def validation_conversations(count: int = 400) -> list[Conversation]:
    """Conversations that are no training ones, but for a few short ones."""
    return list(islice(stream("tinyworld validation conversations"), count))


# ---- the held-out questions

REPORTED_ONLY = ("spelling_new",)
PER_KIND = 40


def as_question(asked: Asked, *before: tuple[str, str | list[Part]], kind: str = "") -> Question:
    conversation = [*messages(*before), Message(role="user", content=asked.text)]
    return Question(kind or asked.kind, conversation, asked.answer, asked.accept, asked.reject)


def two_turn(rng: Rng, facts: Dealer) -> Question | None:
    fact = facts()
    first = ask_fact(rng, fact, False)
    follow = (asked_of_it if rng.chance(50) else followed)(rng, fact, True)
    if follow is None:
        return None
    text, other = follow
    kind = RELATIONS[other.relation].kind
    asked = Asked(kind, typed(rng, text), "", bare(other.y), other.accept)
    return as_question(asked, (first.text, first.reply), kind="two_turn")


def held_out_stream(rng: Rng) -> Iterator[Iterator[Question]]:
    """One endless iterator of questions for each kind."""

    def of_facts(kind: str) -> Iterator[Question]:
        pool = [f for f in all_facts() if RELATIONS[f.relation].kind == kind]
        pool = [f for f in pool if wordings(f).held_out]
        while True:
            for fact in rng.shuffle(pool):
                yield as_question(ask_fact(rng, fact, True))

    def of_new_wordings() -> Iterator[Question]:
        facts = Dealer(rng)
        while True:
            fact = facts()
            text = typed(rng, rng.choice(wordings(fact).new))
            asked = Asked("fact_new_wording", text, "", bare(fact.y), fact.accept)
            yield as_question(asked)

    def of_maker(maker: Maker) -> Iterator[Question]:
        while True:
            yield as_question(maker(rng, True))

    def of_talks() -> Iterator[Question]:
        facts = Dealer(rng)
        while True:
            question = two_turn(rng, facts)
            if question:
                yield question

    def of_memory() -> Iterator[Question]:
        facts = Dealer(rng)
        while True:
            told = about_me(rng, True)
            between = [one_turn(rng, facts)] if rng.chance(50) else []
            asked = Asked("memory", told.ask, told.answer, told.value, (told.value,))
            yield as_question(asked, (told.text, told.reply), *between)

    for kind in sorted({relation.kind for relation in RELATIONS.values()}):
        yield of_facts(kind)
    yield of_new_wordings()
    yield of_talks()
    yield of_memory()
    for maker, _ in MAKERS:
        yield of_maker(maker)
    yield of_maker(spelling_new)


@cache
def _held_out() -> tuple[Question, ...]:
    out: list[Question] = []
    seen: set[tuple[str, ...]] = set()
    for stream_of_kind in held_out_stream(Rng("tinyworld held out")):
        kind_count = 0
        for question in islice(stream_of_kind, 2000):
            key = tuple(plain(str(m["content"])) for m in question.messages)
            if key not in seen:
                seen.add(key)
                out.append(question)
                kind_count += 1
            wanted = {"unknown": 80, "spelling_new": 20, "story": 30}.get(question.kind, PER_KIND)
            if kind_count == wanted:
                break
    return tuple(out)


@cache
def held_out_texts() -> frozenset[str]:
    """The held-out questions of one turn, plain."""
    single = (q.messages[0]["content"] for q in _held_out() if len(q.messages) == 1)
    return frozenset(plain(str(text)) for text in single)


def held_out() -> list[Question]:
    """The held-out questions, by kind."""
    return list(_held_out())
