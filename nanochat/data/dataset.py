"""Where text and conversations come from: sources, their shards, and reading them in order.

A source has a name (tinyworld, or a folder), training shards and one validation shard. Shards are
parquet files with a `text` column. A cursor [epoch, shard, row] names a document; reading can begin
at any cursor, which is what makes a position in the stream a thing that can be saved.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nanochat.conversation import Conversation, check
from nanochat.data import tinyworld
from nanochat.system import storage
from nanochat.system.cli import UserError
from nanochat.system.log import say

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

ROW_GROUP = 1024
TINYWORLD_VALIDATION = "validation.parquet"
NEW_VOCAB_SIZES = ((200e6, 8_192), (1e9, 16_384))  # own text under so many bytes; above: 65,536

UNREADABLE = (OSError, EOFError, zlib.error)  # the latter two: a damaged .gz

Cursor = list[int]  # [epoch, shard, row] of a text, [epoch, index] of a conversation


@dataclass(frozen=True)
class Source:
    """Text to learn from: where its shards are, and what it is called in plans and state.json."""

    name: str
    train_shards: tuple[Path, ...]
    val_shard: Path
    conversation_files: tuple[Path, ...] = ()

    def text_bytes(self) -> int:
        """Bytes of the training shards on disk (compressed)."""
        return sum(path.stat().st_size for path in self.train_shards)


def default_vocab_size(data: str) -> int:
    """tinyworld 4,096, fineweb 65,536, own text by its size on disk."""
    if data == "tinyworld":
        return 4_096
    if data == "fineweb":
        return 65_536
    # zstd brings English text to about a third.
    size = 3 * sum(path.stat().st_size for path in _shards(Path(data) / "pretrain"))
    return next((vocab for limit, vocab in NEW_VOCAB_SIZES if size < limit), 65_536)


def prepare(data: str, num_shards: int) -> Iterator[tuple[int, int]]:
    """Make what the source needs on this machine; yields (shards done, shards in all)."""
    if data == "tinyworld":
        folder = storage.base_dir() / "base_data" / "tinyworld"
        jobs = [(folder / TINYWORLD_VALIDATION, tinyworld.validation_documents)]
        for i in range(num_shards):
            jobs.append((_shard_path(folder, i), lambda i=i: tinyworld.documents(i)))
        for done, (path, documents) in enumerate(jobs):
            if not _is_whole(path):
                write_shard(path, documents())
            yield done, num_shards
    else:
        source = open_source(data, num_shards)
        for done, path in enumerate((source.val_shard, *source.train_shards)):
            open_shard(path)
            yield done, len(source.train_shards)


def _is_whole(path: Path) -> bool:
    """Whether a shard is there and can be opened; one that a full disk cut off is made again."""
    if not path.exists():
        return False
    try:
        open_shard(path)
    except UserError as error:
        say(f"{error.args[0].split(':')[0]}: making it again")
        return False
    return True


def open_source(data: str, num_shards: int | None = None) -> Source:
    """The source's shards as they stand on disk. Raises UserError where there is nothing to read.

    num_shards None: all that are there.
    """
    if num_shards is not None and num_shards < 1:
        raise UserError(f"data_shards={num_shards}: it must be 1 or more")
    if data == "tinyworld":
        folder = storage.base_dir() / "base_data" / "tinyworld"
        shards, val = _shards(folder), folder / TINYWORLD_VALIDATION
        if not shards or not val.exists():
            raise UserError(f"no text in {folder} yet: run python -m scripts.data -n 4")
        return Source("tinyworld", tuple(shards[:num_shards]), val)
    if data in ("fineweb", "auto"):
        raise UserError(f"--data={data} is not there yet: use tinyworld or a folder of your own")
    folder = Path(data)
    if not folder.is_dir():
        raise UserError(f"--data={data} is no folder; give tinyworld or a folder that is there")
    shards = _shards(folder / "pretrain")
    if len(shards) < 2:
        raise UserError(
            f"{folder / 'pretrain'} has {len(shards)} shards (shard_00000.parquet ...), "
            "and at least 2 are needed: the last one is for validation"
        )
    talks = sorted((folder / "conversations").glob("*.jsonl*"))
    return Source(str(folder), tuple(shards[:-1][:num_shards]), shards[-1], tuple(talks))


def _shard_path(folder: Path, i: int) -> Path:
    return folder / f"shard_{i:05d}.parquet"


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("shard_*.parquet"))


def write_shard(path: Path, documents: Iterable[str]) -> None:
    """Write documents as a parquet shard that is whole or not there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    storage.ensure_folder(path.parent)
    beside = path.with_name(f".{path.name}.part")
    table = pa.table({"text": list(documents)})
    try:
        pq.write_table(table, beside, compression="zstd", row_group_size=ROW_GROUP)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise UserError(f"{path} can't be written ({error.strerror or error})") from None


