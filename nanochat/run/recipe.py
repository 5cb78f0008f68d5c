"""A run as a value: what a user said (PlanConfig) becomes a Recipe, in which nothing is left open.

Resolved once, shown, and kept in the plan; continue_training.sh takes everything from there. The
flags of a stage are made from the recipe when its process is started. No torch in here, so that a
plan appears at once.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from nanochat.data import dataset, fineweb
from nanochat.data.worlds import is_world
from nanochat.gpt_config import GPTConfig
from nanochat.stages import STAGES, TRAINED, Stage
from nanochat.system import memory, storage
from nanochat.system.log import counted
from nanochat.training import checkpoint_manager as checkpoints
from nanochat.training.batch_sizes import BatchSizes, batch_in_words, batch_sizes, fits_card
from nanochat.training.stage_config import OptimConfig, Settings

ROOT = Path(__file__).resolve().parents[2]
TRAINING_SHARE_OF_PEAK = 0.5  # of a plain float32 matmul's speed; measured at depth 4 on 2 cores
TIMED_TOKENS = 2_048  # per step, where a time budget and not the user decides
# On a world smaller is better for so short a time: more steps, and words in pieces that are
# copied more easily. docs/learning.md has the measurements; depth 4 for a longer time is a guess.
TINYWORLD_TOKENS, TINYWORLD_VOCAB_SIZE, TINYWORLD_NUM_SHARDS = 1_024, 2_048, 1
TINYWORLD_MATRIX_LR = 0.012  # for such small steps
TINYWORLD_DEPTHS = ((3_600, 3), (float("inf"), 4))  # up to so many seconds, depth
# A run bounds its evaluations, since whole suites take hours on a laptop: questions per kind or
# task, seconds, and with a time budget the share of it that those seconds may be.
CORE_PROBLEMS, CORE_SECONDS, CORE_SHARE = 20, 60, 0.02
CHAT_PROBLEMS, CHAT_SECONDS, CHAT_SHARE = 20, 120, 0.04
LOADING_S = 6.0  # until a process that only measures has loaded torch and the model
# Fields of PlanConfig that say how a driver was called, and nothing of the run.
NOT_KEPT = ("fresh", "dry_run", "log_file")
WORLD_SHARD_MB = 2.0


@dataclass(frozen=True)
class PlanConfig:
    """What a driver passes on: its defaults and the user's variables; None means "derive it"."""

    driver: str = "runcpu"
    """name of the driver, without .sh"""
    depth: int | None = None
    base_iterations: int | None = None
    mid_iterations: int | None = None
    sft_iterations: int | None = None
    data_shards: int | None = None
    data: str | None = None
    memory_gb: int | None = None
    memory_is_given: bool = False
    """memory_gb was said by the user, not detected: it counts on a machine with a card as well"""
    device_batch_size: int | None = None
    total_batch_size: int | None = None
    eval_tokens: int | None = None
    split_tokens: int | None = None
    max_seq_len: int | None = None
    vocab_size: int | None = None
    model_tag: str | None = None
    time_budget_s: int | None = None
    wandb_run: str | None = None
    tokenizer_max_chars: int | None = None
    seed: int | None = None
    """of the weights and the order of the data (bench/chatbot.py measures the spread)"""
    fresh: bool = False
    """start another run beside an unfinished one"""
    dry_run: bool = False
    """print the plan, write nothing"""
    log_file: Path | None = None
    """also append everything that is printed to this file"""

    def __post_init__(self) -> None:
        """Refuse a number that could be taken for "derive it"."""
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is int and value < 1 and field.name != "seed":
                raise ValueError(f"{field.name}={value}: it must be 1 or more")


def given(said: Mapping[str, Any]) -> dict[str, Any]:
    """What a plan keeps of the fields of a PlanConfig: those that were said, and are of the run."""
    known = {field.name for field in fields(PlanConfig)} - set(NOT_KEPT)
    return {name: value for name, value in said.items() if name in known and value is not None}


@dataclass(frozen=True)
class Training:
    """How long one training stage learns."""

    num_iterations: int  # steps; 0: as many as fit into its share of the run's time
    warmdown: float  # share of the steps in which the learning rate falls to 0


