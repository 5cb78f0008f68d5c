"""How people ask for the facts: the templates, and the noise of people's typing.

In a template {x} is the key of a fact with its article ("a cow"), {n} without ("cow"), {p} its
plural ("cows"), {y} the answer ("a calf"), {m} the answer without its article ("calf"); a key
"days in a week" is also {u} "days" and {v} "in a week". {X}, {Y}, {P} and {V} start with a
capital. A direct question is written without its question mark.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from nanochat.data.tinyworld.facts import Fact, all_facts, bare, listed
from nanochat.data.tinyworld.rng import Rng, Weighted, stable_hash


@dataclass(frozen=True)
class Relation:
    """The wordings of one relation.

    kind: the held-out kind that it counts for. ask: direct questions. clause: what fits after
    "Tell me". noun: what fits after "What is". new: questions kept for the held-out kind
    `fact_new_wording`, never taught. say: the answer first, then other ways to state it in base
    text. it: how to ask of the thing that the last turn was about. check: how to ask whether {y} is
    so, where what is not the answer is wrong.
    """

    kind: str
    say: tuple[str, ...]
    ask: tuple[str, ...]
    clause: tuple[str, ...]
    new: tuple[str, ...]
    noun: tuple[str, ...] = ()
    it: tuple[str, ...] = ()
    check: tuple[str, ...] = ()


RELATIONS = {
    "capital": Relation(
        "countries",
        say=(
            "The capital of {x} is {y}.",
            "{Y} is the capital of {x}.",
            "The capital city of {x} is {y}.",
            "{X} has a capital, and it is {y}.",
        ),
        ask=(
            "What is the capital of {x}",
            "Which city is the capital of {x}",
            "What is the capital city of {x}",
            "What city is the capital of {x}",
            "What is the name of the capital of {x}",
        ),
        clause=(
            "what the capital of {x} is",
            "which city is the capital of {x}",
            "the capital of {x}",
            "what the capital city of {x} is",
        ),
        noun=("the capital of {x}", "the capital city of {x}"),
        new=("How is the capital of {x} called", "In {x}, which city is the capital"),
        it=("What is its capital", "Which city is its capital", "And the capital"),
        check=("Is {y} the capital of {x}", "Is the capital of {x} {y}"),
    ),
    "capital_of": Relation(
        "countries",
        say=("{X} is the capital of {y}.",),
        ask=(
            "{X} is the capital of which country",
            "Which country has the capital {x}",
            "What country is {x} the capital of",
            "Of which country is {x} the capital",
            "Which country is {x} in",
            "In which country is {x}",
            "Where is {x}",
        ),
        clause=("which country has the capital {x}", "what country {x} is the capital of"),
        new=("Which country is {x} the capital of",),
    ),
    "continent": Relation(
        "countries",
        say=("{X} is in {y}.", "{X} is a country in {y}.", "{X} lies in {y}."),
        ask=(
            "Where is {x}",
            "On which continent is {x}",
            "What continent is {x} in",
            "In which part of the world is {x}",
            "Which continent is {x} in",
        ),
        clause=("where {x} is", "which continent {x} is in", "on which continent {x} is"),
        noun=("the continent of {x}",),
        new=("Where in the world is {x}", "To which continent does {x} belong"),
        it=("Where is it", "On which continent is it", "And what continent is it in"),
        check=("Is {x} in {y}", "Is {x} a country in {y}"),
    ),
    "language": Relation(
        "countries",
        say=("People in {x} speak {y}.", "The language of {x} is {y}.", "In {x} people speak {y}."),
        ask=(
            "What language do people speak in {x}",
            "Which language is spoken in {x}",
            "What do people speak in {x}",
            "What is the language of {x}",
        ),
        clause=(
            "what language people speak in {x}",
            "which language is spoken in {x}",
            "the language of {x}",
        ),
        noun=("the language of {x}",),
        new=("In {x}, what language do they speak",),
        it=("What language do people speak there", "And the language", "What do they speak there"),
        check=("Do people in {x} speak {y}", "Do they speak {y} in {x}"),
    ),
    "opposite": Relation(
        "opposites",
        say=(
            "The opposite of {x} is {y}.",
            "{Y} is the opposite of {x}.",
            "{Y} means the opposite of {x}.",
            "The word {x} is the opposite of the word {y}.",
        ),
        ask=(
            "What is the opposite of {x}",
            "What word is the opposite of {x}",
            "Which word means the opposite of {x}",
            "What is the opposite of the word {x}",
            "{X} is the opposite of what",
        ),
        clause=(
            "what the opposite of {x} is",
            "the opposite of {x}",
            "which word is the opposite of {x}",
            "the word that is the opposite of {x}",
        ),
        noun=("the opposite of {x}", "the opposite of the word {x}"),
        new=("Which word is opposite to {x}", "What do you call the opposite of {x}"),
        check=("Is {y} the opposite of {x}", "Is the opposite of {x} {y}"),
    ),
    "colour": Relation(
        "colours",
        say=(
            "The colour of {x} is {y}.",
            "{X} is {y}.",
            "{Y} is the colour of {x}.",
            "{X} has the colour {y}.",
        ),
        ask=(
            "What colour is {x}",
            "What is the colour of {x}",
            "Which colour is {x}",
            "Which colour does {x} have",
            "What colour are {p}",
            "What colour does {x} have",
        ),
        clause=(
            "what colour {x} is",
            "the colour of {x}",
            "which colour {x} has",
            "what colour {p} are",
        ),
        noun=("the colour of {x}",),
        new=("{X} has which colour", "What is the usual colour of {x}"),
        it=("What colour is it", "And its colour", "Which colour does it have"),
        check=("Is {x} {y}", "Is the colour of {x} {y}", "Are {p} {y}"),
    ),
    "sound": Relation(
        "animals",
        say=("{X} says {y}.", "The sound of {x} is {y}.", "{X} is an animal that says {y}."),
        ask=(
            "What does {x} say",
            "What sound does {x} make",
            "Which sound does {x} make",
            "What noise does {x} make",
            "What sound do {p} make",
            "What noise do {p} make",
            "What is the sound of {x}",
            "How does {x} sound",
        ),
        clause=("what {x} says", "what sound {x} makes", "which noise {x} makes"),
        noun=("the sound of {x}",),
        new=("What do {p} say", "{X} makes what sound"),
        it=("What does it say", "What sound does it make", "And its sound"),
        check=("Does {x} say {y}", "Do {p} say {y}"),
    ),
    "sound_of": Relation(
        "animals",
        say=("{Y} says {x}.",),
        ask=(
            "Which animal says {x}",
            "What animal says {x}",
            "Who says {x}",
            "Which animal makes the sound {x}",
            "What animal goes {x}",
        ),
        clause=("which animal says {x}", "what animal makes the sound {x}", "who says {x}"),
        noun=("the animal that says {x}",),
        new=("Which animal goes {x}",),
    ),
    "baby": Relation(
        "animals",
        say=("A baby {n} is called {y}.", "{Y} is a baby {n}.", "The baby of {x} is {y}."),
        ask=(
            "What is a baby {n} called",
            "What do you call a baby {n}",
            "What is the baby of {x} called",
            "What is the name of a baby {n}",
            "What is a young {n} called",
            "How do you call a baby {n}",
        ),
        clause=("what a baby {n} is called", "what you call a baby {n}", "the name of a baby {n}"),
        noun=("the name of a baby {n}", "a baby {n}"),
        new=("What are baby {p} called", "What do people call the baby of {x}"),
        it=("What is its baby called", "And its baby", "What do you call its baby"),
        check=("Is a baby {n} called {y}", "Is {y} a baby {n}"),
    ),
    "grown": Relation(
        "animals",
        say=("{X} is a baby {m}.", "{X} grows up and becomes {y}."),
        ask=(
            "What is {x}",
            "What does {x} become",
            "{X} is the baby of which animal",
            "Which animal is {x} the baby of",
            "What will {x} become when it grows up",
            "{X} is a baby what",
        ),
        clause=("what {x} is", "what {x} becomes", "which animal {x} is the baby of"),
        new=("What does {x} grow into",),
    ),
    "home": Relation(
        "animals",
        say=("{X} lives in {y}.", "The home of {x} is {y}.", "{Y} is the home of {x}."),
        ask=(
            "Where does {x} live",
            "What is the home of {x}",
            "What does {x} live in",
            "Where do {p} live",
            "In what kind of place does {x} live",
        ),
        clause=("where {x} lives", "where {p} live", "what the home of {x} is"),
        noun=("the home of {x}",),
        new=("Where would I find {x}", "Where is the home of {x}"),
        it=("Where does it live", "And where does it live", "What is its home"),
    ),
    "legs": Relation(
        "animals",
        say=("{X} has {y} legs.", "{P} have {y} legs."),
        ask=(
            "How many legs does {x} have",
            "How many legs do {p} have",
            "What number of legs does {x} have",
            "How many legs are there on {x}",
            "On how many legs does {x} walk",
        ),
        clause=("how many legs {x} has", "how many legs {p} have", "the number of legs of {x}"),
        noun=("the number of legs of {x}",),
        new=("{X} has how many legs", "How many legs has {x}"),
        it=("How many legs does it have", "And how many legs", "And its legs, how many are there"),
        check=("Does {x} have {y} legs", "Do {p} have {y} legs"),
    ),
    "food": Relation(
        "animals",
        say=("{X} eats {y}.", "The food of {x} is {y}.", "{P} eat {y}."),
        ask=(
            "What does {x} eat",
            "What do {p} eat",
            "What is the food of {x}",
            "Which food does {x} eat",
            "What kind of food does {x} eat",
            "What does {x} like to eat",
        ),
        clause=("what {x} eats", "what {p} eat", "what the food of {x} is"),
        noun=("the food of {x}",),
        new=("What food would {x} want", "What should I feed {x}"),
        it=("What does it eat", "And what does it eat", "And its food", "What does it like to eat"),
    ),
    "gives": Relation(
        "things",
        say=("{X} comes from {y}.", "We get {x} from {y}.", "{Y} gives us {x}."),
        ask=(
            "Where does {x} come from",
            "Which animal gives us {x}",
            "What animal does {x} come from",
            "From which animal do we get {x}",
            "What gives us {x}",
        ),
        clause=("where {x} comes from", "which animal gives us {x}", "what animal gives us {x}"),
        new=("Who gives us {x}", "Which animal does {x} come from"),
        it=("Where does it come from",),
    ),
    "material": Relation(
        "things",
        say=(
            "{X} is made of {y}.",
            "People make {x} of {y}.",
            "To make {x}, people need {y}.",
        ),
        ask=(
            "What is {x} made of",
            "What is {x} made from",
            "What do people use to make {x}",
            "Which material is {x} made of",
            "What are {p} made of",
            "What do you need to make {x}",
            "From what is {x} made",
        ),
        clause=("what {x} is made of", "what people use to make {x}", "what {x} is made from"),
        new=("Of what is {x} made", "Which material do people make {x} of"),
        it=("What is it made of", "And what is it made of", "What is it made from"),
    ),
    "category": Relation(
        "categories",
        say=("{X} is {y}.", "{X} is a kind of {m}.", "One kind of {m} is {x}."),
        ask=(
            "What is {x}",
            "What kind of thing is {x}",
            "What sort of thing is {x}",
            "{X} is a kind of what",
            "What type of thing is {x}",
            "What are {p}",
        ),
        clause=("what {x} is", "what kind of thing {x} is", "what sort of thing {x} is"),
        new=("What could {x} be", "{X} is what kind of thing"),
        it=("What is it", "What kind of thing is it"),
        check=("Is {x} {y}", "Is {x} a kind of {m}"),
    ),
    "example": Relation(
        "categories",
        say=("{Y} is {x}.",),
        ask=(
            "What is an example of {x}",
            "Can you name {x}",
            "Can you give me an example of {x}",
            "Which {n} do you know",
            "Do you know {x}",
            "What is the name of {x}",
        ),
        clause=("what an example of {x} is", "the name of {x}", "an example of {x}", "one {n}"),
        noun=("{x}", "an example of {x}", "one {n}", "any {n}"),
        new=("Could you think of {x}", "What would be {x}"),
    ),
    "place": Relation(
        "people_and_places",
        say=("You can {x} in {y}.", "{Y} is a place where you can {x}.", "To {x}, go to {y}."),
        ask=(
            "Where can I {x}",
            "Where do people {x}",
            "Where can you {x}",
            "In which place can I {x}",
            "Where should I go to {x}",
            "Where do I {x}",
            "What is a good place to {x}",
        ),
        clause=("where I can {x}", "where people {x}", "where to {x}"),
        noun=("the place to {x}", "a good place to {x}"),
        new=("Where would you go to {x}", "Where is it possible to {x}"),
    ),
    "use": Relation(
        "things",
        say=("{X} is used for {y}.", "People use {x} for {y}.", "{X} is for {y}."),
        ask=(
            "What is {x} used for",
            "What is {x} for",
            "What do people use {x} for",
            "What do you do with {x}",
            "What can I do with {x}",
            "Why do people need {x}",
            "What is the use of {x}",
            "What are {p} for",
            "What are {p} used for",
        ),
        clause=("what {x} is for", "what {x} is used for", "what people do with {x}"),
        noun=("the use of {x}",),
        new=("What would I do with {x}", "What are {p} good for"),
        it=("What is it for", "What is it used for", "And what do people do with it"),
    ),
    "job": Relation(
        "people_and_places",
        say=("{X} {y}.", "{X} is someone who {y}.", "Someone who {y} is {x}."),
        ask=(
            "What does {x} do",
            "What is the job of {x}",
            "What is the work of {x}",
            "What do {p} do",
            "What does {x} do all day",
            "What work does {x} do",
            "What does {x} do for work",
        ),
        clause=("what {x} does", "what the job of {x} is", "what {p} do", "what work {x} does"),
        noun=("the job of {x}", "the work of {x}"),
        new=("How does {x} earn money", "What can {x} do for me"),
    ),
    "job_of": Relation(
        "people_and_places",
        say=("{Y} {x}.",),
        ask=(
            "Who {x}",
            "Which person {x}",
            "What do you call a person who {x}",
            "What do you call someone who {x}",
            "What is the job of someone who {x}",
            "What is a person who {x} called",
        ),
        clause=("who {x}", "what you call a person who {x}", "which person {x}"),
        noun=("a person who {x}", "the name for someone who {x}"),
        new=("What is the name of a person who {x}",),
    ),
    "how_many": Relation(
        "how_many",
        say=("There are {y} {u} {v}.", "{V} there are {y} {u}."),
        ask=(
            "How many {u} are there {v}",
            "How many {u} are {v}",
            "What is the number of {u} {v}",
            "How many {u} {v}",
            "{V}, how many {u} are there",
        ),
        clause=("how many {u} there are {v}", "the number of {u} {v}", "how many {u} are {v}"),
        noun=("the number of {u} {v}",),
        new=("How many {u} can I count {v}", "How many {u} do we have {v}"),
    ),
    "sides": Relation(
        "how_many",
        say=("{X} has {y} sides.", "There are {y} sides in {x}."),
        ask=(
            "How many sides does {x} have",
            "How many sides do {p} have",
            "What number of sides does {x} have",
            "How many sides are there in {x}",
        ),
        clause=("how many sides {x} has", "how many sides {p} have", "the number of sides of {x}"),
        noun=("the number of sides of {x}",),
        new=("{X} has how many sides", "How many sides has {x}"),
        it=("How many sides does it have", "And how many sides"),
    ),
    "body": Relation(
        "world",
        say=("We {x} with our {y}.", "People {x} with their {y}."),
        ask=(
            "What do we {x} with",
            "With what do we {x}",
            "Which part of the body do we {x} with",
            "What do people use to {x}",
            "What part of the body helps us to {x}",
            "What do I {x} with",
        ),
        clause=("what we {x} with", "which part of the body helps us to {x}"),
        noun=("the part of the body that we {x} with",),
        new=("What do you need to {x}", "What do humans {x} with"),
    ),
    "next": Relation(
        "time",
        say=("{Y} comes after {x}.", "After {x} comes {y}."),
        ask=(
            "What comes after {x}",
            "What comes next after {x}",
            "What follows {x}",
            "Which one comes after {x}",
            "What is next after {x}",
        ),
        clause=("what comes after {x}", "what follows {x}", "what is next after {x}"),
        new=("After {x}, what comes next", "What do we have after {x}"),
        check=("Does {y} come after {x}",),
    ),
    "previous": Relation(
        "time",
        say=("{Y} comes before {x}.", "Before {x} comes {y}."),
        ask=(
            "What comes before {x}",
            "What comes right before {x}",
            "Which one comes before {x}",
            "What is just before {x}",
            "What came before {x}",
        ),
        clause=("what comes before {x}", "what is just before {x}", "which one comes before {x}"),
        new=("Before {x}, what do we have", "What do we have before {x}"),
    ),
    "record": Relation(
        "world",
        say=("{X} is {y}.", "{Y} is {x}."),
        ask=(
            "What is {x}",
            "What do you call {x}",
            "What is the name of {x}",
            "Which is {x}",
            "Who or what is {x}",
        ),
        clause=("what {x} is", "the name of {x}", "{x}", "which is {x}"),
        noun=("{x}", "the name of {x}"),
        new=("What would you call {x}", "How do we call {x}"),
    ),
    "warmth": Relation(
        "things",
        say=("{X} is {y}.", "Everybody knows that {x} is {y}."),
        ask=("Is {x} hot or cold", "Is {x} cold or hot", "How hot is {x}", "How warm is {x}"),
        clause=("whether {x} is hot or cold", "if {x} is cold or hot", "how warm {x} is"),
        new=("Would you call {x} hot or cold", "Is {x} a hot or a cold thing"),
        it=("Is it hot or cold", "How warm is it"),
        check=("Is {x} {y}",),
    ),
    "taste": Relation(
        "things",
        say=("{X} tastes {y}.", "The taste of {x} is {y}.", "{X} has a {y} taste."),
        ask=(
            "How does {x} taste",
            "What does {x} taste like",
            "What is the taste of {x}",
            "Which taste does {x} have",
        ),
        clause=("how {x} tastes", "what {x} tastes like", "the taste of {x}"),
        noun=("the taste of {x}",),
        new=("What kind of taste does {x} have", "{X} has which taste"),
        it=("How does it taste", "What does it taste like", "And the taste"),
        check=("Does {x} taste {y}", "Is {x} {y}"),
    ),
    "speed": Relation(
        "things",
        say=("{X} is {y}.", "Everybody knows that {x} is {y}."),
        ask=("Is {x} fast or slow", "Is {x} slow or fast", "How fast is {x}"),
        clause=("whether {x} is fast or slow", "how fast {x} is", "if {x} is slow or fast"),
        new=("Would you call {x} fast or slow", "Does {x} move fast or slowly"),
        it=("Is it fast or slow", "How fast is it"),
        check=("Is {x} {y}", "Are {p} {y}"),
    ),
}

# Around a direct question ({q}: small first letter, {Q}: capital), a clause or a noun phrase.
ASK_FRAMES = (
    ("{Q}?", 30),
    ("Please tell me, {q}?", 2),
    ("{Q}, please?", 2),
    ("Hi! {Q}?", 2),
    ("Hello, {q}?", 2),
    ("Hey, {q}?", 1),
    ("Hi nanochat, {q}?", 1),
    ("I have a question. {Q}?", 2),
    ("{Q}? I forgot.", 1),
    ("{Q}? Do you know?", 2),
    ("{Q}? Please tell me.", 1),
    ("Can you help me? {Q}?", 2),
    ("Quick question: {q}?", 1),
    ("So {q}?", 1),
    ("OK, {q}?", 2),
    ("Good morning! {Q}?", 1),
    ("And {q}?", 1),
    ("Thanks. {Q}?", 1),
    ("Now tell me, {q}?", 1),
    ("My friend asks: {q}?", 1),
)
CLAUSE_FRAMES = (
    ("Tell me {c}.", 6),
    ("Please tell me {c}.", 3),
    ("Can you tell me {c}?", 5),
    ("Could you tell me {c}, please?", 2),
    ("Could you please tell me {c}?", 2),
    ("Do you know {c}?", 6),
    ("I want to know {c}.", 4),
    ("I would like to know {c}.", 2),
    ("I wonder {c}.", 1),
    ("I need to know {c}.", 2),
    ("I forgot {c}.", 1),
    ("Do you remember {c}?", 1),
    ("Can you say {c}?", 1),
    ("Would you tell me {c}?", 1),
    ("Let me know {c}.", 1),
    ("Hi, can you tell me {c}?", 2),
    ("Hello! Do you know {c}?", 1),
    ("Hi! Tell me {c}.", 1),
)
NOUN_FRAMES = (
    ("{N}?", 6),
    ("{N}, please.", 2),
    ("Tell me {n}.", 3),
    ("Name {n}.", 2),
    ("Say {n}.", 1),
    ("Give me {n}.", 1),
    ("Do you know {n}?", 2),
    ("I need {n}.", 1),
    ("And {n}?", 1),
)
# The clauses that fit after "asked": not "the capital of France".
ASKING = re.compile(r"(?:on )?(?:what|which|where|who|how)\b")
NEW_FRAMES = (
    "Any idea {c}?",
    "Remind me {c}.",
    "My teacher wants to know {c}.",
    "I am trying to find out {c}.",
    "Are you able to tell me {c}?",
)

PLURALS = {
    "sheep": "sheep", "fish": "fish", "deer": "deer", "mouse": "mice", "wolf": "wolves",
    "goose": "geese", "person": "people", "knife": "knives", "fisherman": "fishermen",
    "postman": "postmen", "leaf": "leaves", "shelf": "shelves", "fly": "flies",
    "butterfly": "butterflies", "bus": "buses", "ox": "oxen", "snowman": "snowmen",
}  # fmt: skip
MASS = listed(
    """
    bread cheese butter wine juice glass ice paper flour ketchup jam chocolate snow grass blood
    coal milk salt spinach broccoli soap wool honey silk pork beef bacon ham soot mustard cocoa
    lettuce
    """
)


def plural(noun: str) -> str:
    """More than one of the noun.

    >>> plural("cow"), plural("box"), plural("pastry"), plural("mouse")
    ('cows', 'boxes', 'pastries', 'mice')
    """
    if noun in MASS:
        return noun
    if noun in PLURALS:
        return PLURALS[noun]
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def article(noun: str) -> str:
    """The noun with a or an."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def fill(template: str, x: str, y: str) -> str:
    """The template with a fact's key and answer in it."""
    n = bare(x)
    p = plural(n)
    u, middle, v = (
        re.split(r" (in|on) ", x, maxsplit=1) if " in " in x or " on " in x else (x, "", "")
    )
    v = f"{middle} {v}"
    return template.format(
        x=x, X=capital(x), n=n, p=p, P=capital(p), y=y, Y=capital(y), m=bare(y), u=u, v=v,
        V=capital(v),
    )  # fmt: skip


