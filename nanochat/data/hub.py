"""Files from the Hugging Face hub: listed once, downloaded in pieces, checked, whole or not at all.

A manifest beside the files keeps the revision, sizes and checksums as first seen, so later runs
read the same data whatever happens on the hub. A download that was cut resumes where it stopped, in
this run or a later one (huggingface_hub starts over in a new process, hence our own loop here).
HF_ENDPOINT, HF_TOKEN and the proxy variables work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from nanochat.system import storage
from nanochat.system.errors import Failure, UserError
from nanochat.system.log import say

if TYPE_CHECKING:
    import requests  # where it is used, otherwise: 90 ms, and most commands fetch nothing

MANIFEST = "manifest.json"
TIMEOUT_S = 10.0  # how long a server may stay silent, at first and in the middle
CHUNK_BYTES = 1 << 14  # the most that a cut connection loses
RETRY_PAUSES_S = (1.0, 2.0, 4.0, 8.0)  # after attempts that brought nothing; then give up
RETRIED = (408, 425, 429, 500, 502, 503, 504)  # status codes that may go away

Progress = Callable[[int, int], None]  # (bytes so far, bytes in all)


class Unreachable(Failure):
    """The hub can't be reached now. The message says why, in a few words, and what would help."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as its server has it; sha256 None if the server keeps none (small files)."""

    url: str
    size: int | None = None
    sha256: str | None = None


def endpoint() -> str:
    """The hub's address: HF_ENDPOINT, or the public one."""
    from huggingface_hub import constants

    return constants.ENDPOINT.rstrip("/")


def manifest_of(repo: str, folder: Path) -> dict[str, RemoteFile]:
    """path -> file of a dataset repository, from the folder's manifest or, at first, from the hub.

    Raises Unreachable if it has to ask the hub and gets no list.
    """
    path = folder / MANIFEST
    if not path.exists():
        found = _ask_for_list(repo)
        storage.write_json(path, {"repo": repo, **found})
    whole = storage.read_json(path)
    try:
        revision, files = whole["revision"], whole["files"]
        return {
            name: RemoteFile(_url(repo, revision, name), file["size"], file["sha256"])
            for name, file in files.items()
            if _stays_inside(name)
        }
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is damaged: remove it, and it will be made again") from None


def _stays_inside(name: str) -> bool:
    """Whether a path from the network stays inside the folder that it will be joined to."""
    return not name.startswith("/") and "\\" not in name and ".." not in name.split("/")


def _url(repo: str, revision: str, name: str) -> str:
    from huggingface_hub import hf_hub_url

    return hf_hub_url(repo, name, repo_type="dataset", revision=revision, endpoint=endpoint())


def _headers() -> dict[str, str]:
    from huggingface_hub import get_token

    token = get_token()
    return {"authorization": f"Bearer {token}"} if token else {}


def _ask_for_list(repo: str) -> dict[str, Any]:
    """{"revision": commit, "files": {path: {"size", "sha256"}}} of the newest revision."""
    import requests

    url = f"{endpoint()}/api/datasets/{repo}"
    try:
        answer = requests.get(url, {"blobs": "true"}, headers=_headers(), timeout=TIMEOUT_S)
        answer.raise_for_status()
        found = answer.json()
        files = {
            file["rfilename"]: {
                "size": file.get("size"),
                "sha256": (file.get("lfs") or {}).get("sha256"),
            }
            for file in found["siblings"]
        }
        return {"revision": found["sha"], "files": files}
    except (ValueError, KeyError, TypeError):  # such as the login page of a hotel's wifi
        raise Unreachable(
            f"{endpoint()} does not look like a Hugging Face hub (unexpected response)"
        ) from None
    except requests.RequestException as error:
        raise Unreachable(explain(error)) from None


def explain(error: requests.RequestException) -> str:
    """Why a request failed, in a few words: no network and a refusal need different remedies."""
    import requests

    asked = urlsplit((error.request.url if error.request else None) or endpoint())
    host = f"{asked.scheme}://{asked.netloc}"  # the hub, or wherever it redirected us
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy refused (check HTTPS_PROXY)"
    if isinstance(error, requests.exceptions.SSLError):
        return f"this machine does not trust the certificate of {host} (a proxy in between?)"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection was cut"
    if isinstance(error, requests.exceptions.Timeout) or "timed out" in str(error):
        return f"no network, or a very slow one: no answer from {host} within {TIMEOUT_S:.0f} s"
    status = error.response.status_code if error.response is not None else None
    if status in (401, 403):
        return (
            f"{host} refused ({status}): the token in HF_TOKEN is wrong, or a proxy is in between"
        )
    if status == 407:
        return "the proxy asks for a password (407; check HTTPS_PROXY)"
    if status == 404:
        return f"{host} does not have it (404)"
    if status is not None:
        return f"{host} is out of order ({status})"
    return f"no network: {host} can't be reached"


