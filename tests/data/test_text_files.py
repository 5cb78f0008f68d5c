"""Bytes of people's files: read, whatever wrote them, or refused with a reason."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.data.text_files import NotText, read_text, to_text
from nanochat.system.errors import UserError

GERMAN = "Grüße aus Köln, meine Lieben.\r\n" * 9
RUSSIAN = "Привет, мир. Как дела?\n" * 9
CHINESE = "你好，世界。今天天气很好。\n" * 9
ENGLISH = "Hello.\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("text", [GERMAN, RUSSIAN, CHINESE, ENGLISH, ""])
def test_what_has_a_mark_or_is_utf_8(text: str, encoding: str) -> None:
    found, note = to_text(text.encode(encoding))
    assert found == text
    assert note == ("" if "8" in encoding else f"is {encoding.upper()}: read as that")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", [GERMAN, RUSSIAN, ENGLISH])
def test_utf_16_without_its_mark(text: str, encoding: str) -> None:
    assert to_text(text.encode(encoding)) == (text, "is UTF-16: read as that")


@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0\ufeff")))
def test_utf_8_is_never_taken_for_anything_else(text: str) -> None:
    assert to_text(text.encode()) == (text, "")


@pytest.mark.parametrize(
    ("raw", "text", "note"),
    [
        (GERMAN.encode("latin-1"), GERMAN, "is not UTF-8: read as Latin-1"),
        (b"caf\xe9 \x93 quoted \x94", "café \u201c quoted \u201d", "is not UTF-8: read as Latin-1"),
        (
            GERMAN.encode() + b"\xe9" + RUSSIAN.encode(),
            GERMAN + "\ufffd" + RUSSIAN,
            "is not all UTF-8: bad bytes replaced by \ufffd (1)",
        ),
        (b"a" * 5000 + b"\0b\0", "a" * 5000 + "b", "has NUL bytes: removed (2)"),
        ("one\n\ufefftwo\n".encode(), "one\ntwo\n", ""),
        ("é".encode("utf-16") + b"x", "é", "is UTF-16: read as that"),
    ],
)
def test_what_is_made_of_the_rest(raw: bytes, text: str, note: str) -> None:
    assert to_text(raw) == (text, note)


@pytest.mark.parametrize(
    "raw",
    [
        b"a\0b",
        bytes(400),
        bytes(range(256)),
        b"\x7fELF\2\1\1" + bytes(9) + b"\3\0>\0\1\0\0\0\x80\4\0\0",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"\xff\xfe\0\0\x01binary",
        b"\xff\xfe\0\xd8a\0",
        CHINESE.replace("\n", "").encode("utf-16-le"),  # without its mark nothing tells
    ],
)
def test_what_nobody_wrote_is_refused(raw: bytes, tmp_path: Path) -> None:
    with pytest.raises(NotText):
        to_text(raw)
    path = tmp_path / "x.txt.gz"
    path.write_bytes(gzip.compress(raw))
    with pytest.raises(UserError, match=r"x.txt.gz is not text .*: remove it") as error:
        read_text(path)
    assert "\n" not in str(error.value)


def test_what_was_done_is_told_with_the_file(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "x.txt").write_bytes(b"\xff\xfea\0")
    assert read_text(tmp_path / "x.txt", told.append) == "a"
    assert told == [f"{tmp_path / 'x.txt'} is UTF-16: read as that"]
