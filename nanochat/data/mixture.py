"""Which conversations mid and SFT learn from, in which order.

A world has conversations of its own, and nothing else is learned with it. With other text, half of
what a small stage reads is tinyworld's, so that the model ends up able to do something; the other
half is shared by the source's own conversations and the public tasks that are on the disk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from nanochat.conversation import Conversation, check
from nanochat.data import task_data, tinyworld
from nanochat.data.dataset import Source, read_conversations
from nanochat.data.tinyworld import World
from nanochat.data.worlds import world_of
from nanochat.system.errors import UserError
from nanochat.tasks import TASKS, smoltalk
from nanochat.tasks.task import Task

TINYWORLD_CONVERSATIONS = 20_000
HELD_OUT_EVERY = 50  # every 50th conversation is for evaluation only
SMALL_STAGE_TOKENS = 20_000_000  # below it the small world is all that a model can take in
CHARACTERS_PER_TOKEN = 5  # at most, on average: for how long a mixture is enough
MIN_TOKENS = 65_536  # of both parts, however short a stage: an evaluation reads as many
MAX_REPEATS = 4  # of a small task in a long stage: more would be learned by heart
# Share of the characters that are not tinyworld's; a task's own is in its `shares`. Talk comes
# first, since it is what a chat is for; choices get little: their answers are one token, and too
# many of them make a model answer "B".
TALK_SHARE = 6


class Part(NamedTuple):
    """Conversations, their share of the characters, and how often they may be used."""

    conversations: list[Conversation]
    share: float
    repeats: float = MAX_REPEATS


def conversations_of(
    source: Source, stage: str, tokens: int | None = None
) -> tuple[Sequence[Conversation], list[Conversation]]:
    """(training, held out) of a stage ("mid" or "sft"), disjoint.

    tokens: how many it will read, None where a time budget decides.
    """
    world = world_of(source.name)
    if world is not None:
        return only_world(world)
    parts = _own_parts(source, stage)
    if not parts:
        return only_world()
    if tokens is None or tokens < SMALL_STAGE_TOKENS:
        talks: list[Conversation] = list(tinyworld.conversations(TINYWORLD_CONVERSATIONS))
        # As much as all the others together, and repeated as often as that takes.
        parts.append(Part(talks, sum(part.share for part in parts), math.inf))
    planned = SMALL_STAGE_TOKENS if tokens is None else tokens
    # Each part is split by itself, so the held-out loss is one of the same mixture.
    halves = [split(part.conversations) for part in parts]
    train = [part._replace(conversations=half[0]) for part, half in zip(parts, halves, strict=True)]
    held = [
        part._replace(conversations=half[1])
        for part, half in zip(parts, halves, strict=True)
        if half[1]
    ]
    most, most_held = (
        CHARACTERS_PER_TOKEN * max(MIN_TOKENS, count)
        for count in (planned, planned // HELD_OUT_EVERY)
    )
    return interleave(train, most), interleave(held, most_held) or only_world()[1]


def only_world(world: World | None = None) -> tuple[Sequence[Conversation], list[Conversation]]:
    """(training, held out) of a world, or of tinyworld where nothing else is available."""
    return tinyworld.Talks(world=world), list(tinyworld.validation_conversations(world=world))


def _own_parts(source: Source, stage: str) -> list[Part]:
    """Talk and the stage's tasks, without tinyworld; empty where the source has only words."""
    talk = _talk(source)
    learned = {t.name: _learned(t, source) for t in TASKS.values() if stage in t.shares}
    # Any text has words to spell. They alone would make half of a chat about letters.
    if not talk and not any(found for name, found in learned.items() if not TASKS[name].generate):
        return []
    parts = [Part(talk, TALK_SHARE)]
    parts += (Part(found, TASKS[name].shares[stage]) for name, found in learned.items())
    return [part for part in parts if part.conversations]


def _talk(source: Source) -> list[Conversation]:
    """The source's own conversations and SmolTalk's."""
    own = [talk for path in source.conversation_files for talk in read_conversations(path)]
    public = task_data.rows(smoltalk.TASK, "train", source)
    return _spread([*own, *(row["messages"] for row in public if _is_sound(row))])


def _learned(task: Task, source: Source) -> list[Conversation]:
    rows = task_data.rows(task, "train", source)
    found: list[Conversation] = [task.conversation(row) for row in rows]
    return _spread(found) if task.by_subject else found


def _is_sound(row: dict[str, Any]) -> bool:
    """Whether a public row is a conversation; the odd one that is not is left out."""
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


def interleave(parts: Sequence[Part], max_characters: int) -> list[Conversation]:
    """All of them, each next one from the part that lags most behind its share of the characters.

    Ends when every part has been used whole, or after max_characters. A shorter part starts over,
    and leaves its place to the others when it has been used as often as it may.
    """
    # By characters and not by conversations: a chat is as long as twenty choices, and equal counts
    # would teach mostly chat. Always the one that lags: at any place where training stops, and for
    # every stretch of a few rows, the shares are as wanted.
    used, characters, mixed = [0] * len(parts), [0.0] * len(parts), []
    todo, open_parts = set(range(len(parts))), list(range(len(parts)))
    while todo and sum(characters) < max_characters:
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
    # A shuffle would do the same on average; this has no seed, and neighbors are always far apart.
    count = len(conversations)
    step = max(1, int(count * 0.618))
    while count and math.gcd(step, count) != 1:
        step += 1
    return [conversations[i * step % count] for i in range(count)]
