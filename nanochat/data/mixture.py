"""Which conversations mid and SFT learn from, in which order.

Half of what a small stage reads is tinyworld's, so that the model has something that it can do
(contract: under 20 M tokens a stage); the other half is shared by the source's own conversations
and the public tasks that are there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from nanochat.conversation import Conversation
from nanochat.data import task_data, tinyworld
from nanochat.data.dataset import Source, read_conversations
from nanochat.tasks import gsm8k, multiple_choice, spelling_bee

TINYWORLD_CONVERSATIONS = 20_000
SPELLING_ROWS = 10_000
HELD_OUT_EVERY = 50  # every 50th conversation is for evaluation only
SMALL_STAGE_TOKENS = 20_000_000
CHARACTERS_A_TOKEN = 5  # at most, on average: for how long a mixture is enough
# Shares of the characters that are not tinyworld's. Talk comes first, since it is what a chat is
# for; choices get little: their answers are one token, and too many make a model answer "B".
SHARES = {
    "mid": {"talk": 6, "mmlu": 2, "gsm8k": 1, "spelling": 1},
    "sft": {"talk": 6, "arc_easy": 1, "arc_challenge": 1, "gsm8k": 1, "spelling": 1},
}

Weighted = tuple[list[Conversation], float]  # conversations and their share


def conversations_of(source: Source, stage: str, tokens: int | None = None) -> list[Conversation]:
    """What a stage ("mid" or "sft") learns from; tokens that it will read, None: not known yet."""
    world: list[Conversation] = list(tinyworld.conversations(TINYWORLD_CONVERSATIONS))
    if source.name == "tinyworld":
        return world
    parts = {name: _part(name, source) for name in SHARES[stage]}
    lists = [(talks, SHARES[stage][name]) for name, talks in parts.items() if talks]
    if not any(talks for name, talks in parts.items() if name != "spelling"):
        return world
    if tokens is None or tokens < SMALL_STAGE_TOKENS:
        lists.append((world, sum(share for _, share in lists)))
    return interleave(lists, CHARACTERS_A_TOKEN * max(tokens or 0, SMALL_STAGE_TOKENS))


def _part(name: str, source: Source) -> list[Conversation]:
    if name == "talk":
        own = [talk for path in source.conversation_files for talk in read_conversations(path)]
        smoltalk = task_data.rows("smoltalk", "train", source.name) or []
        return _spread([*own, *(row["messages"] for row in smoltalk)])
    if name == "spelling":
        rows = spelling_bee.rows(task_data.words(source), "train", SPELLING_ROWS)
        return [spelling_bee.conversation(row) for row in rows]
    rows = task_data.rows(name, "train", source.name) or []
    if name == "gsm8k":
        return [gsm8k.conversation(row) for row in rows]
    return _spread([multiple_choice.conversation(row) for row in multiple_choice.fits(rows)])


def split(conversations: list[Conversation]) -> tuple[list[Conversation], list[Conversation]]:
    """(training, held out)."""
    train = [c for i, c in enumerate(conversations) if i % HELD_OUT_EVERY]
    return train, conversations[::HELD_OUT_EVERY]


def interleave(lists: Sequence[Weighted], most_characters: int) -> list[Conversation]:
    """All of them, each next one from the list that lags most behind its share of the characters.

    Ends when each has been used whole, or after most_characters; a shorter one begins again.
    """
    used, characters, mixed = [0] * len(lists), [0.0] * len(lists), []
    todo = set(range(len(lists)))
    while todo and sum(characters) < most_characters:
        k = min(range(len(lists)), key=lambda k: characters[k] / lists[k][1])
        talks = lists[k][0]
        conversation = talks[used[k] % len(talks)]
        used[k] += 1
        if used[k] == len(talks):
            todo.discard(k)
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
