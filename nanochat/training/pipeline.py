"""The plan of a whole run, stage by stage: what the drivers in dev/ ask and call.

`plan` resolves everything and writes pipeline/<tag>.json; `stage` runs one line of it (or skips it
where it is finished, or resumes it); `status`, `newest_tag` and `finish` read what there is. No
torch in here, so that a plan appears at once.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from nanochat.data import dataset, fineweb
from nanochat.gpt_config import GPTConfig
from nanochat.system import cli, storage
from nanochat.system.cli import UserError
from nanochat.system.log import duration, keep_in, say
from nanochat.system.memory_profile import BatchSizes, batch_sizes
from nanochat.training import checkpoint_manager as checkpoints

SCHEMA = 1
SMOKE_TEST_TOKENS = 1_000_000
TRAINING_SHARE_OF_PEAK = 0.5  # of a plain float32 matmul's speed; measured at depth 4 on 2 cores
TIMED_TOKENS = 2_048  # a step, where a time budget and not the user decides
TIME_SHARES = {"base_train": 45, "mid_train": 20, "chat_sft": 35}  # of a time budget
MEASURING_S = {"base_loss": 12.0, "chat_eval": 25.0}  # of a time budget, kept free
QUESTIONS_A_KIND = 20
SHARD_MB = {"tinyworld": 2.0, "fineweb": fineweb.SHARD_MB}
COMPLETE = 3  # exit code of `status` where nothing is left to do


class Stage(NamedTuple):
    """One line of a run: its name in the drivers, in words, and its script."""

    name: str
    title: str
    script: str
    checkpoint: str | None = None  # the checkpoint stage that it trains


STAGES = (
    Stage("data", "text", "scripts.data"),
    Stage("tokenizer", "tokenizer", "scripts.tokenizer"),
    Stage("base_train", "base training", "scripts.base_train", "base"),
    Stage("base_loss", "bits per byte", "scripts.base_loss"),
    Stage("mid_train", "midtraining", "scripts.mid_train", "mid"),
    Stage("chat_sft", "SFT", "scripts.chat_sft", "sft"),
    Stage("chat_eval", "questions to the model", "scripts.chat_eval"),
)
MEASURED = {"base_loss": "base_loss", "chat_eval": "chat_eval_sft"}  # stage -> metrics file
TRAINED = tuple(stage for stage in STAGES if stage.checkpoint)
STATUS_NAMES = {"base": "Base model", "mid": "Midtraining", "sft": "SFT"}


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
    fresh: bool = False
    """start anew beside an unfinished run"""
    dry_run: bool = False
    """print the plan, write nothing"""
    log_file: Path | None = None
    """append everything that is said to this file, too"""


@dataclass(frozen=True)
class StageRunConfig:
    """Which stage of which plan to run, and what may be said anew about it."""

    name: str
    model_tag: str
    device_batch_size: int | None = None
    memory_gb: int | None = None
    time_budget_s: int | None = None
    session: str = ""
    """names this run of a driver"""
    log_file: Path | None = None


@dataclass(frozen=True)
class TagConfig:
    """Which plan to read."""

    model_tag: str | None = None
    log_file: Path | None = None


# --- the plan ------------------------------------------------------------------------------------


def plan(config: PlanConfig) -> None:
    """Resolve, print, and (without --dry_run) write pipeline/<tag>.json."""
    keep_in(config.log_file)
    resolved = resolve(config)
    tag, notes = choose_tag(resolved)
    resolved = replace(resolved, model_tag=tag)
    batch = _batch(resolved)
    for note in (*notes, *batch.notes):
        say(note)
    for name, value in plan_lines(resolved, batch):
        say(f"{name}: {value}")
    if not config.dry_run:
        whole = {
            "schema": SCHEMA,
            "time": time.time(),
            "variables": {
                k: str(v) if isinstance(v, Path) else v for k, v in asdict(resolved).items()
            },
            "stages": {name: flags for name, flags in stage_flags(resolved, batch).items()},
        }
        storage.write_json(_plan_path(tag), whole)


def resolve(config: PlanConfig) -> PlanConfig:
    """Fill in what neither the driver nor the user said."""
    shards = config.data_shards or 4
    data, note = dataset.decide(config.data or "tinyworld", shards)
    if note:
        say(note)
    timed = config.time_budget_s is not None
    return replace(
        config,
        depth=config.depth or 4,
        base_iterations=config.base_iterations or (None if timed else 50),
        mid_iterations=config.mid_iterations or (None if timed else 100),
        sft_iterations=config.sft_iterations or (None if timed else 100),
        data_shards=shards,
        data=data,
        memory_gb=config.memory_gb or 16,
        max_seq_len=config.max_seq_len or 256,
        vocab_size=config.vocab_size or dataset.default_vocab_size(data),
        tokenizer_max_chars=config.tokenizer_max_chars or 500_000_000,
    )


def _batch(config: PlanConfig) -> BatchSizes:
    """The table's batch; with a time budget the one that learns most, unless the user gave one."""
    device, total = config.device_batch_size, config.total_batch_size
    if config.time_budget_s is not None and device is None and total is None:
        length = config.max_seq_len or 0
        device = max(1, min(TIMED_TOKENS // length, (config.memory_gb or 0) // 2))
        total = max(1, round(TIMED_TOKENS / (device * length))) * device * length
    return batch_sizes(
        config.memory_gb or 0,
        config.max_seq_len or 0,
        device,
        total,
        config.eval_tokens,
        config.split_tokens,
    )


def choose_tag(config: PlanConfig) -> tuple[str, list[str]]:
    """(tag, lines to say). Nothing is overwritten: a finished d4 makes it d4-2.

    Raises UserError where an unfinished one stands, with how to continue and how to start anew.
    """
    wanted = checkpoints.check_tag(config.model_tag or f"d{config.depth}")
    names = (wanted if n == 1 else f"{wanted}-{n}" for n in range(1, 10_000))
    for tag in names:
        if not _exists(tag):
            note = f"{wanted} is there already: this run trains {tag}" if tag != wanted else ""
            return tag, [note] if note else []
        if config.model_tag is not None and _finished(tag):
            raise UserError(
                f"MODEL_TAG={tag}: that model is finished, and nothing is overwritten; "
                "choose another name"
            )
        if not _finished(tag) and not config.fresh:
            raise UserError(
                f"{tag} is unfinished: continue it with bash dev/continue_training.sh, "
                f"or start anew beside it with FRESH=1"
            )
    raise AssertionError("ten thousand models of one name")


def plan_lines(config: PlanConfig, batch: BatchSizes) -> list[tuple[str, str]]:
    """The plan as (name, value) pairs for a person; a program may read them too."""
    model = GPTConfig(config.depth or 0, config.vocab_size or 0, config.max_seq_len or 0)
    length, rows = model.max_seq_len, batch.device_batch_size
    iterations = (config.base_iterations, config.mid_iterations, config.sft_iterations)
    lines = [
        ("data", dataset.in_words(config.data or "", config.data_shards or 0)),
        ("model_tag", str(config.model_tag)),
        ("depth", str(model.depth)),
        ("vocab_size", f"{model.vocab_size:,}"),
        ("parameters", f"{model.num_params():,}"),
        (
            "batch",
            f"{rows} rows x {length} tokens x {batch.grad_accum(length)} micro-batches = "
            f"{batch.total_batch_size:,} tokens a step",
        ),
        ("eval_tokens", f"{batch.eval_tokens:,}"),
        ("split_tokens", f"{batch.split_tokens:,}"),
    ]
    for stage, n in zip(TRAINED, iterations, strict=True):
        if n is None:
            share = f"{TIME_SHARES[stage.name]} % of the time"
            lines.append((stage.name, f"as many iterations as fit into {share}"))
        else:
            tokens = n * batch.total_batch_size
            lines.append((stage.name, f"{n:,} iterations, {tokens:,} tokens"))
    if config.time_budget_s is not None:
        minutes = f"{config.time_budget_s / 60:.3g}, the time budget"
    else:
        steps = sum(n or 0 for n in iterations)
        seconds = steps * _step_seconds(model, batch.total_batch_size)
        minutes = f"about {max(1, round(seconds / 60))} to train, on the CPU of this machine"
    lines += [
        ("minutes", minutes),
        ("memory_gb", f"about {model.training_bytes(rows) / 1e9 + 0.5:.1f} of {config.memory_gb}"),
        ("disk_gb", f"about {_disk_bytes(model, config) / 1e9:.1f}; free: {_free_gb():.0f}"),
        ("base_dir", str(storage.base_dir())),
    ]
    return lines


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


def _free_gb() -> float:
    folder = storage.base_dir()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free / 1e9


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
            *_iterations(config.base_iterations),
            *training,
        ],
        "base_loss": [
            tag,
            f"--device_batch_size={batch.device_batch_size}",
            f"--split_tokens={batch.split_tokens}",
        ],
        "mid_train": [*_iterations(config.mid_iterations), *training],
        "chat_sft": [*_iterations(config.sft_iterations), *training],
        "chat_eval": [tag, "--source=sft", f"--max_problems={QUESTIONS_A_KIND}"],
    }


