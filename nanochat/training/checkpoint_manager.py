"""Checkpoints: <stage>_checkpoints/<tag>/step_000050/, whole or not there, no pickle.

model.safetensors, optimizer.safetensors, tokenizer.json, and state.json: everything else that a
resume needs, the model's shape, and the checksums of the other files and its own. A checkpoint is
complete in itself. A damaged one is named and skipped, and the newest whole one is taken. Newest
is what was saved last: each save takes the next number, since clocks can go back, and a run that
skipped a damaged checkpoint is at an earlier step. best.json in the tag's folder points to the
step with the lowest loss on held-out data.
"""

from __future__ import annotations

import errno
import re
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanochat.gpt_config import GPTConfig
from nanochat.stages import CHECKPOINTS, stage_of
from nanochat.system import storage
from nanochat.system.errors import UserError
from nanochat.system.log import say
from nanochat.tokenizer import Tokenizer

if TYPE_CHECKING:  # torch is loaded by who loads or saves weights; a plan only reads state.json
    from torch import Tensor

    from nanochat.gpt import GPT
    from nanochat.system.device import Device

SCHEMA = 2
KEPT_STEPS = 2
OPTIMIZER = "optimizer.safetensors"
FILES = ("model.safetensors", OPTIMIZER, "tokenizer.json")
# The largest that a state.json from elsewhere may name: far above what is trained here.
MAX = {"depth": 64, "vocab_size": 2_000_000, "max_seq_len": 1_000_000}
LARGEST = 1e30  # of the numbers that are not counts
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's folder with what its state.json says."""

    folder: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """Steps done."""
        return self.state["step"]

    @property
    def age(self) -> tuple[int, float, int]:
        """Sorts checkpoints, oldest first; those saved before saves had numbers, by time."""
        return self.state.get("number", 0), self.state["time"], self.step

    @property
    def tag(self) -> str:
        """The model tag, such as d4: the name of the folder that it stands in."""
        return self.folder.parent.name

    def damage(self, resume: bool = False) -> str | None:
        """What is wrong with its files, or None. resume: it looks at the optimizer as well."""
        for name in FILES if resume else (n for n in FILES if n != OPTIMIZER):
            path = self.folder / name
            if not path.is_file():
                return f"{path} is missing"
            stat = path.stat()
            as_it_is = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            if _checksum(path, as_it_is) != self.state["files"].get(name):
                return f"{path} is damaged (checksum mismatch)"
        return None

    def model_config(self) -> GPTConfig:
        """The shape of the model inside. Raises UserError for one that makes no sense."""
        try:
            config = GPTConfig(**self.state["model"])
            for name, most in MAX.items():
                value = getattr(config, name)
                if type(value) is not int or not 1 <= value <= most:
                    raise ValueError(
                        f"{name}={value!r}: it must be a whole number from 1 to {most}"
                    )
            for name in ("rope_base", "softcap", "norm_eps"):
                value = getattr(config, name)
                if type(value) not in (int, float) or not 0 < value < LARGEST:
                    raise ValueError(f"{name}={value!r}: it must be a number above 0")
        except (TypeError, ValueError, KeyError) as error:
            raise UserError(f"{self.folder / 'state.json'} can't be used: {error}") from None
        return config

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the model was trained with."""
        tokenizer = Tokenizer.load(self.folder / "tokenizer.json")
        tokenizer.plain_typing = bool(self.state.get("plain_typing", False))
        return tokenizer

    def model(self, device: Device) -> GPT:
        """The model with its weights, on the device. Raises UserError for a damaged file."""
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from nanochat.gpt import GPT

        path = self.folder / "model.safetensors"
        # A shape from elsewhere may name terabytes: on the meta device it takes nothing, and what
        # does not match the file is refused before anything is allocated.
        with torch.device("meta"):
            model = GPT(self.model_config())
        try:
            weights = load_file(path, device=device.type)
            for name, weight in weights.items():
                if weight.dtype != torch.float32:
                    raise ValueError(f"{name} is {weight.dtype}, not float32")
            model.load_state_dict(weights, assign=True)
        except (OSError, SafetensorError, RuntimeError, ValueError) as error:
            raise _unusable(path, error) from None
        model.dtype = device.dtype
        return model

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """The optimizer's state. Raises UserError where it is missing or damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.folder / OPTIMIZER
        if not path.exists():
            raise UserError(
                f"{self.folder} has no optimizer state: it can be used, but not resumed"
            )
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise _unusable(path, error) from None