NOT_PLAIN = re.compile(r"[^a-z0-9+*/=]+")
FILLERS = frozenset(
    listed(
        """
        hi hello hey please pls plz so ok okay thanks thank and well now good morning the a an
        nanochat quick question one i have can you help me do know forgot tell my friend asks
        """
    )
)
SAME = {
    "whats": "what is", "wheres": "where is", "whos": "who is", "hows": "how is",
    "color": "colour", "gray": "grey", "pls": "please", "dont": "do not", "im": "i am",
}  # fmt: skip


def plain(text: str) -> str:
    """Small letters and single spaces, no punctuation.

    >>> plain("Hi!  What's the capital of France?")
    'hi whats the capital of france'
    """
    return NOT_PLAIN.sub(" ", text.lower().replace("'", "")).strip()


def wording_key(text: str) -> str:
    """What is left of a question without greetings, contractions and punctuation.

    Questions with one key are one wording: all of them are taught, or all are held out.
    """
    # Lists, not generators: this runs 150,000 times before a chat model is trained or asked.
    words = [SAME.get(word, word) for word in plain(text).split()]
    return " ".join([word for word in words if word not in FILLERS])


def is_held_out(key: str, part: int = 8) -> bool:
    """One key of `part` is kept for the questions, and appears in no training text."""
    return stable_hash("held out: " + key) % part == 0


