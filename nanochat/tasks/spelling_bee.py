"""SpellingBee: how many times is a letter in a word? Counted by the calculator.

A word's tokens do not show its letters, so a model of any size does better to call. The trap
(contract 6): in `'strawberry'` the tokenizer takes `'s` for an ending; so calls begin with a space,
and half of the questions quote the word as the call does, to be copied.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

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


def rows(words: Sequence[str], split: str, count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """{"question", "answer": int, "word", "letter"}, count of them, of train's or test's words.

    Words are plain lower-case ones of 3 to 15 letters.
    """
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
        # As many questions with 1 as with 2 and with 3 or 0: always "1" is right in a third only.
        wanted = rng.choice((1, 2, rng.choice((0, 3))))
        word, letter = _draw(rng, pool, wanted)
        quoted = rng.random() < 0.5
        marks = (f"'{letter}'", f"'{word}'") if quoted else (letter, word)
        question = rng.choice(QUESTIONS).format(l=marks[0], w=marks[1])
        yield {"question": question, "answer": word.count(letter), "word": word, "letter": letter}


def _draw(rng: random.Random, pool: Sequence[str], wanted: int) -> tuple[str, str]:
    """A word and a letter that is in it `wanted` times; any other where the words have none."""
    word, letter = "", ""
    for _ in range(200):
        word = rng.choice(pool)
        letter = rng.choice(word) if wanted else rng.choice("etaoinshrdlu")
        if word.count(letter) == wanted:
            break
    return word, letter


def conversation(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The row as something to learn from; in the same words as tinyworld's letter counting."""
    word, letter, count = row["word"], row["letter"], row["answer"]
    times = "1 time" if count == 1 else f"{count} times"
    answer = [
        {"type": "python", "text": f" '{word}'.count('{letter}')"},
        {"type": "python_output", "text": str(count)},
        {"type": "text", "text": f"The letter '{letter}' comes {times} in '{word}'."},
    ]
    return [
        {"role": "user", "content": row["question"]},
        {"role": "assistant", "content": answer},
    ]