@dataclass(frozen=True)
class Recipe:
    """A whole run with every question answered. Its JSON is asdict; see from_json."""

    driver: str
    model_tag: str
    data: str
    data_shards: int
    tokenizer_max_chars: int
    depth: int
    vocab_size: int
    max_seq_len: int  # tokens
    device_batch_size: int  # rows
    total_batch_size: int  # tokens per step
    eval_tokens: int
    split_tokens: int
    memory_gb: int
    matrix_lr: float
    seed: int
    wandb_run: str  # "": not sent to Weights & Biases
    run_budget_s: int  # seconds for the whole run; 0: every stage has its number of steps
    training: Mapping[str, Training]  # by stage
    max_seconds: Mapping[str, int]  # by stage that measures

    @property
    def model(self) -> GPTConfig:
        """The model's shape."""
        return GPTConfig(self.depth, self.vocab_size, self.max_seq_len)

    @property
    def batch(self) -> BatchSizes:
        """What one step is made of."""
        return BatchSizes(
            self.device_batch_size, self.total_batch_size, self.eval_tokens, self.split_tokens
        )

    @staticmethod
    def from_json(whole: Mapping[str, Any]) -> Recipe:
        """The recipe whose asdict this was; a stage that is newer than it has its defaults."""
        training = {s.name: Training(s.num_iterations, s.warmdown) for s in TRAINED}
        training |= {name: Training(**values) for name, values in whole["training"].items()}
        seconds = max_seconds(whole["run_budget_s"] or None) | whole["max_seconds"]
        values: dict[str, Any] = {**whole, "training": training, "max_seconds": seconds}
        return Recipe(**values)


def resolve(config: PlanConfig) -> tuple[Recipe, list[str]]:
    """The recipe, and a line about each decision that a user should know of."""
    data, note = dataset.resolve_auto(config.data or "tinyworld", config.data_shards or 4)
    notes = [note] if note else []
    budget_s = config.time_budget_s
    depth, vocab_size, shards = 4, dataset.default_vocab_size(data), 4
    if budget_s is not None and is_world(data):
        vocab_size, shards = TINYWORLD_VOCAB_SIZE, TINYWORLD_NUM_SHARDS
        depth = next(depth for up_to, depth in TINYWORLD_DEPTHS if budget_s <= up_to)
        if config.depth is None:
            notes.append(f"depth {depth} for such a time (docs/learning.md says why)")
    model = GPTConfig(
        config.depth or depth, config.vocab_size or vocab_size, config.max_seq_len or 256
    )
    batch = batch_of(config, data, model)
    # Steps of so few tokens are noisier, and want a smaller rate; a card takes larger ones.
    small_steps = budget_s is not None and is_world(data) and not _by_card(config)
    recipe = Recipe(
        driver=config.driver,
        model_tag=config.model_tag or f"d{model.depth}",
        data=data,
        data_shards=config.data_shards or shards,
        tokenizer_max_chars=config.tokenizer_max_chars or 500_000_000,
        depth=model.depth,
        vocab_size=model.vocab_size,
        max_seq_len=model.max_seq_len,
        device_batch_size=batch.device_batch_size,
        total_batch_size=batch.total_batch_size,
        eval_tokens=batch.eval_tokens,
        split_tokens=batch.split_tokens,
        memory_gb=config.memory_gb or 16,
        matrix_lr=TINYWORLD_MATRIX_LR if small_steps else OptimConfig().matrix_lr,
        seed=Settings.seed if config.seed is None else config.seed,
        wandb_run=config.wandb_run or "",
        run_budget_s=budget_s or 0,
        training={stage.name: _training(stage, config) for stage in TRAINED},
        max_seconds=max_seconds(budget_s),
    )
    return recipe, [*notes, *batch.notes]


def _training(stage: Stage, config: PlanConfig) -> Training:
    """The user's number of steps for a stage (such as base_iterations), else time or default."""
    given = getattr(config, f"{stage.checkpoint}_iterations", None)
    if given is None and config.time_budget_s is not None:
        return Training(0, stage.timed_warmdown)
    return Training(given or stage.num_iterations, stage.warmdown)


def _by_card(config: PlanConfig) -> bool:
    """Whether a card's memory decides the batch, and not the computer's."""
    return not config.memory_is_given and memory.card() is not None


