"""What the drivers in dev/ ask and call, one verb each: `python -m nanochat.run.pipeline VERB`.

`plan` resolves everything and writes pipeline/<tag>.json; `stage` runs one stage of it (or skips it
where it is finished, or resumes it); `killed` looks into a SIGKILL; `status`, `newest_tag` and
`finish` read what exists. What a user changes about a run that he continues becomes part of its
plan.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from nanochat.run import records
from nanochat.run.recipe import (
    NOT_KEPT,
    PlanConfig,
    Recipe,
    batch_of,
    flags_of,
    given,
    plan_lines,
    resolve,
    stage_budget_s,
    with_rows,
    with_time,
)
from nanochat.run.records import Plan
from nanochat.stages import STAGES, TRAINED, Stage, stage_named
from nanochat.system import cli, log, variables
from nanochat.system.errors import UserError
from nanochat.system.log import counted, duration, log_to, say
from nanochat.training import checkpoint_manager as checkpoints
from nanochat.training.batch_sizes import TOO_LARGE

NEARLY_ALL = 0.7  # of the memory; a process of that size was most likely killed for it
COMPLETE = 3  # exit code of `status` where nothing is left to do
# Fields of PlanConfig that a plan has otherwise whenever a run is continued, and may.
NOT_COMPARED = (*NOT_KEPT, "driver", "model_tag", "memory_is_given")


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
    log.check_wandb(config.wandb_run)  # else it would be noticed minutes later, in base training
    recipe, notes = resolve(config)
    tag, note = choose_tag(recipe.model_tag, config)
    recipe = replace(recipe, model_tag=tag)
    for line in (*notes, *note):
        say(line)
    for name, value in plan_lines(recipe):
        say(f"{name}: {value}")
    if not config.dry_run:
        records.write_plan(Plan(recipe, given(asdict(config)), records.next_number(), time.time()))


def choose_tag(wanted: str, config: PlanConfig) -> tuple[str, list[str]]:
    """(tag, lines to say). Nothing is overwritten: a finished d4 makes it d4-2.

    Raises UserError where an unfinished one stands, with how to continue and how to start another.
    """
    checkpoints.check_tag(wanted)
    names = (wanted if n == 1 else f"{wanted}-{n}" for n in range(1, 10_000))
    for tag in names:
        if not records.exists(tag):
            note = f"{wanted} already exists; training {tag} instead"
            return tag, [note] if tag != wanted else []
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
    # All of its checkpoints are damaged: they make room, and the stage starts over.
    if this.checkpoint and records.last_checkpoint(this, config.model_tag) is None:
        kept_as = checkpoints.set_aside(this.checkpoint, config.model_tag)
        if kept_as:
            say(
                f"no whole checkpoint to continue from: {this.title} starts from scratch "
                f"(kept: {kept_as})"
            )
    _change_plan(config)
    # Noted before the time is shared out: what this stage's start takes counts as well.
    records.note_start(config.model_tag, this.name, config.session)
    command = ["-m", this.script, *_arguments(this, records.read_plan(config.model_tag))]
    say(f"{head} ...")
    # What a user would type to run this stage by hand.
    say(f"$ python {shlex.join(command)}")
    sys.stdout.flush()
    if config.log_file is not None:
        command.append(f"--log_file={config.log_file}")
    # exec, not a child: signals, exit code and terminal are then the stage's own, and the memory
    # of this process is gone before torch is loaded.
    os.execve(sys.executable, [sys.executable, *command], {**os.environ, log.DRIVEN: "1"})


def _arguments(this: Stage, plan: Plan) -> list[str]:
    """A stage's flags by the recipe, with its part of the time that is left, and --resume."""
    recipe, tag = plan.recipe, plan.recipe.model_tag
    flags = [f"--{name}={value}" for name, value in flags_of(recipe, this).items()]
    if not this.checkpoint:
        return flags
    if not recipe.training[this.name].num_iterations:
        left_s = recipe.run_budget_s - records.spent_s(plan)
        budget_s = stage_budget_s(recipe, this, left_s, records.unfinished(tag))
        flags.append(f"--time_budget_s={budget_s:.0f}")
    return [*flags, "--resume"] if records.last_checkpoint(this, tag) else flags


def _change_plan(config: StageRunConfig) -> None:
    """Write into the plan what the user says now, for what is still to do.

    Raises UserError for a time that could change nothing.
    """
    before = plan = records.read_plan(config.model_tag)
    if config.memory_gb is not None or config.device_batch_size is not None:
        plan = replace(plan, recipe=_other_rows(plan, config.device_batch_size, config.memory_gb))
    # Every stage of a session is told the same time; only the first of them starts its clock.
    if config.time_budget_s is not None and plan.budget_since != config.session:
        recipe = _other_time(plan.recipe, config.time_budget_s)
        plan = replace(plan, recipe=recipe, budget_since=config.session)
    if plan != before:
        records.write_plan(plan)


