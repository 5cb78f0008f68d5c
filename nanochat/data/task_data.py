"""Rows of the tasks, from the hub's files, from a folder of one's own, or generated.

A task whose files are missing has no rows, and a run continues without it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path
from typing import Any

from nanochat.data import hub
from nanochat.data.dataset import Source
from nanochat.data.shards import read_epoch
from nanochat.data.text_files import read_bytes
from nanochat.system import storage
from nanochat.system.errors import Failure, UserError
from nanochat.system.log import say
from nanochat.tasks import TASKS
from nanochat.tasks.task import Row, Task

# Every row is an object in memory, and a night on a laptop reads fewer than these.
MAX_ROWS = 100_000
MAX_WORD_DOCUMENTS = 500  # documents that are searched for words to spell
WORD = re.compile(r"\b[a-z]{3,15}\b")


def rows(task: Task, split: str, source: Source) -> list[Row]:
    """The rows of a task's split ("train" or "test"); empty where the source has none.

    Raises UserError that names a damaged file or a row of another shape.
    """
    if task.generate is not None:
        return list(task.generate(split, words(source)))
    return _file_rows(task, split, source.name)


def _file_rows(task: Task, split: str, data: str) -> list[Row]:
    """Rows from a folder of one's own, or, for any other source, from the hub's files."""
    if Path(data).is_dir():
        paths, read = _folder_paths(task, split, Path(data)), _lines
    else:
        paths, read = _hub_paths(task, split), _parquet
    # A run has hours before it. What it can't read stops it here, with the file and the row, and is
    # not dropped: an accuracy over whatever happened to parse is not the task's.
    numbered = ((path, n, row) for path in paths for n, row in enumerate(read(path), 1))
    kept = []
    for path, number, row in islice(numbered, MAX_ROWS):
        try:
            if not isinstance(row, dict):
                raise ValueError("it must be a JSON object")
            shaped = task.read(row)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            reason = error if isinstance(error, ValueError) else repr(error)
            raise UserError(
                f"{path} row {number} is not one of {task.name}'s ({split}): {reason}"
            ) from None
        if shaped is not None:
            kept.append(shaped)
    return kept


def check_folder(folder: Path) -> None:
    """Raise UserError for a file of a task that can't be read, before hours are spent."""
    for task in TASKS.values():
        for split in task.folder_files:
            _file_rows(task, split, str(folder))


def words(source: Source) -> list[str]:
    """Words to spell: a folder's list (words/*.txt.gz, one per line), else those of its text."""
    for path in sorted(Path(source.name).glob("words/*.txt.gz")):
        return read_bytes(path).decode("utf-8", errors="replace").split()
    # A dict for its order. A set's differs from one process to the next, and a resumed run has to
    # draw the same questions again.
    found: dict[str, None] = {}
    shards = source.shards_on_disk()
    texts = read_epoch(shards) if shards else iter(())
    for text in islice(texts, MAX_WORD_DOCUMENTS):
        found.update(dict.fromkeys(WORD.findall(text)))
    return list(found)


def fetch(progress: hub.Progress = lambda done, size: None) -> None:
    """Fetch the files of every task from the hub; say which are unavailable, and continue."""
    for task in TASKS.values():
        for split, pattern in task.hub_files.items():
            try:
                hub.fetch_matching(task.hub_repo, pattern, _folder_of(task.hub_repo), progress)
            except (Failure, UserError) as error:
                say(f"{task.name} ({split}) is left out: {error}")


def _folder_of(repo: str) -> Path:
    return storage.base_dir() / "task_data" / repo.replace("/", "--")


def _folder_paths(task: Task, split: str, folder: Path) -> list[Path]:
    name = task.folder_files.get(split)
    return [folder / name] if name and (folder / name).exists() else []


def _hub_paths(task: Task, split: str) -> list[Path]:
    if split not in task.hub_files:
        return []
    # By pattern: two tasks of one repository, and all splits of a task, lie in the same folder.
    folder, pattern = _folder_of(task.hub_repo), task.hub_files[split]
    names = (str(path.relative_to(folder)) for path in sorted(folder.rglob("*.parquet")))
    return [folder / name for name in names if fnmatch(name, pattern)]


def _lines(path: Path) -> Iterator[Any]:
    for number, line in enumerate(read_bytes(path).splitlines(), 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise UserError(f"{path} line {number}: {error}") from None


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        for batch in file.iter_batches(1024):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is damaged ({reason}): remove it, it will be fetched") from None
