"""A whole run, stage by stage: what the drivers in dev/ ask and call.

`plan` resolves everything and writes pipeline/<tag>.json; `stage` runs one line of it (or skips it
where it is finished, or resumes it); `killed` looks into a SIGKILL; `status`, `newest_tag` and
`finish` read what there is. What may be changed about a run that is continued (FREE) is written
into its plan.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nanochat.run import records
from nanochat.run.recipe import (
    TIMED_FLAGS,
    PlanConfig,
    batch_of,
    bounds_s,
    choose_tag,
    plan_lines,
    resolve,
    stage_flags,
    time_shares,
)
from nanochat.stages import STAGES, TRAINED, Stage
from nanochat.system import cli, log, storage
from nanochat.system.errors import UserError
from nanochat.system.log import counted, duration, log_to, say
from nanochat.training import checkpoint_manager as checkpoints
from nanochat.training.batch_sizes import TOO_LARGE

SCHEMA = 1
LOADING_S = 6.0  # until a process that only measures has loaded torch and the model
NEARLY_ALL = 0.7  # of the memory; a process of that size was most likely killed for it
COMPLETE = 3  # exit code of `status` where nothing is left to do
# What a user typed, where it is not the field's name in capitals; and what `status` does not mind.
VARIABLES = {"data": "NANOCHAT_DATA", "memory_gb": "MEMORY_SIZE", "time_budget_s": "TIME_BUDGET"}
FREE = ("model_tag", "device_batch_size", "memory_gb", "memory_is_given", "time_budget_s")
NOT_OF_THE_RUN = ("driver", "dry_run", "log_file", "fresh")


@dataclass(frozen=True)
class StageRunConfig:
    """Which stage of which plan to run, and what may be changed about what is still to do."""

    name: str
    model_tag: str
    device_batch_size: int | None = None
    memory_gb: int | None = None
    time_budget_s: int | None = None
    session: str = ""
    """names this run of a driver"""
    log_file: Path | None = None


@dataclass(frozen=True)
class KilledConfig:
    """Which stage of which run was ended by a SIGKILL, and what the kernel says of it."""

    name: str
    model_tag: str
    oom_kills: int = 0
    """how often the kernel killed for want of memory meanwhile (Linux counts that)"""
    log_file: Path | None = None


@dataclass(frozen=True)
class TagConfig:
    """Which plan to read."""

    model_tag: str | None = None
    log_file: Path | None = None


def plan(config: PlanConfig) -> None:
    """Resolve, print, and (without --dry_run) write pipeline/<tag>.json."""
    log_to(config.log_file)
    log.check_wandb(config.wandb_run)  # not after the text and the tokenizer
    resolved = resolve(config)
    tag, notes = choose_tag(resolved)
    resolved = replace(resolved, model_tag=tag)
    batch = batch_of(resolved)
    for note in (*notes, *batch.notes):
        say(note)
    for name, value in plan_lines(resolved, batch):
        say(f"{name}: {value}")
    if not config.dry_run:
        whole = {
            "schema": SCHEMA,
            "number": records.next_number(),
            "time": time.time(),
            "variables": {
                k: str(v) if isinstance(v, Path) else v for k, v in asdict(resolved).items()
            },
            "stages": {name: flags for name, flags in stage_flags(resolved, batch).items()},
        }
        storage.write_json(records.plan_path(tag), whole)


def stage(config: StageRunConfig) -> None:
    """Run one stage of the plan in this process's place; skip it where it is finished."""
    log_to(config.log_file)
    names = [s.name for s in STAGES]
    if config.name not in names:
        raise UserError(f"no stage {config.name!r}: it is one of {', '.join(names)}")
    number = names.index(config.name)
    this = STAGES[number]
    head = f"[{number + 1}/{len(STAGES)}] {this.title}"
    if records.is_finished(this, config.model_tag):
        say(f"{head}: done already")
        return
    if this.checkpoint and records.last_checkpoint(this, config.model_tag) is None:
        kept_as = checkpoints.set_aside(this.checkpoint, config.model_tag)
        if kept_as:
            say(
                f"no whole checkpoint to continue from: {this.title} starts from scratch "
                f"(kept: {kept_as})"
            )
    _replan(config)
    records.note_start(config.model_tag, this.name, config.session)
    flags = _planned_flags(this, config.model_tag)
    if config.log_file is not None:
        flags = [*flags, f"--log_file={config.log_file}"]
    say(f"{head} ...")
    sys.stdout.flush()
    command = [sys.executable, "-m", this.script, *flags]
    os.execve(sys.executable, command, {**os.environ, log.DRIVEN: "1"})


def _replan(config: StageRunConfig) -> None:
    """Write into the plan what this run says again, for what is still to do.

    Raises UserError for a time that could change nothing.
    """
    tag, whole = config.model_tag, records.read_plan(config.model_tag)
    if config.memory_gb is not None or config.device_batch_size is not None:
        _change_rows(whole, config)
    if config.time_budget_s is not None and _budget(whole)["since"] != config.session:
        _change_time(whole, config)
    if whole != records.read_plan(tag):
        storage.write_json(records.plan_path(tag), whole)


