"""Conversations to train on, and the held-out questions: the same makers, from disjoint parts.

A maker draws one question with its answer; `held` says from which part. For a fact the part is
decided by the wording (keys.wording_key), for a skill by its operands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice

from nanochat.data.tinyworld import about_me
from nanochat.data.tinyworld.asking import ask_fact, checkable, claim, compare, yes_no
from nanochat.data.tinyworld.english import bare, capital
from nanochat.data.tinyworld.keys import is_held_out, plain
from nanochat.data.tinyworld.letters import letter_counting, letters, repeat, spelling
from nanochat.data.tinyworld.loading import load
from nanochat.data.tinyworld.numbers import counting, larger_number, next_number, number_check
from nanochat.data.tinyworld.questions import (
    Asked,
    Conversation,
    Maker,
    Message,
    Part,
    Question,
    spoken,
)
from nanochat.data.tinyworld.rng import Rng, Weighted
from nanochat.data.tinyworld.slips import typed
from nanochat.data.tinyworld.small_talk import dialogue, dialogues, small_talk
from nanochat.data.tinyworld.stories import AskedStory, about_story, another_story, story
from nanochat.data.tinyworld.sums import arithmetic, follow_ups, word_problem
from nanochat.data.tinyworld.unknown import UNKNOWN, is_known, typed_relations, unknown
from nanochat.data.tinyworld.wordings import new_wording, statement
from nanochat.data.tinyworld.world import OWN_WORLD, Fact, World

Turn = tuple[str, str | list[Part]]

# ---- what is asked, and how often

# Skills take more practice than facts: with all weights alike the facts are known at 10 minutes,
# while counting and copying have hardly begun.
FACTS_PERCENT = 27
SKILLS: tuple[tuple[Maker, int], ...] = (
    (arithmetic, 16), (number_check, 8), (larger_number, 5), (next_number, 5), (counting, 18),
    (word_problem, 4), (letter_counting, 9), (spelling, 11), (letters, 9), (repeat, 9),
    (story, 7),
)  # fmt: skip


@cache
def makers(world: World) -> tuple[tuple[Maker, int], ...]:
    """What this world can ask in addition to its facts, with weights."""
    found: list[tuple[Maker, int]] = []
    if typed_relations(world) or world.never_known:
        found.append((unknown, 24))
    if checkable(world):
        found.append((yes_no, 24))
    if world.claims:
        found.append((claim, 34))
    if world.orders:
        found.append((compare, 22))
    if dialogues(world, ("", "start", "end")):
        found.append((small_talk, 60))
    # Words to spell and count come with the built-in world; so do the skills.
    return (*found, *SKILLS) if "counted" in world.lists else tuple(found)


@cache
def weighted_makers(world: World) -> Weighted[Maker]:
    return Weighted(makers(world))


class Dealer:
    """Deals all facts in random order, again and again; every other one is of one's own world."""

    def __init__(self, world: World, rng: Rng) -> None:
        self.rng = rng
        own = [fact for fact in world.facts if fact.own]
        self.piles = [pile for pile in (own, [f for f in world.facts if not f.own]) if pile]
        self.left: list[list[Fact]] = [[] for _ in self.piles]
        self.turn = 0

    def __call__(self) -> Fact:
        self.turn = (self.turn + 1) % len(self.piles)
        if not self.left[self.turn]:
            self.left[self.turn] = self.rng.shuffle(list(self.piles[self.turn]))
        return self.left[self.turn].pop()


def fact_asked(world: World, rng: Rng, facts: Dealer) -> tuple[Asked, Fact]:
    """The next fact that has a wording to teach."""
    while True:
        fact = facts()
        asked = ask_fact(world, rng, fact, False)
        if asked is not None:
            return asked, fact


