"""What is held out: the key of a wording, and the one in eight that is never taught."""

from __future__ import annotations

import re

from nanochat.data.tinyworld.rng import stable_hash

NOT_PLAIN = re.compile(r"[^a-z0-9+*/=]+")
# What people put around a question, and what the frames add. Phrases and not single words: "good"
# and "friend" are also what somebody asks the opposite of.
FILLERS = re.compile(
    r"\b(?:hi|hello|hey|hi there|good morning|please|pls|plz|so|ok|okay|thanks|thank you|and|now|"
    r"nanochat|quick question|i have a question|can you help me|do you know|i forgot|tell me|"
    r"please tell me|my friend asks|can you tell me|could you tell me|the|a|an)\b"
)
SAME = {
    "whats": "what is", "wheres": "where is", "whos": "who is", "hows": "how is",
    "colour": "color", "grey": "gray", "pls": "please", "dont": "do not", "im": "i am",
}  # fmt: skip


def plain(text: str) -> str:
    """Small letters and single spaces, no punctuation.

    >>> plain("Hi!  What's the capital of France?")
    'hi whats the capital of france'
    """
    return NOT_PLAIN.sub(" ", text.lower().replace("'", "")).strip()


def wording_key(text: str) -> str:
    """What is left of a question without greetings, contractions, articles and punctuation.

    Questions with one key are one wording: all of them are taught, or all are held out.

    >>> wording_key("Hi! What's the opposite of good, please?")
    'what is opposite of good'
    """
    words = " ".join([SAME.get(word, word) for word in plain(text).split()])
    return " ".join(FILLERS.sub(" ", words).split()) or words


def is_held_out(key: str, part: int = 8) -> bool:
    """One key of `part` is kept for the questions, and appears in no training text."""
    return stable_hash("held out: " + key) % part == 0