def _change_rows(whole: dict[str, Any], config: StageRunConfig) -> None:
    """Other rows at once, for as many tokens per step as before: a step stays the same step."""
    rows, gb = config.device_batch_size, config.memory_gb
    said = f"DEVICE_BATCH_SIZE={rows}"
    if gb is not None:
        whole["variables"]["memory_gb"] = gb
        _set(whole, "memory_gb", gb)
    if rows is None:
        said = f"MEMORY_SIZE={gb}"
        again = {"device_batch_size": None, "memory_is_given": True}
        planned = PlanConfig(**(whole["variables"] | again))
        rows = batch_of(planned).device_batch_size
    before = _value_of(whole["stages"]["base_train"], "device_batch_size")
    fitting = _fitting_rows(whole["stages"]["base_train"], rows)
    if str(fitting) != before:
        _set(whole, "device_batch_size", fitting)
        say(
            f"{said}: {counted(fitting or 0, 'row')} at once instead of {before}, "
            "as many tokens per step as before"
        )


def _change_time(whole: dict[str, Any], config: StageRunConfig) -> None:
    """Size what has not begun to the time; the number of a stage that has begun stays."""
    tag, flags = config.model_tag, whole["stages"]
    ahead = [s for s in TRAINED if not records.is_finished(s, tag)]
    if whole["variables"]["time_budget_s"] is None:
        for s in ahead:
            if records.last_checkpoint(s, tag) is None:
                flags[s.name] = [*TIMED_FLAGS[s.name], *_without(flags[s.name], "num_iterations")]
    for s in ahead:
        number = _value_of(flags[s.name], "num_iterations")
        if number is None:
            continue
        keeps = f"TIME_BUDGET: {s.title} keeps its {counted(int(number), 'iteration')}"
        if s is ahead[-1]:
            raise UserError(f"{keeps} and is the last one to train: leave TIME_BUDGET out")
        say(f"{keeps}; the time that is left then is for the stages after it")
    for name, seconds in bounds_s(config.time_budget_s).items():
        flags[name] = [*_without(flags[name], "max_seconds"), f"--max_seconds={seconds}"]
    whole["budget"] = {"seconds": config.time_budget_s, "since": config.session}


def _budget(whole: dict[str, Any]) -> dict[str, Any]:
    """{seconds, since}: the time for all that is done from one session of a driver on."""
    return whole.get("budget", {"seconds": whole["variables"]["time_budget_s"], "since": None})


def _planned_flags(this: Stage, tag: str) -> list[str]:
    """The stage's flags from the plan, with the time that is left."""
    whole = records.read_plan(tag)
    flags, budget = whole["stages"][this.name], _budget(whole)
    if not this.checkpoint:
        return flags
    if budget["seconds"] is not None and _value_of(flags, "num_iterations") is None:
        left = budget["seconds"] - _spent_s(tag, whole["variables"]["data"], budget["since"])
        flags = [*flags, f"--time_budget_s={_share_s(this, tag, left, whole):.0f}"]
    return [*flags, "--resume"] if records.last_checkpoint(this, tag) else flags


def _value_of(flags: list[str], name: str) -> str | None:
    """The value of --name=value, if it is among the flags."""
    values = (f.split("=", 1)[1] for f in flags if f.startswith(f"--{name}="))
    return next(values, None)


def _without(flags: list[str], name: str) -> list[str]:
    return [flag for flag in flags if not flag.startswith(f"--{name}=")]


def _set(whole: dict[str, Any], name: str, value: object) -> None:
    """This value in every stage that has the flag."""
    for stage_name, flags in whole["stages"].items():
        if _value_of(flags, name) is not None:
            whole["stages"][stage_name] = [*_without(flags, name), f"--{name}={value}"]


def _fitting_rows(flags: list[str], most: int) -> int | None:
    """The largest number of rows at once, up to `most`, that makes up a step of this stage."""
    total, length = (int(_value_of(flags, n) or 0) for n in ("total_batch_size", "max_seq_len"))
    return next((n for n in range(most, 0, -1) if total % (n * length) == 0), None)


def _spent_s(tag: str, data: str, since: str | None) -> float:
    """Seconds worked on a tag, at all or since a session began; downloads do not count."""
    worked = records.worked(tag, time.time())
    sessions = [work.session for work in worked]
    return sum(
        max(0.0, work.ended - work.started)  # a clock may have gone back
        for work in worked[sessions.index(since) if since in sessions else 0 :]
        if not (work.stage == "data" and data == "fineweb")
    )


def _share_s(this: Stage, tag: str, left_s: float, whole: dict[str, Any]) -> float:
    """This stage's part of the seconds that are left, by the shares of what is still to train."""
    flags, share_of = whole["stages"], time_shares(whole["variables"]["data"])
    ahead = [s for s in TRAINED if not records.is_finished(s, tag)]
    for later in STAGES[STAGES.index(this) + 1 :]:
        if not later.checkpoint:
            left_s -= LOADING_S + float(_value_of(flags[later.name], "max_seconds") or 0)
    return max(1.0, left_s * share_of[this.name] / sum(share_of[s.name] for s in ahead))