@cache
def _starts_with_name() -> re.Pattern[str]:
    """The words of the facts that keep their capital, and I."""
    names = {bare(text) for fact in all_facts() for text in (fact.x, fact.y)} - {"A"}
    names = {name for name in names if name[0].isupper()} | {"I", "Nanochat", "A is"}
    return re.compile(rf"(?:{'|'.join(sorted(names))})\b")


def small(text: str, name: str = "") -> str:
    """The text with a small first letter, unless it begins with a name.

    >>> small("Paris is a city"), small("A cow says moo")
    ('Paris is a city', 'a cow says moo')
    """
    if _starts_with_name().match(text) or (name and text.startswith(name)):
        return text
    return text[:1].lower() + text[1:]


def is_indirect(clause: str) -> bool:
    """Whether somebody else can be said to ask it: not "the capital of France", "where I can"."""
    return ASKING.match(clause) is not None and " I " not in clause


def fits(template: str, x: str) -> bool:
    """Only what has an article has a plural: not "what colour are snow"."""
    return x.startswith(("a ", "an ")) or ("{p}" not in template and "{P}" not in template)


def questions(relation: Relation, x: str) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """(all wordings that ask for x, the bare direct questions), each with its weight."""
    asks = [fill(t, x, "") for t in relation.ask if fits(t, x)]
    out = []
    for frame, weight in ASK_FRAMES:
        out += [(frame.format(Q=q, q=small(q)), weight * 4) for q in asks]
    for frame, weight in CLAUSE_FRAMES:
        for c in relation.clause:
            if not fits(c, x):
                continue
            if "wonder" not in frame or ASKING.match(c):
                out.append((frame.format(c=fill(c, x, "")), weight * 7))
    for frame, weight in NOUN_FRAMES:
        for noun in relation.noun:
            text = fill(noun, x, "")
            out.append((frame.format(N=capital(text), n=text), weight * 8))
    return out, [(q + "?", 1) for q in asks]


