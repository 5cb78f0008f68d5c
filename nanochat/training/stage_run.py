"""Where a stage starts from: new weights, the model of the stage before, or its own checkpoint.

Each of the three ways ends in one StageRun, in which every number is settled.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch

from nanochat.data.worlds import is_world
from nanochat.gpt import GPT
from nanochat.gpt_config import GPTConfig
from nanochat.stages import Stage, next_command
from nanochat.system import storage
from nanochat.system.device import Device, open_device
from nanochat.system.errors import UserError
from nanochat.system.log import say
from nanochat.system.memory import machine_memory_gb
from nanochat.tokenizer import Tokenizer
from nanochat.training import checkpoint_manager as checkpoints
from nanochat.training.batch_sizes import BatchSizes, batch_sizes, fits_card
from nanochat.training.loop import TrainState
from nanochat.training.stage_config import (
    PLANNED,
    TAKEN_OVER,
    OptimConfig,
    Settings,
    StageConfig,
)


@dataclass(frozen=True)
class StageRun:
    """One stage, ready to train."""

    stage: Stage
    tag: str
    config: StageConfig  # what was said, or taken over from a checkpoint
    settings: Settings  # the same with the stage's defaults, so that nothing in it is open
    data: str
    optim: OptimConfig
    model: GPT
    tokenizer: Tokenizer
    device: Device
    batch: BatchSizes
    state: TrainState
    resumed: checkpoints.Checkpoint | None = None

    @property
    def kind(self) -> str:
        """The kind of checkpoint that it writes: base, mid or sft."""
        assert self.stage.checkpoint is not None
        return self.stage.checkpoint

    @property
    def planned_tokens(self) -> int | None:
        """Tokens that the stage was to read when it began; None where a time budget decides."""
        if self.resumed is not None:  # the same conversations again, whatever this command says
            return self.resumed.state["planned_tokens"]
        if self.config.time_budget_s is not None:
            return None
        return self.state.num_iterations * self.batch.total_batch_size

    def run_time_choices(self) -> dict[str, Any]:
        """What may differ in a resume, and then keeps it from being bit for bit the same."""
        return {
            "device": self.device.type,
            "dtype": str(self.device.dtype).removeprefix("torch."),
            "compile": self.device.compile,
            "device_batch_size": self.batch.device_batch_size,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }


def start(stage: Stage, config: StageConfig) -> StageRun:
    """The stage's run, whichever way it starts; says what it had to decide."""
    if config.resume:
        return _resume(stage, config)
    return _from_parent(stage, config) if stage.parent else _new(stage, config)


def _new(stage: Stage, config: StageConfig) -> StageRun:
    """New weights with the newest tokenizer, under a free tag."""
    depth = getattr(config, "depth", None) or 4
    tokenizer = Tokenizer.load(storage.base_dir() / "tokenizer" / "tokenizer.json")
    model_config = GPTConfig(depth, tokenizer.vocab_size, config.max_seq_len or 256)
    tag = checkpoints.free_tag(stage.checkpoint or "", config.model_tag, f"d{depth}")
    batch = _batch(config, model_config, None)
    settings = Settings.of(config, stage)
    device = open_device(config.device_type, config.dtype, config.compile)
    # Drawn on the CPU and then moved: the same seed gives the same weights on every device.
    model = GPT(model_config)
    if not config.dry_run:
        model.init_weights(settings.seed)
    model.to(device.torch)
    model.dtype = device.dtype
    data = config.data or "tinyworld"
    tokenizer.plain_typing = is_world(data)
    return StageRun(
        stage=stage,
        tag=tag,
        config=_settled(config, stage, batch, model_config, data),
        settings=settings,
        data=data,
        optim=config.optim.over(OptimConfig()),
        model=model,
        tokenizer=tokenizer,
        device=device,
        batch=batch,
        state=_new_state(config, stage),
    )


def _from_parent(stage: Stage, config: StageConfig) -> StageRun:
    """The model of the stage before, inheriting what was not given."""
    parent = checkpoints.find(stage.parent or "", config.model_tag)
    before = parent.state
    if not before["finished"]:
        say(f"{stage.parent} {parent.tag} is not finished: continuing from its step {parent.step}")
    device = open_device(config.device_type, config.dtype, config.compile)
    model = parent.model(device)
    # A longer context costs no weight: positions are rotations, made for any length.
    if config.max_seq_len is not None:
        model.config = replace(model.config, max_seq_len=config.max_seq_len)
    # Nobody said anything about memory: the rows that did fit before will fit again.
    if (config.device_batch_size, config.total_batch_size, config.memory_gb) == (None,) * 3:
        config = replace(config, device_batch_size=before["batch"]["device_batch_size"])
    batch = _batch(config, model.config, before["batch"]["total_batch_size"])
    data = config.data or before["config"]["data"]
    config = replace(config, memory_gb=config.memory_gb or before["config"]["memory_gb"])
    return StageRun(
        stage=stage,
        tag=parent.tag,
        config=_settled(config, stage, batch, model.config, data),
        settings=Settings.of(config, stage),
        data=data,
        optim=config.optim.over(OptimConfig(**before["config"]["optim"])),
        model=model,
        tokenizer=parent.tokenizer(),
        device=device,
        batch=batch,
        state=_new_state(config, stage),
    )