def status(config: PlanConfig) -> None:
    """Print what exists and what will run; exit code 3 where nothing is left to do.

    Raises UserError for a variable that says otherwise than the plan.
    """
    log_to(config.log_file)
    tag = config.model_tag or records.newest_tag()
    _refuse_what_differs(config, tag)
    say("Status:")
    to_do = []
    for s in TRAINED:
        assert s.checkpoint is not None
        last, name = (
            records.last_checkpoint(s, tag),
            {"base": "Base model", "mid": "Midtraining", "sft": "SFT"}[s.checkpoint],
        )
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
        if records.measured("chat_eval", tag) is None:  # a run that died while it was asked
            say("→ Will run: questions to the model → report")
            return
        say("→ Ready to chat!")
        sys.exit(COMPLETE)
    say(f"→ Will run: {to_do[0]} only" if len(to_do) == 1 else f"→ Will run: {' → '.join(to_do)}")


def _refuse_what_differs(config: PlanConfig, tag: str) -> None:
    """Raise UserError for a variable that the plan has otherwise, by the name that was typed."""
    whole = records.read_plan(tag)
    for name, given in asdict(config).items():
        if given is None or name in (*FREE, *NOT_OF_THE_RUN) or (name, given) == ("data", "auto"):
            continue  # what auto came to is in the plan
        typed = whole["variables"].get(name)
        found = (_value_of(flags, name) for flags in whole["stages"].values())
        came_to = next((value for value in found if value is not None), typed)
        if str(given) not in (str(typed), str(came_to)):
            had = "without it" if came_to is None else f"with {came_to}"
            raise UserError(
                f"{VARIABLES.get(name, name.upper())}={given}: the run {tag} was started {had}; "
                "leave it out to continue that run, or start another with bash dev/runcpu.sh"
            )


def killed(config: KilledConfig) -> None:
    """After a SIGKILL: where it was memory that ran out, do half as much at once from now on."""
    log_to(config.log_file)
    tag, whole = config.model_tag, records.read_plan(config.model_tag)
    this = next(s for s in STAGES if s.name == config.name)
    lines = [r for r in records.metrics_of(this.checkpoint or "", tag) if "memory_bytes" in r]
    used = lines[-1]["memory_bytes"] if lines else 0
    had = 1e9 * float(whole["variables"]["memory_gb"])
    if not this.checkpoint or not (config.oom_kills or used > NEARLY_ALL * had):
        say(f"Something ended {this.name} (SIGKILL).")
        return
    flags = whole["stages"][this.name]
    rows = int(_value_of(flags, "device_batch_size") or 0)
    fewer = _fitting_rows(flags, rows // 2)
    if fewer is None:
        say(f"{this.name} ran out of memory with one row at once: {TOO_LARGE}")
        return
    _set(whole, "device_batch_size", fewer)
    storage.write_json(records.plan_path(tag), whole)
    say(
        f"{this.name} ran out of memory: it will continue with DEVICE_BATCH_SIZE={fewer} instead "
        f"of {rows}, as many tokens per step as before."
    )


def newest_tag(config: TagConfig) -> None:
    """Print the tag of the newest plan."""
    print(records.newest_tag())


def finish(config: TagConfig) -> None:
    """The last words of a run: honest about what to expect, and how to chat."""
    log_to(config.log_file)
    tag = config.model_tag or records.newest_tag()
    smoke_test = records.is_smoke_test(tag)
    started = records.read_plan(tag)["time"]
    answers = records.measured("chat_eval", tag)
    say()
    say(f"{tag} is trained, {duration(max(0.0, time.time() - started))} after the plan.")
    if smoke_test:
        tokens = records.tokens_read(tag)
        read = f"{tokens / 1e6:.1f} M" if tokens >= 50_000 else f"{tokens:,}"
        say(f"This was a smoke test: the model has read {read} tokens and mostly guesses.")
    if answers is not None:
        say(f"It answered {answers['mean']:.0%} of questions that it had not seen before.")
    if smoke_test:
        say("For one that answers: TIME_BUDGET=20m bash dev/runcpu.sh")
    say("Chat with it, here or in the browser:")
    say("  source .venv/bin/activate")
    say("  python -m scripts.chat_cli -i sft")
    say("  python -m scripts.chat_web -i sft")


VERBS = {
    "plan": (plan, PlanConfig),
    "stage": (stage, StageRunConfig),
    "killed": (killed, KilledConfig),
    "status": (status, PlanConfig),
    "newest_tag": (newest_tag, TagConfig),
    "finish": (finish, TagConfig),
}


def main() -> None:
    """`python -m nanochat.run.pipeline VERB flags`."""
    if len(sys.argv) < 2 or sys.argv[1] not in VERBS:
        print(f"usage: python -m nanochat.run.pipeline {{{','.join(VERBS)}}} [flags]")
        sys.exit(2)
    verb = sys.argv.pop(1)
    if verb == "stage" and len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        sys.argv[1] = f"--name={sys.argv[1]}"
    function, config_class = VERBS[verb]
    cli.run(function, config_class, f"python -m nanochat.run.pipeline {verb}")


if __name__ == "__main__":
    main()
