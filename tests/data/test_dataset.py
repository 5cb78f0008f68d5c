"""Sources and shards: what is read, and one line that names the file where it can't be."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nanochat.data import tinyworld
from nanochat.data.dataset import find_source, prepare, read_conversations
from nanochat.data.shards import (
    count_documents,
    open_shard,
    read_epoch,
    read_file,
    read_texts,
    write_shard,
)
from nanochat.data.tinyworld import World
from nanochat.system import storage
from nanochat.system.errors import UserError
from nanochat.system.log import counted

TALK = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]


def refusal(call: Callable, *args: object) -> str:
    """The one line of the UserError that the call must raise; generators are read out."""
    with pytest.raises(UserError) as error:
        list(call(*args))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """A shard of 3,000 documents: three row groups."""
    path = tmp_path / "shard_00000.parquet"
    write_shard(path, (f"document {i} {'word ' * (i % 7)}" for i in range(3000)))
    return path


# ---- shards that can't be read


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "shard_00000.parquet"
    path.touch()
    assert refusal(read_epoch, (path,)).startswith(f"{path} is damaged or not a parquet file (")


def test_a_missing_file(tmp_path: Path) -> None:
    assert str(tmp_path / "none.parquet") in refusal(read_epoch, (tmp_path / "none.parquet",))


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_truncated_shard(shard: Path, share: float) -> None:
    raw = shard.read_bytes()
    shard.write_bytes(raw[: int(share * len(raw))])
    assert refusal(read_epoch, (shard,)).startswith(f"{shard} is damaged or not a parquet file (")


def test_a_shard_with_a_hole_in_its_middle(shard: Path) -> None:
    """What a power cut leaves behind: the end is there, and zeros before it."""
    raw = bytearray(shard.read_bytes())
    middle = len(raw) // 3
    raw[middle : middle + 2000] = bytes(2000)
    shard.write_bytes(raw)
    open_shard(shard)
    assert refusal(read_epoch, (shard,)).startswith(f"{shard} is damaged or not a parquet file (")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(bit=st.integers(0, 2**40))
@example(bit=41)  # in a page's header: fewer rows than the metadata promises
@example(bit=78_100)  # in the metadata: a group of no rows
@example(bit=80_492)  # in the metadata: a group of fewer rows than there are
def test_one_flipped_bit_is_found_or_changes_nothing(shard: Path, bit: int) -> None:
    """Text has a checksum a page; of what is beside it, some is never looked at."""
    raw = bytearray(shard.read_bytes())
    whole, texts = bytes(raw), list(read_epoch((shard,)))
    raw[bit // 8 % len(raw)] ^= 1 << bit % 8
    shard.write_bytes(raw)
    try:
        found = list(read_epoch((shard,)))
    except UserError as error:
        found = str(error)
    finally:
        shard.write_bytes(whole)
    refused = isinstance(found, str) and found.startswith(str(shard)) and "\n" not in found
    assert refused or found == texts


def test_a_shard_without_rows(tmp_path: Path) -> None:
    write_shard(tmp_path / "shard_00000.parquet", [])
    path = tmp_path / "empty.parquet"
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    assert refusal(read_epoch, (path,)) == f"{path} has no rows: remove it"
    assert "shard_00000.parquet" in refusal(read_epoch, (tmp_path / "shard_00000.parquet",))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"content": ["a"], "url": ["b"]}, "has no column `text` (it has: content, url)"),
        ({"text": [1, 2]}, "has a column `text` of int64"),
        ({"text": [b"a"]}, "has a column `text` of binary"),
        ({"text": [["a"]]}, "has a column `text` of list<"),
    ],
)
def test_a_wrong_column(tmp_path: Path, columns: dict, message: str) -> None:
    path = tmp_path / "shard_00000.parquet"
    pq.write_table(pa.table(columns), path)
    assert refusal(read_epoch, (path,)).startswith(f"{path} {message}")


def test_the_second_shard_is_named(shard: Path, tmp_path: Path) -> None:
    other = tmp_path / "shard_00001.parquet"
    other.write_bytes(b"PAR1 and nothing")
    assert str(other) in refusal(read_epoch, (shard, other))


# ---- reading


def test_reading_can_begin_anywhere(shard: Path, tmp_path: Path) -> None:
    other = tmp_path / "shard_00001.parquet"
    write_shard(other, ["one", "two", "three"])
    shards = (shard, other)
    texts = list(read_epoch(shards))
    assert len(texts) == 3003 == count_documents(shards)
    for cursor in ([0, 0, 0], [0, 0, 1023], [0, 0, 1024], [2, 0, 2999], [1, 1, 0], [0, 1, 2]):
        reader = read_texts(shards, cursor)
        epoch, number, row = cursor
        at = 3000 * number + row
        for _ in range(5):
            found = next(reader)
            assert found == ([epoch, int(at >= 3000), at - 3000 * (at >= 3000)], texts[at])
            at += 1
            if at == len(texts):
                at, epoch = 0, epoch + 1
    # Where the cursor's own shard can't be had, the next one is read from its first row.
    read = read_texts(shards, [0, 0, 2], lambda path: path != shard)
    assert next(read) == ([0, 1, 0], "one")


def test_a_null_text_is_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "shard_00000.parquet"
    pq.write_table(pa.table({"text": pa.array(["a", None, "b"], pa.large_string())}), path)
    assert list(read_epoch((path,))) == ["a", "", "b"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_a_text_that_is_not_utf_8_or_has_nuls_is_read(tmp_path: Path, kind: pa.DataType) -> None:
    """Parquet promises UTF-8; some writers do not keep it."""
    raw = pa.array([b"caf\xe9", b"a\0b", "über".encode()], pa.binary())
    if kind == pa.large_string():
        raw = raw.cast(pa.large_binary())
    path = tmp_path / "shard_00000.parquet"
    pq.write_table(pa.table({"text": raw.view(kind)}), path)
    assert list(read_epoch((path,))) == ["café", "ab", "über"]
    pq.write_table(pa.table({"text": pa.array([b"\xff\1"], pa.binary()).view(pa.string())}), path)
    assert refusal(read_epoch, (path,)).startswith(f"{path} row 1 is not text (invalid start byte")


# ---- sources


def test_no_folder_and_names_of_no_source(tmp_path: Path) -> None:
    for name in (str(tmp_path / "none"), "tinywrld"):
        assert refusal(find_source, name).startswith(f"--data={name} is not a folder")


@pytest.mark.parametrize("count", [0, 1])
def test_a_folder_without_enough_shards(tmp_path: Path, count: int) -> None:
    (tmp_path / "pretrain").mkdir()
    for i in range(count):
        write_shard(tmp_path / "pretrain" / f"shard_{i:05d}.parquet", ["text"])
    message = refusal(find_source, str(tmp_path))
    assert message.startswith(f"{tmp_path / 'pretrain'} has {counted(count, 'shard')} (")
    assert "at least 2 are needed" in message


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    for i in range(3):
        write_shard(tmp_path / "pretrain" / f"shard_{i:05d}.parquet", [f"text {i}"])
    (tmp_path / "conversations").mkdir()
    (tmp_path / "conversations" / "mine.jsonl").write_text(json.dumps(TALK))
    source = find_source(str(tmp_path))
    assert [path.name for path in source.train_shards] == [f"shard_{i:05d}.parquet" for i in (0, 1)]
    assert source.val_shard.name == "shard_00002.parquet", "never among the training shards"
    assert [path.name for path in source.conversation_files] == ["mine.jsonl"]
    assert find_source(str(tmp_path), 1).train_shards == source.train_shards[:1]
    assert find_source(str(tmp_path), 99).train_shards == source.train_shards
    for number in (0, -1):
        assert refusal(find_source, str(tmp_path), number).startswith(f"data_shards={number}")
    assert [done for done, _, _ in prepare(str(tmp_path), 5)] == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["pretrain/shard_00001.parquet", "conversations/mine.jsonl"])
def test_preparing_a_folder_names_what_is_damaged(tmp_path: Path, name: str) -> None:
    """Here, and not when midtraining begins."""
    for i in range(3):
        write_shard(tmp_path / "pretrain" / f"shard_{i:05d}.parquet", [f"text {i}"])
    (tmp_path / "conversations").mkdir()
    (tmp_path / "conversations" / "mine.jsonl").write_text(json.dumps(TALK))
    broken = tmp_path / name
    broken.write_bytes(broken.read_bytes()[:-9])
    assert refusal(prepare, str(tmp_path), 2).startswith(f"{broken} ")


def test_a_folder_whose_name_is_not_utf_8(tmp_path: Path) -> None:
    """No plan and no state.json could hold it."""
    for call in (find_source, prepare):
        assert "is not UTF-8" in refusal(call, f"{tmp_path}/caf\udce9", 2)


def test_the_shared_folder_is_a_source(shared_data: Path) -> None:
    source = find_source(str(shared_data))
    assert len(source.train_shards) == 4
    assert source.val_shard.name == "shard_00004.parquet"
    assert len(source.conversation_files) == 4
    assert count_documents((source.val_shard,)) == len(list(read_epoch((source.val_shard,))))


# ---- tinyworld on disk


@pytest.fixture
def small_tinyworld(base_dir: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Shards of three documents; the list of those that were made."""
    made: list[int] = []

    def documents(number: int, world: World | None = None) -> list[str]:
        made.append(number)
        return [f"Shard {number} tells of the number {k}." for k in range(3)]

    monkeypatch.setattr(tinyworld, "documents", documents)
    monkeypatch.setattr(tinyworld, "validation_documents", lambda world: documents(-1))
    return made