def _shards_first(config: PlanConfig) -> int:
    """Shards that must be there before anything trains; fineweb's others come meanwhile."""
    shards = config.data_shards or 0
    return min(shards, fineweb.FIRST_SHARDS) if config.data == "fineweb" else shards


def _iterations(n: int | None) -> list[str]:
    return [] if n is None else [f"--num_iterations={n}"]


# --- what there is -------------------------------------------------------------------------------


def _plan_path(tag: str) -> Path:
    return storage.base_dir() / "pipeline" / f"{checkpoints.check_tag(tag)}.json"


def _last(stage: str, tag: str) -> checkpoints.Checkpoint | None:
    found = checkpoints.find_all(stage, tag)
    return found[-1] if found else None


def _is_finished(stage: Stage, tag: str) -> bool:
    if stage.checkpoint:
        last = _last(stage.checkpoint, tag)
        return last is not None and bool(last.state["finished"])
    if stage.name in MEASURED:
        return _measured(stage, tag) is not None
    # Text and tokenizer are made again until there is a base model: both are quick or do nothing,
    # and another run may have left another tokenizer behind.
    return _last("base", tag) is not None


def _measured(stage: Stage, tag: str) -> dict[str, float] | None:
    """What a stage that only measures found, from its metrics."""
    path = storage.base_dir() / "metrics" / f"{MEASURED[stage.name]}_{tag}.jsonl"
    if not path.exists() or not path.read_text(encoding="utf-8").strip():
        return None
    return json.loads(path.read_text(encoding="utf-8").splitlines()[-1])["eval"]