@dataclass(frozen=True)
class Wordings:
    """A fact's questions: to be taught, to be used in base text, held out, and never-taught."""

    taught: Weighted[str]
    base: tuple[str, ...]
    clauses: tuple[str, ...]
    held_out: tuple[str, ...]
    new: tuple[str, ...]


@cache
def wordings(fact: Fact) -> Wordings:
    relation = RELATIONS[fact.relation]
    asked, bare_asked = questions(relation, fact.x)
    taught, held_out = [], []
    for text, weight in asked:
        held = is_held_out(wording_key(text))
        (held_out if held else taught).append((text, weight))
    new = [fill(t, fact.x, "") + "?" for t in relation.new if fits(t, fact.x)]
    clauses = tuple(
        fill(c, fact.x, "") for c in relation.clause if is_indirect(c) and fits(c, fact.x)
    )
    new += [frame.format(c=c) for frame in NEW_FRAMES for c in clauses]
    return Wordings(
        Weighted(taught),
        tuple(q for q, _ in bare_asked if not is_held_out(wording_key(q))),
        clauses,
        tuple(text for text, _ in held_out),
        tuple(new),
    )


@cache
def sayings(fact: Fact) -> tuple[str, ...]:
    """All ways to state the fact, the answer first."""
    say = RELATIONS[fact.relation].say
    if fact.relation == "category" and (fact.x[0].isupper() or fact.x.startswith("the ")):
        say = say[:1]  # not "Monday is a kind of day"
    return tuple(fill(t, fact.x, fact.y) for t in say if fits(t, fact.x))