def _unusable(path: Path, error: Exception) -> UserError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return UserError(f"{path} can't be used ({reason})")


@cache
def _checksum(path: Path, as_it_is: tuple[int, int, int]) -> str:
    """Computed once per process, as long as the file stays as it is (inode, size, time)."""
    return storage.checksum(path)


@cache
def _say_once(line: str) -> None:
    say(line)


def check_tag(tag: str) -> str:
    """Return the tag. Raises UserError for one that is not a plain file name."""
    if not TAG.fullmatch(tag):
        raise UserError(
            f"model_tag={tag!r}: letters, digits, dot, dash, underscore only, such as d4 or my-d6"
        )
    return tag


def stage_folder(stage: str) -> Path:
    """Where a stage's checkpoints are."""
    return storage.base_dir() / f"{stage}_checkpoints"


def step_folder(stage: str, tag: str, step: int) -> Path:
    """Where the checkpoint of one step is."""
    return stage_folder(stage) / check_tag(tag) / f"step_{step:06d}"


def find_all(stage: str, tag: str | None = None) -> list[Checkpoint]:
    """The stage's checkpoints, of one tag or all, oldest first.

    One whose state.json is damaged, or of another version, is left out, with a line.
    """
    found = []
    for path in stage_folder(stage).glob(f"{check_tag(tag) if tag else '*'}/step_*/state.json"):
        try:
            found.append(Checkpoint(path.parent, _read_state(path)))
        except storage.Damaged as error:
            _say_once(f"{error}: continuing without this checkpoint")
    return sorted(found, key=lambda c: c.age)


def _next_number() -> int:
    """Of the save that is about to be made: above every other one in the base dir."""
    return 1 + max((c.age[0] for stage in CHECKPOINTS for c in find_all(stage)), default=0)


def _read_state(path: Path) -> dict[str, Any]:
    """A state.json, with what every reader of it relies on. Raises Damaged."""
    state = storage.read_sealed(path)
    if state.get("schema") != SCHEMA:
        raise storage.Damaged(
            f"{path} was written by another version (schema {state.get('schema')!r}, "
            f"this one reads {SCHEMA})"
        )
    kinds = {"step": int, "time": float, "finished": bool, "files": dict, "model": dict}
    wrong = [name for name, kind in kinds.items() if type(state.get(name)) is not kind]
    if type(state.get("number", 0)) is not int:
        wrong.append("number")
    if wrong:
        raise storage.Damaged(f"{path} has no {', '.join(wrong)}")
    return state


def newest_whole(found: list[Checkpoint], resume: bool = True) -> Checkpoint | None:
    """The last of them that is whole; names each damaged one after it.

    resume: the optimizer of an unfinished one must be whole as well; False to only use it.
    """
    for checkpoint in reversed(found):
        damage = checkpoint.damage(resume and not checkpoint.state["finished"])
        if damage is None:
            return checkpoint
        _say_once(f"{damage}: continuing without this checkpoint")
    return None


def find(stage: str, tag: str | None = None, step: int | None = None) -> Checkpoint:
    """The checkpoint asked for; without a tag the newest one's, without a step its last whole one.

    Raises UserError that says which exist.
    """
    if tag is not None:
        check_tag(tag)
    # Everything is read, not only what was asked for: the error can then say what exists.
    everything = find_all(stage)
    of_tag = [c for c in everything if tag is None or c.tag == tag]
    found = [c for c in of_tag if step is None or c.step == step]
    whole = newest_whole(found, resume=False)
    if whole is not None:
        return whole
    if found:
        raise UserError(f"every checkpoint of {stage} {found[-1].tag} is damaged: train it again")
    if of_tag and step is not None:
        steps = ", ".join(str(c.step) for c in of_tag)
        raise UserError(f"{stage} {tag or of_tag[-1].tag} has no step {step}; there is: {steps}")
    tags = ", ".join(sorted({c.tag for c in everything}))
    there_is = f"there is: {tags}" if tags else _how_to_get(stage)
    raise UserError(
        f"no {stage} checkpoint{f' {tag!r}' if tag else ''} in {stage_folder(stage)}; {there_is}"
    )


def free_tag(stage: str, wanted: str | None, default: str) -> str:
    """A tag that is free: the default, else default-2, default-3, ...

    Raises UserError where the wanted one is taken: nothing is overwritten.
    """
    if wanted is not None:
        if is_there(stage, check_tag(wanted)):
            raise UserError(
                f"model_tag={wanted}: a {stage} model of that name already exists; choose another "
                "name, or continue it with --resume"
            )
        return wanted
    names = (default if n == 1 else f"{default}-{n}" for n in range(1, 10_000))
    return next(name for name in names if not is_there(stage, name))


