"""Begin, check or show a world of one's own. `python -m scripts.world --new ~/mybot`"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from nanochat.system import cli
from nanochat.system.errors import UserError

if TYPE_CHECKING:
    from nanochat.conversation import Conversation

SHOWN = 10  # documents, and conversations


@dataclass(frozen=True)
class Config:
    """Begin, check or show a world of your own: text files that say what a model learns."""

    new: Path | None = None
    """write a commented example into this folder, to be changed as you like"""
    check: Path | None = None
    """read this folder, and name file, line and remedy of every mistake"""
    show: Path | None = None
    """print ten documents and ten conversations that are made from this folder"""

    def __post_init__(self) -> None:
        """Validate the flags."""
        if sum(folder is not None for folder in (self.new, self.check, self.show)) != 1:
            raise ValueError("give one of --new FOLDER, --check FOLDER, --show FOLDER")


def main(config: Config) -> None:
    """Begin, check or show."""
    from nanochat.data import worlds

    folder = worlds.folder_of(str(config.new or config.check or config.show))
    if config.new:
        new(folder)
    elif config.check:
        check(folder)
    else:
        show(folder)


def new(folder: Path) -> None:
    """Write the example, and say what to do with it."""
    from nanochat.data import worlds
    from nanochat.system import log

    worlds.begin(folder)
    name = shlex.quote(str(folder))
    log.say(f"{folder} is a world: a museum guide with {worlds.in_numbers(worlds.load(folder))}")
    log.say("Open its text files and change what you like; each one says how. Then:")
    log.say(f"  python -m scripts.world --check {name}")
    log.say(f"  NANOCHAT_WORLD={name} TIME_BUDGET=20m bash dev/runcpu.sh")


def check(folder: Path) -> None:
    """Count what is in it. Raises UserError if there is a mistake, after a line for each."""
    from nanochat.data import worlds
    from nanochat.system import log

    found = worlds.mistakes(folder)
    if len(found) == 1:
        raise UserError(found[0])
    for mistake in found:
        log.say(mistake)
    if found:
        raise UserError(f"{log.counted(len(found), 'mistake')} in {folder}: mend these first")
    world = worlds.load(folder)
    for line in worlds.overview(world):
        log.say(line)
    log.say(f"{folder}: {worlds.in_numbers(world)}, no mistake")


def show(folder: Path) -> None:
    """Print what a model would read."""
    from nanochat.data import tinyworld, worlds
    from nanochat.system import log

    world = worlds.load(folder)
    for number, document in enumerate(islice(tinyworld.documents(0, world), SHOWN), 1):
        log.say(f"--- document {number}\n{document}")
    for number, talk in enumerate(tinyworld.conversations(SHOWN, world), 1):
        log.say(f"--- conversation {number}\n{written(talk, world.name)}")


def written(talk: Conversation, name: str) -> str:
    """A conversation as a chat shows it."""
    from nanochat.data.tinyworld.questions import spoken

    names = {"user": "You", "assistant": name}
    return "\n".join(f"{names[turn['role']]}: {spoken(turn['content'])}" for turn in talk)


if __name__ == "__main__":
    cli.run(main, Config, "python -m scripts.world")