def reach(repo: str, folder: Path, within_s: float = TIMEOUT_S) -> None:
    """Get the list of a repository. Raises Unreachable after within_s at the latest."""
    # In a thread, since looking up a name has no timeout: a laptop without network can hang there
    # for a minute.
    answer: list[BaseException | None] = []

    def ask() -> None:
        try:
            manifest_of(repo, folder)
            answer.append(None)
        except BaseException as error:
            answer.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(within_s)
    if not answer:
        raise Unreachable(f"no network: no answer from {endpoint()} within {within_s:.0f} s")
    if answer[0] is not None:
        raise answer[0]


def is_whole(file: RemoteFile, path: Path, thorough: bool = False) -> bool:
    """Whether the file on disk has the right size and, if thorough, the right checksum."""
    try:
        if file.size is not None and path.stat().st_size != file.size:
            return False
    except FileNotFoundError:
        return False
    return not thorough or file.sha256 is None or storage.checksum(path) == file.sha256


class _CutOff(Exception):
    """The body ended too early."""


def fetch(file: RemoteFile, path: Path, progress: Progress = lambda done, size: None) -> None:
    """Download to path, which appears whole or not at all; resumes a part from before.

    Raises Unreachable when several attempts in a row bring nothing; what came is kept.
    """
    import requests

    part = path.with_name(f".{path.name}.part")
    storage.ensure_folder(path.parent)
    # As long as each attempt brings something, it never gives up: a bad line loads a shard in
    # fifty pieces, and that is fine. Only attempts that bring nothing are counted.
    pauses, wrong_before = list(RETRY_PAUSES_S), False
    while True:
        had = part.stat().st_size if part.exists() else 0
        try:
            if file.size is None or had < file.size:
                _continue(file, part, had, progress)
            if file.sha256 is None or storage.checksum(part) == file.sha256:
                storage.rename_synced(part, path)
                return
            # Nobody knows which of its bytes are wrong, so it starts over, once.
            part.unlink()
            if wrong_before:
                raise Unreachable(
                    f"{path.name} came twice with a wrong checksum: something changes it"
                )
            wrong_before, reason = True, "it came with a wrong checksum"
        except requests.RequestException as error:
            status = error.response.status_code if error.response is not None else None
            refused = isinstance(
                error, requests.exceptions.ProxyError | requests.exceptions.SSLError
            )
            if refused or (status is not None and status not in RETRIED):
                raise Unreachable(f"{path.name}: {explain(error)}") from None
            reason = explain(error)
        except _CutOff:
            reason = "the connection was cut"
        except OSError as error:  # of the disk: requests' own came before
            raise UserError(storage.cannot_write(path, error)) from None
        came = (part.stat().st_size if part.exists() else 0) - had
        if came > 0:
            pauses = list(RETRY_PAUSES_S)
        elif not pauses:
            raise Unreachable(
                f"{path.name}: {reason}; what came is kept, run it again to continue from there"
            )
        say(f"{path.name}: {reason}; trying again")
        time.sleep(pauses[0] if came > 0 else pauses.pop(0))


def _continue(file: RemoteFile, part: Path, had: int, progress: Progress) -> None:
    """Append what the part lacks, or start over if the server can't resume."""
    import requests

    # Compressed, its bytes would not be the file's, and a range of them would be of no use.
    headers = {"accept-encoding": "identity"}
    if file.url.startswith(endpoint()):
        headers |= _headers()  # the token: requests drops it on a redirect to another host
    if had:
        headers["range"] = f"bytes={had}-"
    with requests.get(file.url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
        if answer.status_code == 416:  # the part is longer than the file: useless
            part.unlink()
            raise _CutOff
        answer.raise_for_status()
        # 206 is "partial content". A server that does not know ranges answers 200 and sends it all:
        # appended to the part, that would be garbage of the right kind.
        start_over = had and answer.status_code != 206
        had = 0 if start_over else had
        length = answer.headers.get("content-length")
        size = file.size or (had + int(length) if length else None)
        done = had
        with open(part, "wb" if start_over else "ab") as out:
            for chunk in answer.iter_content(CHUNK_BYTES):
                out.write(chunk)
                done += len(chunk)
                progress(done, size or done)
                if file.size is not None and done > file.size:
                    break  # a server that never stops would fill the disk
    if size is not None and done < size:
        raise _CutOff
    if file.size is not None and done > file.size:
        part.unlink()
        raise _CutOff


def fetch_matching(
    repo: str, pattern: str, folder: Path, progress: Progress = lambda done, size: None
) -> None:
    """Fetch every file of the repository that matches the pattern and is not on disk, whole."""
    for name, file in sorted(manifest_of(repo, folder).items()):
        if fnmatch(name, pattern) and not is_whole(file, folder / name):
            fetch(file, folder / name, progress)
