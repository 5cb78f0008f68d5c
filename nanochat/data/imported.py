"""A folder of one's own, of whatever is in it, made into shards and a file of conversations.

.txt and .md are documents; .parquet has them in a `text` column; a line of a .jsonl is a document
(an object with `text`) or a conversation (a list of messages, or an object with `messages`).
Folders in folders are read, hidden ones are not.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.conversation import Conversation, check
from nanochat.data.shards import read_bytes, read_epoch, shard_path, write_shard
from nanochat.system import storage
from nanochat.system.cli import UserError
from nanochat.system.log import say

KINDS = (".txt", ".md", ".jsonl", ".parquet", ".txt.gz", ".jsonl.gz")
SHARD_CHARACTERS = 100_000_000
# A book in one file would be a single document; it is cut at blank lines into pieces of this size.
LONGEST_DOCUMENT = 20_000  # characters
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

    def in_words(self) -> str:
        """For the plan."""
        others = f"; {self.others} others are of no kind that is read" if self.others else ""
        few = " (little: expect fluent nonsense in its style)" if self.is_small() else ""
        return f"{len(self.files)} files, {self.text_bytes / 1e6:.1f} MB of text{few}{others}"

    def is_small(self) -> bool:
        """Whether it is too little to learn a language from."""
        return self.text_bytes < SMALL_BYTES


def scan(folder: Path) -> Found:
    """Look through a folder. Raises UserError where nothing in it can be read."""
    files, others, size = [], 0, 0.0
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        within = path.relative_to(folder)
        if any(part.startswith(".") for part in within.parts) or not path.is_file():
            continue
        if not path.name.lower().endswith(KINDS):
            others += 1
            continue
        status = path.stat()
        files.append(path)
        # Compressed English text is about a third of what it was.
        size += status.st_size * (3 if path.suffix.lower() in (".gz", ".parquet") else 1)
        digest.update(f"{within}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    if not files:
        raise UserError(
            f"{folder} has nothing that can be read ({others} other files): "
            f"put {', '.join(KINDS[:4])} files into it"
        )
    return Found(tuple(files), others, int(size), digest.hexdigest())


def place(folder: Path) -> Path:
    """Where the import of a folder is kept."""
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in folder.name)[:40] or "text"
    mark = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
    return storage.base_dir() / "base_data" / "imported" / f"{name}-{mark}"


def bring_in(folder: Path) -> Iterator[str]:
    """Read everything and write the import, whole or not at all; yields what it is at.

    Does nothing where the folder is as it was at its last import. Raises UserError that names the
    file (and the line) that can't be read, or where there is too little to hold any of it out.
    """
    found, target = scan(folder), place(folder)
    if (target / NOTES).exists():
        if storage.read_json(target / NOTES).get("fingerprint") == found.fingerprint:
            return
        say(f"{folder} has changed since it was read last: reading it anew")
    with storage.new_folder(target) as beside:
        train, held_out, counts = _Shards(beside), [], [0, 0]
        with open(beside / CONVERSATIONS, "w", encoding="utf-8") as talks:
            for item, path in _items(found.files):
                if isinstance(item, str):
                    counts[0] += 1
                    is_held_out = zlib.crc32(item.encode()) % HELD_OUT_EVERY == 0
                    (held_out if is_held_out else train).append(item)
                else:
                    counts[1] += 1
                    talks.write(json.dumps(item, ensure_ascii=False) + "\n")
                if sum(counts) % SHOWN_EVERY == 0:
                    yield f"{counts[0]:,} documents, {counts[1]:,} conversations | {path.name}"
        if not held_out and train.pending:
            held_out.append(train.pending.pop())
        train.flush()
        if not train.count or not held_out:
            raise UserError(
                f"{folder} has {counts[0]} documents, and at least 2 are needed (one is held out): "
                "add text, or leave NANOCHAT_DATA out for tinyworld"
            )
        write_shard(beside / VALIDATION, held_out)
        if not counts[1]:
            (beside / CONVERSATIONS).unlink()
        notes = {"folder": str(folder), "fingerprint": found.fingerprint, "documents": counts[0]}
        storage.write_json(beside / NOTES, notes | {"conversations": counts[1]})


class _Shards:
    """Collects documents and writes a shard whenever there is enough for one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count, self.pending, self.characters = folder, 0, [], 0

    def append(self, document: str) -> None:
        """Add a document."""
        self.pending.append(document)
        self.characters += len(document)
        if self.characters > SHARD_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        """Write what is pending."""
        if self.pending:
            write_shard(shard_path(self.folder, self.count), self.pending)
            self.count, self.pending, self.characters = self.count + 1, [], 0


def _items(files: tuple[Path, ...]) -> Iterator[tuple[str | Conversation, Path]]:
    for path in files:
        name = path.name.lower()
        if name.endswith(".parquet"):
            items: Iterator[Any] = read_epoch((path,))
        elif name.endswith((".jsonl", ".jsonl.gz")):
            items = _lines(path)
        else:
            items = iter((_text(path),))
        for item in items:
            if not isinstance(item, str):
                yield item, path
            elif item.strip():
                yield from ((piece, path) for piece in pieces(item))


def pieces(text: str) -> Iterator[str]:
    """A long text in pieces that end at a blank line, or at a line where there is none.

    >>> [len(p) for p in pieces("a" * 15_000 + "\\n\\n" + "b" * 15_000)]
    [15002, 15000]
    """
    start = 0
    while len(text) - start > LONGEST_DOCUMENT:
        end = start + LONGEST_DOCUMENT
        for mark in ("\n\n", "\n", " "):
            found = text.rfind(mark, start + 1, end)
            if found > 0:
                end = found + len(mark)
                break
        yield text[start:end]
        start = end
    yield text[start:]


def _text(path: Path) -> str:
    """The text of a file: UTF-8, else Latin-1 in its Windows form, which is said."""
    raw = read_bytes(path)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        try:
            text = raw.decode("cp1252")
        except UnicodeDecodeError:
            text = "\0"
        if any(c < " " and c not in "\t\n\r\f" for c in text):
            raise UserError(
                f"{path} is no text ({error.reason} at byte {error.start}): "
                "remove it from the folder, or give it its right name"
            ) from None
        say(f"{path} is not UTF-8: read as Latin-1")
        return text


def _lines(path: Path) -> Iterator[str | Conversation]:
    """Documents and conversations of a .jsonl. Raises UserError that names the line."""
    for number, line in enumerate(read_bytes(path).split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            if isinstance(found, dict) and isinstance(found.get("text"), str):
                yield found["text"]
            elif isinstance(found, list) or (isinstance(found, dict) and "messages" in found):
                yield check(found["messages"] if isinstance(found, dict) else found)
            else:
                raise UserError("no `text`, no `messages` and no list of messages in it")
        except (ValueError, RecursionError, UserError) as error:
            raise UserError(f"{path} line {number}: {error}") from None
