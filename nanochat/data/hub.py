"""Files from the Hugging Face hub: listed once, fetched piece by piece, checked, never half there.

A manifest beside the files keeps the revision and every size and checksum as first seen, so later
runs read the same data whatever happens on the hub. A download that was cut goes on where it
stopped, in this run or in a later one. HF_ENDPOINT, HF_TOKEN and proxy variables are honoured.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from nanochat.system import storage
from nanochat.system.errors import Failure, UserError
from nanochat.system.log import say

MANIFEST = "manifest.json"
TIMEOUT_S = 10.0  # how long a server may take to begin its answer, or to go on with it
CHUNK_BYTES = 1 << 14  # what a cut connection loses at most
RETRY_PAUSES_S = (1.0, 2.0, 4.0, 8.0)  # before each new try that follows one without any progress
RETRIED = (408, 425, 429, 500, 502, 503, 504)  # status codes that may pass

Progress = Callable[[int, int], None]  # bytes there, bytes in all


class Unreachable(Failure):
    """The hub can't be had now; the text says in a few words why, and what would help."""


@dataclass(frozen=True)
class RemoteFile:
    """One file as its server has it; sha256 None where the server keeps none (small files)."""

    url: str
    size: int | None = None
    sha256: str | None = None


def endpoint() -> str:
    """The hub's address: HF_ENDPOINT, or the public one."""
    from huggingface_hub import constants

    return constants.ENDPOINT.rstrip("/")


def manifest_of(repo: str, folder: Path) -> dict[str, RemoteFile]:
    """path -> file of a dataset repository, from the folder's manifest, else from the hub.

    Raises Unreachable where it must ask the hub and gets no list.
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
            if _is_plain(name)
        }
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is damaged: remove it, it will be made again") from None


def _is_plain(name: str) -> bool:
    """Whether a path from outside stays inside the folder that it will be joined to."""
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
    except (ValueError, KeyError, TypeError):  # requests' own JSON error is a ValueError, too
        raise Unreachable(f"{endpoint()} is no Hugging Face hub (its answer is no list)") from None
    except requests.RequestException as error:
        raise Unreachable(explain(error)) from None


def explain(error: requests.RequestException) -> str:
    """A failed request in a few words that tell no network from a refusal."""
    asked = urlsplit((error.request.url if error.request else None) or endpoint())
    host = f"{asked.scheme}://{asked.netloc}"  # the hub's, or where it sent us
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy refused (check HTTPS_PROXY)"
    if isinstance(error, requests.exceptions.SSLError):
        return f"{host} has no certificate that this machine trusts (a proxy in between?)"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection was cut"
    if isinstance(error, requests.exceptions.Timeout) or "timed out" in str(error):
        return f"no network, or a very slow one: {host} gave no answer within {TIMEOUT_S:.0f} s"
    status = error.response.status_code if error.response is not None else None
    if status in (401, 403):
        return f"{host} refused ({status}): the token in HF_TOKEN is wrong, or a proxy is between"
    if status == 407:
        return "the proxy wants a password (407; check HTTPS_PROXY)"
    if status == 404:
        return f"{host} does not have it (404)"
    if status is not None:
        return f"{host} is out of order ({status})"
    return f"no network: {host} can't be reached"


def reach(repo: str, folder: Path, within_s: float = TIMEOUT_S) -> None:
    """Make sure that the list of a repository is there. Raises Unreachable after within_s at most.

    A name look-up has no time limit of its own; so the question is asked in a thread.
    """
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
        raise Unreachable(f"no network: {endpoint()} gave no answer within {within_s:.0f} s")
    if answer[0] is not None:
        raise answer[0]


def is_whole(file: RemoteFile, path: Path, thorough: bool = False) -> bool:
    """Whether the file on disk has its size and, looked at thoroughly, its checksum."""
    try:
        if file.size is not None and path.stat().st_size != file.size:
            return False
    except FileNotFoundError:
        return False
    return not thorough or file.sha256 is None or storage.checksum(path) == file.sha256


def fetch(file: RemoteFile, path: Path, progress: Progress = lambda done, size: None) -> None:
    """Download to path, which appears whole or not at all; a part that is there is gone on with.

    Tries again after a cut connection, a slow or an overloaded server, as long as each try brings
    something, and a few times where it does not. Raises Unreachable then; what came is kept.
    """
    part = path.with_name(f".{path.name}.part")
    storage.ensure_folder(path.parent)
    pauses, checksum_failed = list(RETRY_PAUSES_S), False
    while True:
        had = part.stat().st_size if part.exists() else 0
        try:
            if file.size is None or had < file.size:
                _continue(file, part, had, progress)
            if file.sha256 is not None and storage.checksum(part) != file.sha256:
                part.unlink()
                if checksum_failed:
                    raise Unreachable(
                        f"{path.name} came twice with a wrong checksum: something changes it"
                    )
                checksum_failed = True
                say(f"{path.name} came with a wrong checksum: fetching it again")
                continue
            storage.rename_synced(part, path)
            return
        except requests.RequestException as error:
            status = error.response.status_code if error.response is not None else None
            refused = isinstance(
                error, requests.exceptions.ProxyError | requests.exceptions.SSLError
            )
            if refused or (status is not None and status not in RETRIED):
                raise Unreachable(f"{path.name}: {explain(error)}") from None
            reason = explain(error)
        except _Short:
            reason = "the connection was cut"
        except OSError as error:
            raise UserError(storage.cannot_write(path, error)) from None
        came = (part.stat().st_size if part.exists() else 0) - had
        if came > 0:
            pauses = list(RETRY_PAUSES_S)
        elif not pauses:
            raise Unreachable(
                f"{path.name}: {reason}; what came is kept, run the same again to go on with it"
            )
        say(f"{path.name}: {reason}; trying again")
        time.sleep(pauses[0] if came > 0 else pauses.pop(0))


class _Short(Exception):
    """The body ended before its time."""


def _continue(file: RemoteFile, part: Path, had: int, progress: Progress) -> None:
    """Append what is missing of the part, or begin anew where the server can't go on."""
    headers = {"accept-encoding": "identity"}
    if file.url.startswith(endpoint()):
        headers |= _headers()  # requests drops it on a redirect to another host
    if had:
        headers["range"] = f"bytes={had}-"
    with requests.get(file.url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
        if answer.status_code == 416:  # the part is longer than the file: of no use
            part.unlink()
            raise _Short
        answer.raise_for_status()
        whole_anew = had and answer.status_code != 206
        had = 0 if whole_anew else had
        length = answer.headers.get("content-length")
        size = file.size or (had + int(length) if length else None)
        done = had
        with open(part, "wb" if whole_anew else "ab") as out:
            for chunk in answer.iter_content(CHUNK_BYTES):
                out.write(chunk)
                done += len(chunk)
                progress(done, size or done)
                if file.size is not None and done > file.size:
                    break
    if size is not None and done < size:
        raise _Short
    if file.size is not None and done > file.size:
        part.unlink()
        raise _Short


def fetch_matching(
    repo: str, pattern: str, folder: Path, progress: Progress = lambda done, size: None
) -> None:
    """Fetch every file of the repository that the pattern names and that is not there whole."""
    for name, file in sorted(manifest_of(repo, folder).items()):
        if fnmatch(name, pattern) and not is_whole(file, folder / name):
            fetch(file, folder / name, progress)
