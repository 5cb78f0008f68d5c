"""Which conversations mid and SFT learn from, in which order.

Half of what a small stage reads is tinyworld's, so that the model has something that it can do
(contract: under 20 M tokens a stage); the other half is shared by the source's own conversations
and the public tasks that are there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from nanochat.conversation import Conversation, check
from nanochat.data import task_data, tinyworld
from nanochat.data.dataset import Source, read_conversations
from nanochat.system.errors import UserError
from nanochat.tasks import gsm8k, multiple_choice, spelling_bee

TINYWORLD_CONVERSATIONS = 20_000
SPELLING_ROWS = 10_000
HELD_OUT_EVERY = 50  # every 50th conversation is for evaluation only
SMALL_STAGE_TOKENS = 20_000_000
CHARACTERS_A_TOKEN = 5  # at most, on average: for how long a mixture is enough
LEAST_TOKENS = 65_536  # of both parts, however short a stage: an evaluation reads as many
MOST_REPEATS = 4  # of a small task in a long stage: more would be learned by heart
# Shares of the characters that are not tinyworld's. Talk comes first, since it is what a chat is
# for; choices get little: their answers are one token, and too many make a model answer "B".
SHARES = {
    "mid": {"talk": 6, "mmlu": 2, "gsm8k": 1, "spelling": 1},
    "sft": {"talk": 6, "arc_easy": 1, "arc_challenge": 1, "gsm8k": 1, "spelling": 1},
}


class Part(NamedTuple):
    """Conversations, their share of the characters, and how often they may be used."""

    conversations: list[Conversation]
    share: float
    repeats: float = MOST_REPEATS


def conversations_of(
    source: Source, stage: str, tokens: int | None = None
) -> tuple[Sequence[Conversation], list[Conversation]]:
    """(training, held out) of a stage ("mid" or "sft"), disjoint.

    tokens: how many it will read, None where a time budget decides.
    """
    if source.name == "tinyworld":
        return only_tinyworld()
    own = {name: _part(name, source) for name in SHARES[stage]}
    parts = [Part(talks, SHARES[stage][name]) for name, talks in own.items() if talks]
    if not any(talks for name, talks in own.items() if name != "spelling"):
        return only_tinyworld()
    if tokens is None or tokens < SMALL_STAGE_TOKENS:
        world: list[Conversation] = list(tinyworld.conversations(TINYWORLD_CONVERSATIONS))
        parts.append(Part(world, sum(part.share for part in parts), math.inf))
    planned = SMALL_STAGE_TOKENS if tokens is None else tokens
    halves = [split(part.conversations) for part in parts]
    train = [part._replace(conversations=half[0]) for part, half in zip(parts, halves, strict=True)]
    held = [
        part._replace(conversations=half[1])
        for part, half in zip(parts, halves, strict=True)
        if half[1]
    ]
    most, most_held = (
        CHARACTERS_A_TOKEN * max(LEAST_TOKENS, count)
        for count in (planned, planned // HELD_OUT_EVERY)
    )
    return interleave(train, most), interleave(held, most_held) or only_tinyworld()[1]


def only_tinyworld() -> tuple[Sequence[Conversation], list[Conversation]]:
    """(training, held out) where there is nothing else."""
    return tinyworld.Talks(), list(tinyworld.validation_conversations())


def _part(name: str, source: Source) -> list[Conversation]:
    if name == "talk":
        own = [talk for path in source.conversation_files for talk in read_conversations(path)]
        smoltalk = task_data.rows("smoltalk", "train", source.name) or []
        return _spread([*own, *(row["messages"] for row in smoltalk if _is_sound(row))])
    if name == "spelling":
        rows = spelling_bee.rows(task_data.words(source), "train", SPELLING_ROWS)
        return [spelling_bee.conversation(row) for row in rows]
    rows = task_data.rows(name, "train", source.name) or []
    if name == "gsm8k":
        return [gsm8k.conversation(row) for row in rows]
    return _spread([multiple_choice.conversation(row) for row in multiple_choice.fits(rows)])


def _is_sound(row: dict[str, Any]) -> bool:
    """Whether a public row is a conversation; one in thousands that is not is left out."""
    try:
        check(row["messages"])
    except UserError:
        return False
    return True


def split(conversations: list[Conversation]) -> tuple[list[Conversation], list[Conversation]]:
    """(training, held out); a single one is for training.

    >>> split([[], []]), split([[]])
    (([[]], [[]]), ([[]], []))
    """
    if len(conversations) < 2:
        return conversations, []
    train = [c for i, c in enumerate(conversations) if i % HELD_OUT_EVERY]
    return train, conversations[::HELD_OUT_EVERY]


def interleave(parts: Sequence[Part], most_characters: int) -> list[Conversation]:
    """All of them, each next one from the part that lags most behind its share of the characters.

    Ends when each has been used whole, or after most_characters. A shorter part begins again, and
    leaves its place to the others when it has been used as often as it may.
    """
    used, characters, mixed = [0] * len(parts), [0.0] * len(parts), []
    todo, open_parts = set(range(len(parts))), list(range(len(parts)))
    while todo and sum(characters) < most_characters:
        k = min(open_parts, key=lambda k: characters[k] / parts[k].share)
        talks = parts[k].conversations
        conversation = talks[used[k] % len(talks)]
        used[k] += 1
        if used[k] == len(talks):
            todo.discard(k)
        if used[k] == len(talks) * parts[k].repeats:
            open_parts.remove(k)
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
