"""Base documents: stories, lessons, portraits, talks, numbers and letters, all of true facts.

A document is made of paragraphs of templates; the facts in it come from the table, the people
are invented. What is held out (a wording of a fact, the operands of a skill) is left out here too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from nanochat.data.tinyworld.asking import ask_fact, compare, yes_no
from nanochat.data.tinyworld.english import article, capital, listed
from nanochat.data.tinyworld.keys import is_held_out, wording_key
from nanochat.data.tinyworld.letters import spelling
from nanochat.data.tinyworld.loading import load
from nanochat.data.tinyworld.questions import Maker, spoken
from nanochat.data.tinyworld.rng import Rng, Weighted, stable_hash
from nanochat.data.tinyworld.stories import story
from nanochat.data.tinyworld.talks import Dealer, makers
from nanochat.data.tinyworld.unknown import unknown, unknown_question
from nanochat.data.tinyworld.wordings import (
    asking,
    bare_questions,
    clauses,
    sayings,
    statement,
)
from nanochat.data.tinyworld.world import Fact, World

SHARD_BYTES = 5_000_000
VALIDATION_BYTES = 500_000
SHORTEST, LONGEST = 200, 1200  # characters of a document


@dataclass(frozen=True)
class Person:
    """A name with its pronouns: p she, o her, s her."""

    name: str
    p: str
    o: str
    s: str


@cache
def everybody(world: World) -> tuple[Person, ...]:
    girls, boys = (world.lists.get(name) or NOBODY[name] for name in ("girls", "boys"))
    return (
        *(Person(name, "she", "her", "her") for name in girls),
        *(Person(name, "he", "him", "his") for name in boys),
    )


# A world of one's own need not have people of its own.
NOBODY = {"girls": ("Anna", "Mia"), "boys": ("Tom", "Ben")}


def people(world: World, rng: Rng) -> tuple[Person, Person]:
    """Two people with different names."""
    first, second = rng.sample(everybody(world), 2)
    return first, second


def say(world: World, rng: Rng, fact: Fact) -> str:
    """A sentence that states the fact, most often the one that answers questions."""
    ways = sayings(world, fact)
    return ways[0] if len(ways) == 1 or rng.chance(55) else rng.choice(ways[1:])


def inner(world: World, sentence: str) -> str:
    """The sentence as it stands after "that"."""
    return world.small(sentence[:-1])


@cache
def facts_by_thing(world: World) -> tuple[tuple[str, tuple[Fact, ...]], ...]:
    """(thing, what the table says of it) where that is three facts or more."""
    about: dict[str, list[Fact]] = {}
    for fact in world.facts:
        about.setdefault(fact.x, []).append(fact)
    return tuple((x, tuple(facts)) for x, facts in about.items() if len(facts) >= 3)


# ---- stories

PLACES = (
    "in a small town", "in a big city", "in a village near the sea", "in a white house",
    "in an old house", "in a house near the forest", "on a quiet street", "on a farm",
    "in a house by the river", "in a small apartment", "in a village in the hills",
    "in a house with a red door", "on a street with many trees",
)  # fmt: skip
TRIPS = ("the sea", "the city", "the mountains", "a lake", "the zoo", "a castle", "a farm")
ADJECTIVES = listed("kind clever happy quiet brave curious young friendly careful busy cheerful")
ROLES = {
    "she": ("girl", "woman", "aunt", "grandmother", "mother", "sister"),
    "he": ("boy", "man", "uncle", "grandfather", "father", "brother"),
}
DAYS = listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
TIMES = (
    "One morning", "One day", "One evening", "Last summer", "Last winter", "On a warm day",
    "On a cold day", "After school", "After lunch", "Early in the morning", "Late in the evening",
    "In spring", "In the fall", "On a windy day", "During the holidays", "Before dinner",
)  # fmt: skip
OPENINGS = (
    "{N} was {a_adj} {role} who lived {place} with {M}.",
    "{N} lived {place} with {M}.",
    "{time} {N} and {M} sat at the table.",
    "It was {day}, and {N} and {M} had nothing to do.",
    "{N} and {M} were good friends.",
    "There was once {a_adj} {role} called {N}, who had a friend called {M}.",
    "{time} {N} went for a walk with {s} friend {M}.",
    "On {day} {N} visited {M}.",
    "{N} liked questions, and {M} liked to answer them.",
    "{N} and {M} had a little {pet} called {petname}.",
    "{time} {N} took the bus to see {M}.",
    "{N} had a day off and spent it with {M}.",
    "{N} and {M} went to the same school.",
    "{N} and {M} wanted to learn something new every day.",
)
ACTIONS = (
    "{N} and {M} put on their coats and went out.",
    "{P} carried a bag with {food} in it.",
    "{M} was in a good mood that day.",
    "They walked past a shop and looked at the {thing} in the window.",
    "The wind was strong, and the leaves were flying.",
    "A bird was singing, and they listened to it.",
    "They sat down under a tree and ate {food}.",
    "{N} found some {thing} and gave them to {M}.",
    "{M} showed {o} a book with many pictures.",
    "A {near_animal} came out of the bushes and looked at them.",
    "They talked about a {animal} for a long time.",
    "{M} made tea and cut the bread.",
    "{N} drew a picture of a {animal} for {M}.",
    "{P} saw a {animal} in a picture and smiled.",
    "{N} counted the {thing} in the box: there were {number}.",
    "They played a game until it was dark.",
    "{M} told {o} about a trip to {trip}.",
    "Then the phone rang, but it was a wrong number.",
    "{N} helped {M} in the garden.",
    "They bought {food} at the market.",
    "A little {near_animal} was afraid, so {N} spoke softly.",
    "{N} read a story, and {M} listened.",
    "{M} lost {s2} hat, and {N} found it under the chair.",
    "They waited for the train and talked.",
    "{N} was hungry, so {M} gave {o} {food}.",
    "{M} opened the window and looked at the stars.",
    "{N} wrote a letter to an old friend.",
    "{P} washed the cups, and {M} dried them.",
)
FACT_BEATS = (
    "{N} asked {c}. {M} said that {f}.",
    "{N} wanted to know {c}. {M} knew the answer: {f}.",
    "{N} asked {M} {c}. The answer was easy: {f}.",
    '"{Q}" asked {N}. "{F}," said {M}.',
    '{N} asked, "{Q}" {M} answered, "{F}."',
    '"Do you know {c}?" asked {M}. "Yes," said {N}. "{F}."',
    '"Tell me {c}," said {N}. {M} said, "{F}."',
    '"I forgot {c}," said {N}. "{F}," said {M}.',
    "{M} told {o} that {f}.",
    "{N} learned that {f}.",
    "{N} did not know {c}. Now {p} knows that {f}.",
    "{N} read in a book that {f}.",
    "{F}. {N} had learned that from {M}.",
    "{F}, and {N} knew that very well.",
    "{N} and {M} both knew that {f}.",
    '{M} asked {c}. {N} said, "{F}."',
    "{M} explained to {N} that {f}.",
    "{N} remembered that {f}.",
)
ENDINGS = (
    "That evening {N} was happy.",
    "Then they said goodbye.",
    "{N} thanked {M} and went to bed.",
    "It was a good day for {N}.",
    "{M} smiled and said good night.",
    "After that, {N} asked a new question every day.",
    "{N} and {M} stayed friends for a long time.",
    "{N} never forgot that day.",
    "At last they were tired and fell asleep.",
    "{N} wrote it all down in a little book.",
    "So {N} learned a lot that day.",
    "The next day they met again.",
)
PETS = ("Rex", "Luna", "Fluffy", "Rocky", "Daisy", "Coco")
THINGS = listed(
    """
    apples books coins cups balls nuts pens cards shells stones buttons keys flowers
    """
)
ANIMALS = listed(
    """
    dog cat cow horse pig sheep hen duck goose mouse rabbit fox wolf bear lion tiger
    """
)
FOODS = (
    "apples", "bread and cheese", "a cake", "some grapes", "nuts", "two eggs", "plums", "a pear",
    "cherries", "a sandwich", "rice and fish", "some cookies",
)  # fmt: skip
NUMBER_WORDS = listed("two three four five six seven eight nine ten eleven twelve")
NEAR_ANIMALS = ("dog", "cat", "bird", "rabbit", "mouse", "squirrel")


SPOKEN_QUESTIONS = frozenset(
    listed("What Which Where Who How When Why Can Do Does Is Are In At From On")
)


def beat(world: World, rng: Rng, fact: Fact, slots: dict[str, str]) -> str:
    """One or two sentences in which somebody asks for a fact or says it."""
    template = rng.choice(FACT_BEATS)
    indirect = clauses(world, fact)
    # Nobody says "Capital France?" aloud.
    questions = [q for q in bare_questions(world, fact) if q.split()[0] in SPOKEN_QUESTIONS]
    # The files of a relation need not have both, and what is held out is not written down here.
    indirect = tuple(c for c in indirect if not is_held_out(wording_key(c)))
    if ("{Q}" in template and not questions) or ("{c}" in template and not indirect):
        template = "{M} told {o} that {f}."
    stated = statement(world, fact) if rng.chance(65) else say(world, rng, fact)
    return template.format(
        **slots,
        c=rng.choice(indirect) if "{c}" in template else "",
        f=inner(world, stated),
        F=stated[:-1],
        Q=rng.choice(questions) if "{Q}" in template else "",
    )


def slots_for(world: World, rng: Rng) -> dict[str, str]:
    one, two = people(world, rng)
    adjective = rng.choice(ADJECTIVES)
    return {
        "N": one.name, "p": one.p, "P": capital(one.p), "o": one.o, "s": one.s, "M": two.name,
        "s2": two.s, "a_adj": article(adjective), "role": rng.choice(ROLES[one.p]),
    }  # fmt: skip


def vary(world: World, rng: Rng, slots: dict[str, str]) -> dict[str, str]:
    """The slots that change from sentence to sentence."""
    return {
        **slots,
        "place": rng.choice(PLACES), "day": rng.choice(DAYS), "time": rng.choice(TIMES),
        "pet": rng.choice(("dog", "cat", "rabbit", "bird")), "petname": rng.choice(PETS),
        "food": rng.choice(FOODS), "thing": rng.choice(THINGS), "trip": rng.choice(TRIPS),
        "animal": rng.choice(ANIMALS), "near_animal": rng.choice(NEAR_ANIMALS),
        "number": rng.choice(NUMBER_WORDS),
    }  # fmt: skip


def scene(world: World, rng: Rng, deal: Dealer) -> str:
    """Two people, what they do, and what they learn."""
    slots = slots_for(world, rng)
    out = [rng.choice(OPENINGS).format(**vary(world, rng, slots))]
    actions = rng.sample(ACTIONS, rng.between(2, 4))
    for action in actions:
        out.append(action.format(**vary(world, rng, slots)))
        out += [beat(world, rng, deal(), slots) for _ in range(rng.between(1, 2))]
    out.append(rng.choice(ENDINGS).format(**slots))
    return fixed(" ".join(out))


def fixed(text: str) -> str:
    """a before a vowel becomes an: the templates write "a {animal}"."""
    for animal in ("elephant", "owl", "ant"):
        text = text.replace(f" a {animal}", f" an {animal}")
        text = text.replace(f"A {animal}", f"An {animal}")
    return text


def tale(world: World, rng: Rng, deal: Dealer) -> str:
    """A short story, and a fact or two that somebody learns from it."""
    told = story(world, rng, False)
    slots = slots_for(world, rng)
    opening = "{M} told this story to {N}." if rng.chance(50) else "{N} read this story to {M}."
    about = dict(facts_by_thing(world)).get(article(told.answer), ())
    beats = [beat(world, rng, fact, slots) for fact in (*rng.sample(about, 2), deal())]
    return " ".join((opening.format(**slots), spoken(told.reply), *beats))


# ---- lessons, portraits, talks

LESSON_STARTS = (
    "{N} wrote down what {p} had learned.", "This is what {N} learned this week.",
    "Here are some things that {N} knows.", "On {day} {N}'s class learned many things.",
    "{M} taught {N} a few simple things.", "{N} likes to know how the world works.",
    "These sentences are in {N}'s notebook.", "{N} and {M} are learning for school.",
    "Some things are easy to remember, says {M}.", "Here is a page from {N}'s notes.",
    "{N} explains the world to {M}.", "{M} asked {N} to say what {p} knows.",
)  # fmt: skip


def lesson(world: World, rng: Rng, deal: Dealer) -> str:
    """Facts in prose: of one relation, or of all."""
    slots = vary(world, rng, slots_for(world, rng))
    out = [rng.choice(LESSON_STARTS).format(**slots)] if rng.chance(60) else []
    if rng.chance(60):
        pool = world.relations[deal().relation].facts
        facts = rng.sample(pool, rng.between(6, 14))
    else:
        facts = [deal() for _ in range(rng.between(6, 14))]
    last = None
    for fact in facts:
        if last is not None and rng.chance(12):
            out.append(f"{say(world, rng, last)[:-1]}, and {inner(world, say(world, rng, fact))}.")
            last = None
            continue
        if last is not None:
            out.append(say(world, rng, last))
        last = fact
    if last is not None:
        out.append(say(world, rng, last))
    return " ".join(out)


def portrait(world: World, rng: Rng, deal: Dealer) -> str:
    """What the table says of two or three things, each in a paragraph."""
    out = []
    slots = slots_for(world, rng)
    for x, facts in rng.sample(facts_by_thing(world), rng.between(2, 3)):
        sentences = []
        led = False  # whether "it" is clear: the sentence before was about the thing
        for fact in rng.shuffle(list(facts)):
            sentence = say(world, rng, fact)
            if led and sentence.startswith(capital(x) + " ") and rng.chance(70):
                sentence = "It" + sentence[len(x) :]
            led = sentence.startswith((capital(x) + " ", "It "))
            sentences.append(sentence)
        if rng.chance(40):
            sentences.append(beat(world, rng, rng.choice(facts), slots))
        out.append(" ".join(sentences))
    if rng.chance(50):
        out.append(beat(world, rng, deal(), slots))
    return "\n".join(out)


def exchange(world: World, rng: Rng, deal: Dealer) -> tuple[str, str]:
    """(question, answer)."""
    outside = unknown_question(world, rng, False) if rng.chance(10) else None
    if outside:
        return asked(outside[0]), outside[1]
    while True:
        fact = deal()
        text = asking(world, rng, world.relations[fact.relation], fact.x, False)
        if text is not None:
            return asked(text), statement(world, fact)


def asked(text: str) -> str:
    """A question with a mark at its end: a written text is not careless."""
    return capital(text if text[-1] in ".?!" else text + "?")


def talk(world: World, rng: Rng, deal: Dealer) -> str:
    """Questions and answers, written down in one of several ways."""
    one, two = people(world, rng)
    pairs = [exchange(world, rng, deal) for _ in range(rng.between(4, 10))]
    asker, teller = rng.choice(
        (
            (f"{one.name}: ", f"{two.name}: "), ("Question: ", "Answer: "), ("Q: ", "A: "),
            (f"{one.name} asks: ", f"{two.name} says: "), ("", ""), ("- ", "- "),
            ("Child: ", "Teacher: "), ("Pupil: ", "Teacher: "),
        )
    )  # fmt: skip
    return "\n".join(f"{asker}{question}\n{teller}{answer}" for question, answer in pairs)


@cache
def chat_makers(world: World) -> tuple[Maker, ...]:
    """What base text asks in addition to facts: nothing whose held-out operands it also writes."""
    wanted = (unknown, yes_no, compare, spelling)
    known = [maker for maker, _ in makers(world)]
    return tuple(maker for maker in wanted if maker in known) or tuple(known) or (unknown,)


def chat(world: World, rng: Rng, deal: Dealer) -> str:
    """Questions as people type them, without capitals or care, and their clean answers.

    So the tokenizer and the base model meet the small letters of "whats the capital of france".
    """
    asker = rng.choice(("", "", "", "User: ", "Human: ", f"{people(world, rng)[0].name}: "))
    out = []
    for _ in range(rng.between(5, 12)):
        if world.facts and rng.chance(76):
            asked = ask_fact(world, rng, deal(), False)
        else:
            asked = rng.choice(chat_makers(world))(world, rng, False)
        if asked is None:
            continue
        out.append(f"{asker}{asked.text}\n{capital(world.name)}: {spoken(asked.reply)}")
    return "\n".join(out)


# ---- numbers, sizes, letters


def number_sentence(world: World, rng: Rng) -> str:
    """A sum, a pair or a row of numbers; never one of the held-out ones."""
    while True:
        a, b = rng.below(rng.choice((20, 100))), rng.below(100)
        way = rng.below(6)
        held_sum = is_held_out(f"sum {min(a, b)} {max(a, b)}")
        if way == 0 and not held_sum:
            return f"{a} plus {b} is {a + b}."
        if way == 1 and a > b and not held_sum:
            return f"{a} minus {b} is {a - b}."
        if way == 2 and a < 13 and b < 13 and not held_sum:
            return f"{a} times {b} is {a * b}."
        if way == 3 and a != b and not is_held_out(f"larger {min(a, b)} {max(a, b)}"):
            return f"{max(a, b)} is larger than {min(a, b)}."
        if way == 4 and not is_held_out(f"next after {a}", 5):
            return f"{a + 1} comes after {a}."
        end = a + 3 + b % 9
        if way == 5 and not is_held_out(f"count {a} {end}"):
            return f"From {a} to {end}: {', '.join(map(str, range(a, end + 1)))}."


def size_sentence(world: World, rng: Rng) -> str:
    while True:
        order = rng.choice(world.orders)
        (a, rank_a), (b, rank_b) = rng.choice(order.ranks), rng.choice(order.ranks)
        if rank_a > rank_b and not is_held_out(f"{order.name} {' '.join(sorted((a, b)))}", 6):
            if rng.chance(40):
                return f"{capital(b)} is {order.less[0]} than {a}."
            return f"{capital(a)} is {order.more[0]} than {b}."


def letter_sentence(world: World, rng: Rng) -> str:
    """A word spelled, or written in quotes; letters are counted only in conversations."""
    word = rng.choice(world.countable_words)
    if rng.chance(40) and not is_held_out("spell " + word):
        return f"{capital(word)} is spelled {'-'.join(word)}."
    ways = (
        f"The word {word} is written '{word}'.", f"To write {word}, write '{word}'.",
        f"In quotes, {word} is '{word}'.", f"If you read '{word}', you say {word}.",
    )  # fmt: skip
    return rng.choice(ways)


PRACTICE_STARTS = (
    "{N} practices with {M}.", "{N} sits at the table and studies.",
    "Today {N} has a lot to learn.",
    "{M} helps {N} with {s} homework.", "{N} writes in a new notebook.", "{N} and {M} play school.",
)  # fmt: skip


def practice(world: World, rng: Rng, deal: Dealer) -> str:
    """A page of one skill, or of all of them."""
    page = rng.choice(
        ((number_sentence,), (size_sentence,), (letter_sentence,), (letter_sentence,),
         (number_sentence, size_sentence, letter_sentence))
    )  # fmt: skip
    slots = slots_for(world, rng)
    out = [rng.choice(PRACTICE_STARTS).format(**slots)]
    out += [rng.choice(page)(world, rng) for _ in range(rng.between(7, 16))]
    if rng.chance(40):
        out.append(beat(world, rng, deal(), slots))
    return " ".join(out)


Writer = Callable[[World, Rng, Dealer], str]


@cache
def writers(world: World) -> Weighted[Writer]:
    """What this world's documents can be about, with weights."""
    found: list[tuple[Writer, int]] = [(chat, 20)]
    if world.facts:
        found += [(scene, 18), (lesson, 17), (talk, 16)]
    if len(facts_by_thing(world)) > 3:
        found.append((portrait, 9))
    if "counted" in world.lists and world.orders:
        found += [(tale, 6), (practice, 14)]
    return Weighted(found)


def is_for_validation(document: str) -> bool:
    """One document in eight may be validation text, and then never training text."""
    return stable_hash(document) % 8 == 0


def stream(world: World, seed: str, size: int, validation: bool) -> Iterator[str]:
    """Documents of about `size` bytes in all, none twice."""
    rng = Rng(seed)
    deal = Dealer(world, rng)
    seen: set[str] = set()
    while size > 0:
        document = rng.weighted(writers(world))(world, rng, deal)
        if not SHORTEST <= len(document) <= LONGEST or document in seen:
            continue
        if is_for_validation(document) == validation:
            seen.add(document)
            size -= len(document.encode())
            yield document


def documents(shard: int, world: World | None = None) -> Iterator[str]:
    """The texts of a base shard, any number from 0; about SHARD_BYTES in all."""
    if shard < 0:
        raise ValueError(f"shard {shard}: shards are numbered from 0")
    return stream(world or load(), f"tinyworld shard {shard}", SHARD_BYTES, False)


def validation_documents(world: World | None = None) -> Iterator[str]:
    """About 0.5 MB of other texts, none of which is in any shard."""
    return stream(world or load(), "tinyworld validation", VALIDATION_BYTES, True)
