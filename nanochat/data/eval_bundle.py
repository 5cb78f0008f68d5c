"""The 22 tasks of CORE, as one zip file on the web, unpacked into eval_bundle/."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path, PurePosixPath

from nanochat.data import hub
from nanochat.system import storage
from nanochat.system.errors import Failure

URL = "https://karpathy-public.s3.us-west-2.amazonaws.com/eval_bundle.zip"
MOST_BYTES = 4_000_000_000  # unpacked; a zip file can claim anything


def place() -> Path:
    """Where the tasks are."""
    return storage.base_dir() / "eval_bundle"


def prepare(progress: hub.Progress = lambda done, size: None, url: str = URL) -> None:
    """Fetch and unpack, once. Raises Failure where it can't be had or is no such file."""
    if place().exists():
        return
    archive = place().with_suffix(".zip")
    hub.fetch(hub.RemoteFile(url), archive, progress)
    try:
        with zipfile.ZipFile(archive) as packed, storage.new_folder(place()) as beside:
            if sum(member.file_size for member in packed.infolist()) > MOST_BYTES:
                raise Failure(f"{url} unpacks to more than {MOST_BYTES / 1e9:.0f} GB: not unpacked")
            for member in packed.infolist():
                within = _within(member.filename)
                if within is not None and not member.is_dir():
                    target = storage.ensure_folder((beside / within).parent) / within.name
                    with packed.open(member) as source, open(target, "wb") as out:
                        shutil.copyfileobj(source, out)
    except zipfile.BadZipFile as error:
        raise Failure(f"{url} is no whole zip file ({error})") from None
    finally:
        archive.unlink(missing_ok=True)


def _within(name: str) -> PurePosixPath | None:
    """A member's place below eval_bundle/; None for what must not or need not be unpacked.

    >>> _within("eval_bundle/core.yaml"), _within("eval_bundle/../../evil"), _within("/etc/passwd")
    (PurePosixPath('core.yaml'), None, None)
    """
    path = PurePosixPath(name)
    if path.parts[:1] != ("eval_bundle",) or ".." in path.parts or "\\" in name:
        return None
    return PurePosixPath(*path.parts[1:]) if len(path.parts) > 1 else None