def test_tinyworld_is_written_once(base_dir: Path, small_tinyworld: list[int]) -> None:
    assert "run python -m scripts.data" in refusal(find_source, "tinyworld")
    assert [done for done, _, _ in prepare("tinyworld", 2)] == [1, 2, 3]
    assert sorted(small_tinyworld) == [-1, 0, 1]
    folder = base_dir / "base_data" / "tinyworld"
    names = ["shard_00000.parquet", "shard_00001.parquet", "validation.parquet", "world.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}

    assert [done for done, _, _ in prepare("tinyworld", 3)] == [1, 2, 3, 4]
    assert sorted(small_tinyworld) == [-1, 0, 1, 2], "only what was missing is made"
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == before

    source = find_source("tinyworld", 2)
    assert source.val_shard.name == "validation.parquet"
    assert list(read_epoch(source.train_shards))[::3] == [
        "Shard 0 tells of the number 0.",
        "Shard 1 tells of the number 0.",
    ]
    assert len(find_source("tinyworld").train_shards) == 3


def test_tinyworld_is_written_again_when_the_world_has_changed(
    base_dir: Path, small_tinyworld: list[int], capsys: pytest.CaptureFixture
) -> None:
    list(prepare("tinyworld", 1))
    notes = base_dir / "base_data" / "tinyworld" / "world.json"
    storage.write_json(notes, {"built_in": "what an older nanochat had"})
    list(prepare("tinyworld", 1))
    assert small_tinyworld == [-1, 0, -1, 0]
    assert "the built-in world has changed" in capsys.readouterr().out


def test_a_shard_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def documents():
        yield "one"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path / "shard_00000.parquet", documents())
    assert list(tmp_path.iterdir()) == []


