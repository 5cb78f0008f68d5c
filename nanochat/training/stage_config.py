"""The flags of every training stage, in a file without torch so that --help appears at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from nanochat.stages import Stage
from nanochat.system import cli, variables

# What a resumed run may not change: a step would no longer be the same step.
# (time_budget_s may change: it says how long from now on.)
PLANNED = (
    "num_iterations", "warmup", "warmdown", "total_batch_size", "max_seq_len", "data",
    "data_shards", "seed", "depth",
)  # fmt: skip
# What it takes over unless this command says otherwise. Each of these flags is None where it was
# not given: a default of 0 or False could not be told from the same value, typed to change a saved
# one.
TAKEN_OVER = (
    "device_batch_size", "device_type", "dtype", "compile", "eval_every", "eval_tokens",
    "save_every", "save_minutes", "on_divergence", "memory_gb", "wandb_run",
)  # fmt: skip


@dataclass(frozen=True)
class OptimConfig:
    """Learning rates at their peak, and what else the optimizer needs; the defaults are base's."""

    embedding_lr: float = 0.3
    unembedding_lr: float = 0.004
    matrix_lr: float = 0.02
    weight_decay: float = 0.0
    grad_clip: float = 1.0


@dataclass(frozen=True)
class OptimFlags:
    """The same as flags, where None means: the default for base, inherited for mid and SFT."""

    embedding_lr: float | None = None
    """peak learning rate of the token embedding, AdamW (default: 0.3)"""
    unembedding_lr: float | None = None
    """peak learning rate of the head, AdamW (default: 0.004)"""
    matrix_lr: float | None = None
    """peak learning rate of the blocks' matrices, Muon (default: 0.02)"""
    weight_decay: float | None = None
    """decoupled weight decay of the matrices (default: 0)"""
    grad_clip: float | None = None
    """clip the gradient's global norm to this; 0 turns clipping off (default: 1)"""

    def __post_init__(self) -> None:
        """Check the numbers; raises ValueError with the name and the rule."""
        for name, value in asdict(self).items():
            if value is not None and not value >= 0:
                raise ValueError(f"{name}={value}: it must be 0 or more")

    def over(self, below: OptimConfig) -> OptimConfig:
        """These where they were given, else those of `below`.

        >>> OptimFlags(matrix_lr=0.1).over(OptimConfig(matrix_lr=0.2, grad_clip=2.0)).grad_clip
        2.0
        """
        return replace(below, **{k: v for k, v in asdict(self).items() if v is not None})


@dataclass(frozen=True)
class StageConfig:
    """Flags of every training stage.

    None means: derived, inherited from the stage before, or in a resumed run what it had.
    """

    model_tag: str | None = None
    """name of the model (default: d<depth> for base, the newest for mid and SFT)"""
    num_iterations: int | None = None
    """steps (default: 50 base, 100 mid, 100 SFT)"""
    time_budget_s: float | None = None
    """seconds for the whole stage, instead of num_iterations"""
    warmup: float | None = None
    """share of the steps in which the learning rate rises from 0 (default: 0)"""
    warmdown: float | None = None
    """share of the steps in which it falls to 0 (default: 0.4, SFT 0.8)"""
    device_batch_size: int | None = None
    """rows per micro-batch (default: by memory)"""
    total_batch_size: int | None = None
    """tokens per step, a multiple of device_batch_size x max_seq_len"""
    max_seq_len: int | None = None
    """tokens per row, the context length (default: 256, then inherited)"""
    data: str | None = None
    """tinyworld, fineweb, or a folder of your own (default: tinyworld, then inherited)"""
    eval_every: int | None = None
    """steps between evaluations; 0: only at the end (default: 0)"""
    eval_tokens: int | None = None
    """held-out tokens per evaluation (default: by memory)"""
    save_every: int | None = None
    """steps between checkpoints; 0: by time only (default: 0)"""
    save_minutes: float | None = None
    """minutes between checkpoints; 0: only at the end, and when interrupted (default: 10)"""
    on_divergence: str | None = None
    """stop, or rollback: back to the last checkpoint, skipping the bad batch (default: stop)"""
    resume: bool = False
    """continue an interrupted run from the step at which it stopped"""
    dry_run: bool = False
    """print what would be done, train nothing"""
    memory_gb: int | None = None
    """memory to plan with, in GB (default: this machine's)"""
    device_type: str | None = None
    """cuda, mps or cpu (default: the best available)"""
    dtype: str | None = None
    """float32 or bfloat16 for activations (default: bfloat16 on cuda only)"""
    compile: bool | None = None
    """torch.compile (default: on cuda only)"""
    seed: int | None = None
    """of the first weights and the order of the data (default: 42)"""
    optim: OptimFlags = field(default_factory=OptimFlags)
    wandb_run: str | None = None
    """also send the metrics to Weights & Biases, as a run of this name (default: off)"""
    log_file: Path | None = None
    """also append everything that is printed to this file"""

    def __post_init__(self) -> None:
        """Check the flags; raises ValueError with the value and the rule."""
        variables.check(self)
        for name in ("warmup", "warmdown"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name}={value}: it must be from 0 to 1")
        if self.time_budget_s is not None and not 0 < self.time_budget_s < float("inf"):
            raise ValueError(f"time_budget_s={self.time_budget_s}: it must be more than 0")
        for name in ("eval_every", "save_every", "save_minutes"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ValueError(f"{name}={value}: it must be 0 (off) or more")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ValueError(f"seed={self.seed}: it must be from 0 to {2**63 - 1}")
        choices = {
            "device_type": cli.DEVICE_TYPES,
            "dtype": ("float32", "bfloat16"),
            "on_divergence": ("stop", "rollback"),
        }
        for name, allowed in choices.items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise ValueError(f"{name}={value}: it must be one of {', '.join(allowed)}")


@dataclass(frozen=True)
class Settings:
    """How a stage trains, with its defaults filled in; StageConfig's docstrings explain each."""

    warmdown: float
    warmup: float = 0.0
    eval_every: int = 0
    save_every: int = 0
    save_minutes: float = 10.0
    on_divergence: str = "stop"
    seed: int = 42

    @staticmethod
    def of(config: StageConfig, stage: Stage) -> Settings:
        """What was said, else the default."""
        said = {field.name: getattr(config, field.name) for field in fields(Settings)}
        given = {name: value for name, value in said.items() if value is not None}
        whole: dict[str, Any] = {"warmdown": stage.warmdown, **given}
        return Settings(**whole)