def one_turn(world: World, rng: Rng, facts: Dealer) -> list[Turn]:
    """A question of any kind; a dialogue of small talk may have more turns, and so may a sum."""
    if world.facts and (rng.chance(FACTS_PERCENT) or not makers(world)):
        asked, _ = fact_asked(world, rng, facts)
        return [(asked.text, asked.reply)]
    maker = rng.weighted(weighted_makers(world))
    if maker is small_talk:
        return [*dialogue(world, rng)]
    asked = maker(world, rng, False)
    if asked is None:  # a small world may have none
        return one_turn(world, rng, facts)
    turns: list[Turn] = [(asked.text, asked.reply)]
    if isinstance(asked, AskedStory):
        turns += after_story(world, rng, asked)
    elif maker is arithmetic and rng.chance(15):
        turns += follow_ups(world, rng, asked)
    return turns


def after_story(world: World, rng: Rng, told: AskedStory) -> Iterator[Turn]:
    """Another one, or a question about it."""
    if rng.chance(40):
        about = about_story(world, rng, told)
        if about:
            yield about.text, about.reply
    if rng.chance(35):
        other = another_story(world, rng, told)
        if other:
            yield other.text, other.reply


# ---- turns that lean on the one before

FOLLOW = Weighted((
    ("And {x}?", 5), ("What about {x}?", 4), ("How about {x}?", 2), ("And what about {x}?", 2),
    ("{X}?", 1), ("OK, and {x}?", 1), ("Thanks. And {x}?", 1), ("And for {x}?", 1),
    ("The same for {x}, please.", 1), ("Now {x}.", 1), ("And how about {x}?", 1),
))  # fmt: skip


def followed(world: World, rng: Rng, fact: Fact, held: bool) -> tuple[str, Fact] | None:
    """("And the horse?", the fact it asks for), after a question for `fact`."""
    relation = world.relations[fact.relation]
    if not relation.follow:
        return None
    for _ in range(40):
        other = rng.choice(relation.facts)
        if other.x == fact.x or is_held_out(f"follow {fact.relation} {fact.x} {other.x}") != held:
            continue
        x = other.x
        if x.startswith(("a ", "an ")) and relation.name != "baby":
            x = rng.choice((x, x, "the " + bare(x), "the " + bare(x), world.plural(bare(x))))
        return rng.weighted(FOLLOW).format(x=x, X=capital(x)), other
    return None


@cache
def about_it(world: World) -> dict[str, tuple[Fact, ...]]:
    """The facts about a thing that "it" can ask for, by the thing."""
    out: dict[str, list[Fact]] = {}
    for fact in world.facts:
        if world.relations[fact.relation].it:
            out.setdefault(fact.x, []).append(fact)
    return {x: tuple(facts) for x, facts in out.items() if len(facts) > 1}


def asked_of_it(world: World, rng: Rng, fact: Fact, held: bool) -> tuple[str, Fact] | None:
    """("What does it eat?", the fact it asks for), after a question for `fact`."""
    others = [f for f in about_it(world).get(fact.x, ()) if f.relation != fact.relation]
    rng.shuffle(others)
    for other in others:
        if is_held_out(f"it {fact.relation} {other.relation} {fact.x}", 5) == held:
            return rng.choice(world.relations[other.relation].it) + "?", other
    return None


def outside_follow(world: World, rng: Rng, fact: Fact) -> Turn | None:
    """("And Narnia?", it is not known), after a question for a country."""
    relation = world.relations[fact.relation]
    pool = world.outside.get(relation.of, ())
    if not pool or not relation.follow:
        return None
    x = rng.choice(pool)
    if is_known(world, world.fill(relation.ask[0], x, "")):
        return None
    return typed(rng, rng.weighted(FOLLOW).format(x=x, X=capital(x))), UNKNOWN


def fact_talk(world: World, rng: Rng, facts: Dealer) -> list[Turn]:
    """A fact, then one or two more that lean on it."""
    asked, fact = fact_asked(world, rng, facts)
    turns: list[Turn] = [(asked.text, asked.reply)]
    for _ in range(rng.choice((1, 1, 1, 2, 2))):
        unknown_turn = outside_follow(world, rng, fact) if rng.chance(15) else None
        if unknown_turn:
            turns.append(unknown_turn)
            break  # "it" would now be the thing that is not known
        follow = (asked_of_it if rng.chance(60) else followed)(world, rng, fact, False)
        follow = follow or followed(world, rng, fact, False)
        if follow is None:
            break
        text, fact = follow
        turns.append((typed(rng, text), statement(world, fact)))
    return turns


