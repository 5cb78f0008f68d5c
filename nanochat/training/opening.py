"""What a stage starts from: the stage before or its own checkpoint, and its batch sizes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

import psutil
import torch

from nanochat.gpt import GPT
from nanochat.system.cli import UserError
from nanochat.system.device import Device, open_device
from nanochat.system.log import say
from nanochat.system.memory_profile import BatchSizes, batch_sizes
from nanochat.tokenizer import Tokenizer
from nanochat.training import checkpoint_manager as checkpoints
from nanochat.training.loop import TrainState
from nanochat.training.stage_config import (
    ITERATIONS,
    PLANNED,
    WARMDOWN,
    OptimConfig,
    StageConfig,
)

ConfigT = TypeVar("ConfigT", bound=StageConfig)

PARENT = {"mid": "base", "sft": "mid"}
NEXT = {"base": "scripts.mid_train", "mid": "scripts.chat_sft", "sft": "scripts.chat_cli -i sft"}


@dataclass(frozen=True)
class Opened:
    """A stage ready to start: what its script filled in, and what follows from it."""

    stage: str
    tag: str
    config: StageConfig  # with every planned field resolved
    data: str
    optim: OptimConfig
    model: GPT
    tokenizer: Tokenizer
    device: Device
    batch: BatchSizes
    state: TrainState
    resumed: checkpoints.Checkpoint | None

    @property
    def planned_tokens(self) -> int | None:
        """Tokens that the stage was to read when it began; None where a time budget decides."""
        if self.resumed is not None:  # the same conversations again, whatever is said anew
            return self.resumed.state["planned_tokens"]
        if self.config.time_budget_s is not None:
            return None
        return (self.config.num_iterations or 0) * self.batch.total_batch_size

    def run_time_choices(self) -> dict[str, Any]:
        """What may differ when it is resumed, and keeps that from being bit for bit the same."""
        return {
            "device": self.device.type,
            "dtype": str(self.device.dtype).removeprefix("torch."),
            "compile": self.device.compile,
            "device_batch_size": self.batch.device_batch_size,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }


def memory_gb_here() -> int:
    """Physical memory in GB, rounded up to the next multiple of 4 (the kernel keeps a part)."""
    return -(-psutil.virtual_memory().total // 2**30 // 4) * 4


def resolve_batch(config: StageConfig, max_seq_len: int, inherited: int | None) -> BatchSizes:
    """Batch sizes for this stage, with a line for each number that had to be raised."""
    batch = batch_sizes(
        config.memory_gb or memory_gb_here(),
        max_seq_len,
        config.device_batch_size,
        config.total_batch_size,
        config.eval_tokens,
        inherited_total=inherited,
    )
    for note in batch.notes:
        say(note)
    return batch


def with_defaults(config: ConfigT, stage: str) -> ConfigT:
    """The stage's own defaults for how long it trains, and with what schedule."""
    return replace(
        config,
        num_iterations=config.num_iterations or ITERATIONS[stage],
        warmup=config.warmup or 0.0,
        warmdown=WARMDOWN[stage] if config.warmdown is None else config.warmdown,
    )


def open_next(stage: str, config: StageConfig) -> Opened:
    """Midtraining or SFT on the model of the stage before, inheriting what was not given."""
    if config.resume:
        return open_resumed(stage, config)
    parent = checkpoints.find(PARENT[stage], config.model_tag)
    before = parent.state
    if not before["finished"]:
        say(f"{PARENT[stage]} {parent.tag} is not finished: going on from its step {parent.step}")
    device = open_device(config.device_type, config.dtype, config.compile)
    model = parent.model(device)
    if config.max_seq_len is not None:
        model.config = replace(model.config, max_seq_len=config.max_seq_len)
    data = config.data or before["config"]["data"]
    optim = config.optim.over(OptimConfig(**before["config"]["optim"]))
    config = replace(
        with_defaults(config, stage),
        max_seq_len=model.config.max_seq_len,
        data=data,
        memory_gb=config.memory_gb or before["config"]["memory_gb"],
    )
    if config.device_batch_size is None and config.total_batch_size is None:
        config = replace(config, device_batch_size=before["batch"]["device_batch_size"])
    inherited_total = before["batch"]["total_batch_size"]
    batch = resolve_batch(config, model.config.max_seq_len, inherited_total)
    config = replace(config, total_batch_size=batch.total_batch_size)
    state, tokenizer = TrainState(config.num_iterations or 0), parent.tokenizer()
    return Opened(
        stage, parent.tag, config, data, optim, model, tokenizer, device, batch, state, None
    )


def open_resumed(stage: str, config: StageConfig) -> Opened:
    """An interrupted stage as it stands, to go on with."""
    saved = find_resumable(stage, config)
    config = resumed_config(config, saved)
    device = open_device(config.device_type, config.dtype, config.compile)
    model = saved.model(device)
    batch = resolve_batch(config, model.config.max_seq_len, None)
    names = {f.name for f in fields(TrainState)}
    state = TrainState(**{k: v for k, v in saved.state.items() if k in names})
    optim, data = OptimConfig(**saved.state["config"]["optim"]), saved.state["config"]["data"]
    tokenizer = saved.tokenizer()
    return Opened(
        stage, saved.tag, config, data, optim, model, tokenizer, device, batch, state, saved
    )


def find_resumable(stage: str, config: StageConfig) -> checkpoints.Checkpoint:
    """The unfinished checkpoint that --resume means. Raises UserError where there is none."""
    newest = checkpoints.find(stage, config.model_tag)
    found = checkpoints.newest_whole(checkpoints.find_all(stage, newest.tag))
    if found is None:
        raise UserError(f"no checkpoint of {stage} {newest.tag} can be resumed: train it again")
    if found.state["finished"]:
        raise UserError(
            f"{stage} {found.tag} is finished (step {found.step}): there is nothing to resume; "
            f"go on with python -m {NEXT[stage]}"
        )
    return found


def resumed_config(config: StageConfig, saved: checkpoints.Checkpoint) -> StageConfig:
    """The saved run's config with this command's run-time choices.

    Raises UserError for a planned field that says otherwise than the saved one.
    """
    before = saved.state["config"]
    defaults = {f.name: f.default for f in fields(config)}
    # A flag that is newer than the checkpoint had its default then.
    planned = [name for name in PLANNED if name in defaults and name in before]
    said = {
        n: (getattr(config, n), before[n]) for n in planned if getattr(config, n) != defaults[n]
    }
    optim = asdict(config.optim).items()
    said |= {name: (value, before["optim"][name]) for name, value in optim if value is not None}
    for name, (given, has) in said.items():
        if given != has:
            raise UserError(
                f"--{name}={given} can't be changed in a resumed run (it has {has}): "
                "leave it out, or start anew without --resume"
            )
    taken: dict[str, Any] = {name: before[name] for name in planned}
    for name in ("device_batch_size", "dtype", "compile", "eval_every", "eval_tokens"):
        taken[name] = before[name] if getattr(config, name) in (None, 0) else getattr(config, name)
    return replace(config, **taken)