def _exists(tag: str) -> bool:
    return _plan_path(tag).exists() or any(_last(s.checkpoint or "", tag) for s in TRAINED)


def _finished(tag: str) -> bool:
    return all(_is_finished(stage, tag) for stage in TRAINED)


def newest_tag(config: TagConfig) -> None:
    """Print the tag of the newest plan."""
    print(_newest_tag())


def _newest_tag() -> str:
    plans = [
        (storage.read_json(path)["time"], path.stem)
        for path in (storage.base_dir() / "pipeline").glob("*.json")
    ]
    if not plans:
        raise UserError(
            f"nothing to continue in {storage.base_dir()}: start with bash dev/runcpu.sh"
        )
    return max(plans)[1]


def read_plan(tag: str) -> dict[str, Any]:
    """The plan of a tag. Raises UserError where there is none."""
    path = _plan_path(tag)
    if not path.exists():
        raise UserError(f"no run named {tag} in {path.parent}: start one with bash dev/runcpu.sh")
    return storage.read_json(path)


# --- running and telling -------------------------------------------------------------------------


def stage(config: StageRunConfig) -> None:
    """Run one stage of the plan in this process's place; skip it where it is finished."""
    keep_in(config.log_file)
    names = [s.name for s in STAGES]
    if config.name not in names:
        raise UserError(f"no stage {config.name!r}: it is one of {', '.join(names)}")
    number = names.index(config.name)
    this = STAGES[number]
    head = f"[{number + 1}/{len(STAGES)}] {this.title}"
    if _is_finished(this, config.model_tag):
        say(f"{head}: done already")
        return
    flags = _planned_flags(this, config)
    if config.log_file is not None:
        flags = [*flags, f"--log_file={config.log_file}"]
    say(f"{head} ...")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", this.script, *flags])


def _planned_flags(this: Stage, config: StageRunConfig) -> list[str]:
    """The stage's flags from the plan, with what this run says anew and the time that is left."""
    whole = read_plan(config.model_tag)
    sessions = _sessions(whole, config)
    flags = whole["stages"][this.name]
    if not this.checkpoint:
        return flags
    for flag in ("device_batch_size", "memory_gb"):
        value = getattr(config, flag)
        if value is not None:
            flags = [f for f in flags if not f.startswith(f"--{flag}=")] + [f"--{flag}={value}"]
    budget = config.time_budget_s or whole["variables"]["time_budget_s"]
    if budget is not None and not any(f.startswith("--num_iterations=") for f in flags):
        new_budget = config.time_budget_s is not None  # then it is for what is still to do
        spent = _spent_s(config.model_tag, sessions[-1:] if new_budget else sessions)
        flags = [*flags, f"--time_budget_s={_share_s(this, config.model_tag, budget - spent):.0f}"]
    return [*flags, "--resume"] if _last(this.checkpoint, config.model_tag) else flags


def _sessions(whole: dict[str, Any], config: StageRunConfig) -> list[float]:
    """When each driver run that worked on this plan began its first stage; notes a new one."""
    sessions = whole.setdefault("sessions", {})
    if config.session not in sessions:
        sessions[config.session] = time.time()
        storage.write_json(_plan_path(config.model_tag), whole)
    return sorted(sessions.values())


