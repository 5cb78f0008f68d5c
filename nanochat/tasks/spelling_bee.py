"""SpellingBee: how many times is a letter in a word? Counted by the calculator.

A word's tokens do not show its letters, so a model of any size does better to call. The trap: in
`'strawberry'` the tokenizer takes `'s` for an ending, as in "it's", and the word inside falls apart
into other tokens than usual. So a blank stands before the word in the call, as in the question: it
is the same tokens in both, to be copied.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterator, Sequence

from nanochat.tasks.gsm8k import number
from nanochat.tasks.task import Conversation, Row, Task, exchange

COUNTS = {"train": 10_000, "test": 1_000}  # of rows; words are plenty, and rows cost nothing
IN_WORDS = (("not appear", 0), ("once", 1), ("twice", 2))
# The word that is asked about, which may be "once".
ASKED = re.compile(r"'[a-z]+'|\bin (?:the word )?[a-z]+(?=[.!]?$)")
HELD_OUT_EVERY = 10  # every 10th word, by hash, is only asked in evaluation
QUESTIONS = (
    "How many {l} are in {w}?",
    "How many {l} are there in the word {w}?",
    "Count the {l} in {w}.",
    "How many times does {l} occur in {w}?",
    "How often is the letter {l} in {w}?",
    "Tell me how many {l} are in {w}.",
    "In {w}, how many {l} are there?",
    "what is the number of {l} in {w}",
)


def is_held_out(word: str) -> bool:
    """Whether a word is only for evaluation."""
    return zlib.crc32(word.encode()) % HELD_OUT_EVERY == 0


def rows(words: Sequence[str], split: str, count: int, seed: int = 0) -> Iterator[Row]:
    """`count` rows {"question", "answer": int, "word", "letter"} of the words of a split.

    Only plain lower-case words of 3 to 15 letters are used.
    """
    # Held out by the word and not by the question: how often a letter is in a word that was seen in
    # training can be known by heart.
    pool = [
        w
        for w in words
        if 3 <= len(w) <= 15
        and w.isascii()
        and w.isalpha()
        and w.islower()
        and is_held_out(w) == (split == "test")
    ]
    rng = random.Random(f"spelling bee {split} {seed}")
    for _ in range(count if pool else 0):
        # Drawn by the answer, then by the word. Of random letters most are in a word once or never,
        # and a model that always says "1" would look like one that counts.
        wanted = rng.choice((1, 2, rng.choice((0, 3))))
        word, letter = _draw(rng, pool, wanted)
        quoted = rng.random() < 0.5
        marks = (f"'{letter}'", f"'{word}'") if quoted else (letter, word)
        question = rng.choice(QUESTIONS).format(l=marks[0], w=marks[1])
        yield {"question": question, "answer": word.count(letter), "word": word, "letter": letter}


def _draw(rng: random.Random, pool: Sequence[str], wanted: int) -> tuple[str, str]:
    """A word and a letter that is in it `wanted` times; any other pair where none turns up."""
    word, letter = "", ""
    for _ in range(200):
        word = rng.choice(pool)
        letter = rng.choice(word) if wanted else rng.choice("etaoinshrdlu")
        if word.count(letter) == wanted:
            break
    return word, letter


def conversation(row: Row) -> Conversation:
    """The question and a counted answer, in the same words as tinyworld's letter counting."""
    word, letter, count = row["word"], row["letter"], row["answer"]
    answer = [
        {"type": "python", "text": f" ' {word}'.count(' {letter}')"},
        {"type": "python_output", "text": str(count)},
        {"type": "text", "text": counted(letter, word)},
    ]
    return exchange(row["question"], answer)


def counted(letter: str, word: str) -> str:
    """The sentence that says how often; tinyworld says it in the same words.

    >>> counted("r", "strawberry")
    'The letter r appears 3 times in strawberry.'
    >>> counted("k", "sea")
    'The letter k does not appear in sea.'
    """
    count = word.count(letter)
    times = {0: "does not appear", 1: "appears once"}.get(count, f"appears {count} times")
    return f"The letter {letter} {times} in {word}."


def said(reply: str) -> float | None:
    """How often, by a reply: its last number, where it does not say so in words.

    >>> said("The letter 'k' appears once in 'ask'."), said("There are 3 r's."), said("Yes.")
    (1, 3.0, None)
    """
    outside = ASKED.sub("", reply.lower())
    for words, count in IN_WORDS:
        if words in outside:
            return count
    return number(reply)


def is_right(row: Row, reply: str) -> bool:
    """Whether the reply says how often."""
    return said(reply) == row["answer"]


TASK = Task(
    "spelling_bee",
    conversation=conversation,
    answer=lambda row: str(row["answer"]),
    is_right=is_right,
    guess=1 / 3,  # see rows(): 1, 2, and 3 or 0 come up equally often
    generate=lambda split, words: rows(words, split, COUNTS[split]),
    shares={"mid": 1, "sft": 1},
)
