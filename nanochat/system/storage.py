"""Files that appear whole or not at all.

The rule: write beside the place, sync, rename. What stands under its final name is complete.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nanochat.system.cli import UserError


def base_dir() -> Path:
    """The folder of everything we write: NANOCHAT_BASE_DIR, else ~/.cache/nanochat."""
    given = os.environ.get("NANOCHAT_BASE_DIR")
    return Path(given).expanduser().absolute() if given else Path.home() / ".cache" / "nanochat"


def ensure_folder(path: Path) -> Path:
    """Make the folder and its parents. Raises UserError where that is not possible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(cannot_write(path, error)) from None
    return path


def write_text(path: Path, text: str) -> None:
    """Write a text file that is whole or not there."""
    ensure_folder(path.parent)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(beside, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        _sync(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise UserError(cannot_write(path, error)) from None


def write_json(path: Path, value: Any) -> None:
    """Write JSON that is whole or not there; indented, since people read it."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON. Raises UserError, naming the file, where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is not there") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}); remove it to go on without it") from None


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that appears under its name only when the block ends well.

    Yields a folder beside it to write into. Files and folder are synced before the rename, so a
    power cut leaves the whole of it or nothing. An older folder of that name is replaced.
    """
    ensure_folder(path.parent)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir()
        yield beside
        for file in beside.iterdir():
            _sync(file)
        _sync(beside)
        if path.exists():
            shutil.rmtree(path)
        os.rename(beside, path)
        _sync(path.parent)
    except OSError as error:
        raise UserError(cannot_write(path, error)) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # some network file systems do not sync folders
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def cannot_write(path: Path, error: OSError) -> str:
    """The line for a write that failed: what was not written, why, and the remedy."""
    if error.errno == errno.ENOSPC:
        return f"the disk is full: {path} was not written; free some space and run the same again"
    return (
        f"{path} can't be written ({error.strerror}); "
        "set NANOCHAT_BASE_DIR to a folder in which you may write"
    )
