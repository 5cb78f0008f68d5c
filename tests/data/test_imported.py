"""A folder of one's own, whatever is in it, becomes shards and conversations."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from pathlib import Path

import pytest

from nanochat.data import dataset, imported
from nanochat.data.shards import read_epoch, write_shard
from nanochat.system.errors import UserError

TALK = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}]


@pytest.fixture
def notes(tmp_path: Path, base_dir: Path) -> Path:
    """A folder with a space in its name and one of each kind."""
    folder = tmp_path / "my notes"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "a.txt").write_text("A first text, über alles.\n", encoding="utf-8")
    (folder / "deep" / "b.md").write_text("# A second\n\ntext\n")
    with gzip.open(folder / "deep" / "c.txt.gz", "wt") as file:
        file.write("A third text.")
    write_shard(folder / "deep" / "er" / "d.parquet", ["A fourth text.", "", "A fifth."])
    lines = [{"text": "A sixth."}, TALK, {"messages": TALK}]
    (folder / "e.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    (folder / "picture.png").write_bytes(b"\x89PNG\0")
    (folder / ".git").mkdir()
    (folder / ".git" / "config.txt").write_text("hidden")
    return folder


def taken(folder: Path) -> dataset.Source:
    list(dataset.prepare(str(folder), 4))
    return dataset.find_source(str(folder))


def texts_of(source: dataset.Source) -> list[str]:
    return sorted([*read_epoch(source.train_shards), *read_epoch((source.val_shard,))])


def test_every_kind_is_read_once(notes: Path) -> None:
    source = taken(notes)
    assert texts_of(source) == [
        "# A second\n\ntext\n",
        "A fifth.",
        "A first text, über alles.\n",
        "A fourth text.",
        "A sixth.",
        "A third text.",
    ]
    assert len(list(read_epoch((source.val_shard,)))) == 1  # too few for every 50th: one of them
    (talks,) = source.conversation_files
    assert dataset.read_conversations(talks) == [TALK, TALK]
    assert source.name == str(notes)


def test_what_was_read_stays_until_the_folder_changes(
    notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = taken(notes).train_shards[0].stat().st_mtime_ns
    assert taken(notes).train_shards[0].stat().st_mtime_ns == first
    (notes / "a.txt").write_text("Now it is another text.")
    source = taken(notes)
    assert "has changed since it was last read" in capsys.readouterr().out
    assert "Now it is another text." in texts_of(source)


def test_a_million_blanks_are_no_documents(notes: Path) -> None:
    before = texts_of(taken(notes))
    (notes / "blanks.txt").write_text("first" + " " * 1_000_100 + "last")
    new = [text.strip() for text in texts_of(taken(notes)) if text not in before]
    assert sorted(new) == ["first", "last"]


def test_two_folders_of_one_name_stay_apart(tmp_path: Path, base_dir: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "notes").mkdir(parents=True)
        (tmp_path / name / "notes" / "x.txt").write_text(f"{name}\n\n" * 20_000)
    sources = [taken(tmp_path / name / "notes") for name in ("a", "b")]
    assert sources[0].train_shards != sources[1].train_shards
    assert texts_of(sources[0])[0].startswith("a\n")


def test_a_book_in_one_file_becomes_many_documents(tmp_path: Path, base_dir: Path) -> None:
    paragraphs = [f"Paragraph {i} of this book. " * 40 for i in range(1500)]
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "book.txt").write_text("\n\n".join(paragraphs))
    source = taken(tmp_path / "book")
    documents = list(read_epoch(source.train_shards))
    held_out = list(read_epoch((source.val_shard,)))
    assert max(map(len, documents)) <= imported.MAX_DOCUMENT_CHARS
    assert 0.3 < len(held_out) / (len(documents) + len(held_out)) * 50 < 3
    assert sum(map(len, documents)) + sum(map(len, held_out)) == len("\n\n".join(paragraphs))


def test_latin_1_is_read_and_said(notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (notes / "old.txt").write_bytes("Grüße aus Köln".encode("latin-1"))
    assert "Grüße aus Köln" in texts_of(taken(notes))
    assert f"{notes / 'old.txt'} is not UTF-8: read as Latin-1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "raw", "words"),
    [
        ("x.txt", b"\xff\xfe\0\0\x01binary", "x.txt is not text"),
        ("x.parquet", b"PAR1 broken", "x.parquet is damaged or not a parquet file"),
        ("x.txt.gz", b"no gzip", "x.txt.gz can't be read"),
        ("x.jsonl", b'{"text": "good"}\n{"text": 3}\n', "x.jsonl line 2: no `text`"),
        ("x.jsonl", b'{"text": "cut', "x.jsonl line 1: "),
        ("x.jsonl", b'[{"role": "assistant", "content": "x"}]', "x.jsonl line 1: message 1 must"),
        ("x.jsonl", b'\n\n{"messages": [{"role": "user"}]}', "x.jsonl line 3: a message needs"),
        ("x.jsonl", b"[" * 100_000, "x.jsonl line 1: "),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_nothing_lost(
    notes: Path, name: str, raw: bytes, words: str
) -> None:
    before = texts_of(taken(notes))
    (notes / name).write_bytes(raw)
    with pytest.raises(UserError) as caught:
        taken(notes)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert texts_of(dataset.find_source(str(notes))) == before
    assert [p.name for p in imported.shard_folder(notes).parent.iterdir()] == [
        imported.shard_folder(notes).name
    ]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-8-sig"])
def test_a_file_of_windows_is_read(notes: Path, encoding: str) -> None:
    (notes / "win.txt").write_bytes("Hello from Windows.".encode(encoding))
    assert "Hello from Windows." in texts_of(taken(notes))


def test_a_file_whose_name_is_not_utf_8_is_read(notes: Path) -> None:
    name = b"caf\xe9.txt"
    try:
        with open(os.path.join(os.fsencode(notes), name), "w") as file:
            file.write("Of an old disk.")
    except OSError:
        pytest.skip("NOT TESTED: this disk takes no such name")
    assert "Of an old disk." in texts_of(taken(notes))


@pytest.mark.parametrize("documents", [0, 1])
def test_a_folder_of_conversations_is_trained_on(
    tmp_path: Path, base_dir: Path, documents: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "talks").mkdir()
    lines = [{"text": "The only text."}] * documents + [{"conversations": TALK}] * 3
    (tmp_path / "talks" / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = taken(tmp_path / "talks")
    assert texts_of(source) == ["Hi?\n\nHello."] * 3 + ["The only text."] * documents
    assert dataset.read_conversations(source.conversation_files[0]) == [TALK] * 3
    assert "of its 3 conversations is read as documents as well" in capsys.readouterr().out


def test_documents_that_would_all_be_held_out(tmp_path: Path, base_dir: Path) -> None:
    texts = [f"text {i}" for i in range(999)]
    held = [t for t in texts if zlib.crc32(t.encode()) % imported.HELD_OUT_EVERY == 0][:2]
    (tmp_path / "two").mkdir()
    for i, text in enumerate(held):
        (tmp_path / "two" / f"{i}.txt").write_text(text)
    assert texts_of(taken(tmp_path / "two")) == sorted(held)


def test_what_we_made_of_a_folder_is_not_read_as_its_text(
    notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(notes / "out"))
    before = texts_of(taken(notes))
    (notes / "out" / "metrics").mkdir()
    (notes / "out" / "metrics" / "base_d1.jsonl").write_text('{"loss": 3}\n')
    assert len(imported.scan(notes).files) == 5
    assert texts_of(taken(notes)) == before
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(notes))
    with pytest.raises(UserError, match="set NANOCHAT_BASE_DIR to another"):
        taken(notes)
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(notes.parent))
    assert len(imported.scan(notes / "deep").files) == 3, "all of it lies in the base dir"


def test_a_folder_with_nothing_readable(tmp_path: Path, base_dir: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match=r"nothing that can be read \(1 other file\): put .txt"):
        dataset.describe(str(tmp_path / "photos"), 4)


def test_one_short_document_is_too_few(tmp_path: Path, base_dir: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.txt").write_text("Only this.")
    with pytest.raises(UserError, match="has 1 document, and at least 2 are needed"):
        taken(tmp_path / "one")
    assert not imported.shard_folder(tmp_path / "one").exists()


def test_a_small_folder_is_told_what_to_expect(notes: Path) -> None:
    assert "little: expect" in dataset.describe(str(notes), 4)
    assert "; 1 other file can't be read" in dataset.describe(str(notes), 4)
    assert dataset.default_vocab_size(str(notes)) == 8_192
    with open(notes / "large.txt", "wb") as file:
        os.truncate(file.fileno(), 300_000_000)  # a hole: no disk is used
    assert "little" not in dataset.describe(str(notes), 4)
    assert dataset.default_vocab_size(str(notes)) == 16_384


def test_it_must_be_read_in_before_it_is_trained_on(notes: Path) -> None:
    with pytest.raises(UserError, match=r"run python -m scripts.data --data=.*my notes"):
        dataset.find_source(str(notes))
