"""What a conversation, a question and its reply are."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from nanochat.data.tinyworld.rng import Rng

if TYPE_CHECKING:
    from nanochat.data.tinyworld.world import World


class Part(TypedDict):
    """A piece of an assistant's turn: text, a calculator call, or what the calculator said."""

    type: str
    text: str


class Message(TypedDict):
    role: str
    content: str | list[Part]


Conversation = list[Message]

NOT_KNOWN = ("do not know", "don't know", "dont know")


@dataclass(frozen=True)
class Question:
    """A held-out question: `messages` ends with the user's turn."""

    kind: str
    messages: Conversation
    answer: str
    accept: tuple[str, ...]
    reject: tuple[str, ...] = ()

    def is_right(self, reply: str) -> bool:
        """One of `accept` is there as whole words, and nothing of `reject`."""
        if self.kind != "unknown" and any(has_words(reply, text) for text in NOT_KNOWN):
            return False
        return any(has_words(reply, text) for text in self.accept) and not any(
            has_words(reply, text) for text in self.reject
        )


def has_words(reply: str, text: str) -> bool:
    """Whether the text stands in the reply as whole words, in any case.

    >>> has_words("It is Paris.", "paris"), has_words("Parisians", "Paris")
    (True, False)
    """
    return re.search(rf"(?<!\w){re.escape(text.lower())}(?!\w)", reply.lower()) is not None


def spoken(reply: str | list[Part]) -> str:
    """What is said of a reply, without the calculator calls."""
    if isinstance(reply, str):
        return reply
    return "".join(part["text"] for part in reply if part["type"] == "text")


@dataclass(frozen=True)
class Asked:
    """One question as typed, its reply, and what makes a reply right."""

    kind: str
    text: str
    reply: str | list[Part]
    answer: str
    accept: tuple[str, ...]
    reject: tuple[str, ...] = ()


# Draws a question: for training, or (True) one of the held-out ones. None: a small world may have
# none of that half.
Maker = Callable[["World", Rng, bool], Asked | None]
TRIES = 500  # draws until a question is of the right half


def with_tool(expression: str, result: object, text: str) -> list[Part]:
    """A calculator call, its output, and the sentence that uses it.

    The expression starts with a space: see the design of the conversation format (a quote at the
    very start would be split together with the first letter).
    """
    return [
        {"type": "python", "text": " " + expression},
        {"type": "python_output", "text": str(result)},
        {"type": "text", "text": text},
    ]