# ---- conversations


def stream(world: World, seed: str = "tinyworld conversations") -> Iterator[Conversation]:
    """Training conversations without end; none has a held-out question in it."""
    rng = Rng(seed)
    facts = Dealer(world, rng)
    while True:
        turns = _conversation(world, rng, facts)
        # The makers keep apart what is held out; but the greetings and the carelessness that
        # `typed` adds can make one wording of two.
        if not any(plain(text) in held_out_texts(world) for text, _ in turns):
            yield messages(*turns)


def _conversation(world: World, rng: Rng, facts: Dealer) -> list[Turn]:
    turns: list[Turn] = []
    if rng.chance(8) and dialogues(world, ("start",)):
        turns += dialogue(world, rng, ("start",))
    told = [*_told(world, rng, turns)] if world.memories and rng.chance(17) else []
    roll = rng.below(100)
    if roll < 38 or not world.facts:
        turns += _topic(world, rng, facts)
    elif roll < 54:
        turns += fact_talk(world, rng, facts)
    else:
        for _ in range(rng.choice((2, 2, 3, 3, 4, 5, 8))):
            turns += fact_talk(world, rng, facts) if rng.chance(20) else _topic(world, rng, facts)
    for one in told:
        if rng.chance(60):
            turns.append(_remembered(world, rng, one))
    if world.memories and not told and rng.chance(4):
        turns.insert(rng.choice((0, len(turns))), about_me.not_told(world, rng))
    if rng.chance(6) and dialogues(world, ("end",)):
        turns += dialogue(world, rng, ("end",))
    return turns


def _topic(world: World, rng: Rng, facts: Dealer) -> list[Turn]:
    """A question, and now and then "are you sure?"."""
    turns = one_turn(world, rng, facts)
    if rng.chance(4) and dialogues(world, ("after",)):
        last = spoken(turns[-1][1])
        if last[:1].isalnum() and len(last.split()) < 16 and not last.startswith(("Yes", "No")):
            turns += dialogue(world, rng, ("after",), last)
    return turns


def _told(world: World, rng: Rng, turns: list[Turn]) -> Iterator[about_me.Told]:
    """What is said of oneself, one thing or two; adds those turns."""
    known: set[str] = set()
    for _ in range(rng.choice((1, 1, 1, 2))):
        told = about_me.about_me(world, rng, False)
        if told.memory.name in known:  # then nobody could say which of the two is asked for
            continue
        known.add(told.memory.name)
        turns.append((told.text, told.reply))
        if told.memory.change and rng.chance(12):
            told = about_me.changed(world, rng, told)
            turns.append((told.text, told.reply))
        # At once is when people try it first; a model that never saw that says anything.
        if rng.chance(45):
            turns.append(_remembered(world, rng, told))
        yield told


def _remembered(world: World, rng: Rng, told: about_me.Told) -> Turn:
    if told.memory.confirm and rng.chance(12):
        return about_me.confirmed(world, rng, told)
    return about_me.asked_for(rng, told), told.answer


def messages(*turns: Turn) -> Conversation:
    out: Conversation = []
    for text, reply in turns:
        out.append({"role": "user", "content": text})
        out.append({"role": "assistant", "content": reply})
    return out


def conversations(count: int = 20_000, world: World | None = None) -> list[Conversation]:
    """The first `count` training conversations."""
    return list(islice(stream(world or load()), count))


class Talks(Sequence[Conversation]):
    """As many training conversations as one likes, made when they are first asked for."""

    def __init__(self, count: int = 1_000_000, world: World | None = None) -> None:
        self.count, self._made, self._stream = count, [], stream(world or load())

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Conversation:
        if not 0 <= i < self.count:
            raise IndexError(i)
        while len(self._made) <= i:
            self._made.append(next(self._stream))
        return self._made[i]


def validation_conversations(count: int = 400, world: World | None = None) -> list[Conversation]:
    """Conversations that are no training ones, but for a few short ones."""
    return list(islice(stream(world or load(), "tinyworld validation conversations"), count))


# ---- the held-out questions

PER_KIND = 40
WANTED = {"unknown": 80, "story": 30, OWN_WORLD: 200}


