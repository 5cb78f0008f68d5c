"""Web text for schools and the curious: fineweb-edu, shuffled, from the Hugging Face hub.

The validation shard and the first few come before anything trains, the rest while it does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

from nanochat.data import hub
from nanochat.data.shards import shard_path
from nanochat.system import storage
from nanochat.system.errors import Failure, UserError
from nanochat.system.log import counted, say

REPO = "karpathy/fineweb-edu-100b-shuffle"
LAST_SHARD = 1822  # for validation; those before it are for training
# There before training starts: the tokenizer reads 1,000 M characters at most.
FIRST_SHARDS = 4
SHARD_MB = 100.0
GIVE_UP_S = 300.0  # how long training waits for a shard before it goes on without it


def folder() -> Path:
    """Where the shards are kept."""
    return storage.base_dir() / "base_data" / "fineweb"


def val_shard() -> Path:
    """The validation shard's place."""
    return shard_path(folder(), LAST_SHARD)


def train_shards(num_shards: int) -> tuple[Path, ...]:
    """The places of the first num_shards training shards."""
    return tuple(shard_path(folder(), i) for i in range(min(num_shards, LAST_SHARD)))


def is_downloaded(num_shards: int) -> bool:
    """Whether so many shards can be read without the net."""
    return all(path.exists() for path in (val_shard(), *train_shards(num_shards)))


def _remote(path: Path) -> hub.RemoteFile:
    found = hub.manifest_of(REPO, folder()).get(path.name)
    if found is None:
        raise UserError(f"{REPO} has no {path.name}: set a smaller DATA_SHARDS")
    return found


def prepare(num_shards: int) -> Iterator[tuple[int, int, str]]:
    """Fetch what is missing; see _prepare. Raises Failure where the hub can't be had."""
    try:
        yield from _prepare(num_shards)
    except hub.Unreachable as error:
        raise Failure(
            f"{error}. Without the net: NANOCHAT_DATA=tinyworld, --data=tinyworld"
        ) from None


def _prepare(num_shards: int) -> Iterator[tuple[int, int, str]]:
    """Fetch what is missing, validation first; yields (shards done, in all, what is under way).

    Sizes and checksums of shards that are there are looked at, too: a damaged one is fetched again.
    """
    wanted = (val_shard(), *train_shards(num_shards))
    for number, path in enumerate(wanted):
        file = _remote(path)
        if path.exists() and not hub.is_whole(file, path, thorough=True):
            say(f"{path} is damaged or cut off: fetching it again")
            path.unlink()
        if not path.exists():
            for megabytes in _fetch(file, path):
                yield number, len(wanted), f"{path.name} {megabytes}"
        yield number + 1, len(wanted), path.name


def _fetch(file: hub.RemoteFile, path: Path) -> Iterator[str]:
    """Fetch in a thread, so that there is something to say at least every second."""
    state, failed = [0, file.size or 0], list[BaseException]()

    def note(done: int, size: int) -> None:
        state[:] = [done, size]

    def work() -> None:
        try:
            hub.fetch(file, path, note)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(1.0)
        yield f"{state[0] / 1e6:.0f} of {state[1] / 1e6:.0f} MB"
    if failed:
        raise failed[0]


class BackgroundFetch:
    """Fetches the missing ones of these shards, in order, while training reads those before them.

    Calling it with a shard's path waits for that shard; False: it did not come in a long time and
    is to be passed over.
    """

    def __init__(self, shards: tuple[Path, ...]) -> None:
        self.missing = [path for path in shards if not path.exists()]
        self._trouble, self._patience_s = "", GIVE_UP_S
        say(f"{len(self.missing)} of {counted(len(shards), 'shard')} will come during training")
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while missing := [path for path in self.missing if not path.exists()]:
            for path in missing:
                try:
                    hub.fetch(_remote(path), path)
                    self._patience_s = GIVE_UP_S
                except Exception as error:  # whatever it is, the next may come
                    self._trouble = str(error) or type(error).__name__
            if any(not path.exists() for path in missing):
                time.sleep(30)

    def __call__(self, path: Path) -> bool:
        """Wait until the shard is there; a line every half minute says for what."""
        started, said = time.monotonic(), 0.0
        while not path.exists():
            waited = time.monotonic() - started
            if waited > self._patience_s:
                self._patience_s = 1.0  # the net is gone: do not wait as long for each of the next
                say(f"{path.name} did not come ({self._trouble}): going on with the others")
                return False
            if waited >= said:
                say(f"waiting for {path.name} ({self._trouble or 'it is on its way'})")
                said += 30
            time.sleep(0.5)
        return True
