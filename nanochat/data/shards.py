"""Parquet shards with a `text` column: written whole, checked when opened, read from any cursor.

A cursor [epoch, shard, row] names a document, and reading can start at any cursor. That is why a
position in the stream can be saved in a few bytes, and why a run can be resumed.
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

ROW_GROUP = 1024  # documents that are decompressed together: the price of starting in the middle

Cursor = list[int]  # [epoch, shard, row] of a text, [epoch, index] of a conversation
WaitFor = Callable[[Path], bool]  # waits for a shard; False: it can't be had, leave it out


def shard_path(folder: Path, i: int) -> Path:
    """Path of shard number i of a folder."""
    return folder / f"shard_{i:05d}.parquet"


def shards_in(folder: Path) -> list[Path]:
    """The shards of a folder, by name."""
    return sorted(folder.glob("shard_*.parquet"))


def write_shard(path: Path, documents: Iterable[str]) -> None:
    """Write documents as a parquet shard, whole or not at all."""
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
        # Pages have checksums, the metadata has none. A flipped bit there would silently drop rows.
        if sum(groups) != shard.metadata.num_rows:
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
        f"{path} is damaged or not a parquet file ({reason}): remove it or fetch it again"
    )


def _texts_of_group(path: Path, shard: pq.ParquetFile, group: int) -> pa.ChunkedArray:
    """The text of a row group: as many rows as the file's metadata promises."""
    try:
        column = shard.read_row_group(group, columns=["text"]).column("text")
        if len(column) != shard.metadata.row_group(group).num_rows:  # a page header is damaged
            raise ValueError(f"row group {group} has {len(column)} rows, not those promised")
    except Exception as error:
        raise _damaged(path, error) from None
    return column


def read_texts(
    shards: tuple[Path, ...], start: Cursor | None = None, wait_for: WaitFor | None = None
) -> Iterator[tuple]:
    """(cursor, text) of every document from `start` on, in order, epoch after epoch, forever.

    Raises UserError for a damaged shard, and if not one of them can be had.
    """
    assert shards, "reading nothing would never end"
    epoch, first_shard, first_row = start or [0, 0, 0]
    while True:
        missing = 0
        for number in range(first_shard, len(shards)):
            skipped, first_row = first_row, 0  # the cursor's row counts in the cursor's shard alone
            if wait_for is not None and not wait_for(shards[number]):
                missing += 1
                if missing == len(shards):
                    raise UserError(f"{shards[0]} is missing, and so is every shard after it")
                continue
            shard = open_shard(shards[number])
            # Row groups before the cursor are skipped unread: their row counts are in the metadata.
            row = 0
            for group in range(shard.num_row_groups):
                rows = shard.metadata.row_group(group).num_rows
                if row + rows > skipped:
                    column = _texts_of_group(shards[number], shard, group)
                    for i in range(max(0, skipped - row), rows):
                        yield [epoch, number, row + i], _text(column[i], shards[number], row + i)
                row += rows
        epoch, first_shard = epoch + 1, 0


def _text(value: pa.Scalar, path: Path, row: int) -> str:
    """A row's text, without NULs, which nobody means. Not every writer sticks to UTF-8."""
    try:
        text = value.as_py() or ""
        return text.replace("\0", "") if "\0" in text else text
    except UnicodeDecodeError:
        try:
            return to_text(value.as_buffer().to_pybytes())[0]
        except NotText as error:
            raise UserError(
                f"{path} row {row + 1} is not text ({error}): fix or remove it"
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
    """Documents of a .txt, .md, .txt.gz or .parquet file; a text file is one document."""
    if path.suffix == ".parquet":
        yield from read_epoch((path,))
        return
    if path.suffix not in (".txt", ".gz", ".md"):
        raise UserError(f"{path}: the text must be in a .txt, .md, .txt.gz or .parquet file")
    yield read_text(path)