def is_there(stage: str, tag: str) -> bool:
    """Whether any checkpoint exists under that tag, even a damaged one."""
    return any((stage_folder(stage) / tag).glob("step_*"))


def set_aside(stage: str, tag: str) -> str | None:
    """Rename an earlier result under this tag to a free name, and return that; None without one."""
    if not is_there(stage, tag):
        return None
    names = (f"{tag}-old{i}" for i in range(1, 10_000))
    free = next(name for name in names if not (stage_folder(stage) / name).exists())
    # Renamed, never deleted: hours of training may be in it.
    (stage_folder(stage) / tag).rename(stage_folder(stage) / free)
    return free


def _how_to_get(stage: str) -> str:
    script = stage_of(stage).script
    return f"run python -m {script}, or bash dev/runcpu.sh for all stages"


def save(
    stage: str,
    state: dict[str, Any],
    model: GPT,
    tokenizer: Tokenizer,
    optimizer_tensors: dict[str, Tensor],
) -> Path:
    """Write the checkpoint of state["step"], read it back, then delete what it replaces.

    Raises UserError where there is no room, or the disk returns other bytes than were written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    folder = step_folder(stage, state["tag"], state["step"])
    # The live tensors, not copies: training waits while they are written.
    weights = {name: weight.detach().contiguous() for name, weight in model.named_parameters()}
    whole = {name: tensor.detach().contiguous() for name, tensor in optimizer_tensors.items()}
    tensors = [*weights.values(), *whole.values()]
    storage.check_space(folder, sum(t.numel() * t.element_size() for t in tensors) + 2**20)
    # Under another name until it is complete: a power cut at any moment leaves either the whole
    # checkpoint or none (tests/training/test_power_cut.py replays each moment).
    with storage.new_folder(folder) as beside:
        try:
            save_file(weights, beside / "model.safetensors")
            save_file(whole, beside / OPTIMIZER)
        except SafetensorError as error:  # how it says that the disk is full
            code = errno.ENOSPC if "os error 28" in str(error) else errno.EIO
            raise OSError(code, str(error)) from None
        (beside / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
        files = {name: storage.checksum(beside / name) for name in FILES}
        whole_state = {
            "schema": SCHEMA, "number": _next_number(), **state,
            "plain_typing": tokenizer.plain_typing, "files": files,
        }  # fmt: skip
        storage.write_sealed(beside / "state.json", whole_state)
    # Only a checkpoint that was read back may push an older one out.
    written = Checkpoint(folder, _read_state(folder / "state.json"))
    damage = written.damage(resume=True)
    if damage is not None:
        raise UserError(f"{damage} right after it was written: the disk can't be trusted")
    _prune(stage, written)
    return folder


def _prune(stage: str, newest: Checkpoint) -> None:
    """Keep the last whole ones and the best; a finished stage keeps only the newest's optimizer."""
    older = [c for c in find_all(stage, newest.tag) if c.folder != newest.folder]
    best, kept = _best(stage, newest.tag), 1
    # Counted by what is whole: a damaged one must not take the place of a good one.
    for checkpoint in reversed(older):
        if kept < KEPT_STEPS and checkpoint.damage(resume=True) is None:
            kept += 1
        elif best is None or checkpoint.step != best["step"]:
            shutil.rmtree(checkpoint.folder, ignore_errors=True)
    for stale in newest.folder.parent.glob(".step_*.part"):  # of a save that was killed
        shutil.rmtree(stale, ignore_errors=True)
    # Two thirds of a checkpoint are momenta, which nobody needs once a stage is finished.
    if newest.state["finished"]:
        for checkpoint in older:
            (checkpoint.folder / OPTIMIZER).unlink(missing_ok=True)


def _best(stage: str, tag: str) -> dict[str, Any] | None:
    """What best.json says: {"step", "loss"}; None where it is missing or damaged."""
    try:
        best = storage.read_sealed(stage_folder(stage) / check_tag(tag) / "best.json")
    except storage.Damaged:
        return None
    return best if {"step", "loss"} <= best.keys() else None


def note_best(stage: str, tag: str, step: int, loss: float) -> None:
    """Point best.json to this step where its held-out loss (or bits per byte) is the lowest."""
    folder, best = step_folder(stage, tag, step), _best(stage, tag)
    if folder.exists() and (best is None or loss < best["loss"]):
        storage.write_sealed(folder.parent / "best.json", {"step": step, "loss": loss})
