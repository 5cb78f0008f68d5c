"""Parquet shards with a `text` column: written whole, checked when opened, read from any cursor.

A cursor [epoch, shard, row] names a document; reading can begin at any cursor, which is what makes
a position in the stream a thing that can be saved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nanochat.data.text_files import NotText, read_text, to_text
from nanochat.system import storage
from nanochat.system.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

ROW_GROUP = 1024

Cursor = list[int]  # [epoch, shard, row] of a text, [epoch, index] of a conversation
WaitFor = Callable[[Path], bool]


def shard_path(folder: Path, i: int) -> Path:
    """Where shard number i of a folder is."""
    return folder / f"shard_{i:05d}.parquet"


def shards_in(folder: Path) -> list[Path]:
    """The shards of a folder, by name."""
    return sorted(folder.glob("shard_*.parquet"))


def write_shard(path: Path, documents: Iterable[str]) -> None:
    """Write documents as a parquet shard that is whole or not there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    storage.ensure_folder(path.parent)
    beside = path.with_name(f".{path.name}.part")
    table = pa.table({"text": list(documents)})
    try:
        pq.write_table(
            table, beside, compression="zstd", row_group_size=ROW_GROUP, write_page_checksum=True
        )
        storage.rename_synced(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise UserError(f"{path} can't be written ({error.strerror or error})") from None


def open_shard(path: Path) -> pq.ParquetFile:
    """Open a shard. Raises UserError that names the file and what is wrong with it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        shard = pq.ParquetFile(path, page_checksum_verification=True)
        groups = (shard.metadata.row_group(i).num_rows for i in range(shard.num_row_groups))
        if sum(groups) != shard.metadata.num_rows:  # pages have a checksum, the metadata none
            raise ValueError("the rows of its groups do not add up")
    except Exception as error:  # a damaged file fails in many ways
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
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return UserError(
        f"{path} is damaged or no parquet file ({reason}): remove it or fetch it again"
    )


def _texts_of_group(path: Path, shard: pq.ParquetFile, group: int) -> pa.ChunkedArray:
    """The text of a row group, all of the rows that the file's metadata promises."""
    try:
        column = shard.read_row_group(group, columns=["text"]).column("text")
        if len(column) != shard.metadata.row_group(group).num_rows:  # a page header is damaged
            raise ValueError(f"row group {group} has {len(column)} rows, not what was promised")
    except Exception as error:
        raise _damaged(path, error) from None
    return column


def read_texts(
    shards: tuple[Path, ...], start: Cursor | None = None, wait_for: WaitFor | None = None
) -> Iterator[tuple]:
    """(cursor, text) of every document from `start` on, in order, epoch after epoch, for ever.

    wait_for: waits for a shard that is still on its way; False: it can't be had, pass over it.
    Raises UserError for a shard that is damaged, and where not one of them is there.
    """
    assert shards, "nothing to read would be read for ever"
    epoch, first_shard, first_row = start or [0, 0, 0]
    while True:
        missing = 0
        for number in range(first_shard, len(shards)):
            if wait_for is not None and not wait_for(shards[number]):
                missing += 1
                if missing == len(shards):
                    raise UserError(f"{shards[0]} is not there, nor is any shard after it")
                continue
            shard = open_shard(shards[number])
            row = 0
            for group in range(shard.num_row_groups):
                rows = shard.metadata.row_group(group).num_rows
                if row + rows > first_row:
                    column = _texts_of_group(shards[number], shard, group)
                    for i in range(max(0, first_row - row), rows):
                        yield [epoch, number, row + i], _text(column[i], shards[number], row + i)
                row += rows
            first_row = 0
        epoch, first_shard = epoch + 1, 0


def _text(value: pa.Scalar, path: Path, row: int) -> str:
    """A row's text, without NULs, which nobody means; not every writer keeps to UTF-8."""
    try:
        text = value.as_py() or ""
        return text.replace("\0", "") if "\0" in text else text
    except UnicodeDecodeError:
        try:
            return to_text(value.as_buffer().to_pybytes())[0]
        except NotText as error:
            raise UserError(
                f"{path} row {row + 1} is not text ({error}): mend or remove it"
            ) from None


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
    yield read_text(path)
