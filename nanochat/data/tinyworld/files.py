"""The text files of a world, read line by line: fields, sections, blocks.

Whoever writes a world need not program, so every mistake names the file, the line and the remedy.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from nanochat.data.tinyworld.english import bare
from nanochat.system.errors import UserError

MAX_LINE = 1000  # characters; a longer one is a pasted page, not a sentence
MAX_BYTES = 20_000_000
SLOT = re.compile(r"\{(\w*)\}")  # {x}: what stands in for it differs from fact to fact


class Line(NamedTuple):
    """A line of a file, stripped, with what an error about it needs."""

    path: Path
    number: int  # from 1
    text: str

    def mistake(self, what: str) -> UserError:
        return UserError(f"{self.path}:{self.number}: {what}")


def lines(path: Path) -> list[Line]:
    """All lines but comments; blank ones stay, because they separate blocks.

    Raises UserError for what is not plain UTF-8 text, too long, or could pass for a special token.
    """
    if path.stat().st_size > MAX_BYTES:
        raise UserError(
            f"{path}: more than {MAX_BYTES // 1_000_000} MB: split it into several files"
        )
    raw = path.read_bytes()
    if raw.startswith(b"%PDF") or b"\0" in raw:
        raise UserError(f"{path} is not plain text: save it as text (.txt, UTF-8)")
    out = []
    # An editor on Windows puts a mark in front of the first line; nobody sees it there.
    for number, coded in enumerate(raw.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        try:
            text = " ".join(coded.decode().split())
        except UnicodeDecodeError:
            raise UserError(f"{path}:{number}: not UTF-8: save the file as UTF-8") from None
        line = Line(path, number, text)
        if len(text) > MAX_LINE:
            raise line.mistake(f"{len(text):,} characters, and {MAX_LINE:,} fit: break it up")
        if not text.isprintable():
            raise line.mistake("a character that cannot be seen: type the line again")
        if "<|" in text:
            raise line.mistake("<| begins the special tokens of the model: leave it out")
        if not text.startswith("#"):
            out.append(line)
    return out


def check_slots(found: Iterable[Line], known: Collection[str]) -> None:
    """Raises UserError for a {slot} that does not exist here, and for a single brace."""
    for line in found:
        for slot in SLOT.findall(line.text):
            if slot not in known:
                listed = ", ".join(f"{{{name}}}" for name in sorted(known))
                raise line.mistake(f"{{{slot}}} does not exist here: {listed} do")
        if re.search("[{}]", SLOT.sub("", line.text)):
            raise line.mistake("a single { or }: write {x}, or leave it out")


class Document(NamedTuple):
    """A file with `key: value` lines at its head and lines in [sections] below."""

    path: Path
    fields: dict[str, list[Line]]  # key -> its values, each as a line
    sections: dict[str, list[Line]]

    def one(self, key: str, default: str) -> str:
        """The value of a key that may be there once."""
        values = self.fields.get(key, [])
        if len(values) > 1:
            raise values[1].mistake(f"a second line '{key}:': keep one")
        return values[0].text if values else default

    def all(self, key: str) -> tuple[str, ...]:
        return tuple(line.text for line in self.fields.get(key, []))


def document(path: Path, keys: tuple[str, ...], sections: tuple[str, ...]) -> Document:
    """Reads a file of fields and sections. Raises UserError for any other key or section."""
    found = Document(path, {}, {})
    section: list[Line] | None = None
    for line in lines(path):
        if not line.text:
            continue
        if line.text.startswith("[") and line.text.endswith("]"):
            name = line.text[1:-1].strip()
            if name not in sections:
                raise line.mistake(f"[{name}] is not a section here: use {', '.join(sections)}")
            section = found.sections.setdefault(name, [])
        elif section is not None:
            section.append(line)
        else:
            key, value = field(line, keys)
            found.fields.setdefault(key, []).append(line._replace(text=value))
    return found


def field(line: Line, keys: tuple[str, ...]) -> tuple[str, str]:
    """(key, value) of a line `key: value`."""
    key, colon, value = (part.strip() for part in line.text.partition(":"))
    if not colon or key not in keys:
        raise line.mistake(
            f"expected one of {', '.join(keys)}, a colon, and a value: {line.text!r}"
        )
    if not value:
        raise line.mistake(f"'{key}:' has no value")
    return key, value


def yes_or_no(doc: Document, key: str, default: str) -> bool:
    """The value of a key that says yes or no."""
    said = doc.one(key, default)
    if said not in ("yes", "no"):
        raise doc.fields[key][0].mistake(f"'{key}: {said}' must be yes or no")
    return said == "yes"


def entries(found: list[Line]) -> Iterator[tuple[Line, str, tuple[str, ...]]]:
    """(line, thing, values) of lines `thing = value | value`."""
    for line in found:
        thing, equals, rest = (part.strip() for part in line.text.partition("="))
        values = tuple(value.strip() for value in rest.split("|"))
        if not (bare(thing) and equals and all(map(bare, values))):
            raise line.mistake(f"expected 'thing = answer | further answer': {line.text!r}")
        yield line, thing, values


def items(path: Path) -> tuple[str, ...]:
    """The items of a list: one per line, or several with commas between."""
    found = tuple(
        item.strip() for line in lines(path) for item in line.text.split(",") if item.strip()
    )
    if not found:
        raise UserError(f"{path} is empty: write one item per line, or remove the file")
    return found


def blocks(found: list[Line]) -> Iterator[list[Line]]:
    """What stands between blank lines."""
    block: list[Line] = []
    for line in found:
        if line.text:
            block.append(line)
        elif block:
            yield block
            block = []
    if block:
        yield block
