"""Base documents: stories, lessons, portraits, talks, numbers and letters, all of true facts.

A document is made of paragraphs of templates; the facts in it come from the table, the people
are invented. What is held out (a wording of a fact, the operands of a skill) is left out here too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from nanochat.data.tinyworld import words
from nanochat.data.tinyworld.asking import ask_fact, yes_no
from nanochat.data.tinyworld.facts import Fact, all_facts, listed, sizes
from nanochat.data.tinyworld.outside import outside_question, unknown
from nanochat.data.tinyworld.questions import Maker, spoken
from nanochat.data.tinyworld.rng import Rng, Weighted, stable_hash
from nanochat.data.tinyworld.skills import compare, spelling
from nanochat.data.tinyworld.wordings import (
    RELATIONS,
    article,
    capital,
    is_held_out,
    sayings,
    small,
    statement,
    wording_key,
    wordings,
)

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


PEOPLE = tuple(Person(name, "she", "her", "her") for name in words.GIRLS) + tuple(
    Person(name, "he", "him", "his") for name in words.BOYS
)


def people(rng: Rng) -> tuple[Person, Person]:
    """Two people with different names."""
    first, second = rng.sample(PEOPLE, 2)
    return first, second


def say(rng: Rng, fact: Fact) -> str:
    """A sentence that states the fact, most often the one that answers questions."""
    ways = sayings(fact)
    return ways[0] if len(ways) == 1 or rng.chance(55) else rng.choice(ways[1:])


def inner(sentence: str) -> str:
    """The sentence as it stands after "that"."""
    return small(sentence[:-1])


@cache
def facts_by_relation() -> dict[str, tuple[Fact, ...]]:
    return {name: tuple(f for f in all_facts() if f.relation == name) for name in RELATIONS}


@cache
def facts_by_thing() -> tuple[tuple[str, tuple[Fact, ...]], ...]:
    """(thing, what the table says of it) where that is three facts or more."""
    about: dict[str, list[Fact]] = {}
    for fact in all_facts():
        about.setdefault(fact.x, []).append(fact)
    return tuple((x, tuple(facts)) for x, facts in about.items() if len(facts) >= 3)


class Dealer:
    """Deals all facts in random order, again and again."""

    def __init__(self, rng: Rng) -> None:
        self.rng = rng
        self.left: list[Fact] = []

    def __call__(self) -> Fact:
        if not self.left:
            self.left = self.rng.shuffle(list(all_facts()))
        return self.left.pop()


# ---- stories

PLACES = (
    "a small town", "a big city", "a village near the sea", "a white house", "an old house",
    "a house near the forest", "a quiet street", "a farm", "a house by the river", "a little flat",
    "a village in the hills", "a house with a red door", "a street with many trees",
)  # fmt: skip
ADJECTIVES = listed(
    """
    kind clever happy quiet brave curious young friendly careful busy cheerful
    """
)
ROLES = {
    "she": ("girl", "woman", "aunt", "grandmother", "mother", "sister"),
    "he": ("boy", "man", "uncle", "grandfather", "father", "brother"),
}
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
TIMES = (
    "One morning", "One day", "One evening", "Last summer", "Last winter", "On a warm day",
    "On a cold day", "After school", "After lunch", "Early in the morning", "Late in the evening",
    "In spring", "In autumn", "On a rainy day", "During the holidays", "Before dinner",
)  # fmt: skip
OPENINGS = (
    "{N} was {a_adj} {role} who lived in {place}.",
    "{N} lived in {place} with {M}.",
    "{time} {N} and {M} sat at the table.",
    "It was {day}, and {N} had nothing to do.",
    "{N} and {M} were good friends.",
    "There was once {a_adj} {role} called {N}.",
    "{time} {N} went for a walk with {s} friend {M}.",
    "On {day} {N} visited {M} in {place}.",
    "{N} liked questions, and {M} liked to answer them.",
    "{N} had a little {pet} called {petname}.",
    "{time} {N} took the bus to see {M}.",
    "It rained all day, so {N} stayed at home with {M}.",
    "{N} and {M} went to the same school.",
    "{N} wanted to learn something new every day.",
)
ACTIONS = (
    "{N} put on {s} coat and went out.",
    "{P} carried a bag with {food} in it.",
    "{M} came along, because it was a fine day.",
    "They walked past a shop and looked at the {thing} in the window.",
    "The wind was strong, and the leaves were flying.",
    "The sun was shining, and the birds were singing.",
    "They sat down under a tree and ate {food}.",
    "{N} found some {thing} on the road and gave them to {M}.",
    "{M} showed {o} a book with many pictures.",
    "A {animal} came out of the bushes and looked at them.",
    "They heard a {animal} behind the house.",
    "{M} made tea and cut the bread.",
    "{N} drew a picture of a {animal} for {M}.",
    "{P} fed the {animal} and gave it some water.",
    "{N} counted the {thing} in the box: there were {number}.",
    "They played a game until it was dark.",
    "{M} told {o} about a trip to {place}.",
    "Then it began to rain, and they ran into the house.",
    "{N} helped {M} in the garden.",
    "They bought {food} at the market.",
    "The little {animal} was afraid, so {N} spoke softly.",
    "{N} read a story, and {M} listened.",
    "{M} lost {s2} hat, and {N} found it under the chair.",
    "They waited for the train and talked.",
    "{N} was hungry, so {M} gave {o} {food}.",
    "{M} opened the window and looked at the stars.",
    "{N} wrote a letter to {s} grandmother.",
    "{P} washed the cups, and {M} dried them.",
)
FACT_BEATS = (
    "{N} asked {c}. {M} said that {f}.",
    "{N} wanted to know {c}. {M} knew it: {f}.",
    "{N} asked {M} {c}. The answer was easy: {f}.",
    '"{Q}" asked {N}. "{F}," said {M}.',
    '{N} asked, "{Q}" {M} answered, "{F}."',
    '"Do you know {c}?" asked {M}. "Yes," said {N}. "{F}."',
    '"Tell me {c}," said {N}. {M} said, "{F}."',
    '"I forgot {c}," said {N}. "{F}," said {M}.',
    "{M} told {o} that {f}.",
    "{N} learned that {f}.",
    "{N} did not know {c}. Now {p} knows that {f}.",
    "In a book {N} read that {f}.",
    "{F}. {N} had learned that at school.",
    "{F}, and {N} knew that very well.",
    "Everyone in the class knew that {f}.",
    'The teacher asked {c}. {N} said: "{F}."',
    "{M} explained to {N} that {f}.",
    "{N} remembered that {f}.",
)
ENDINGS = (
    "In the evening {N} went home and was happy.",
    "Then they said goodbye.",
    "{N} thanked {M} and went to bed.",
    "It was a good day for {N}.",
    "{M} smiled and said good night.",
    "After that, {N} asked a new question every day.",
    "{N} and {M} stayed friends for a long time.",
    "{N} told everything to {s} mother.",
    "At last they were tired and fell asleep.",
    "{N} wrote it all down in a little book.",
    "So {N} learned a lot that day.",
    "The next day they met again.",
)
FOODS = (
    "apples", "bread and cheese", "a cake", "some soup", "nuts", "two eggs", "plums", "a pear",
    "cherries", "some milk", "rice and fish", "honey",
)  # fmt: skip
NUMBER_WORDS = [
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
]


# Wordings that stand as they are in a beat, and so may be held-out ones.
ASIDES = ("Do you know {c}", "Tell me {c}", "I forgot {c}")


def beat(rng: Rng, fact: Fact, slots: dict[str, str]) -> str:
    """One or two sentences in which somebody asks for a fact or says it."""
    template = rng.choice(FACT_BEATS)
    ways = wordings(fact)
    if "{Q}" in template and not ways.base:
        template = FACT_BEATS[0]
    spoken = statement(fact) if rng.chance(65) else say(rng, fact)
    clause = rng.choice(ways.clauses)
    asked = next((way for way in ASIDES if way in template), None)
    if asked and is_held_out(wording_key(asked.format(c=clause))):
        template = FACT_BEATS[0]
    return template.format(
        **slots,
        c=clause,
        f=inner(spoken),
        F=spoken[:-1],
        Q=rng.choice(ways.base) if "{Q}" in template else "",
    )


def slots_for(rng: Rng) -> dict[str, str]:
    one, two = people(rng)
    adjective = rng.choice(ADJECTIVES)
    return {
        "N": one.name, "p": one.p, "P": capital(one.p), "o": one.o, "s": one.s, "M": two.name,
        "s2": two.s, "a_adj": article(adjective), "role": rng.choice(ROLES[one.p]),
    }  # fmt: skip


def vary(rng: Rng, slots: dict[str, str]) -> dict[str, str]:
    """The slots that change from sentence to sentence."""
    return {
        **slots,
        "place": rng.choice(PLACES), "day": rng.choice(DAYS), "time": rng.choice(TIMES),
        "pet": rng.choice(("dog", "cat", "rabbit", "bird")), "petname": rng.choice(words.PETS),
        "food": rng.choice(FOODS), "thing": rng.choice(words.THINGS),
        "animal": rng.choice(words.ANIMALS[:16]), "number": rng.choice(NUMBER_WORDS),
    }  # fmt: skip


def story(rng: Rng, deal: Dealer) -> str:
    """Two people, what they do, and what they learn."""
    slots = slots_for(rng)
    out = [rng.choice(OPENINGS).format(**vary(rng, slots))]
    actions = rng.sample(ACTIONS, rng.between(2, 4))
    for action in actions:
        out.append(action.format(**vary(rng, slots)))
        out += [beat(rng, deal(), slots) for _ in range(rng.between(1, 2))]
    out.append(rng.choice(ENDINGS).format(**slots))
    return fixed(" ".join(out))


def fixed(text: str) -> str:
    """a before a vowel becomes an: the templates write "a {animal}"."""
    for animal in ("elephant", "owl", "ant"):
        text = text.replace(f" a {animal}", f" an {animal}")
        text = text.replace(f"A {animal}", f"An {animal}")
    return text


TALE_STARTS = (
    "Once there was {adj} {animal} called {name}.",
    "{name} was {adj} {animal} and lived near {near}.",
    "Long ago {adj} {animal} named {name} lived by {near}.",
    "This is the story of {name}, {adj} {animal}.",
    "There was once {adj} {animal}. Its name was {name}.",
)
TALE_NEAR = ("a river", "a lake", "the forest", "a farm", "the hills", "a big tree", "an old mill")
TALE_PLOTS = (
    ("One day it could not find its way home.", "A kind {other} showed it the road."),
    ("One night a storm came, and everything was dark.", "A friendly {other} kept it company."),
    ("It was hungry, but there was nothing to eat.", "Then a {other} came and shared its food."),
    ("It wanted to see the sea.", "It walked for three days together with a {other}."),
    ("One morning it found a shining stone.", "It gave the stone to a {other} as a present."),
    ("It was afraid of the dark.", "An old {other} sang a song, and the fear was gone."),
    ("One winter it fell into the snow.", "A strong {other} pulled it out."),
    ("It had no friends and was sad.", "Then it met a {other} who liked to play."),
    ("It wanted to be the fastest of all.", "It ran a race against a {other} and came last."),
    ("In summer it lost its favourite ball.", "A clever {other} saw the ball under a bush."),
    ("One evening it heard a strange noise.", "It was only a {other} who could not sleep."),
    ("It dreamed of a long journey.", "The next day it left the village with a {other}."),
)
TALE_ENDS = (
    "From then on they were best friends.",
    "After that {name} was never alone again.",
    "In the end both of them were happy.",
    "Then {name} went to sleep with a smile.",
    "They laughed and danced until the evening.",
    "And so {name} learned to ask for help.",
    "At last all was well.",
)
TALE_ADJECTIVES = [
    "small",
    "little",
    "brave",
    "young",
    "clever",
    "lazy",
    "kind",
    "curious",
    "big",
    "merry",
]


def short_story(rng: Rng, animal: str) -> str:
    """Four sentences about an animal, with no four words twice."""
    name = rng.choice(words.PETS)
    other = rng.choice([a for a in words.ANIMALS if a != animal and a[0] not in "aeiou"])
    first, second = rng.choice(TALE_PLOTS)
    adj = article(rng.choice(TALE_ADJECTIVES))
    slots = {
        "name": name,
        "animal": animal,
        "other": other,
        "adj": adj,
        "near": rng.choice(TALE_NEAR),
    }
    parts = (rng.choice(TALE_STARTS), first, second, rng.choice(TALE_ENDS))
    return " ".join(part.format(**slots) for part in parts)


def tale(rng: Rng, deal: Dealer) -> str:
    """A short story of an animal, and a fact or two that somebody learns from it."""
    animal = rng.choice(words.ANIMALS)
    slots = slots_for(rng)
    out = [short_story(rng, animal)]
    opening = "{M} told this story to {N}." if rng.chance(50) else "{N} read this story to {M}."
    out.insert(0, opening.format(**slots))
    about = dict(facts_by_thing()).get(article(animal), ())
    for fact in [*rng.sample(about, 2), deal()]:
        out.append(beat(rng, fact, slots))
    return " ".join(out)


# ---- lessons, portraits, talks

LESSON_STARTS = (
    "{N} wrote down what {p} had learned.", "This is what {N} learned this week.",
    "Here are some things that {N} knows.", "On {day} the class of {N} learned many things.",
    "{M} taught {N} a few simple things.", "{N} likes to know how the world is.",
    "These sentences are in the book of {N}.", "{N} and {M} are learning for school.",
    "Some things are easy to remember, says {M}.", "Here is a page from the notes of {N}.",
    "{N} explains the world to {M}.", "{M} asked {N} to say what {p} knows.",
)  # fmt: skip


def lesson(rng: Rng, deal: Dealer) -> str:
    """Facts in prose: of one relation, or of all."""
    slots = vary(rng, slots_for(rng))
    out = [rng.choice(LESSON_STARTS).format(**slots)] if rng.chance(60) else []
    if rng.chance(60):
        pool = facts_by_relation()[deal().relation]
        facts = rng.sample(pool, rng.between(6, 14))
    else:
        facts = [deal() for _ in range(rng.between(6, 14))]
    last = None
    for fact in facts:
        if last is not None and rng.chance(12):
            out.append(f"{say(rng, last)[:-1]}, and {inner(say(rng, fact))}.")
            last = None
            continue
        if last is not None:
            out.append(say(rng, last))
        last = fact
    if last is not None:
        out.append(say(rng, last))
    return " ".join(out)


def portrait(rng: Rng, deal: Dealer) -> str:
    """What the table says of two or three things, each in a paragraph."""
    out = []
    slots = slots_for(rng)
    for x, facts in rng.sample(facts_by_thing(), rng.between(2, 3)):
        sentences = []
        led = False  # whether "it" is clear: the sentence before was about the thing
        for fact in rng.shuffle(list(facts)):
            sentence = say(rng, fact)
            if led and sentence.startswith(capital(x) + " ") and rng.chance(70):
                sentence = "It" + sentence[len(x) :]
            led = sentence.startswith((capital(x) + " ", "It "))
            sentences.append(sentence)
        if rng.chance(40):
            sentences.append(beat(rng, rng.choice(facts), slots))
        out.append(" ".join(sentences))
    if rng.chance(50):
        out.append(beat(rng, deal(), slots))
    return "\n".join(out)


def exchange(rng: Rng, deal: Dealer) -> tuple[str, str]:
    """(question, answer)."""
    if rng.chance(10):
        return outside_question(rng, False)
    fact = deal()
    return rng.weighted(wordings(fact).taught), statement(fact)


def talk(rng: Rng, deal: Dealer) -> str:
    """Questions and answers, written down in one of several ways."""
    one, two = people(rng)
    pairs = [exchange(rng, deal) for _ in range(rng.between(4, 10))]
    asker, teller = rng.choice(
        (
            (f"{one.name}: ", f"{two.name}: "), ("Question: ", "Answer: "), ("Q: ", "A: "),
            (f"{one.name} asks: ", f"{two.name} says: "), ("", ""), ("- ", "- "),
            ("Child: ", "Teacher: "), ("Pupil: ", "Teacher: "),
        )
    )  # fmt: skip
    return "\n".join(f"{asker}{question}\n{teller}{answer}" for question, answer in pairs)


CHAT_MAKERS: Weighted[Maker] = Weighted(((unknown, 5), (yes_no, 3), (compare, 3), (spelling, 3)))


def chat(rng: Rng, deal: Dealer) -> str:
    """Questions as people type them, without capitals or care, and their clean answers.

    So the tokenizer and the base model meet the small letters of "whats the capital of france".
    """
    asker = rng.choice(("", "", "", "User: ", "Human: ", f"{people(rng)[0].name}: "))
    out = []
    for _ in range(rng.between(5, 12)):
        if rng.chance(76):
            asked = ask_fact(rng, deal(), False)
        else:
            asked = rng.weighted(CHAT_MAKERS)(rng, False)
        out.append(f"{asker}{asked.text}\nNanochat: {spoken(asked.reply)}")
    return "\n".join(out)


# ---- numbers, sizes, letters


def number_sentence(rng: Rng) -> str:
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
            return f"From {a} to {end}: I count {', '.join(map(str, range(a, end + 1)))}."


def size_sentence(rng: Rng) -> str:
    while True:
        (a, size_a), (b, size_b) = rng.choice(sizes()), rng.choice(sizes())
        if size_a > size_b and not is_held_out("size " + " ".join(sorted((a, b))), 6):
            if rng.chance(40):
                return f"{capital(b)} is smaller than {a}."
            return f"{capital(a)} is {rng.choice(('bigger', 'larger'))} than {b}."


def letter_sentence(rng: Rng) -> str:
    """A word spelled, written in quotes, or its letters counted."""
    way = rng.below(5)
    if way < 2:
        word = rng.choice(words.SPELLED)
        if not is_held_out("never spelled " + word):
            return f"The word {word} is spelled {'-'.join(word)}."
    word = rng.choice(words.countable_words())
    if way == 2 or is_held_out("letters " + word):
        return rng.choice(
            (
                f"The word {word} is written '{word}'.", f"To write {word}, write '{word}'.",
                f"In quotes, {word} is '{word}'.", f"If you read '{word}', you say {word}.",
            )
        )  # fmt: skip
    letter = rng.choice(word)
    count = word.count(letter)
    return f"The letter '{letter}' comes {count} time{'s' * (count != 1)} in '{word}'."


PRACTICE_STARTS = (
    "{N} practises with {M}.", "{N} sits at the table and learns.", "Today {N} has a lot to learn.",
    "{M} helps {N} with the homework.", "{N} writes into a new book.", "{N} and {M} play school.",
)  # fmt: skip


def practice(rng: Rng, deal: Dealer) -> str:
    """A page of one skill, or of all of them."""
    makers = rng.choice(
        ((number_sentence,), (size_sentence,), (letter_sentence,), (letter_sentence,),
         (number_sentence, size_sentence, letter_sentence))
    )  # fmt: skip
    slots = slots_for(rng)
    out = [rng.choice(PRACTICE_STARTS).format(**slots)]
    out += [rng.choice(makers)(rng) for _ in range(rng.between(7, 16))]
    if rng.chance(40):
        out.append(beat(rng, deal(), slots))
    return " ".join(out)


MAKERS: Weighted[Callable[[Rng, Dealer], str]] = Weighted((
    (story, 18), (tale, 6), (lesson, 17), (portrait, 9), (talk, 16), (chat, 20), (practice, 14),
))  # fmt: skip


def is_for_validation(document: str) -> bool:
    """One document in eight may be validation text, and then never training text."""
    return stable_hash(document) % 8 == 0


def stream(seed: str, size: int, validation: bool) -> Iterator[str]:
    """Documents of about `size` bytes in all, none twice."""
    rng = Rng(seed)
    deal = Dealer(rng)
    seen: set[str] = set()
    while size > 0:
        document = rng.weighted(MAKERS)(rng, deal)
        if not SHORTEST <= len(document) <= LONGEST or document in seen:
            continue
        if is_for_validation(document) == validation:
            seen.add(document)
            size -= len(document)  # ASCII only: a character is a byte
            yield document


def documents(shard: int) -> Iterator[str]:
    """The texts of a base shard, any number from 0; about SHARD_BYTES in all."""
    if shard < 0:
        raise ValueError(f"shard {shard}: shards are numbered from 0")
    return stream(f"tinyworld shard {shard}", SHARD_BYTES, False)


def validation_documents() -> Iterator[str]:
    """About 0.5 MB of other texts, none of which is in any shard."""
    return stream("tinyworld validation", VALIDATION_BYTES, True)
