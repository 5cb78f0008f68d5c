"""A folder of one's own, of whatever is in it, made into shards and a file of conversations.

.txt and .md are documents; .parquet has them in a `text` column; a line of a .jsonl is a document
or a conversation (jsonl.py). Folders in folders are read; hidden ones and our own are not.
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
# A book in one file would be a single document; it is cut at blank lines into pieces of this size.
MAX_DOCUMENT_CHARS = 20_000  # characters
HELD_OUT_EVERY = 50  # every 50th document, by hash, is for validation
SMALL_BYTES = 2_000_000
SHOWN_EVERY = 200  # items; a small part of a second
VALIDATION = "validation.parquet"
CONVERSATIONS = "conversations.jsonl"
NOTES = "import.json"


@dataclass(frozen=True)
class Found:
    """What a folder holds: the files that can be read, how many others, how much text about."""

    files: tuple[Path, ...]
    others: int
    text_bytes: int
    fingerprint: str  # changes when a file does

    def describe(self) -> str:
        """For the plan."""
        others = f"; {self.others} others are of no kind that is read" if self.others else ""
        few = " (little: expect fluent nonsense in its style)" if self.is_small() else ""
        files, mb = counted(len(self.files), "file"), self.text_bytes / 1e6
        return f"{files}, {mb:.1f} MB of text{few}{others}"

    def is_small(self) -> bool:
        """Whether it is too little to learn a language from."""
        return self.text_bytes < SMALL_BYTES


def scan(folder: Path) -> Found:
    """Look through a folder. Raises UserError where nothing in it can be read."""
    files, others, size = [], 0, 0.0
    digest = hashlib.sha256()
    ours = storage.base_dir().resolve()
    if ours == folder.resolve():
        raise UserError(
            f"{folder} is the folder of both the data and what is made of them: "
            "set NANOCHAT_BASE_DIR to another one"
        )
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
        # Compressed English text is about a third of what it was.
        size += status.st_size * (3 if path.suffix.lower() in (".gz", ".parquet") else 1)
        digest.update(os.fsencode(f"{within}\0{status.st_size}\0{status.st_mtime_ns}\0"))
    if not files:
        raise UserError(
            f"{folder} has nothing that can be read ({others} other files): "
            f"put {', '.join(KINDS[:4])} files into it"
        )
    return Found(tuple(files), others, int(size), digest.hexdigest())


def shard_folder(folder: Path) -> Path:
    """Where the import of a folder is kept."""
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in folder.name)[:40] or "text"
    mark = hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]
    return storage.base_dir() / "base_data" / "imported" / f"{name}-{mark}"


def import_folder(folder: Path) -> Iterator[str]:
    """Read everything and write the import, whole or not at all; yields what it is at.

    Does nothing where the folder is as it was at its last import. Raises UserError that names the
    file (and the line) that can't be read, or where there is too little to hold any of it out.
    """
    found, target = scan(folder), shard_folder(folder)
    if (target / NOTES).exists():
        if storage.read_json(target / NOTES).get("fingerprint") == found.fingerprint:
            return
        say(f"{folder} has changed since it was read last: reading it anew")
    with storage.new_folder(target) as beside:
        parts, counts = _Parts(beside), [0, 0]
        with open(beside / CONVERSATIONS, "w", encoding="utf-8") as talks:
            for item, path in _items(found.files):
                if isinstance(item, str):
                    counts[0] += 1
                    parts.append(item)
                else:
                    counts[1] += 1
                    talks.write(json.dumps(item, ensure_ascii=False) + "\n")
                if sum(counts) % SHOWN_EVERY == 0:
                    talked = counted(counts[1], "conversation")
                    yield f"{counted(counts[0], 'document')}, {talked} | {path.name}"
        if counts[0] < 2 and counts[1]:
            few, talked = counted(counts[0], "document"), counted(counts[1], "conversation")
            say(f"{folder} has {few}: the text of its {talked} is read as documents as well")
            for talk in jsonl.read(beside / CONVERSATIONS):
                for piece in pieces(talk if isinstance(talk, str) else text_of(talk)):
                    parts.append(piece)
        if not parts.close():
            raise UserError(
                f"{folder} has {counted(counts[0], 'document')}, and at least 2 are needed "
                "(one is held out): add text, or leave NANOCHAT_DATA out for tinyworld"
            )
        if not counts[1]:
            (beside / CONVERSATIONS).unlink()
        notes = {"folder": str(folder), "fingerprint": found.fingerprint, "documents": counts[0]}
        storage.write_json(beside / NOTES, notes | {"conversations": counts[1]})


class _Parts:
    """Holds some documents out; of the others writes a shard whenever there is enough for one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count, self.pending, self.characters = folder, 0, [], 0
        self.held_out: list[str] = []

    def append(self, document: str) -> None:
        """Add a document."""
        if zlib.crc32(document.encode()) % HELD_OUT_EVERY == 0:
            self.held_out.append(document)
            return
        self.pending.append(document)
        self.characters += len(document)
        if self.characters > SHARD_CHARACTERS:
            self._flush()

    def close(self) -> bool:
        """Write the rest; False where there are too few documents for both parts."""
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
    """A long text in pieces that end at a blank line, or at a line where there is none.

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
