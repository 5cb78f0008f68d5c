"""Worlds to learn: the built-in one, and folders of one's own with a world.txt (docs/world.md).

A run reads a copy of the folder, made together with the text that is written from it. So whoever
edits the folder meanwhile changes nothing of the run, and a model can be asked about its world when
the folder is gone.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from nanochat.data.imported import own_name
from nanochat.data.tinyworld.loading import BUILT_IN, is_added, load
from nanochat.data.tinyworld.reading import mistakes_of_files
from nanochat.data.tinyworld.world import World
from nanochat.system import storage
from nanochat.system.errors import UserError
from nanochat.system.log import counted, say

TINYWORLD = "tinyworld"
OTHER_WORDS = ("fineweb", "auto")  # sources that are no folders, whatever lies in the current one
HEAD = "world.txt"  # what makes a folder a world
COPY = "world"  # beside the shards that were made from it
NOTES = "world.json"
EXAMPLE = BUILT_IN.with_name("example")
FEW_WORDINGS = 8  # of a relation: with fewer, a new way of asking is mostly not understood


def is_world(data: str) -> bool:
    """Whether a source is a world: tinyworld, or a folder that has a world.txt or once had one."""
    # The copy counts as much as the folder: of a run that has begun, nothing depends on the folder.
    if data in (TINYWORLD, *OTHER_WORDS):
        return data == TINYWORLD
    return _has_head(folder_of(data)) or _has_head(_copy(data))


def world_of(data: str) -> World | None:
    """The world that a run on `data` learns; None for other text. Raises UserError for mistakes."""
    if data == TINYWORLD:
        return load()
    if not is_world(data):
        return None
    return load(_copy(data)) if _has_head(_copy(data)) else load(folder_of(data))


def folder_of(data: str) -> Path:
    """The folder that `data` names. Raises UserError for a name that JSON can't hold."""
    try:
        data.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{os.fsencode(data)!r} is not UTF-8, and the name of the folder must be (those of its "
            "files need not): rename it"
        ) from None
    return Path(os.path.expanduser(data)).absolute()  # after --data= no shell expands a ~


def shard_folder(data: str) -> Path:
    """Where a world's text is kept."""
    base = storage.base_dir() / "base_data"
    if data == TINYWORLD:
        return base / TINYWORLD
    return base / "worlds" / own_name(folder_of(data).resolve(), "world")


def describe(data: str, num_shards: int) -> str:
    """A world in words, for the plan. Raises UserError for a mistake in the folder as it is now."""
    made = f"{counted(num_shards, 'shard')}, made on this machine, no network"
    if data == TINYWORLD:
        return f"{TINYWORLD}, {made}"
    folder = folder_of(data)
    world = load(folder) if folder.is_dir() else load(_copy(data))
    alone = "with tinyworld" if is_added(world.folders[-1]) else "without tinyworld"
    return f"{folder.name} (world: {in_numbers(world)}, {alone}), {made}"


def in_numbers(world: World) -> str:
    """How much somebody has written.

    >>> in_numbers(load(EXAMPLE))
    '28 facts, 13 dialogues'
    """
    facts, talks = (sum(part.own for part in parts) for parts in (world.facts, world.talks))
    return f"{counted(facts, 'fact')}, {counted(talks, 'dialogue')}"


# ---- the copy ----


def refresh(data: str) -> World:
    """The world as it is now, copied if it has changed. Raises UserError for a mistake in it."""
    if data == TINYWORLD:
        return _refresh_built_in()
    folder, target = folder_of(data), shard_folder(data)
    if not folder.is_dir():
        say(f"{folder} is gone: its copy in {target / COPY} is used")
        return load(_copy(data))
    texts = {path.relative_to(folder): path for path in _files(folder)}
    # What is added to it belongs to it: a newer nanochat knows more.
    built_in = _digest(_files(BUILT_IN)) if is_added(folder) else ""
    notes = {"folder": str(folder), "files": _digest(texts.values()), "built_in": built_in}
    before = storage.read_json(target / NOTES) if (target / NOTES).exists() else notes
    if before == notes and _has_head(_copy(data)):
        return load(_copy(data))
    load.cache_clear()
    load(folder)  # a mistake in it is found before anything is made of it
    if before["files"] != notes["files"]:
        say(f"{folder} has changed since it was last learned: making its text again")
    elif before != notes:
        say(f"the built-in world has changed: making the text of {folder} again")
    # The shards go as well: they say what the folder said before.
    with storage.new_folder(target) as beside:
        for name, path in texts.items():
            storage.write_text(beside / COPY / name, path.read_text(encoding="utf-8"))
        storage.write_json(beside / NOTES, notes)
    return load(_copy(data))


def _refresh_built_in() -> World:
    """Text that an older nanochat wrote is removed: it says what its world said."""
    folder, notes = shard_folder(TINYWORLD), {"built_in": _digest(_files(BUILT_IN))}
    before = storage.read_json(folder / NOTES) if (folder / NOTES).exists() else {}
    shards = list(folder.glob("*.parquet"))
    if shards and before != notes:
        say("the built-in world has changed since its text was made: making it again")
        for shard in shards:
            shard.unlink()
    if before != notes:
        storage.ensure_folder(folder)
        storage.write_json(folder / NOTES, notes)
    return load()


def _copy(data: str) -> Path:
    return shard_folder(data) / COPY


def _has_head(folder: Path) -> bool:
    return (folder / HEAD).is_file()


def _files(folder: Path) -> list[Path]:
    """The files that a world is read from, in a fixed order."""
    paths = ((path, path.relative_to(folder)) for path in sorted(folder.rglob("*.txt")))
    return [path for path, within in paths if not any(p.startswith(".") for p in within.parts)]


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(b"\0".join((os.fsencode(path.name), path.read_bytes(), b"")))
    return digest.hexdigest()


# ---- for whoever writes one ----


def begin(folder: Path) -> None:
    """Copy the example into a new folder. Raises UserError for one with something in it."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty: name a folder that does not exist yet")
    storage.ensure_folder(folder.parent)
    try:
        shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} can't be written ({error}): name another folder") from None


def mistakes(folder: Path) -> list[str]:
    """What keeps a folder from being learned: the first mistake of each file, else of all together.

    Empty where there is none.
    """
    if found := mistakes_of_files(folder, load().lists):
        return found
    try:
        load(folder)
    except UserError as error:
        return [str(error)]
    return []


def overview(world: World) -> list[str]:
    """A line for each relation of one's own: how much it says, in how many ways it is asked for."""
    lines = []
    for relation in world.relations.values():
        facts = sum(fact.own for fact in relation.facts)
        ways = len((*relation.ask, *relation.clause, *relation.noun))
        if facts:
            advice = "" if ways >= FEW_WORDINGS else " (few: add lines with ask:)"
            lines.append(
                f"facts/{relation.name}.txt: {counted(facts, 'fact')}, "
                f"{counted(ways, 'way')} to ask{advice}"
            )
    return lines