def _other_rows(plan: Plan, rows: int | None, memory_gb: int | None) -> Recipe:
    """Rows as the user says, or as many as suit the memory that he says."""
    recipe, said = plan.recipe, f"DEVICE_BATCH_SIZE={rows}"
    if memory_gb is not None:
        recipe = replace(recipe, memory_gb=memory_gb)
    if rows is None:
        said = f"MEMORY_SIZE={memory_gb}"
        by_memory = replace(
            plan.said(), memory_gb=memory_gb, memory_is_given=True, device_batch_size=None
        )
        rows = batch_of(by_memory, recipe.data, recipe.model).device_batch_size
    before = recipe.device_batch_size
    recipe = with_rows(recipe, rows)
    if recipe.device_batch_size != before:
        say(
            f"{said}: {counted(recipe.device_batch_size, 'row')} at once instead of {before}, "
            "as many tokens per step as before"
        )
    return recipe


def _other_time(recipe: Recipe, budget_s: int) -> Recipe:
    """So many seconds from now on. Raises UserError where every number of steps is settled."""
    tag = recipe.model_tag
    begun = [s.name for s in TRAINED if records.last_checkpoint(s, tag) is not None]
    changed = with_time(recipe, budget_s, begun)
    unfinished = records.unfinished(tag)
    for s in unfinished:
        steps = changed.training[s.name].num_iterations
        if not steps:
            continue
        keeps = f"TIME_BUDGET: {s.title} keeps its {counted(steps, 'step')}"
        if s is unfinished[-1]:
            raise UserError(f"{keeps} and is the last one to train: leave TIME_BUDGET out")
        say(f"{keeps}; the stages after it share the time that is left then")
    return changed


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
        last, name = records.last_checkpoint(s, tag), s.model_name
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
            say(f"→ Will run: {STAGES[-2].title} → {STAGES[-1].title}")
            return
        say("→ Ready to chat!")
        sys.exit(COMPLETE)
    say(f"→ Will run: {to_do[0]} only" if len(to_do) == 1 else f"→ Will run: {' → '.join(to_do)}")


def _refuse_what_differs(config: PlanConfig, tag: str) -> None:
    """Raise UserError for a variable that the plan has otherwise, by the name that was typed."""
    plan = records.read_plan(tag)
    recipe = asdict(plan.recipe) | {
        f"{s.checkpoint}_iterations": plan.recipe.training[s.name].num_iterations for s in TRAINED
    }
    for name, value in asdict(config).items():
        if value is None or name in (*variables.changeable(), *NOT_COMPARED):
            continue
        if (name, value) == ("data", "auto"):  # what it found is in the plan
            continue
        has = recipe[name] or None
        # Either what was typed at the start or what it was raised to may be said again.
        if str(value) not in (str(plan.given.get(name)), str(has)):
            had = "without it" if has is None else f"with {has}"
            raise UserError(
                f"{variables.variable_of(name)}={value}: the run {tag} was started {had}; "
                "leave it out to continue that run, or start another with bash dev/runcpu.sh"
            )


def killed(config: KilledConfig) -> None:
    """After a SIGKILL: where memory ran out, process half as many rows at once from now on."""
    log_to(config.log_file)
    plan = records.read_plan(config.model_tag)
    recipe = plan.recipe
    this = stage_named(config.name)
    steps = records.metrics_of(this.checkpoint or "", config.model_tag)
    # The kernel's count is of the whole machine, and macOS has none: how much the stage had taken
    # tells as well.
    used = next((r["memory_bytes"] for r in reversed(steps) if "memory_bytes" in r), 0)
    ran_out = config.oom_kills or used > NEARLY_ALL * 1e9 * recipe.memory_gb
    if not this.checkpoint or not ran_out:
        say(f"Something ended {this.name} (SIGKILL).")
        return
    rows = recipe.device_batch_size
    if rows == 1:
        say(f"{this.name} ran out of memory with one row at once: {TOO_LARGE}")
        return
    fewer = with_rows(recipe, rows // 2)
    records.write_plan(replace(plan, recipe=fewer))
    say(
        f"{this.name} ran out of memory: it will continue with "
        f"DEVICE_BATCH_SIZE={fewer.device_batch_size} instead of {rows}, "
        "as many tokens per step as before."
    )


def newest_tag(config: TagConfig) -> None:
    """Print the tag of the newest plan."""
    print(records.newest_tag())


def finish(config: TagConfig) -> None:
    """The last words of a run: honest about what to expect, and how to chat."""
    log_to(config.log_file)
    tag = config.model_tag or records.newest_tag()
    smoke_test = records.is_smoke_test(tag)
    answers = records.measured("chat_eval", tag)
    say()
    say(f"{tag} is trained; it took {duration(records.worked_s(tag))}.")
    if smoke_test:
        tokens = records.tokens_read(tag)
        read = f"{tokens / 1e6:.1f} M" if tokens >= 50_000 else f"{tokens:,}"
        say(f"This was a smoke test: the model has read {read} tokens and mostly guesses.")
    if answers is not None:
        say(f"It answered {answers['mean']:.0%} of the questions held out from its training.")
    if smoke_test:
        say("For one that answers: TIME_BUDGET=20m bash dev/runcpu.sh")
    say("Chat with it, here or in the browser:")
    say("  source .venv/bin/activate")
    for script in ("chat_cli", "chat_web"):
        say(f"  python -m scripts.{script} -i {TRAINED[-1].checkpoint}")


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
