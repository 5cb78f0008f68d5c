"""People's files to text, whatever program wrote them.

UTF-8 is the rule; UTF-16 and UTF-32 (Windows) and Latin-1 (old) are read too. What had to be done
is said, once per file.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

from nanochat.system.errors import UserError
from nanochat.system.log import say

UNREADABLE = (OSError, EOFError, zlib.error)  # the latter two: a damaged .gz
# Longer marks first: that of UTF-32 begins with that of UTF-16.
MARKS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
BEGINNINGS = bytes(range(0xC0, 0x100))  # the first bytes of UTF-8's longer characters
LOOKED_AT = 100_000  # bytes, to guess what a file is
MAX_NUL_SHARE = 0.001  # of the characters; with more NULs it is not text

Tell = Callable[[str], None]


class NotText(ValueError):
    """Bytes that nobody wrote as text. The message says why."""


def read_bytes(path: Path) -> bytes:
    """The contents of a file, decompressed if it is a .gz. Raises UserError that names it."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb") as file:
            return file.read()
    except UNREADABLE as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} can't be read ({reason})") from None


def read_text(path: Path, tell: Tell = say) -> str:
    """The text of a file. Raises UserError that names it if it is not text."""
    try:
        text, note = to_text(read_bytes(path))
    except NotText as error:
        raise UserError(
            f"{path} is not text ({error}): remove it from the folder, or rename it to what it is"
        ) from None
    if note:
        tell(f"{path} {note}")
    return text


def to_text(raw: bytes) -> tuple[str, str]:
    """(text, what had to be done for it, "" for plain UTF-8). Raises NotText.

    >>> to_text("Grüße".encode()), to_text("Grüße".encode("latin-1"))
    (('Grüße', ''), ('Grüße', 'is not UTF-8: read as Latin-1'))
    """
    text, note = _decoded(raw)
    # A byte order mark in the middle: somebody joined two files.
    text = text.replace("\ufeff", "")
    nuls = text.count("\0")
    if nuls > MAX_NUL_SHARE * len(text):
        raise NotText("it has NUL bytes, like a program's files")
    if nuls:
        text, note = text.replace("\0", ""), note or f"has NUL bytes: removed ({nuls})"
    return text, note


def _decoded(raw: bytes) -> tuple[str, str]:
    wide = next((name for mark, name in MARKS.items() if raw.startswith(mark)), "")
    wide = wide or _unmarked_wide(raw[:LOOKED_AT])
    if wide:
        try:
            return raw[: len(raw) // 2 * 2].decode(wide), f"is {wide[:6]}: read as that"
        except UnicodeDecodeError as error:
            raise NotText(f"{error.reason} at byte {error.start} of what began as {wide}") from None
    try:
        return raw.decode(), ""
    except UnicodeDecodeError as error:
        return _not_quite(raw, error)


def _unmarked_wide(raw: bytes) -> str:
    """UTF-16 without its mark, or "". In most languages a blank or a comma has one byte that is 0,
    and always on the same side."""
    first, second = raw[::2].count(0), raw[1::2].count(0)
    if max(first, second) < max(2, len(raw) / 40) or 10 * min(first, second) > max(first, second):
        return ""
    name = "UTF-16-LE" if second > first else "UTF-16-BE"
    text = raw[: len(raw) // 2 * 2].decode(name, errors="replace")
    return "" if _has_controls(text) or text.count("\ufffd") > 1 else name


def _not_quite(raw: bytes, error: UnicodeDecodeError) -> tuple[str, str]:
    """UTF-8 with some bad bytes if its good characters outnumber them, else Latin-1."""
    text = raw.decode(errors="replace")
    bad = text.count("\ufffd") - raw.count("\ufffd".encode())
    begun = len(raw) - len(raw.translate(None, BEGINNINGS))
    if begun > 3 * bad:
        return text, f"is not all UTF-8: bad bytes replaced by \ufffd ({bad})"
    try:
        text = raw.decode("cp1252")  # Latin-1 as Windows writes it
    except UnicodeDecodeError:
        text = "\0"
    if _has_controls(text):
        raise NotText(f"{error.reason} at byte {error.start}")
    return text, "is not UTF-8: read as Latin-1"


def _has_controls(text: str) -> bool:
    return any(c < " " and c not in "\t\n\r\f" for c in set(text))
