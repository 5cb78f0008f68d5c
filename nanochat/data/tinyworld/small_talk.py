"""What is said in passing, and the fixed replies: greetings, feelings, jokes, "are you sure?"."""

from __future__ import annotations

from functools import cache

from nanochat.data.tinyworld.english import listed
from nanochat.data.tinyworld.files import SLOT
from nanochat.data.tinyworld.keys import is_held_out, plain
from nanochat.data.tinyworld.questions import TRIES, Asked
from nanochat.data.tinyworld.rng import Rng, Weighted
from nanochat.data.tinyworld.slips import typed
from nanochat.data.tinyworld.world import Talk, World

ASKING = frozenset(
    listed("Who What Whats How Are Is Do Can Where Did Am Why When Which Will Would Could")
)
FRAMES = Weighted((
    ("{Q}", 20), ("OK, {q}", 1), ("Hey, {q}", 1), ("So {q}", 1), ("{Q}, nanochat", 1),
    ("And {q}", 1), ("Hi! {Q}", 1), ("Well, {q}", 1),
))  # fmt: skip


@cache
def dialogues(world: World, at: tuple[str, ...], own: bool = False) -> tuple[Talk, ...]:
    """The dialogues at these places; own: only those of a world of one's own."""
    found = (talk for talk in world.talks if talk.kind != "unknown")  # unknown.py has those
    return tuple(talk for talk in found if talk.at in at and talk.own >= own)


@cache
def openings(world: World, at: tuple[str, ...], own: bool) -> tuple[tuple[Talk, str], ...]:
    """(dialogue, what it begins with) of those dialogues."""
    return tuple((talk, said) for talk in dialogues(world, at, own) for said in talk.turns[0].said)


ANYWHERE = ("", "start", "end")


def small_talk(world: World, rng: Rng, held: bool) -> Asked | None:
    """The first turn of a dialogue; some are held out whole, others only in some frames."""
    opened = _opened(world, rng, held, ANYWHERE)
    return opened and opened[0]


def dialogue(
    world: World, rng: Rng, at: tuple[str, ...] = ANYWHERE, last: str = ""
) -> list[tuple[str, str]]:
    """(said, reply) turns of a whole dialogue. last: what the model said before it."""
    opened = None
    while opened is None:
        opened = _opened(world, rng, False, at, last)
    first, talk, filled = opened
    turns = [(first.text, str(first.reply))]
    for turn in talk.turns[1:]:
        if rng.chance(25):
            break
        said = rng.choice(turn.said)
        turns.append(
            (typed(rng, marked(rng, said.format_map(filled))), turn.reply.format_map(filled))
        )
    return turns


def _opened(
    world: World, rng: Rng, held: bool, at: tuple[str, ...], last: str = ""
) -> tuple[Asked, Talk, dict[str, str]] | None:
    for _ in range(TRIES):
        own = rng.chance(50) and bool(dialogues(world, at, True))
        # By what is said, so that what can be said in many ways is practiced more; but half of the
        # time by dialogue, so that nothing is rare.
        if rng.chance(50):
            talk, said = rng.choice(openings(world, at, own))
        else:
            talk = rng.choice(dialogues(world, at, own))
            said = rng.choice(talk.turns[0].said)
        filled = _slots(world, rng, talk, last)
        prompt = said.format_map(filled)
        text = framed(world, rng, prompt) if talk.framed else prompt
        # Whoever is in danger must be answered in every wording that is known.
        # And what can be said in two ways only would not be learned from one.
        part = 8 if talk.own else 16
        is_whole = talk.kind != "safety" and len(talk.turns[0].said) > 3
        whole = is_whole and is_held_out("talk " + plain(said), part)
        if (whole or is_held_out("talk in a frame " + plain(text), 8)) == held:
            reply = talk.turns[0].reply.format_map(filled)
            right = reply.rstrip(".!?")
            asked = Asked(talk.kind, typed(rng, marked(rng, text)), reply, right, (right,))
            return asked, talk, filled
    return None


def framed(world: World, rng: Rng, text: str) -> str:
    """With what people put around it."""
    if not text[-1:].isalpha():
        return text
    frame = rng.weighted(FRAMES).replace("nanochat", world.name)
    return frame.format(Q=text, q=world.small(text))


def _slots(world: World, rng: Rng, talk: Talk, last: str) -> dict[str, str]:
    texts = (text for turn in talk.turns for text in (*turn.said, turn.reply))
    names = {name for text in texts for name in SLOT.findall(text)} - {"last"}
    # Sorted, since a set's order differs from one process to the next.
    return {"last": last} | {name: rng.choice(world.lists[name]) for name in sorted(names)}


def marked(rng: Rng, text: str) -> str:
    """With a mark at its end."""
    if not text[-1:].isalnum():
        return text
    if text.split()[0].split("'")[0].strip(",") in ASKING:
        return text + "?"
    return text + rng.choice((".", "!", ""))
