"""Questions about the letters of words, and copying words; held out by the word.

A model reads tokens and doesn't see their letters, so the calculator looks at the word. What is
left to learn is copying: any word, one that was never met as well, into the call and into the
sentence. So a blank stands before the word in the call as it does everywhere else: it is then the
same tokens each time. Behind a quote alone it would be others, and 'strawberry would fall apart
into 's and trawberry, as if it were a possessive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanochat.data.tinyworld.calls import called, result_of, typed_with
from nanochat.data.tinyworld.keys import is_held_out
from nanochat.data.tinyworld.made_up import invented
from nanochat.data.tinyworld.questions import Asked
from nanochat.data.tinyworld.rng import Rng, Weighted
from nanochat.tasks.spelling_bee import counted

if TYPE_CHECKING:
    from nanochat.data.tinyworld.world import World

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
NAMED_WITH_AN = "aefhilmnorsx"  # letters: "an f", since one says "ef"


def any_word(world: World, rng: Rng) -> str:
    """A word of this world, or one that does not exist."""
    return invented(rng) if rng.chance(30) else rng.choice(world.countable_words)


def _word(world: World, rng: Rng, held: bool, skill: str) -> str:
    # Each skill keeps other words for its questions: a word that is never spelled in training is
    # repeated there, so its tokens are known and only the copying is new.
    while True:
        word = any_word(world, rng)
        if is_held_out(f"{skill} {word}") == held:
            return word


def _shown(rng: Rng, word: str) -> str:
    """The word as a question has it: now and then in quotes."""
    return f"'{word}'" if rng.chance(12) else word


LETTERS = (
    "How many {l}'s are in {w}?", "How many {l}'s are there in {w}?", "How many {l}s are in {w}?",
    "How many times does the letter {l} appear in {w}?", "Count the {l}'s in {w}.",
    "How many times is the letter {l} in the word {w}?", "Count the letter {l} in {w}.",
    "Tell me how many {l}'s are in {w}.", "How often does {l} appear in {w}?",
    "Can you count the {l}'s in {w}?", "Please count the letter {l} in the word {w}.",
    "Do you know how many {l}'s are in {w}?", "In the word {w}, how many {l}'s are there?",
    "How many {l} are in the word {w}?", "Hi! How many {l}'s does {w} have?",
    "How many times do you see the letter {l} in {w}?", "How many {l}'s in {w}?",
    "How many letters {l} are in {w}?", "How many {l}'s does the word {w} have?",
    "How many {l}s does the word {w} have?", "How many {l}s in {w}?", "How many {l} in {w}?",
    "How many times does {l} occur in {w}?", "What is the number of {l}'s in {w}?",
    "{w}: how many {l}'s?", "How many {l}'s in the word {w}?", "Number of {l}'s in {w}?",
    "How many times can you find {l} in {w}?", "How many of the letter {l} are in {w}?",
)  # fmt: skip


def letter_counting(world: World, rng: Rng, held: bool) -> Asked:
    word = _word(world, rng, held, "letters")
    letter = rng.choice(word) if rng.chance(85) else rng.choice(ALPHABET)
    template, shown = rng.choice(LETTERS), _shown(rng, word)
    # People write the R's of strawberry with a capital; the call counts small ones.
    named = letter.upper() if rng.chance(15) else letter
    if shown != word and "{l}'s" not in template and "{l}s" not in template:
        named = f"'{letter}'"
    text = typed_with(rng, template, l=named, w=shown)
    reply = called(f"' {word}'.count(' {letter}')", counted(letter, word))
    # The word belongs to the answer: "1" alone is right for most words.
    n = word.count(letter)
    ways = {
        0: ("does not appear", "appears 0 times"),
        1: ("once", "1 time"),
        2: ("2 times", "twice"),
    }
    accept = tuple(f"{way} in {word}" for way in ways.get(n, (f"{n} times",)))
    return Asked("letter_counting", text, reply, accept[0], accept)


SPELL = (
    "How do you spell {w}?", "How do you spell {w}?", "How is {w} spelled?", "Spell {w}.",
    "Spell {w}.", "Spell the word {w}.", "Please spell {w}.", "Can you spell {w}?",
    "Can you spell the word {w} for me?", "Tell me how to spell {w}.", "How do I spell {w}?",
    "Do you know how to spell {w}?", "How do you write the word {w}?", "Could you spell {w}?",
    "What is the spelling of {w}?", "I want to know how {w} is spelled.", "Spelling of {w}?",
    "What letters make the word {w}?", "Which letters are in {w}?", "How to spell {w}?",
    "What's the correct spelling of {w}?", "Spell out {w}.", "Spell {w} for me.",
    "How would you spell {w}?", "I don't know how to spell {w}.", "What are the letters in {w}?",
    "Spell {w} letter by letter.", "Help me spell {w}.", "Can u spell {w}?", "{w}, spell it.",
    "{w} spelling", "Letters of {w}?",
)  # fmt: skip


def spelling(world: World, rng: Rng, held: bool) -> Asked:
    word = _word(world, rng, held, "spell")
    if not held and rng.chance(10):  # names: people try their own
        word = rng.choice([name for name in world.lists["names"] if name.isalpha()])
        word = word.lower() if rng.chance(50) else word
    text = typed_with(rng, rng.choice(SPELL), w=_shown(rng, word))
    letters = "-".join(word)
    reply = called(f"'-'.join(' {word}')", f"The word {word} is spelled {{r}}.")
    # A letter more on either side is another word; training has no use for so long a list.
    longer = [f"{letters}-{more}" for more in ALPHABET] + [f"{more}-{letters}" for more in ALPHABET]
    accept = (letters, ", ".join(word), " ".join(word))
    return Asked("spelling", text, reply, letters, accept, tuple(longer) if held else ())


# Wordings, the call, and the sentence that says its result.
Look = tuple[tuple[str, ...], str, str]
FIRST: Look = (
    ("What is the first letter of {w}?", "What letter does {w} start with?", "First letter of {w}?",
     "Which letter does {w} begin with?", "What does {w} start with?",
     "{w} starts with what letter?", "Tell me the first letter of {w}.",
     "What is the first letter in the word {w}?",
     "Which letter is first in {w}?", "What letter comes first in {w}?"),
    "' {w}'[0]", "The first letter of {w} is {{r}}.",
)  # fmt: skip
LAST: Look = (
    ("What is the last letter of {w}?", "What letter does {w} end with?", "Last letter of {w}?",
     "Which letter does {w} end in?", "What does {w} end with?", "{w} ends with what letter?",
     "Tell me the last letter of {w}.", "What is the last letter in the word {w}?",
     "Which letter is last in {w}?", "What is the final letter of {w}?"),
    "' {w}'[-1]", "The last letter of {w} is {{r}}.",
)  # fmt: skip
SECOND: Look = (
    ("What is the second letter of {w}?", "What is the 2nd letter of {w}?",
     "Second letter of {w}?", "Which letter is second in {w}?",
     "Tell me the second letter of {w}.", "What is the second letter in the word {w}?"),
    "' {w}'[1]", "The second letter of {w} is {{r}}.",
)  # fmt: skip
THIRD: Look = (
    ("What is the third letter of {w}?", "What is the 3rd letter of {w}?", "Third letter of {w}?",
     "Which letter is third in {w}?", "Tell me the third letter of {w}.",
     "What is the third letter in the word {w}?"),
    "' {w}'[2]", "The third letter of {w} is {{r}}.",
)  # fmt: skip
LENGTH: Look = (
    ("How many letters are in {w}?", "How many letters does {w} have?", "How many letters in {w}?",
     "How many letters are in the word {w}?", "How long is the word {w}?",
     "{w} has how many letters?", "Count the letters in {w}.", "Number of letters in {w}?",
     "What is the length of {w}?",
     "How many letters does the word {w} have?", "How many letters are there in {w}?",
     "Can you count the letters in {w}?", "Tell me how many letters {w} has.",
     "Letters in {w}?", "{w} length"),
    "len(' {w}')", "The word {w} has {{r}} letters.",
)  # fmt: skip
BACKWARD: Look = (
    ("Spell {w} backwards.", "What is {w} backwards?", "{w} backwards", "Reverse {w}.",
     "Reverse the word {w}.", "Say {w} backwards.", "Write {w} backwards.", "Spell {w} backward.",
     "How do you spell {w} backwards?", "What is {w} spelled backwards?", "{w} in reverse",
     "Can you say {w} backwards?", "Can you spell {w} in reverse?", "Turn the word {w} around."),
    "' {w}'[::-1]", "The word {w} backwards is {{r}}.",
)  # fmt: skip
CAPITALS: Look = (
    ("Write {w} in capital letters.", "Write {w} in capitals.", "{w} in capital letters",
     "Write {w} in all caps.", "Put {w} in capitals.", "{w} in uppercase", "Make {w} uppercase.",
     "Can you write {w} in big letters?", "What is {w} in capital letters?"),
    "' {w}'.upper()", "The word {w} in capitals is {{r}}.",
)  # fmt: skip
LOOKS = Weighted(
    ((FIRST, 5), (LAST, 5), (SECOND, 2), (THIRD, 2), (LENGTH, 6), (BACKWARD, 5)),
)
HAS = (
    "Does {w} have {a} in it?", "Is there {a} in {w}?", "Does {w} have the letter {l}?",
    "Does {w} contain the letter {l}?", "Is the letter {l} in {w}?", "Is {l} in {w}?",
    "Does the word {w} have {a}?", "Is there {a} in the word {w}?", "Does {w} contain {a}?",
    "Is the letter {l} in the word {w}?", "Are there any {l}'s in {w}?", "Has {w} got {a} in it?",
    "Do you see {a} in {w}?", "Is there a letter {l} in {w}?", "Can you find {a} in {w}?",
)  # fmt: skip


def letters(world: World, rng: Rng, held: bool) -> Asked:
    """The first, the last, how many, all of them backwards: one letter or the look of the word."""
    word = _word(world, rng, held, "look")
    if rng.chance(30):
        return _has(rng, word)
    # Whether a reply has capitals is not seen when it is compared with the answer.
    look = CAPITALS if not held and rng.chance(4) else rng.weighted(LOOKS)
    ways, expression, sentence = look
    text = typed_with(rng, rng.choice(ways), w=_shown(rng, word))
    reply = called(expression.format(w=word), sentence.format(w=word))
    said = result_of(reply) or ""
    answer = f"{said} letters" if look is LENGTH else f"is {said}"
    return Asked("letters", text, reply, answer, (answer,))


def _has(rng: Rng, word: str) -> Asked:
    has = rng.chance(50)
    pool = sorted(set(word)) if has else [letter for letter in ALPHABET if letter not in word]
    letter = rng.choice(pool)
    a = f"{'an' if letter in NAMED_WITH_AN else 'a'} {letter}"
    text = typed_with(rng, rng.choice(HAS), w=_shown(rng, word), l=letter, a=a)
    yes = f"Yes, the letter {letter} is in {word}."
    no = f"No, the letter {letter} is not in {word}."
    reply = called(f"' {letter}' in ' {word}'", yes if has else no)
    right, wrong = ("yes", "no") if has else ("no", "yes")
    return Asked("letters", text, reply, right, (right,), (wrong,))


REPEAT = (
    "Say {w}.", "Say {w}.", "Say the word {w}.", "Repeat {w}.", "Repeat the word {w}.",
    "Please repeat {w}.", "Repeat after me: {w}.", "Can you say {w}?", "Please say {w}.",
    "Can you repeat the word {w}?", "Write the word {w}.", "Put {w} in quotes.", "Just say {w}.",
    "Can you say {w} for me?", "Say this: {w}.", "Repeat this: {w}.", "Type {w}.", "Echo {w}.",
    "Now say {w}.", "I want you to say {w}.", "Could you say {w}, please?", "Copy this: {w}.",
)  # fmt: skip


def repeat(world: World, rng: Rng, held: bool) -> Asked:
    """Copying a word: what every call here begins with, and easier to learn alone.

    Half of the practice is rows of words: only copying can answer them, nothing learned by heart.
    """
    said = _word(world, rng, held, "repeat")
    if not held and rng.chance(50):
        for _ in range(rng.between(1, 5)):
            said += rng.choice((" ", ", ", " and ")) + any_word(world, rng)
    text = typed_with(rng, rng.choice(REPEAT), w=_shown(rng, said))
    return Asked("repeat", text, f"Sure: {said}.", said, (said,))
