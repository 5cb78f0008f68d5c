"""A power cut after any call: the disk has what was synced, and names may be ahead of contents.

The calls of two saves are recorded, with the state of the tree at each; then the disk is replayed
as it may look after each of them, and the newest checkpoint is looked for.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from nanochat.gpt import GPT
from nanochat.gpt_config import GPTConfig
from nanochat.system import storage
from nanochat.tokenizer import Tokenizer
from nanochat.training import checkpoint_manager as checkpoints

Tree = dict[Path, int]  # every path below the base dir -> its inode


class Disk:
    """What a disk that loses everything unsynced would hold."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.contents: dict[int, bytes] = {}  # of files, when they were last synced
        self.entries: dict[int, dict[str, int]] = {}  # of folders, when they were last synced
        self.folders: set[int] = {base.stat().st_ino}
        self.crashes: list[tuple[str, Tree, Tree, dict[int, bytes], set[int]]] = []

    def tree(self) -> Tree:
        found = {path: path.stat().st_ino for path in self.base.rglob("*")}
        self.folders |= {ino for path, ino in found.items() if path.is_dir()}
        return found

    def synced_tree(self) -> Tree:
        """Paths that can be reached through folders as they were last synced."""
        found: Tree = {}
        todo = [(self.base, self.base.stat().st_ino)]
        while todo:
            folder, ino = todo.pop()
            for name, child in self.entries.get(ino, {}).items():
                found[folder / name] = child
                if child in self.folders:
                    todo.append((folder / name, child))
        return found

    def note(self, call: str) -> None:
        now = self.tree()
        self.crashes.append((call, now, self.synced_tree(), dict(self.contents), set(self.folders)))

    def sync(self, ino: int) -> None:
        for path, number in [*self.tree().items(), (self.base, self.base.stat().st_ino)]:
            if number == ino and path.is_dir():
                self.entries[ino] = {p.name: p.stat().st_ino for p in path.iterdir()}
            elif number == ino:
                self.contents[ino] = path.read_bytes()


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    base = tmp_path / "base"
    base.mkdir()
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(base))
    recorder = Disk(base)
    fsync, replace, rename, rmtree = os.fsync, os.replace, os.rename, shutil.rmtree

    def noted_fsync(handle: int) -> None:
        fsync(handle)
        recorder.sync(os.fstat(handle).st_ino)
        recorder.note("fsync")

    def noted(call: Callable, name: str) -> Callable:
        def wrapped(*arguments: object, **named: object) -> object:
            recorder.note(f"before {name}")
            result = call(*arguments, **named)
            recorder.note(name)
            return result

        return wrapped

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted(replace, "replace"))
    monkeypatch.setattr(os, "rename", noted(rename, "rename"))
    monkeypatch.setattr(shutil, "rmtree", noted(rmtree, "rmtree"))
    return recorder


def save(step: int) -> None:
    model = GPT(GPTConfig(1, 512, 16))
    model.init_weights(step)
    checkpoints.save(
        "base",
        {"tag": "d1", "step": step, "time": float(step), "finished": False,
         "model": model.config.to_json()},
        model,
        Tokenizer([]),
        {"momentum": torch.full((64,), float(step))},
    )  # fmt: skip


def newest_after(crash: Tree, contents: dict[int, bytes], folders: set[int], place: Path) -> int:
    """The newest whole step of a disk that looks like this, 0 for none."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for path, ino in sorted(crash.items()):
        target = place / path
        if ino in folders:
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(contents.get(ino, b""))
    os.environ["NANOCHAT_BASE_DIR"] = str(place)
    checkpoints._checksum.cache_clear()
    found = checkpoints.newest_whole(checkpoints.find_all("base", "d1"))
    return 0 if found is None else found.step


def replayed(disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple]:
    """(call, promised step, found step) of each power cut; what was saved is what is promised."""
    promised = []
    for step in (1, 2, 3, 4):
        save(step)
        disk.note("saved")
        promised += [step - 1] * (len(disk.crashes) - 1 - len(promised)) + [step]
    crashes = list(disk.crashes)
    monkeypatch.undo()
    monkeypatch.setenv("NANOCHAT_BASE_DIR", "")
    for least, (call, now, synced, contents, folders) in zip(promised, crashes, strict=True):
        for tree in (now, synced):
            relative = {path.relative_to(disk.base): ino for path, ino in tree.items()}
            yield call, least, newest_after(relative, contents, folders, tmp_path / "replayed")


def test_what_was_saved_is_there_after_a_power_cut(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts = list(replayed(disk, tmp_path, monkeypatch))
    assert len(cuts) > 60
    lost = [cut for cut in cuts if cut[2] < cut[1]]
    assert not lost


@pytest.mark.parametrize("forgotten", ["file", "folder"])
def test_without_a_sync_it_would_not_be(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: str
) -> None:
    """The control: the replay sees a file or a folder that is not synced."""
    real = storage._sync

    def sync(path: Path) -> None:
        if path.is_dir() != (forgotten == "folder"):
            real(path)

    monkeypatch.setattr(storage, "_sync", sync)
    cuts = list(replayed(disk, tmp_path, monkeypatch))
    assert [cut for cut in cuts if cut[2] < cut[1]]
