"""Files that appear whole or not at all.

The rule: write under a name beside the final one, sync, rename. A rename happens in one
step or not at all, so whatever has its final name is complete, even after a power cut.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nanochat.system.errors import UserError


class Damaged(Exception):
    """A file that is missing, cut short or changed. The message names it."""


def base_dir() -> Path:
    """The folder of everything we write: NANOCHAT_BASE_DIR, else ~/.cache/nanochat.

    Raises UserError if ~ can't be resolved.
    """
    # Expanded here, because bash leaves the ~ of NANOCHAT_BASE_DIR="~/x" alone. In a container that
    # runs under a bare number, ~ has no meaning: no HOME, and no entry in /etc/passwd.
    path = Path(os.environ.get("NANOCHAT_BASE_DIR") or "~/.cache/nanochat")
    try:
        return path.expanduser().absolute()
    except RuntimeError:
        whose = (
            "HOME is not set" if path.parts[0] == "~" else f"there is no user {path.parts[0][1:]}"
        )
        raise UserError(
            f"{path}: {whose}; say where to keep things with NANOCHAT_BASE_DIR=/some/folder"
        ) from None


def ensure_folder(path: Path) -> Path:
    """Make the folder and its parents. Raises UserError if that fails."""
    # A new folder is an entry in its parent. Until that one is synced, a power cut can take the
    # folder away, and with it files that were synced themselves.
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        for folder in reversed(new):
            _sync(folder.parent)
    except OSError as error:
        raise UserError(cannot_write(path, error)) from None
    return path


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    ensure_folder(path.parent)
    beside = path.with_name(f".{path.name}.part")
    try:
        with open(beside, "w", encoding="utf-8") as file:
            file.write(text)
        rename_synced(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise UserError(cannot_write(path, error)) from None


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all; indented, since people read it."""
    write_text(path, _dump(value))


def read_json(path: Path) -> Any:
    """Read JSON. Raises UserError that names the file if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} can't be read ({error}); remove it to continue without it"
        ) from None


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Write JSON that carries its own checksum, last in the file."""
    # A flipped bit in a weight is caught by the checksum kept in here. One in here would be a wrong
    # learning rate that is still valid JSON, so this file has to vouch for itself.
    write_json(path, value | {"sha256": _digest(value)})


def read_sealed(path: Path) -> dict[str, Any]:
    """Read what write_sealed wrote. Raises Damaged if a single bit of it has changed."""
    try:
        raw = path.read_bytes()
        value = json.loads(raw)
        digest = value.pop("sha256", None)
        if digest is None:
            raise Damaged(f"{path} has no checksum (an older version wrote it)")
        # Compared as bytes too: a flipped bit in white space leaves the value as it was, but it
        # tells of a disk that forgets.
        if _dump(value | {"sha256": digest}).encode() != raw or _digest(value) != digest:
            raise Damaged(f"{path} is damaged (checksum mismatch)")
    except FileNotFoundError:
        raise Damaged(f"{path} is missing") from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise Damaged(f"{path} is damaged ({type(error).__name__})") from None
    return value


def _dump(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _digest(value: Any) -> str:
    return hashlib.sha256(_dump(value).encode()).hexdigest()


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:  # (hashlib.file_digest needs Python 3.11)
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that gets its name only if the block succeeds.

    Yields a folder beside it to write into; an older folder of that name is replaced.
    """
    ensure_folder(path.parent)
    beside = path.with_name(f".{path.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir()
        yield beside
        # First what is in the files, then (rename_synced) which files there are, then the name. In
        # another order a power cut could leave a complete folder of empty files.
        for file in beside.iterdir():
            _sync(file)
        # A rename replaces a file, but not a folder with something in it.
        if path.is_symlink():
            path.unlink()  # and not what it points to, which may be somebody else's
        elif path.exists():
            shutil.rmtree(path)
        rename_synced(beside, path)
    except OSError as error:
        raise UserError(cannot_write(path, error)) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def rename_synced(beside: Path, path: Path) -> None:
    """Give what was written its final name; a power cut leaves all of it or nothing."""
    _sync(beside)
    os.replace(beside, path)
    _sync(path.parent)  # the name itself is in the folder


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # some network file systems can't sync folders
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def free_bytes(path: Path) -> int:
    """Bytes free for a path that need not exist yet."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def check_space(path: Path, needed: int) -> None:
    """Raise UserError, with both numbers, if fewer bytes are free than needed."""
    free = free_bytes(path)
    if free < needed:
        raise UserError(
            f"the disk is too full: {path} needs {needed / 1e6:,.1f} MB and "
            f"{free / 1e6:,.1f} MB are free; free some space"
        )


def cannot_write(path: Path, error: OSError) -> str:
    """The message for a failed write: what was not written, why, and the remedy."""
    if error.errno == errno.ENOSPC:
        return f"the disk is full: {path} was not written; free some space and run it again"
    return (
        f"{path} can't be written ({error.strerror}); "
        "set NANOCHAT_BASE_DIR to a folder that you may write to"
    )