def as_question(asked: Asked, *before: Turn, kind: str = "") -> Question:
    conversation = [*messages(*before), Message(role="user", content=asked.text)]
    return Question(kind or asked.kind, conversation, asked.answer, asked.accept, asked.reject)


def two_turn(world: World, rng: Rng, facts: Dealer) -> Question | None:
    first, fact = fact_asked(world, rng, facts)
    follow = (asked_of_it if rng.chance(50) else followed)(world, rng, fact, True)
    if follow is None:
        return None
    text, other = follow
    asked = Asked("", typed(rng, text), "", bare(other.y), other.accept)
    return as_question(asked, (first.text, first.reply), kind="two_turn")


def held_out_streams(
    world: World, rng: Rng
) -> Iterator[tuple[set[str], Iterator[Question | None]]]:
    """(kinds, endless questions of these kinds); None where a draw led to none."""

    def of_facts(kind: str, own: bool) -> Iterator[Question | None]:
        pool = [f for f in world.facts if (world.relations[f.relation].kind, f.own) == (kind, own)]
        while True:
            for fact in rng.shuffle(pool):
                asked = ask_fact(world, rng, fact, True)
                yield as_question(asked, kind=OWN_WORLD if own else "") if asked else None

    def of_new_wordings() -> Iterator[Question | None]:
        facts = Dealer(world, rng)
        while True:
            fact = facts()
            text = new_wording(world, rng, fact)
            if text is None:
                yield None
                continue
            asked = Asked("fact_new_wording", typed(rng, text), "", bare(fact.y), fact.accept)
            yield as_question(asked)

    def of_maker(maker: Maker) -> Iterator[Question | None]:
        while True:
            asked = maker(world, rng, True)
            yield as_question(asked) if asked else None

    def of_follow_ups() -> Iterator[Question | None]:
        facts = Dealer(world, rng)
        while True:
            yield two_turn(world, rng, facts)

    def of_memory() -> Iterator[Question]:
        facts = Dealer(world, rng)
        while True:
            told = about_me.about_me(world, rng, True)
            between = one_turn(world, rng, facts) if rng.chance(50) else []
            asked = Asked(
                "memory", about_me.asked_for(rng, told), told.answer, told.value, (told.value,)
            )
            yield as_question(asked, (told.text, told.reply), *between)

    for kind, own in sorted({(world.relations[f.relation].kind, f.own) for f in world.facts}):
        yield {OWN_WORLD if own else kind}, of_facts(kind, own)
    if world.facts:
        yield {"fact_new_wording"}, of_new_wordings()
        yield {"two_turn"}, of_follow_ups()
    if world.memories:
        yield {"memory"}, of_memory()
    for maker, _ in makers(world):
        yield kinds_of(world, maker), of_maker(maker)


def kinds_of(world: World, maker: Maker) -> set[str]:
    """The kinds of question that a maker makes."""
    if maker is small_talk:
        return {talk.kind for talk in world.talks if talk.at != "after"} - {"unknown"}
    if maker is claim:
        return {claims.kind for claims in world.claims}
    return {order.kind for order in world.orders} if maker is compare else {maker.__name__}


@cache
def _held_out(world: World) -> tuple[Question, ...]:
    out: list[Question] = []
    seen: set[tuple[str, ...]] = set()
    for kinds, questions in held_out_streams(world, Rng("tinyworld held out")):
        left = {kind: WANTED.get(kind, PER_KIND) for kind in kinds}
        for question in islice(questions, 2000):
            if question is None or not left.get(question.kind):
                continue
            key = tuple(plain(str(m["content"])) for m in question.messages)
            if key not in seen:
                seen.add(key)
                out.append(question)
                left[question.kind] -= 1
            if not any(left.values()):
                break
    return tuple(out)


@cache
def held_out_texts(world: World) -> frozenset[str]:
    """The held-out questions of one turn, plain."""
    single = (q.messages[0]["content"] for q in _held_out(world) if len(q.messages) == 1)
    return frozenset(plain(str(text)) for text in single)


def held_out(world: World | None = None) -> list[Question]:
    """The held-out questions, by kind."""
    return list(_held_out(world or load()))