# ---- any file of text


def test_read_file(tmp_path: Path) -> None:
    text = "Käse\r\n😀\n"
    (tmp_path / "a.txt").write_bytes(text.encode())
    (tmp_path / "a.md").write_bytes(text.encode())
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text.encode()))
    write_shard(tmp_path / "a.parquet", [text, "two"])
    for name in ("a.txt", "a.md", "a.txt.gz"):
        assert list(read_file(tmp_path / name)) == [text]
    assert list(read_file(tmp_path / "a.parquet")) == [text, "two"]


def test_read_file_of_real_text(shared_data: Path) -> None:
    for path in sorted(shared_data.glob("text/*.txt.gz")):
        (text,) = read_file(path)
        assert text.encode() == gzip.decompress(path.read_bytes())


UNREADABLE = {
    "binary.txt": (b"K\xe4se\1", "is not text (invalid continuation byte at byte 1): remove it"),
    "binary.txt.gz": (gzip.compress(b"K\xe4se\1"), "is not text"),
    "cut.txt.gz": (gzip.compress(b"text" * 1000)[:-12], "can't be read"),
    "broken.txt.gz": (gzip.compress(b"text")[:12] + b"\xff" * 20, "can't be read"),
    "plain.gz": (b"no gzip at all", "can't be read"),
    "text.docx": (b"PK", "must be in a .txt, .md, .txt.gz or .parquet file"),
    "text.parquet": (b"PK", "is damaged or not a parquet file"),
}


