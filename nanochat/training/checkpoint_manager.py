"""Checkpoints: <stage>_checkpoints/<tag>/step_000050/, whole or not there, no pickle.

model.safetensors, optimizer.safetensors (optimiser, random state), state.json (all the rest that a
resume needs, and the model's shape), tokenizer.json. A checkpoint is complete in itself.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanochat.gpt_config import GPTConfig
from nanochat.system import storage
from nanochat.system.cli import UserError
from nanochat.tokenizer import Tokenizer

if TYPE_CHECKING:  # torch is loaded by who loads or saves weights; a plan only reads state.json
    from torch import Tensor

    from nanochat.gpt import GPT
    from nanochat.system.device import Device

SCHEMA = 1
STAGES = ("base", "mid", "sft")  # each stage's model comes from the one before
KEPT_STEPS = 2
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's folder with what its state.json says."""

    folder: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """Optimiser updates done."""
        return self.state["step"]

    @property
    def tag(self) -> str:
        """The model tag, such as d4: the name of the folder that it stands in."""
        return self.folder.parent.name

    def model_config(self) -> GPTConfig:
        """The shape of the model inside."""
        return GPTConfig(**self.state["model"])

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the model was trained with."""
        return Tokenizer.load(self.folder / "tokenizer.json")

    def model(self, device: Device) -> GPT:
        """The model with its weights, on the device. Raises UserError for a damaged file."""
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from nanochat.gpt import GPT

        with torch.device("meta"):
            model = GPT(self.model_config())
        try:
            weights = load_file(self.folder / "model.safetensors", device=device.type)
            model.load_state_dict(weights, assign=True)
        except (OSError, SafetensorError, RuntimeError) as error:
            raise UserError(_damaged(self.folder / "model.safetensors", error)) from None
        model.dtype = device.dtype
        return model

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """Optimiser and random state. Raises UserError where they are missing or damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.folder / "optimizer.safetensors"
        if not path.exists():
            raise UserError(f"{self.folder} has no optimiser: it can be used, but not resumed")
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise UserError(_damaged(path, error)) from None


def _damaged(path: Path, error: Exception) -> str:
    reason = str(error).splitlines()[0]
    return f"{path} is damaged ({reason}): remove its folder to go on from the one before"


def check_tag(tag: str) -> str:
    """Return the tag. Raises UserError for one that is no plain file name."""
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
    """The stage's checkpoints, of one tag or all, oldest first by the time in their state."""
    found = []
    for path in stage_folder(stage).glob(f"{check_tag(tag) if tag else '*'}/step_*/state.json"):
        state = storage.read_json(path)
        if state.get("schema") != SCHEMA:
            raise UserError(
                f"{path.parent} was written by another version (schema {state.get('schema')}, "
                f"this one reads {SCHEMA}): move it away"
            )
        found.append(Checkpoint(path.parent, state))
    return sorted(found, key=lambda c: (c.state["time"], c.step))


def find(stage: str, tag: str | None = None, step: int | None = None) -> Checkpoint:
    """The checkpoint asked for; without a tag the newest one's, without a step its last.

    Raises UserError that says what there is.
    """
    if tag is not None:
        check_tag(tag)
    everything = find_all(stage)
    of_tag = [c for c in everything if tag is None or c.tag == tag]
    found = [c for c in of_tag if step is None or c.step == step]
    if found:
        return found[-1]
    if of_tag and step is not None:
        steps = ", ".join(str(c.step) for c in of_tag)
        raise UserError(f"{stage} {tag or of_tag[-1].tag} has no step {step}; there is: {steps}")
    tags = ", ".join(sorted({c.tag for c in everything}))
    there_is = f"there is: {tags}" if tags else f"there is none: {_how_to_get(stage)}"
    raise UserError(
        f"no {stage} checkpoint{f' {tag!r}' if tag else ''} in {stage_folder(stage)}; {there_is}"
    )


def free_tag(stage: str, wanted: str | None, default: str) -> str:
    """A tag under which nothing stands: the default, else default-2, default-3, ...

    Raises UserError where the wanted one is taken: nothing is overwritten.
    """
    if wanted is not None:
        if (stage_folder(stage) / check_tag(wanted)).exists():
            raise UserError(
                f"model_tag={wanted}: a {stage} model of that name is there; choose another name, "
                "or go on with it by --resume"
            )
        return wanted
    names = (default if n == 1 else f"{default}-{n}" for n in range(1, 10_000))
    return next(name for name in names if not (stage_folder(stage) / name).exists())


def _how_to_get(stage: str) -> str:
    command = {"base": "base_train", "mid": "mid_train", "sft": "chat_sft"}[stage]
    return f"run python -m scripts.{command}, or bash dev/runcpu.sh for all stages"


def save(
    stage: str,
    state: dict[str, Any],
    model: GPT,
    tokenizer: Tokenizer,
    optimizer_tensors: dict[str, Tensor],
) -> Path:
    """Write the checkpoint of state["step"], then drop what it makes superfluous."""
    from safetensors.torch import save_file

    folder = step_folder(stage, state["tag"], state["step"])
    with storage.new_folder(folder) as beside:
        weights = {name: weight.detach().contiguous() for name, weight in model.named_parameters()}
        save_file(weights, beside / "model.safetensors")
        whole = {name: tensor.detach().contiguous() for name, tensor in optimizer_tensors.items()}
        save_file(whole, beside / "optimizer.safetensors")
        (beside / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
        storage.write_json(beside / "state.json", {"schema": SCHEMA, **state})
    _prune(stage, state["tag"], bool(state["finished"]))
    return folder


def _prune(stage: str, tag: str, finished: bool) -> None:
    """Keep the last steps; when the stage is finished only its last step keeps the optimiser."""
    *older, _ = sorted(find_all(stage, tag), key=lambda c: c.step)
    for checkpoint in older[: -(KEPT_STEPS - 1)]:
        shutil.rmtree(checkpoint.folder, ignore_errors=True)
    if finished:
        for checkpoint in older:
            (checkpoint.folder / "optimizer.safetensors").unlink(missing_ok=True)
