"""What a stage starts from: the stage before or its own checkpoint, and its batch sizes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

import torch

from nanochat.gpt import GPT
from nanochat.gpt_config import GPTConfig
from nanochat.system.device import Device, open_device
from nanochat.system.errors import UserError
from nanochat.system.log import say
from nanochat.system.memory import machine_memory_gb
from nanochat.tokenizer import Tokenizer
from nanochat.training import checkpoint_manager as checkpoints
from nanochat.training.batch_sizes import BatchSizes, batch_sizes, fits_card
from nanochat.training.loop import TrainState
from nanochat.training.stage_config import (
    DEFAULTS,
    ITERATIONS,
    PLANNED,
    TAKEN_OVER,
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
        if self.resumed is not None:  # the same conversations again, whatever is said again
            return self.resumed.state["planned_tokens"]
        if self.config.time_budget_s is not None:
            return None
        return self.state.num_iterations * self.batch.total_batch_size

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


def resolve_batch(config: StageConfig, model: GPTConfig, inherited: int | None) -> BatchSizes:
    """Batch sizes for this stage, with a line for each number that had to be raised."""
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


def with_defaults(config: ConfigT, stage: str) -> ConfigT:
    """The stage's own defaults for what is neither given nor inherited nor taken over."""
    defaults: dict[str, Any] = {**DEFAULTS, "warmdown": WARMDOWN[stage]}
    if config.time_budget_s is None and not config.resume:
        defaults["num_iterations"] = ITERATIONS[stage]
    return replace(config, **{k: v for k, v in defaults.items() if getattr(config, k) is None})


def new_state(config: StageConfig, stage: str) -> TrainState:
    """Before the first update; with a time budget the number of updates is a first guess."""
    guess = ITERATIONS[stage] if config.num_iterations is None else config.num_iterations
    return TrainState(guess, iterations_fixed=config.time_budget_s is None)


def open_next(stage: str, config: StageConfig) -> Opened:
    """Midtraining or SFT on the model of the stage before, inheriting what was not given."""
    if config.resume:
        return open_resumed(stage, config)
    parent = checkpoints.find(PARENT[stage], config.model_tag)
    before = parent.state
    if not before["finished"]:
        say(f"{PARENT[stage]} {parent.tag} is not finished: continuing from its step {parent.step}")
    device = open_device(config.device_type, config.dtype, config.compile)
    model = parent.model(device)
    if config.max_seq_len is not None:
        model.config = replace(model.config, max_seq_len=config.max_seq_len)
    data = config.data or before["config"]["data"]
    optim = config.optim.over(OptimConfig(**before["config"]["optim"]))
    if (config.device_batch_size, config.total_batch_size, config.memory_gb) == (None,) * 3:
        config = replace(config, device_batch_size=before["batch"]["device_batch_size"])
    batch = resolve_batch(config, model.config, before["batch"]["total_batch_size"])
    config = replace(
        with_defaults(config, stage),
        max_seq_len=model.config.max_seq_len,
        data=data,
        memory_gb=config.memory_gb or before["config"]["memory_gb"],
        total_batch_size=batch.total_batch_size,
    )
    state, tokenizer = new_state(config, stage), parent.tokenizer()
    return Opened(
        stage, parent.tag, config, data, optim, model, tokenizer, device, batch, state, None
    )


def open_resumed(stage: str, config: StageConfig) -> Opened:
    """An interrupted stage as it stands, to continue."""
    saved = find_resumable(stage, config)
    config = with_defaults(resumed_config(config, saved), stage)
    device = open_device(config.device_type, config.dtype, config.compile)
    model = saved.model(device)
    batch = resolve_batch(config, model.config, None)
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
            f"continue with python -m {NEXT[stage]}"
        )
    return found


def resumed_config(config: StageConfig, saved: checkpoints.Checkpoint) -> StageConfig:
    """The saved run's config with this command's run-time choices.

    Raises UserError for a planned field that says otherwise than the saved one.
    """
    batch = saved.state["batch"]  # what was derived there, maybe with other memory
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
