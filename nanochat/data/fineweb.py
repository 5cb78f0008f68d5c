"""Educational web text: fineweb-edu, shuffled, from the Hugging Face hub.

The validation shard and the first few shards come before training starts, the rest during it: on a
home connection a run would otherwise begin hours later.
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
FIRST_SHARDS = 4  # before training starts: as much as the tokenizer is trained on, 1,000 M chars
SHARD_MB = 100.0
GIVE_UP_S = 300.0  # how long training waits for a shard before it continues without it


def folder() -> Path:
    """The folder of the shards."""
    return storage.base_dir() / "base_data" / "fineweb"


def val_shard() -> Path:
    """Path of the validation shard."""
    return shard_path(folder(), LAST_SHARD)


def train_shards(num_shards: int) -> tuple[Path, ...]:
    """Paths of the first num_shards training shards, on disk or not."""
    return tuple(shard_path(folder(), i) for i in range(min(num_shards, LAST_SHARD)))


def is_downloaded(num_shards: int) -> bool:
    """Whether validation and the first num_shards shards are on disk: no network needed."""
    return all(path.exists() for path in (val_shard(), *train_shards(num_shards)))


def _remote(path: Path) -> hub.RemoteFile:
    found = hub.manifest_of(REPO, folder()).get(path.name)
    if found is None:
        raise UserError(f"{REPO} has no {path.name}: set a smaller DATA_SHARDS")
    return found


def prepare(num_shards: int) -> Iterator[tuple[int, int, str]]:
    """Fetch what is missing, validation first; yields (shards done, in all, what it is doing).

    Raises Failure if the hub can't be reached.
    """
    wanted = (val_shard(), *train_shards(num_shards))
    try:
        for number, path in enumerate(wanted):
            file = _remote(path)
            # What is on disk is checked too: a shard that a full disk cut off would otherwise end
            # the run in the middle of the night.
            if path.exists() and not hub.is_whole(file, path, thorough=True):
                say(f"{path} is damaged or cut off: fetching it again")
                path.unlink()
            if not path.exists():
                for megabytes in _fetch(file, path):
                    yield number, len(wanted), f"{path.name} {megabytes}"
            yield number + 1, len(wanted), path.name
    except hub.Unreachable as error:
        raise Failure(
            f"{error}. Without network: NANOCHAT_DATA=tinyworld, --data=tinyworld"
        ) from None


def _fetch(file: hub.RemoteFile, path: Path) -> Iterator[str]:
    """Fetch in a thread; yields the progress every second, also while nothing comes."""
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

    Call it with the path of a shard to wait for that shard. False: it did not come for a long
    time; leave it out.
    """

    def __init__(self, shards: tuple[Path, ...]) -> None:
        self.missing = [path for path in shards if not path.exists()]
        self._trouble, self._patience_s = "", GIVE_UP_S
        say(f"{len(self.missing)} of {counted(len(shards), 'shard')} will come during training")
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        # Round after round, to the end of the run: the network may be back in an hour, and a shard
        # that was left out in this epoch is read in the next.
        while missing := [path for path in self.missing if not path.exists()]:
            for path in missing:
                try:
                    hub.fetch(_remote(path), path)
                    self._patience_s = GIVE_UP_S
                except Exception as error:  # whatever it is, the next shard may still come
                    self._trouble = str(error) or type(error).__name__
            if any(not path.exists() for path in missing):
                time.sleep(30)

    def __call__(self, path: Path) -> bool:
        """Wait until the shard is on disk; a line every half minute says for what."""
        started, said = time.monotonic(), 0.0
        while not path.exists():
            waited = time.monotonic() - started
            if waited > self._patience_s:
                # The network is gone: don't wait five minutes for each of the next thousand.
                self._patience_s = 1.0
                say(f"{path.name} did not come ({self._trouble}): continuing with the others")
                return False
            if waited >= said:
                say(f"waiting for {path.name} ({self._trouble or 'it is on its way'})")
                said += 30
            time.sleep(0.5)
        return True