def _resume(stage: Stage, config: StageConfig) -> StageRun:
    """An interrupted stage as it stands, to continue."""
    saved = _find_resumable(stage, config)
    config = resumed_config(config, saved)
    device = open_device(config.device_type, config.dtype, config.compile)
    model = saved.model(device)
    names = {f.name for f in fields(TrainState)}
    return StageRun(
        stage=stage,
        tag=saved.tag,
        config=config,
        settings=Settings.of(config, stage),
        data=saved.state["config"]["data"],
        optim=OptimConfig(**saved.state["config"]["optim"]),
        model=model,
        tokenizer=saved.tokenizer(),
        device=device,
        batch=_batch(config, model.config, None),
        state=TrainState(**{k: v for k, v in saved.state.items() if k in names}),
        resumed=saved,
    )


def _settled(
    config: StageConfig, stage: Stage, batch: BatchSizes, model: GPTConfig, data: str
) -> StageConfig:
    """A new run's config as its checkpoints keep it: a resume anywhere is then the same run.

    Rows and eval_tokens stay as they were said: another machine may have to derive others.
    """
    steps = config.num_iterations or (0 if config.time_budget_s else stage.num_iterations)
    settled: dict[str, Any] = {
        "num_iterations": steps or None,
        "max_seq_len": model.max_seq_len,
        "data": data,
        "memory_gb": config.memory_gb or machine_memory_gb(),
        "total_batch_size": batch.total_batch_size,
        "depth": model.depth,
    }
    return replace(config, **{k: v for k, v in settled.items() if hasattr(config, k)})


def _new_state(config: StageConfig, stage: Stage) -> TrainState:
    """Before the first step; with a time budget the number of steps is a first guess."""
    steps = config.num_iterations or stage.num_iterations
    return TrainState(steps, iterations_fixed=config.time_budget_s is None)


def _batch(config: StageConfig, model: GPTConfig, inherited: int | None) -> BatchSizes:
    """Batch sizes for this stage, with a line for each number that had to be raised."""
    # A card's own memory counts, unless the user says how much to plan for.
    on_card = config.device_type in (None, "cuda") and config.memory_gb is None
    batch = batch_sizes(
        config.memory_gb or machine_memory_gb(),
        model.max_seq_len,
        config.device_batch_size,
        config.total_batch_size,
        config.eval_tokens,
        inherited_total=inherited,
        fits=fits_card(model) if on_card else None,
    )
    for note in batch.notes:
        say(note)
    return batch


def _find_resumable(stage: Stage, config: StageConfig) -> checkpoints.Checkpoint:
    """The unfinished checkpoint that --resume means. Raises UserError where none exists."""
    kind = stage.checkpoint or ""
    newest = checkpoints.find(kind, config.model_tag)
    found = checkpoints.newest_whole(checkpoints.find_all(kind, newest.tag))
    if found is None:
        raise UserError(f"no checkpoint of {kind} {newest.tag} can be resumed: train it again")
    if found.state["finished"]:
        raise UserError(
            f"{kind} {found.tag} is finished (step {found.step}), nothing is left to resume; "
            f"continue with {next_command(kind)}"
        )
    return found


def resumed_config(config: StageConfig, saved: checkpoints.Checkpoint) -> StageConfig:
    """The saved run's config with this command's run-time choices.

    Raises UserError for a planned field that differs from the saved one.
    """
    # What was derived there counts as said: this machine may have other memory, but a step must
    # stay the same step.
    batch = saved.state["batch"]
    before = saved.state["config"] | {n: batch[n] for n in ("device_batch_size", "eval_tokens")}
    given = {
        f.name: value for f in fields(config) if (value := getattr(config, f.name)) is not None
    }
    # A flag that is newer than the checkpoint had its default then.
    planned: dict[str, Any] = {n: before[n] for n in PLANNED if hasattr(config, n) and n in before}
    has = planned | before["optim"]
    optim = {name: value for name, value in asdict(config.optim).items() if value is not None}
    for name, value in (given | optim).items():
        if name in has and value != has[name]:
            there = "it was left out there" if has[name] is None else f"it has {has[name]}"
            raise UserError(
                f"--{name}={value} can't be changed in a resumed run ({there}): "
                "leave it out, or start from scratch without --resume"
            )
    taken = {name: before[name] for name in TAKEN_OVER if name in before and name not in given}
    if "memory_gb" in given:  # rows are derived from it again, for as many tokens per step
        taken.pop("device_batch_size", None)
    if not saved.state["iterations_fixed"] and config.time_budget_s is None:
        taken["time_budget_s"] = before["time_budget_s"]  # as long again, from now on
    return replace(config, **planned, **taken)