def statement(fact: Fact) -> str:
    """The answer to every wording of the fact."""
    return sayings(fact)[0]


TYPOS = (
    ("what", "wat"), ("what", "waht"), ("the", "teh"), ("capital", "captial"), ("which", "wich"),
    ("opposite", "oposite"), ("animal", "aminal"), ("does", "dose"), ("called", "caled"),
    ("where", "were"), ("know", "kno"), ("colour", "colur"), ("tell", "tel"),
)  # fmt: skip


def typed(rng: Rng, text: str) -> str:
    """The text as somebody might type it: without capitals, marks, apostrophes, or care."""
    roll = rng.below(100)
    if rng.chance(30):
        text = text.replace("What is", "What's", 1).replace("Where is", "Where's", 1)
        text = text.replace("what is", "what's", 1).replace("Who is", "Who's", 1)
    if rng.chance(40):
        text = text.replace("colour", "color").replace("grey", "gray")
    if roll < 40:
        return text
    if roll < 46:
        return text.rstrip("?.! ")
    if roll < 48:
        return text + (text[-1] if text[-1] in "?!" else "")
    text = text.lower()
    if roll < 62:
        return text
    text = text.rstrip("?.! ")
    if text.startswith("the ") and rng.chance(40):
        text = text[4:]
    if rng.chance(70):
        text = text.replace("what's", "whats").replace("where's", "wheres")
        text = text.replace("who's", "whos")
    if rng.chance(15):
        text = text.replace("you ", "u ").replace("please", rng.choice(("pls", "plz")))
    if rng.chance(30):
        text = text.replace(",", "").replace(":", "")
    if rng.chance(5):
        right, wrong = rng.choice(TYPOS)
        text = text.replace(right, wrong, 1)
    return text
