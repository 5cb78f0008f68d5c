"""The 22 tasks of CORE, as one zip file on the web, unpacked into eval_bundle/."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path, PurePosixPath

from nanochat.data import hub
from nanochat.system import storage
from nanochat.system.errors import Failure

URL = "https://karpathy-public.s3.us-west-2.amazonaws.com/eval_bundle.zip"
MAX_UNPACKED_BYTES = 4_000_000_000  # a zip file can claim anything


def folder() -> Path:
    """Where the tasks are, once unpacked."""
    return storage.base_dir() / "eval_bundle"


def prepare(progress: hub.Progress = lambda done, size: None, url: str = URL) -> None:
    """Fetch and unpack, once. Raises Failure where it is unavailable or damaged."""
    if folder().exists():
        return
    archive = folder().with_suffix(".zip")
    hub.fetch(hub.RemoteFile(url), archive, progress)
    try:
        # Beside its final name until it is whole: an interrupted run finds nothing, not a part.
        with zipfile.ZipFile(archive) as packed, storage.new_folder(folder()) as beside:
            if sum(member.file_size for member in packed.infolist()) > MAX_UNPACKED_BYTES:
                raise Failure(
                    f"{url} unpacks to more than {MAX_UNPACKED_BYTES / 1e9:.0f} GB: not unpacked"
                )
            for member in packed.infolist():
                within = _within(member.filename)
                if within is not None and not member.is_dir():
                    target = storage.ensure_folder((beside / within).parent) / within.name
                    with packed.open(member) as source, open(target, "wb") as out:
                        shutil.copyfileobj(source, out)
    except zipfile.BadZipFile as error:
        raise Failure(f"{url} is not a whole zip file ({error})") from None
    finally:
        archive.unlink(missing_ok=True)


def _within(name: str) -> PurePosixPath | None:
    """A member's path below eval_bundle/; None for what must not or need not be unpacked.

    >>> _within("eval_bundle/core.yaml"), _within("eval_bundle/../../evil"), _within("/etc/passwd")
    (PurePosixPath('core.yaml'), None, None)
    """
    path = PurePosixPath(name)
    if path.parts[:1] != ("eval_bundle",) or ".." in path.parts or "\\" in name:
        return None
    return PurePosixPath(*path.parts[1:]) if len(path.parts) > 1 else None
