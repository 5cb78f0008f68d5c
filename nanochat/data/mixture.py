"""Which conversations mid and SFT learn from, in which order.

With conversations of one's own, half of what a small stage reads is tinyworld's all the same, so
that the model has something that it can do (contract: under 20 M tokens a stage).
"""

from __future__ import annotations

import math

from nanochat.conversation import Conversation
from nanochat.data import tinyworld
from nanochat.data.dataset import Source, read_conversations

TINYWORLD_CONVERSATIONS = 20_000
HELD_OUT_EVERY = 50  # every 50th conversation is for evaluation only


def conversations_of(source: Source) -> list[Conversation]:
    """The source's own conversations and tinyworld's, half and half by characters."""
    own = [talk for path in source.conversation_files for talk in read_conversations(path)]
    world: list[Conversation] = list(tinyworld.conversations(TINYWORLD_CONVERSATIONS))
    return interleave(_spread(own), world) if own else world


def split(conversations: list[Conversation]) -> tuple[list[Conversation], list[Conversation]]:
    """(training, held out)."""
    train = [c for i, c in enumerate(conversations) if i % HELD_OUT_EVERY]
    return train, conversations[::HELD_OUT_EVERY]


def interleave(first: list[Conversation], second: list[Conversation]) -> list[Conversation]:
    """Both, each next one from the list that has yielded fewer characters so far.

    Ends when each has been used whole; the shorter one begins again where needed.
    """
    lists = (first, second)
    used, characters, mixed = [0, 0], [0, 0], []
    while any(used[k] < len(lists[k]) for k in (0, 1)):
        k = int(characters[1] < characters[0])
        conversation = lists[k][used[k] % len(lists[k])]
        used[k] += 1
        characters[k] += sum(len(str(message["content"])) for message in conversation)
        mixed.append(conversation)
    return mixed


def _spread(conversations: list[Conversation]) -> list[Conversation]:
    """A fixed order without long runs of one file: steps of the golden ratio through the list."""
    count = len(conversations)
    step = max(1, int(count * 0.618))
    while count and math.gcd(step, count) != 1:
        step += 1
    return [conversations[i * step % count] for i in range(count)]
