"""A folder of your own, with whatever is in it, made into shards and a file of conversations.

.txt and .md are documents; .parquet has them in a `text` column; a line of a .jsonl is a document
or a conversation (jsonl.py). Folders inside are read too, except hidden ones and our own.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.conversation import Conversation, text_of
from nanochat.data import jsonl
from nanochat.data.shards import read_epoch, shard_path, write_shard
from nanochat.data.text_files import read_text
from nanochat.system import storage
from nanochat.system.errors import UserError
from nanochat.system.log import counted, say

KINDS = (".txt", ".md", ".jsonl", ".parquet", ".txt.gz", ".jsonl.gz")
SHARD_CHARACTERS = 100_000_000
# A book in one file would be a single document. In pieces of this size, some of it can be held out,
# and a batch is not all from one chapter.
MAX_DOCUMENT_CHARS = 20_000
HELD_OUT_EVERY = 50  # one document in 50, chosen by hash, is for validation
SMALL_BYTES = 2_000_000  # too little to learn a language from
SHOWN_EVERY = 200  # items; a fraction of a second
VALIDATION = "validation.parquet"
CONVERSATIONS = "conversations.jsonl"
NOTES = "import.json"


@dataclass(frozen=True)
class Found:
    """What a folder holds: readable files, the number of others, roughly how much text."""

    files: tuple[Path, ...]
    others: int
    text_bytes: int
    fingerprint: str  # changes when a file does

    def describe(self) -> str:
        """For the plan."""
        others = f"; {counted(self.others, 'other file')} can't be read" if self.others else ""
        small = self.text_bytes < SMALL_BYTES
        few = " (little: expect fluent nonsense in its style)" if small else ""
        files, mb = counted(len(self.files), "file"), self.text_bytes / 1e6
        return f"{files}, {mb:.1f} MB of text{few}{others}"


def scan(folder: Path) -> Found:
    """Look through a folder. Raises UserError if nothing in it can be read."""
    files, others, size = [], 0, 0.0
    digest = hashlib.sha256()
    ours = storage.base_dir().resolve()
    if ours == folder.resolve():
        raise UserError(
            f"{folder} can't hold both your data and what is made of it: "
            "set NANOCHAT_BASE_DIR to another folder"
        )
    # ~/.cache/nanochat may well lie inside: a model must not read its own checkpoints and logs.
    has_ours = ours.is_relative_to(folder.resolve())
    for path in sorted(folder.rglob("*")):
        within = path.relative_to(folder)
        if any(part.startswith(".") for part in within.parts) or not path.is_file():
            continue
        if has_ours and path.resolve().is_relative_to(ours):
            continue
        if not path.name.lower().endswith(KINDS):
            others += 1
            continue
        status = path.stat()
        files.append(path)
        # Compression shrinks English text to about a third.
        size += status.st_size * (3 if path.suffix.lower() in (".gz", ".parquet") else 1)
        # Size and time instead of contents: a plan must not take minutes to read them all.
        digest.update(os.fsencode(f"{within}\0{status.st_size}\0{status.st_mtime_ns}\0"))
    if not files:
        raise UserError(
            f"{folder} has nothing that can be read ({counted(others, 'other file')}): "
            f"put {', '.join(KINDS[:4])} files into it"
        )
    return Found(tuple(files), others, int(size), digest.hexdigest())


def shard_folder(folder: Path) -> Path:
    """Where the import of a folder is kept."""
    return storage.base_dir() / "base_data" / "imported" / own_name(folder, "text")


def own_name(folder: Path, unnamed: str) -> str:
    """A name for what is made of a folder: its own, and a hash, since many are called "data"."""
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in folder.name)[:40] or unnamed
    return f"{name}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]}"


def import_folder(folder: Path) -> Iterator[str]:
    """Read everything and write the import, whole or not at all; yields what it is doing.

    Does nothing if the folder is as it was at its last import. Raises UserError that names the file
    (and the line) that can't be read, or if there is too little to hold any of it out.
    """
    found, target = scan(folder), shard_folder(folder)
    if (target / NOTES).exists():
        if storage.read_json(target / NOTES).get("fingerprint") == found.fingerprint:
            return
        say(f"{folder} has changed since it was last read: reading it again")
    documents = conversations = 0
    with storage.new_folder(target) as beside:
        parts = _Parts(beside)
        with open(beside / CONVERSATIONS, "w", encoding="utf-8") as talks:
            for item, path in _items(found.files):
                if isinstance(item, str):
                    documents += 1
                    parts.append(item)
                else:
                    conversations += 1
                    talks.write(json.dumps(item, ensure_ascii=False) + "\n")
                if (documents + conversations) % SHOWN_EVERY == 0:
                    talked = counted(conversations, "conversation")
                    yield f"{counted(documents, 'document')}, {talked} | {path.name}"
        few, talked = counted(documents, "document"), counted(conversations, "conversation")
        if documents < 2 and conversations:
            # Base training needs text, and people who have only chats to offer should not fail for
            # that: what is said in them is text too.
            say(f"{folder} has {few}: the text of its {talked} is read as documents as well")
            for talk in jsonl.read(beside / CONVERSATIONS):
                for piece in pieces(talk if isinstance(talk, str) else text_of(talk)):
                    parts.append(piece)
        if not parts.close():
            raise UserError(
                f"{folder} has {few}, and at least 2 are needed (one is held out): "
                "add text, or leave NANOCHAT_DATA out for tinyworld"
            )
        if not conversations:
            (beside / CONVERSATIONS).unlink()
        notes = {"folder": str(folder), "fingerprint": found.fingerprint, "documents": documents}
        storage.write_json(beside / NOTES, notes | {"conversations": conversations})


class _Parts:
    """Holds some documents out, and writes the others to shards as they come."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count, self.pending, self.characters = folder, 0, [], 0
        self.held_out: list[str] = []

    def append(self, document: str) -> None:
        """Add a document."""
        # By its contents and not by its number: equal documents end up on the same side, and a file
        # added later moves none from one side to the other.
        if zlib.crc32(document.encode()) % HELD_OUT_EVERY == 0:
            self.held_out.append(document)
            return
        self.pending.append(document)
        self.characters += len(document)
        if self.characters > SHARD_CHARACTERS:
            self._flush()

    def close(self) -> bool:
        """Write the rest; False if there are too few documents for both sides."""
        # With a few documents, the hash may put all of them on one side.
        if not self.held_out and self.pending:
            self.held_out.append(self.pending.pop())
        if not self.count and not self.pending and len(self.held_out) > 1:
            self.pending.append(self.held_out.pop())
        self._flush()
        if not self.count or not self.held_out:
            return False
        write_shard(self.folder / VALIDATION, self.held_out)
        return True

    def _flush(self) -> None:
        if self.pending:
            write_shard(shard_path(self.folder, self.count), self.pending)
            self.count, self.pending, self.characters = self.count + 1, [], 0


def _items(files: tuple[Path, ...]) -> Iterator[tuple[str | Conversation, Path]]:
    for path in files:
        name = path.name.lower()
        if name.endswith(".parquet"):
            items: Iterator[Any] = read_epoch((path,))
        elif name.endswith((".jsonl", ".jsonl.gz")):
            items = jsonl.read(path)
        else:
            items = iter((read_text(path),))
        for item in items:
            if not isinstance(item, str):
                yield item, path
            else:
                yield from ((piece, path) for piece in pieces(item) if piece.strip())


def pieces(text: str) -> Iterator[str]:
    """A long text in pieces that end at a blank line; without one, at a line or a blank.

    >>> [len(p) for p in pieces("a" * 15_000 + "\\n\\n" + "b" * 15_000)]
    [15002, 15000]
    """
    start = 0
    while len(text) - start > MAX_DOCUMENT_CHARS:
        end = start + MAX_DOCUMENT_CHARS
        for mark in ("\n\n", "\n", " "):
            found = text.rfind(mark, start + 1, end)
            if found > 0:
                end = found + len(mark)
                break
        yield text[start:end]
        start = end
    yield text[start:]
