"""The plan of a whole run: what a driver's defaults and the user's variables come to.

Resolved once, shown, and kept; continue_training.sh takes everything from it. No torch in here, so
that a plan appears at once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields, replace
from pathlib import Path

from nanochat.data import dataset, fineweb
from nanochat.gpt_config import GPTConfig
from nanochat.run import records
from nanochat.stages import TRAINED
from nanochat.system import memory, storage
from nanochat.system.errors import UserError
from nanochat.system.log import counted, say
from nanochat.training import checkpoint_manager as checkpoints
from nanochat.training.batch_sizes import BatchSizes, batch_in_words, batch_sizes, fits_card
from nanochat.training.stage_config import ITERATIONS

ROOT = Path(__file__).resolve().parents[2]
TRAINING_SHARE_OF_PEAK = 0.5  # of a plain float32 matmul's speed; measured at depth 4 on 2 cores
TIMED_TOKENS = 2_048  # a step, where a time budget and not the user decides
# On tinyworld smaller is better for so short a time: more updates, and words in pieces that are
# copied more easily. docs/learning.md has the measurements; depth 4 for a longer time is a guess.
TINYWORLD_TOKENS, TINYWORLD_VOCAB_SIZE, TINYWORLD_NUM_SHARDS = 1_024, 2_048, 1
TINYWORLD_MATRIX_LR = 0.012  # for such small steps
TINYWORLD_DEPTHS = ((3_600, 3), (float("inf"), 4))  # up to so many seconds, depth
# With a time budget the learning rate falls to zero once, in SFT, and not at the end of each stage.
TIMED_FLAGS = {"base_train": ["--warmdown=0"], "mid_train": ["--warmdown=0"], "chat_sft": []}
# Shares of a time budget. tinyworld's conversations teach what its texts do: with 25,000 tokens of
# base text instead of 520,000 a model of the same length of training answered as well.
TINYWORLD_SHARES = {"base_train": 7, "mid_train": 15, "chat_sft": 78}
TIME_SHARES = {"base_train": 45, "mid_train": 20, "chat_sft": 35}  # on any other text
# What is measured in a run is bounded, since whole suites take hours on a laptop: questions of each
# kind or task, seconds, and with a time budget the share of it that those seconds may be.
CORE_PROBLEMS, CORE_SECONDS, CORE_SHARE = 20, 60, 0.02
CHAT_PROBLEMS, CHAT_SECONDS, CHAT_SHARE = 20, 120, 0.04
SHARD_MB = {"tinyworld": 2.0, "fineweb": fineweb.SHARD_MB}


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
    """memory_gb is what the user said and not what was found: it counts on a card as well"""
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
    """start another beside an unfinished run"""
    dry_run: bool = False
    """print the plan, write nothing"""
    log_file: Path | None = None
    """append everything that is said to this file, too"""

    def __post_init__(self) -> None:
        """Refuse a number that could be taken for "derive it"."""
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is int and value < 1 and field.name != "seed":
                raise ValueError(f"{field.name}={value}: it must be 1 or more")


def resolve(config: PlanConfig) -> PlanConfig:
    """Fill in what neither the driver nor the user said."""
    data, note = dataset.resolve_auto(config.data or "tinyworld", config.data_shards or 4)
    if note:
        say(note)
    timed = config.time_budget_s is not None
    depth, vocab_size, shards = 4, dataset.default_vocab_size(data), 4
    if config.time_budget_s is not None and data == "tinyworld":
        vocab_size, shards = TINYWORLD_VOCAB_SIZE, TINYWORLD_NUM_SHARDS
        depth = next(d for most, d in TINYWORLD_DEPTHS if config.time_budget_s <= most)
        if config.depth is None:
            say(f"depth {depth} for such a time (docs/learning.md says why)")
    shards = config.data_shards or shards
    return replace(
        config,
        depth=config.depth or depth,
        base_iterations=config.base_iterations or (None if timed else ITERATIONS["base"]),
        mid_iterations=config.mid_iterations or (None if timed else ITERATIONS["mid"]),
        sft_iterations=config.sft_iterations or (None if timed else ITERATIONS["sft"]),
        data_shards=shards,
        data=data,
        memory_gb=config.memory_gb or 16,
        max_seq_len=config.max_seq_len or 256,
        vocab_size=config.vocab_size or vocab_size,
        tokenizer_max_chars=config.tokenizer_max_chars or 500_000_000,
    )


def _by_card(config: PlanConfig) -> bool:
    """Whether a card's memory decides the batch, and not the computer's."""
    return not config.memory_is_given and memory.card() is not None


def batch_of(config: PlanConfig) -> BatchSizes:
    """The table's batch; with a time budget the one that learns most, unless the user gave one."""
    device, total = config.device_batch_size, config.total_batch_size
    by_card = _by_card(config)
    # On a card a step takes as long for the table's first row as for the few tokens that are best
    # where every token costs time.
    if config.time_budget_s is not None and device is None and total is None and not by_card:
        length = config.max_seq_len or 0
        tokens = TINYWORLD_TOKENS if config.data == "tinyworld" else TIMED_TOKENS
        device = max(1, min(tokens // length, (config.memory_gb or 0) // 2))
        total = max(1, round(tokens / (device * length))) * device * length
    return batch_sizes(
        config.memory_gb or 0,
        config.max_seq_len or 0,
        device,
        total,
        config.eval_tokens,
        config.split_tokens,
        fits=fits_card(_model(config)) if by_card else None,
    )


def _model(config: PlanConfig) -> GPTConfig:
    return GPTConfig(config.depth or 0, config.vocab_size or 0, config.max_seq_len or 0)


def choose_tag(config: PlanConfig) -> tuple[str, list[str]]:
    """(tag, lines to say). Nothing is overwritten: a finished d4 makes it d4-2.

    Raises UserError where an unfinished one stands, with how to continue and how to start another.
    """
    wanted = checkpoints.check_tag(config.model_tag or f"d{config.depth}")
    names = (wanted if n == 1 else f"{wanted}-{n}" for n in range(1, 10_000))
    for tag in names:
        if not records.exists(tag):
            note = f"{wanted} is there already: this run trains {tag}" if tag != wanted else ""
            return tag, [note] if note else []
        if config.model_tag is not None and records.is_trained(tag):
            raise UserError(
                f"MODEL_TAG={tag}: that model is finished, and nothing is overwritten; "
                "choose another name"
            )
        if not records.is_trained(tag) and not config.fresh:
            raise UserError(
                f"{tag} is unfinished: continue it with bash dev/continue_training.sh, "
                f"or start another beside it with FRESH=1"
            )
    raise AssertionError("ten thousand models of one name")


def time_shares(data: str | None) -> dict[str, int]:
    """Stage -> share of a time budget."""
    return TINYWORLD_SHARES if data == "tinyworld" else TIME_SHARES


def plan_lines(config: PlanConfig, batch: BatchSizes) -> list[tuple[str, str]]:
    """The plan as (name, value) pairs for a person; a program may read them too."""
    model = _model(config)
    iterations = (config.base_iterations, config.mid_iterations, config.sft_iterations)
    lines = [
        ("data", dataset.describe(config.data or "", config.data_shards or 0)),
        ("model_tag", str(config.model_tag)),
        ("depth", str(model.depth)),
        ("vocab_size", f"{model.vocab_size:,}"),
        ("parameters", f"{model.num_params():,}"),
        ("batch", batch_in_words(batch, model.max_seq_len)),
        ("eval_tokens", f"{batch.eval_tokens:,}"),
        ("split_tokens", f"{batch.split_tokens:,}"),
    ]
    for stage, n in zip(TRAINED, iterations, strict=True):
        if n is None:
            share = f"{time_shares(config.data)[stage.name]} % of the time"
            lines.append((stage.name, f"as many iterations as fit into {share}"))
        else:
            tokens = n * batch.total_batch_size
            lines.append((stage.name, f"{counted(n, 'iteration')}, {tokens:,} tokens"))
    if config.time_budget_s is not None:
        minutes = f"{config.time_budget_s / 60:.3g}, the time budget"
    else:
        steps = sum(n or 0 for n in iterations)
        seconds = steps * _step_seconds(model, batch.total_batch_size)
        minutes = f"about {max(1, round(seconds / 60))} to train, on the CPU of this machine"
    free_gb = storage.free_bytes(storage.base_dir()) / 1e9
    lines += [
        ("minutes", minutes),
        ("memory_gb", _memory_in_words(model, batch.device_batch_size, config.memory_gb or 0)),
        ("disk_gb", f"about {_disk_bytes(model, config) / 1e9:.1f}; free: {free_gb:.0f}"),
        ("base_dir", str(storage.base_dir())),
    ]
    return lines


def _memory_in_words(model: GPTConfig, rows: int, memory_gb: int) -> str:
    card = memory.card()
    if card is not None:
        needed = model.training_bytes(rows, "cuda", card.float_bytes) / 1e9
        return f"about {needed + 0.5:.1f} of the {card.memory_bytes / 1e9:.0f} of the card"
    return f"about {model.training_bytes(rows) / 1e9 + 0.5:.1f} of {memory_gb}"


def _step_seconds(model: GPTConfig, tokens: int) -> float:
    """Estimate of an update from the speed of a matmul, taken now (a quarter of a second)."""
    import numpy as np

    n = 1024
    a = np.ones((n, n), dtype=np.float32)
    a @ a
    started, rounds = time.monotonic(), 0
    while time.monotonic() - started < 0.2:
        a @ a
        rounds += 1
    flops_a_second = rounds * 2 * n**3 / (time.monotonic() - started)
    width = model.n_embd
    # Newton-Schulz, five rounds: 4 square matrices and 2 of four times the size, a layer.
    newton_schulz = 5 * model.depth * width**3 * (4 * 6 + 2 * (4 * 4 + 2))
    flops = model.flops_per_token() * tokens + newton_schulz
    return flops / (TRAINING_SHARE_OF_PEAK * flops_a_second)


def _disk_bytes(model: GPTConfig, config: PlanConfig) -> float:
    shards = (config.data_shards or 0) * SHARD_MB.get(config.data or "", 0.0) * 1e6
    checkpoint = 4 * model.num_params() * 2.5  # weights, and one or two moments of each
    return shards + len(TRAINED) * checkpoints.KEPT_STEPS * checkpoint


def stage_flags(config: PlanConfig, batch: BatchSizes) -> dict[str, list[str]]:
    """The command line of every stage, as a user could type it."""
    tag = f"--model_tag={config.model_tag}"
    data = f"--data={config.data}"
    shards = f"--data_shards={config.data_shards}"
    training = [
        tag,
        data,
        f"--device_batch_size={batch.device_batch_size}",
        f"--total_batch_size={batch.total_batch_size}",
        f"--max_seq_len={config.max_seq_len}",
        f"--eval_tokens={batch.eval_tokens}",
        f"--memory_gb={config.memory_gb}",
    ]
    if config.seed is not None:
        training.append(f"--seed={config.seed}")
    if config.wandb_run:
        training.append(f"--wandb_run={config.wandb_run}")
    return {
        "data": [data, f"--num_shards={_shards_first(config)}"],
        "tokenizer": [
            data,
            shards,
            f"--vocab_size={config.vocab_size}",
            f"--max_chars={config.tokenizer_max_chars}",
        ],
        "base_train": [
            f"--depth={config.depth}",
            shards,
            *_iterations("base_train", config.base_iterations),
            *_learning_rate(config),
            *training,
        ],
        "base_eval": [
            tag,
            f"--device_batch_size={batch.device_batch_size}",
            f"--split_tokens={batch.split_tokens}",
            f"--max_problems={CORE_PROBLEMS}",
            f"--max_seconds={bounds_s(config.time_budget_s)['base_eval']}",
        ],
        "mid_train": [*_iterations("mid_train", config.mid_iterations), *training],
        "chat_sft": [*_iterations("chat_sft", config.sft_iterations), *training],
        "chat_eval": [
            tag,
            "--source=sft",
            f"--max_problems={CHAT_PROBLEMS}",
            f"--max_seconds={bounds_s(config.time_budget_s)['chat_eval']}",
        ],
        "report": [tag, *_copy(config)],
    }


def _shards_first(config: PlanConfig) -> int:
    """Shards that must be there before anything trains; fineweb's others come meanwhile."""
    shards = config.data_shards or 0
    return min(shards, fineweb.FIRST_SHARDS) if config.data == "fineweb" else shards


def bounds_s(budget_s: int | None) -> dict[str, int]:
    """Stage that measures -> seconds that it may take.

    >>> bounds_s(None), bounds_s(1200)
    ({'base_eval': 60, 'chat_eval': 120}, {'base_eval': 24, 'chat_eval': 48})
    """
    most = {"base_eval": (CORE_SECONDS, CORE_SHARE), "chat_eval": (CHAT_SECONDS, CHAT_SHARE)}
    return {
        name: seconds if budget_s is None else max(8, min(seconds, round(share * budget_s)))
        for name, (seconds, share) in most.items()
    }


def _copy(config: PlanConfig) -> list[str]:
    """The overnight run leaves its report where one looks in the morning."""
    overnight = config.driver == "runmac_overnight"
    return [f"--copy={ROOT / 'report_overnight.md'}"] if overnight else []


def _learning_rate(config: PlanConfig) -> list[str]:
    """Of the base model; mid and SFT inherit it."""
    timed = config.time_budget_s is not None and config.data == "tinyworld"
    smaller = timed and not _by_card(config)
    return [f"--matrix_lr={TINYWORLD_MATRIX_LR}"] if smaller else []


def _iterations(stage: str, n: int | None) -> list[str]:
    return TIMED_FLAGS[stage] if n is None else [f"--num_iterations={n}"]