def batch_of(config: PlanConfig, data: str, model: GPTConfig) -> BatchSizes:
    """The table's batch; with a time budget the one that learns most, unless the user gave one."""
    rows, total = config.device_batch_size, config.total_batch_size
    memory_gb, by_card = config.memory_gb or 16, _by_card(config)
    # On a card a step takes as long for the table's first row as for the few tokens that are best
    # where every token costs time.
    if config.time_budget_s is not None and rows is None and total is None and not by_card:
        length = model.max_seq_len
        tokens = TINYWORLD_TOKENS if is_world(data) else TIMED_TOKENS
        rows = max(1, min(tokens // length, memory_gb // 2))
        total = max(1, round(tokens / (rows * length))) * rows * length
    return batch_sizes(
        memory_gb,
        model.max_seq_len,
        rows,
        total,
        config.eval_tokens,
        config.split_tokens,
        fits=fits_card(model) if by_card else None,
    )


def max_seconds(budget_s: int | None) -> dict[str, int]:
    """Stage that measures -> seconds that it may take.

    >>> max_seconds(None), max_seconds(1200)
    ({'base_eval': 60, 'chat_eval': 120}, {'base_eval': 24, 'chat_eval': 48})
    """
    bounds = {"base_eval": (CORE_SECONDS, CORE_SHARE), "chat_eval": (CHAT_SECONDS, CHAT_SHARE)}
    return {
        name: seconds if budget_s is None else max(8, min(seconds, round(share * budget_s)))
        for name, (seconds, share) in bounds.items()
    }


# ---- what may change about a run that is continued: each gives another recipe -------------------


def with_rows(recipe: Recipe, at_most: int) -> Recipe:
    """Up to so many rows at once, for as many tokens per step: a step stays the same step."""
    total, length = recipe.total_batch_size, recipe.max_seq_len
    fitting = (rows for rows in range(at_most, 0, -1) if total % (rows * length) == 0)
    return replace(recipe, device_batch_size=next(fitting))


def with_time(recipe: Recipe, budget_s: int, begun: Collection[str]) -> Recipe:
    """So many seconds from now on: sizes the stages that have not begun.

    The steps of one that has begun stay, since its learning rate has followed them.
    """
    training = dict(recipe.training)
    if not recipe.run_budget_s:  # else what has no number of steps is timed already
        for stage in TRAINED:
            if stage.name not in begun:
                training[stage.name] = Training(0, stage.timed_warmdown)
    return replace(
        recipe, run_budget_s=budget_s, training=training, max_seconds=max_seconds(budget_s)
    )


# ---- the command of a stage ---------------------------------------------------------------------


def share_of_time(recipe: Recipe, stage: Stage) -> int:
    """A training stage's percentage of the time that a run trains."""
    return stage.tinyworld_share if is_world(recipe.data) else stage.share


def stage_budget_s(
    recipe: Recipe, stage: Stage, left_s: float, unfinished: Collection[Stage]
) -> float:
    """A training stage's part of the seconds that are left, by the shares of what is unfinished."""
    for later in STAGES[STAGES.index(stage) + 1 :]:
        if not later.checkpoint:
            left_s -= LOADING_S + recipe.max_seconds.get(later.name, 0)
    shares = sum(share_of_time(recipe, each) for each in unfinished)
    return max(1.0, left_s * share_of_time(recipe, stage) / shares)


def flags_of(recipe: Recipe, stage: Stage) -> dict[str, object]:
    """Flag -> value of a stage's command, apart from the time it has and from --resume."""
    shards = {"data_shards": recipe.data_shards}
    if stage.name == "data":  # what must be there before anything trains; fineweb's rest follows
        first = min(recipe.data_shards, fineweb.FIRST_SHARDS)
        n = first if recipe.data == "fineweb" else recipe.data_shards
        return {"data": recipe.data, "num_shards": n}
    if stage.name == "tokenizer":
        size = {"vocab_size": recipe.vocab_size, "max_chars": recipe.tokenizer_max_chars}
        return {"data": recipe.data, **shards, **size}
    tag = {"model_tag": recipe.model_tag}
    if stage.name == "base_eval":
        rows = {n: getattr(recipe, n) for n in ("device_batch_size", "split_tokens")}
        return tag | rows | _bounds(recipe, stage, CORE_PROBLEMS)
    if stage.name == "chat_eval":
        return tag | {"source": TRAINED[-1].checkpoint} | _bounds(recipe, stage, CHAT_PROBLEMS)
    if stage.name == "report":  # the overnight run leaves its report where one looks for it
        if recipe.driver == "runmac_overnight":
            return {**tag, "copy": ROOT / "report_overnight.md"}
        return dict(tag)
    # A training stage. Mid and SFT inherit the learning rates of the base model.
    new = {"depth": recipe.depth, **shards, "matrix_lr": recipe.matrix_lr}
    training = recipe.training[stage.name]
    steps = {"num_iterations": training.num_iterations} if training.num_iterations else {}
    same = (
        "device_batch_size", "total_batch_size", "max_seq_len", "eval_tokens", "memory_gb", "seed",
    )  # fmt: skip
    return {
        **({} if stage.parent else new),
        **tag,
        "data": recipe.data,
        **steps,
        "warmdown": training.warmdown,
        **{name: getattr(recipe, name) for name in same},
        **({"wandb_run": recipe.wandb_run} if recipe.wandb_run else {}),
    }


def _bounds(recipe: Recipe, stage: Stage, problems: int) -> dict[str, object]:
    return {"max_problems": problems, "max_seconds": recipe.max_seconds[stage.name]}


# ---- the plan, for a person ---------------------------------------------------------------------


def plan_lines(recipe: Recipe) -> list[tuple[str, str]]:
    """The recipe as (name, value) pairs for a person; a program can read them as well."""
    model, batch = recipe.model, recipe.batch
    lines = [
        ("data", dataset.describe(recipe.data, recipe.data_shards)),
        ("model_tag", recipe.model_tag),
        ("depth", str(model.depth)),
        ("vocab_size", f"{model.vocab_size:,}"),
        ("parameters", f"{model.num_params():,}"),
        ("batch", batch_in_words(batch, model.max_seq_len)),
        ("eval_tokens", f"{batch.eval_tokens:,}"),
        ("split_tokens", f"{batch.split_tokens:,}"),
    ]
    steps = 0
    for stage in TRAINED:
        n = recipe.training[stage.name].num_iterations
        steps += n
        tokens = n * batch.total_batch_size
        share = share_of_time(recipe, stage)
        words = f"{counted(n, 'step')}, {tokens:,} tokens"
        lines.append((stage.name, words if n else f"as many steps as fit in {share} % of the time"))
    if recipe.run_budget_s:
        minutes = f"{recipe.run_budget_s / 60:.3g}, the time budget"
    else:
        seconds = steps * _step_seconds(model, batch.total_batch_size)
        minutes = f"about {max(1, round(seconds / 60))} to train, on the CPU of this machine"
    free_gb = storage.free_bytes(storage.base_dir()) / 1e9
    return [
        *lines,
        ("minutes", minutes),
        ("memory_gb", _memory_in_words(recipe)),
        ("disk_gb", f"about {_disk_bytes(recipe) / 1e9:.1f}; free: {free_gb:.0f}"),
        ("base_dir", str(storage.base_dir())),
    ]


def _memory_in_words(recipe: Recipe) -> str:
    model, rows, card = recipe.model, recipe.device_batch_size, memory.card()
    if card is not None:
        needed = model.training_bytes(rows, "cuda", card.float_bytes) / 1e9
        return f"about {needed + 0.5:.1f} of the {card.memory_bytes / 1e9:.0f} of the card"
    return f"about {model.training_bytes(rows) / 1e9 + 0.5:.1f} of {recipe.memory_gb}"


def _step_seconds(model: GPTConfig, tokens: int) -> float:
    """Estimate of a step from the speed of a matmul, measured now (a quarter of a second)."""
    import numpy as np

    n = 1024
    a = np.ones((n, n), dtype=np.float32)
    a @ a
    started, rounds = time.monotonic(), 0
    while time.monotonic() - started < 0.2:
        a @ a
        rounds += 1
    flops_per_second = rounds * 2 * n**3 / (time.monotonic() - started)
    width = model.n_embd
    # Newton-Schulz, five rounds per layer: 4 square matrices and 2 of four times the size.
    newton_schulz = 5 * model.depth * width**3 * (4 * 6 + 2 * (4 * 4 + 2))
    flops = model.flops_per_token() * tokens + newton_schulz
    return flops / (TRAINING_SHARE_OF_PEAK * flops_per_second)


def _disk_bytes(recipe: Recipe) -> float:
    of_web = fineweb.SHARD_MB if recipe.data == "fineweb" else 0.0
    shard_mb = WORLD_SHARD_MB if is_world(recipe.data) else of_web
    shards = recipe.data_shards * shard_mb * 1e6
    checkpoint = 4 * recipe.model.num_params() * 2.5  # weights, and one or two moments of each
    return shards + len(TRAINED) * checkpoints.KEPT_STEPS * checkpoint