def _spent_s(tag: str, sessions: list[float]) -> float:
    """Seconds that driver runs have worked; of one that died, until its last line of metrics."""
    alive = sorted(_metrics_times(tag))
    spent = time.time() - sessions[-1]
    for started, ended in itertools.pairwise(sessions):
        spent += max((t for t in alive if started <= t < ended), default=started) - started
    return spent


def _metrics_times(tag: str) -> Iterator[float]:
    for path in (storage.base_dir() / "metrics").glob(f"*_{tag}.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, KeyError):
                yield json.loads(line)["time"]


def _share_s(this: Stage, tag: str, left_s: float) -> float:
    """This stage's part of the seconds that are left, by TIME_SHARES of what is still to train."""
    ahead = [s for s in TRAINED if not _is_finished(s, tag)]
    later = STAGES[STAGES.index(this) + 1 :]
    left_s -= sum(MEASURING_S.get(s.name, 0.0) for s in later)
    shares = sum(TIME_SHARES[s.name] for s in ahead)
    return max(1.0, left_s * TIME_SHARES[this.name] / shares)


def status(config: PlanConfig) -> None:
    """Print what exists and what will run; exit code 3 where nothing is left to do.

    Raises UserError for a variable that says otherwise than the plan.
    """
    keep_in(config.log_file)
    tag = config.model_tag or _newest_tag()
    planned = read_plan(tag)["variables"]
    free = ("driver", "model_tag", "device_batch_size", "memory_gb", "time_budget_s")
    for field in fields(config):
        given = getattr(config, field.name)
        if field.name in (*free, "dry_run", "log_file", "fresh") or given is None:
            continue
        if given != planned[field.name]:
            raise UserError(
                f"{field.name}={given}: the run {tag} was started with {planned[field.name]}; "
                "leave it out to continue that run, or start another with bash dev/runcpu.sh"
            )
    say("Status:")
    to_do = []
    for s in TRAINED:
        assert s.checkpoint is not None
        last, name = _last(s.checkpoint, tag), STATUS_NAMES[s.checkpoint]
        word = name.removesuffix(" model")
        if last is None:
            say(f"  ✗ {name}: Not found")
            to_do.append(word)
        elif last.state["finished"]:
            say(f"  ✓ {name}: {tag}/{last.folder.name}")
        else:
            total = last.state["num_iterations"]
            say(f"  … {name}: {tag}/{last.folder.name} of {total} (interrupted)")
            to_do.append(f"{word} (from step {last.step})")
    say()
    if not to_do:
        say("🎉 All training stages complete!")
        say("→ Ready to chat!")
        sys.exit(COMPLETE)
    say(f"→ Will run: {to_do[0]} only" if len(to_do) == 1 else f"→ Will run: {' → '.join(to_do)}")


def finish(config: TagConfig) -> None:
    """The last words of a run: honest about what to expect, and how to chat."""
    keep_in(config.log_file)
    tag = config.model_tag or _newest_tag()
    found = [c for s in TRAINED if (c := _last(s.checkpoint or "", tag)) is not None]
    tokens = sum(c.state["tokens"] for c in found)
    started = read_plan(tag)["time"]
    answers = _measured(STAGES[-1], tag)
    say()
    say(f"{tag} is trained, {duration(time.time() - started)} after the plan.")
    if tokens < SMOKE_TEST_TOKENS:
        say(
            f"This was a smoke test: the model has read {tokens / 1e6:.1f} M tokens and mostly "
            "guesses."
        )
    else:
        say(f"The model has read {tokens / 1e6:.1f} M tokens.")
    if answers is not None:
        say(f"It answered {answers['mean']:.0%} of questions that it had not seen before.")
    if tokens < SMOKE_TEST_TOKENS:
        say("For one that answers: TIME_BUDGET=20m bash dev/runcpu.sh")
    say("Chat with it:")
    say("  source .venv/bin/activate")
    say("  python -m scripts.chat_cli -i sft")


VERBS = {
    "plan": (plan, PlanConfig),
    "stage": (stage, StageRunConfig),
    "status": (status, PlanConfig),
    "newest_tag": (newest_tag, TagConfig),
    "finish": (finish, TagConfig),
}


def main() -> None:
    """`python -m nanochat.training.pipeline VERB flags`."""
    if len(sys.argv) < 2 or sys.argv[1] not in VERBS:
        print(f"usage: python -m nanochat.training.pipeline {{{','.join(VERBS)}}} [flags]")
        sys.exit(2)
    verb = sys.argv.pop(1)
    if verb == "stage" and len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        sys.argv[1] = f"--name={sys.argv[1]}"
    function, config_class = VERBS[verb]
    cli.run(function, config_class, f"python -m nanochat.training.pipeline {verb}")


if __name__ == "__main__":
    main()