def open_shard(path: Path) -> pq.ParquetFile:
    """Open a shard. Raises UserError that names the file and what is wrong with it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        shard = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None
    if "text" not in shard.schema_arrow.names:
        names = ", ".join(shard.schema_arrow.names)
        raise UserError(f"{path} has no column `text` (it has: {names}): rename the text's column")
    kind = shard.schema_arrow.field("text").type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise UserError(f"{path} has a column `text` of {kind}, which must be of strings")
    if shard.metadata.num_rows == 0:
        raise UserError(f"{path} has no rows: remove it")
    return shard


def _damaged(path: Path, error: Exception) -> UserError:
    reason = str(error).splitlines()[0].rstrip(".")
    return UserError(
        f"{path} is damaged or no parquet file ({reason}): remove it or fetch it again"
    )


def _texts_of_group(path: Path, shard: pq.ParquetFile, group: int) -> pa.ChunkedArray:
    import pyarrow as pa

    try:
        return shard.read_row_group(group, columns=["text"]).column("text")
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def read_texts(shards: tuple[Path, ...], start: Cursor | None = None) -> Iterator[tuple]:
    """(cursor, text) of every document from `start` on, in order, epoch after epoch, for ever."""
    assert shards, "nothing to read would be read for ever"
    epoch, first_shard, first_row = start or [0, 0, 0]
    while True:
        for number in range(first_shard, len(shards)):
            shard = open_shard(shards[number])
            row = 0
            for group in range(shard.num_row_groups):
                rows = shard.metadata.row_group(group).num_rows
                if row + rows > first_row:
                    column = _texts_of_group(shards[number], shard, group)
                    for i in range(max(0, first_row - row), rows):
                        yield [epoch, number, row + i], column[i].as_py() or ""
                row += rows
            first_row = 0
        epoch, first_shard = epoch + 1, 0


def read_epoch(shards: tuple[Path, ...]) -> Iterator[str]:
    """The text of every document, once."""
    for cursor, text in read_texts(shards):
        if cursor[0] > 0:
            return
        yield text


def count_documents(shards: tuple[Path, ...]) -> int:
    """How many documents the shards hold, from their metadata."""
    return sum(open_shard(path).metadata.num_rows for path in shards)


def read_file(path: Path) -> Iterator[str]:
    """Documents of any .txt, .txt.gz or .parquet; a text file is one document."""
    if path.suffix == ".parquet":
        yield from read_epoch((path,))
        return
    if path.suffix not in (".txt", ".gz", ".md"):
        raise UserError(f"{path}: the text must be in a .txt, .md, .txt.gz or .parquet file")
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            raw = file.read()
        yield raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at {error.start})") from None
    except UNREADABLE as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} can't be read ({getattr(error, 'strerror', None) or error})")


def read_conversations(path: Path) -> list[Conversation]:
    """Conversations of a .jsonl or .jsonl.gz file: a list of messages, or {"messages": [...]}.

    Raises UserError that names file and line of one that is not well formed.
    """
    conversations: list[Conversation] = []
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            for number, line in enumerate(file, 1):  # noqa: B007 (named in the message below)
                if line.strip():
                    found = json.loads(line.decode("utf-8"))
                    talk = found.get("messages") if isinstance(found, dict) else found
                    conversations.append(check(talk))
    except (ValueError, UserError) as error:
        raise UserError(f"{path} line {number}: {error}") from None
    except UNREADABLE as error:
        raise _unreadable(path, error) from None
    return conversations
