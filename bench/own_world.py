"""A village of invented people, as a world of one's own of so many facts to measure with.

    python bench/own_world.py village --facts 150
    python bench/chatbot.py --world village --budgets 1200

The same number of facts gives the same files. It is written as docs/world.md asks for it, with as
many wordings as somebody with an hour to spare would write, and not as a world would be learned
best.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro

from nanochat.data.tinyworld.english import listed
from nanochat.data.tinyworld.rng import Rng
from nanochat.system import cli, storage
from nanochat.system.errors import UserError

# None of them is in the built-in world, where names are only told by the people who have them.
PEOPLE = (
    "Wilma", "Uncle Ned", "Bruno", "Mrs. Plum", "Odile", "Aunt Tilda", "Casper", "Petra",
    "Mr. Fogg", "Elsie", "Grandpa Joss", "Jasper", "Winnie", "Old Amos", "Rufus", "Gerda",
    "Mrs. Rook", "Barnaby", "Hetty", "Cousin Lem", "Magnus", "Dora", "Mr. Thistle", "Ottilie",
    "Humphrey", "Nell", "Grandma Bess", "Silas", "Tabitha", "Edgar", "Polly", "Uncle Gus",
    "Agatha", "Wendel", "Mrs. Moss", "Fergus", "Lottie", "Mr. Quill", "Ursula", "Dexter",
)  # fmt: skip


class Relation(NamedTuple):
    """One file of facts/: what stands above [facts], and the answers to draw from."""

    name: str
    head: str
    answers: tuple[str, ...]


RELATIONS = (
    Relation(
        "village_job",
        """
say: {X} is {y}.
say: In the village, {x} works as {y}.
ask: What does {x} do
ask: What is {x}'s job
ask: What does {x} do for a living
ask: What job does {x} have
ask: What does {x} work as
ask: What is the job of {x}
clause: what {x} does for a living
noun: the profession of {x}
""",
        (
            "a baker", "a teacher", "a farmer", "a doctor", "a tailor", "a miller", "a shepherd",
            "a carpenter", "a gardener", "a fisherman", "a clockmaker", "a singer",
        ),
    ),
    Relation(
        "village_pet",
        """
say: {X} has {y}.
say: The pet of {x} is {y}.
ask: What pet does {x} have
ask: Which pet does {x} have
ask: What is {x}'s pet
ask: What animal does {x} have
ask: Does {x} have a pet
ask: What kind of pet does {x} have
clause: what pet {x} has
noun: the pet of {x}
""",
        (
            "a cat", "a dog", "a parrot", "a goat", "a rabbit", "a turtle", "a goose", "a pony",
            "a hedgehog", "a snake", "a frog", "a mouse",
        ),
    ),
    Relation(
        "village_age",
        """
say: {X} is {y} years old.
say: The age of {x} is {y}.
ask: How old is {x}
ask: What is {x}'s age
ask: What age is {x}
ask: How many years old is {x}
ask: {X} is how old
ask: Is {x} old
clause: how old {x} is
noun: the age of {x}
""",
        listed("19 23 27 31 34 38 42 45 49 53 56 60 64 67 71 75 78 82 86 90"),
    ),
    Relation(
        "village_home",
        """
say: {X} lives in {y}.
say: The house of {x} is in {y}.
ask: Where does {x} live
ask: Which street does {x} live in
ask: What street does {x} live in
ask: Where is {x}'s house
ask: Where is the house of {x}
ask: Where can I find {x}
ask: What is {x}'s address
clause: where {x} lives
noun: the address of {x}
""",
        (
            "Mill Lane", "Church Street", "Bridge Road", "Apple Lane", "Market Square",
            "River Road", "Hill Street", "Garden Lane", "Station Road", "Forest Road",
        ),
    ),
    Relation(
        "village_food",
        """
say: {X} likes {y} best.
say: The favorite food of {x} is {y}.
ask: What is {x}'s favorite food
ask: What does {x} like to eat
ask: What food does {x} like best
ask: Which food does {x} like best
ask: What does {x} love to eat
ask: What does {x} eat most
ask: What should I cook for {x}
clause: what {x} likes to eat
noun: the favorite food of {x}
""",
        (
            "soup", "pizza", "rice", "noodles", "cheese", "pancakes", "fish", "salad", "apple pie",
            "potatoes", "plums", "honey",
        ),
    ),
)  # fmt: skip
MOST = len(RELATIONS) * len(PEOPLE)


@dataclass(frozen=True)
class Config:
    """Write a world of so many facts into a new folder."""

    folder: Annotated[Path, tyro.conf.Positional]
    facts: int = 50
    """50 or 150, or another multiple of 5 up to 200: there are five things to know of everybody"""

    def __post_init__(self) -> None:
        """Validate the flags."""
        if not 0 < self.facts <= MOST or self.facts % len(RELATIONS):
            raise ValueError(
                f"facts={self.facts}: it must be a multiple of {len(RELATIONS)} up to {MOST}"
            )


def main(config: Config) -> None:
    """Write it. Raises UserError for a folder with something in it."""
    folder = config.folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty: name a folder that does not exist yet")
    for name, text in files(config.facts // len(RELATIONS)):
        storage.ensure_folder((folder / name).parent)
        storage.write_text(folder / name, text)


def files(people: int) -> Iterator[tuple[str, str]]:
    """(path within the folder, text) of everything that is known of the first so many people."""
    yield "world.txt", "name: Pip\nwith: tinyworld\n"
    for relation in RELATIONS:
        rng = Rng(f"village {relation.name}")
        # All answers before one comes again: a model that always said "a cat" should look bad.
        rounds = [rng.shuffle([*relation.answers]) for _ in range(people)]
        answers = [answer for one in rounds for answer in one]
        facts = [f"{x} = {y}\n" for x, y in zip(PEOPLE[:people], answers, strict=False)]
        yield (
            f"facts/{relation.name}.txt",
            "".join(("of: person", relation.head, "\n[facts]\n", *facts)),
        )


if __name__ == "__main__":
    cli.run(main, Config, "python bench/own_world.py")