@pytest.mark.parametrize(("name", "raw_and_message"), UNREADABLE.items(), ids=UNREADABLE)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, raw_and_message: tuple) -> None:
    raw, message = raw_and_message
    path = tmp_path / name
    path.write_bytes(raw)
    found = refusal(read_file, path)
    assert found.startswith(str(path))
    assert message in found


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "none.txt"
    assert refusal(read_file, path) == f"{path} can't be read (No such file or directory)"


# ---- conversations of one's own


def test_read_conversations(tmp_path: Path) -> None:
    system = [{"role": "system", "content": "Be brief."}, *TALK]
    lines = "\n".join([json.dumps(TALK), "", json.dumps({"messages": system, "id": 7}), " "])
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    for name in ("a.jsonl", "a.jsonl.gz"):
        one, other = read_conversations(tmp_path / name)
        assert one == TALK
        assert other == [{"role": "user", "content": "Be brief.\n\nWhy?"}, TALK[1]]


def test_documents_among_conversations_are_told(tmp_path: Path) -> None:
    told: list[str] = []
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(map(json.dumps, [{"text": "a"}, TALK, {"text": "b"}])))
    assert read_conversations(path, told.append) == [TALK]
    assert told == [f"{path}: 2 documents among the conversations left out"]
    path.write_text(json.dumps({"text": "a"}))
    assert refusal(read_conversations, path).startswith(f"{path} has documents and not one conv")


def test_the_shared_conversations_can_be_read(shared_data: Path) -> None:
    for path in sorted(shared_data.glob("conversations/*")):
        lines = gzip.decompress(path.read_bytes()).decode().split("\n")
        assert len(read_conversations(path)) == sum(bool(line.strip()) for line in lines)


WRONG_LINES = {
    "wrong roles": json.dumps(TALK[::-1]),
    "unknown role": json.dumps([{"role": "human", "content": "a"}, TALK[1]]),
    "no list": json.dumps({"prompt": "a", "answer": "b"}),
    "a number": "7",
    "null": "null",
    "text": '"messages"',
    "no JSON": "{role: user}",
    "half a line": json.dumps(TALK)[:20],
    "no content": json.dumps([{"role": "user"}]),
    "content null": json.dumps([{"role": "user", "content": None}, TALK[1]]),
    "part without text": json.dumps(
        [TALK[0], {"role": "assistant", "content": [{"type": "text"}]}]
    ),
}


@pytest.mark.parametrize("line", WRONG_LINES.values(), ids=WRONG_LINES)
def test_a_wrong_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(f"{json.dumps(TALK)}\n\n{line}\n")
    assert refusal(read_conversations, path).startswith(f"{path} line 3: ")


def test_conversation_files_that_cannot_be_read(tmp_path: Path) -> None:
    lines = "".join(json.dumps(TALK) + "\n" for _ in range(99))
    raws = {
        "latin.jsonl": b"[]\n" + "Käse".encode("latin-1"),
        "cut.jsonl.gz": gzip.compress(lines.encode())[:-12],
        "plain.jsonl.gz": lines.encode(),
    }
    for name, raw in raws.items():
        (tmp_path / name).write_bytes(raw)
        assert refusal(read_conversations, tmp_path / name).startswith(f"{tmp_path / name} ")
    assert "can't be read (No such" in refusal(read_conversations, tmp_path / "none.jsonl")


def test_a_damaged_tinyworld_shard_is_made_again(
    base_dir: Path, small_tinyworld: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    list(prepare("tinyworld", 1))
    shard = base_dir / "base_data" / "tinyworld" / "shard_00000.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-7])
    list(prepare("tinyworld", 1))
    assert "shard_00000.parquet" in capsys.readouterr().out
    assert shard.read_bytes() == whole
