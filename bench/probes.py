"""What people do to a chatbot that its held-out questions do not, as the model itself answers it.

People type in capitals, mistype, send a single emoji, tell their name and ask for it at once. Each
probe is a list of small conversations of the stranger's test (nanochat/evals/strangers.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from nanochat.data import tinyworld
from nanochat.data.tinyworld.keys import is_held_out
from nanochat.data.tinyworld.questions import Question as HeldOut
from nanochat.data.tinyworld.rng import Rng
from nanochat.data.tinyworld.slips import slip
from nanochat.engine import Engine
from nanochat.evals import strangers
from nanochat.evals.strangers import StrangersResult
from nanochat.sampling import Sampling
from nanochat.tasks.strangers import Question, Verdict, load

IN_WORDS: dict[Verdict, str] = {
    "right": "right",
    "unknown": "not known",
    "wrong": "false or nonsense",
}
NAMES = 20
INPUTS = 1_000
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SYMBOLS = "?!.,;:-_*#@/&%$=+()[]<>\"'~"
EMOJI = "😀😂❤👍🐄🎉🤔😢🔥🙈"
# What the built-in world teaches in these very words, so that only the typing is in question.
KNOWN = (
    ("What is the capital of France?", "paris"),
    ("What is the capital of Japan?", "tokyo"),
    ("What does a cow say?", "moo"),
    ("What sound does a dog make?", "woof|bark"),
    ("What color is the sky?", "blue"),
    ("What color is a banana?", "yellow"),
    ("What is the opposite of hot?", "cold"),
    ("What is the opposite of big?", "small|little"),
    ("How many legs does a spider have?", "eight|8"),
    ("How many days are in a week?", "seven|7"),
    ("What day comes after Monday?", "tuesday"),
    ("Which month comes after May?", "june"),
    ("What is a baby cat called?", "kitten"),
    ("What do cows eat?", "grass|hay"),
    ("Where do fish live?", "water|sea|ocean|lake|river|tank"),
    ("How many wheels does a car have?", "four|4"),
    ("What language do people speak in Spain?", "spanish"),
    ("Who painted the Mona Lisa?", "leonardo|da vinci"),
    ("Which continent is Egypt in?", "africa"),
    ("What is the biggest planet?", "jupiter"),
)


@dataclass(frozen=True)
class Probed:
    """What was found; the counts are of right answers."""

    strangers: Mapping[str, StrangersResult]
    """by how they were asked"""
    known: Mapping[str, int]
    """of KNOWN, by how they were typed"""
    names: int
    empty: int

    def lines(self) -> Iterator[str]:
        """All of it, for people."""
        for name, result in self.strangers.items():
            shares = (f"{result.share(v):.1%} {words}" for v, words in IN_WORDS.items())
            yield f"{name}: {', '.join(shares)}"
        by_typing = ", ".join(f"{name} {right}" for name, right in self.known.items())
        yield f"known questions, right of {len(KNOWN)}: {by_typing}"
        yield f"a name asked for at once: {self.names} of {NAMES}"
        yield f"empty answers: {self.empty} in {INPUTS:,}"


class SureOfItself(Engine):
    """Says what the model says, however unlikely it is."""

    def complete(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[str]:
        """The texts that a person would see with --min_confidence 0."""
        return super().complete(prompts, replace(sampling, min_confidence=0))


def probe(engine: Engine, held_out: Sequence[HeldOut], final: bool) -> Probed:
    """Ask everything. final: also the half of the stranger's test that is for figures only."""
    development = load("development")
    sure = SureOfItself(engine.model, engine.tokenizer)
    by_strangers = {
        "strangers": strangers.ask(engine, development),
        "strangers, min_confidence 0": strangers.ask(sure, development),
    }
    if final:
        by_strangers["strangers final"] = strangers.ask(engine, load("final"))
    replies = strangers.ask(engine, [*map(question, assorted(held_out))]).answers
    return Probed(
        by_strangers,
        {name: right(engine, known(typing)) for name, typing in TYPINGS.items()},
        right(engine, names()),
        sum(not reply.strip() for _, reply, _ in replies),
    )


def right(engine: Engine, questions: Sequence[Question]) -> int:
    """How many are answered right."""
    return sum(verdict == "right" for *_, verdict in strangers.ask(engine, questions).answers)


def question(*turns: str, accept: str = ".") -> Question:
    """A conversation whose last answer must have words that match `accept`."""
    pattern = re.compile(rf"\b(?:{accept})\b", re.IGNORECASE)
    return Question("bench", "bench", turns, (pattern,), (), False, ())


# ---- the probes


def swapped(text: str) -> str:
    """Two letters swapped within the longest word.

    >>> swapped("What does a cow say?"), swapped("opposite")
    ('Waht does a cow say?', 'opopsite')
    """
    words: list[str] = re.findall(r"[A-Za-z]+", text)
    word = max(words, key=len)
    i = next(i for i in range(1, len(word)) if word[i] != word[i + 1])
    return text.replace(word, word[:i] + word[i + 1] + word[i] + word[i + 2 :], 1)


TYPINGS: Mapping[str, Callable[[str], str]] = {
    "as taught": str,
    "in capitals": str.upper,
    "with an emoji": lambda text: f"{text} 😀",
    "with doubled spaces": lambda text: text.replace(" ", "  "),
    "with two letters swapped": swapped,
}


def known(typing: Callable[[str], str]) -> list[Question]:
    """KNOWN as somebody types it."""
    return [question(typing(text), accept=accept) for text, accept in KNOWN]


def names() -> list[Question]:
    """People who tell their names, of which the training has none, and ask for them at once."""
    # The key is that of about_me.py: by it, one name in eight is never told in training.
    unseen = [n for n in tinyworld.load().lists["names"] if is_held_out(f"me name {n}")]
    spread = [unseen[i * len(unseen) // NAMES] for i in range(NAMES)]
    return [
        question(f"My name is {name}.", "What is my name?", accept=re.escape(name))
        for name in spread
    ]


def assorted(held_out: Iterable[HeldOut]) -> Iterator[str]:
    """INPUTS lines that begin as questions and end as what fingers, children and cats type."""
    rng = Rng("assorted inputs")
    texts = [str(asked.messages[-1]["content"]) for asked in held_out]
    for i in range(INPUTS):
        text = rng.choice(texts)
        yield WAYS[i % len(WAYS)](rng, text)


def put_in(rng: Rng, text: str, signs: str) -> str:
    """Up to three of the signs in the text, anywhere."""
    for _ in range(rng.between(1, 3)):
        at = rng.below(len(text) + 1)
        text = text[:at] + rng.choice(signs) + text[at:]
    return text


def some_of(rng: Rng, signs: str) -> str:
    """One to six signs."""
    return "".join(rng.choice(signs) for _ in range(rng.between(1, 6)))


WAYS: Sequence[Callable[[Rng, str], str]] = (
    lambda rng, text: slip(rng, slip(rng, text)),
    lambda rng, text: put_in(rng, text, SYMBOLS),
    lambda rng, text: put_in(rng, text, EMOJI),
    lambda rng, text: some_of(rng, SYMBOLS),
    lambda rng, text: some_of(rng, EMOJI),
    lambda rng, text: rng.choice(LETTERS + LETTERS.upper()),
    lambda rng, text: rng.choice(text.split()),
    lambda rng, text: text.replace(" ", ""),
)
