"""What exists of each run: its plan, what is finished, what was measured, when it worked.

A run is a tag. Its plan is pipeline/<tag>.json: the recipe, what the user had said, and a note of
each stage that began.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from nanochat.run import old_plans
from nanochat.run.recipe import PlanConfig, Recipe
from nanochat.stages import STAGES, TRAINED, Stage, stage_named
from nanochat.system import storage
from nanochat.system.errors import UserError
from nanochat.training import checkpoint_manager as checkpoints

SCHEMA = 2
# A model that has read fewer tokens mostly guesses, unless it answers so many questions.
SMOKE_TEST_TOKENS, SOME_ANSWERS = 1_000_000, 0.3


class Worked(NamedTuple):
    """A stretch of one stage's work, in Unix seconds; `ended` is its last sign of life."""

    stage: str
    started: float
    ended: float
    session: str  # one run of a driver

    @property
    def seconds(self) -> float:
        """How long it was; a clock may have gone back."""
        return max(0.0, self.ended - self.started)


@dataclass(frozen=True)
class Plan:
    """A run's recipe and its history."""

    recipe: Recipe
    given: dict[str, Any]  # what the user and the driver had said: fields of PlanConfig
    number: int  # later plans have higher ones, whatever the clock says
    time: float
    budget_since: str = ""  # the session from which run_budget_s counts; "": from the start
    started: list[list[Any]] = field(default_factory=list)  # [Unix seconds, stage, session]

    def said(self) -> PlanConfig:
        """What the user had said, as it was said."""
        return PlanConfig(**self.given)


def plan_path(tag: str) -> Path:
    """Where the plan of a tag is."""
    return storage.base_dir() / "pipeline" / f"{checkpoints.check_tag(tag)}.json"


def read_plan(tag: str) -> Plan:
    """The plan of a tag. Raises UserError where none exists, or only a newer version's."""
    path = plan_path(tag)
    if not path.exists():
        others = ", ".join(tag for *_, tag in _plans())
        there_is = f"there is: {others}" if others else "start one with bash dev/runcpu.sh"
        raise UserError(f"no run named {tag} in {path.parent}; {there_is}")
    whole = storage.read_json(path)
    schema = whole.pop("schema", 1)
    if schema == 1:
        whole = old_plans.from_schema_1(whole)
    elif schema != SCHEMA:
        raise UserError(
            f"{path} was written by another version (schema {schema!r}, this one reads {SCHEMA}): "
            "continue that run with the version that started it"
        )
    return Plan(recipe=Recipe.from_json(whole.pop("recipe")), **whole)


def write_plan(plan: Plan) -> None:
    """Write it under the tag of its recipe, whole or not at all."""
    storage.write_json(plan_path(plan.recipe.model_tag), {"schema": SCHEMA, **asdict(plan)})


def _plans() -> list[tuple[int, float, str]]:
    """(number, time, tag) of every plan, oldest first; by number, since clocks go back."""
    paths = (storage.base_dir() / "pipeline").glob("*.json")
    read = [(storage.read_json(path), path.stem) for path in paths]
    return sorted((plan.get("number", 0), plan["time"], tag) for plan, tag in read)


def next_number() -> int:
    """The number of a plan that is about to be made."""
    return 1 + max((number for number, *_ in _plans()), default=0)


def newest_tag() -> str:
    """The tag of the newest plan. Raises UserError where there is none."""
    plans = _plans()
    if not plans:
        raise UserError(
            f"nothing to continue in {storage.base_dir()}: start with bash dev/runcpu.sh"
        )
    return plans[-1][-1]


def last_checkpoint(stage: Stage, tag: str) -> checkpoints.Checkpoint | None:
    """The newest whole checkpoint of a training stage, if there is one."""
    return checkpoints.newest_whole(checkpoints.find_all(stage.checkpoint or "", tag))


def exists(tag: str) -> bool:
    """Whether anything of this tag is there."""
    return plan_path(tag).exists() or any(last_checkpoint(s, tag) for s in TRAINED)


def is_finished(stage: Stage, tag: str) -> bool:
    """Whether nothing is left to do in a stage of this tag."""
    if stage.checkpoint:
        last = last_checkpoint(stage, tag)
        return last is not None and bool(last.state["finished"])
    if stage.measures:
        return measured(stage.name, tag) is not None
    if stage.name == "report":
        return False
    # Text is looked through while base training reads it. The tokenizer is made again until there
    # is a base model that has it inside: another run may have left another one behind.
    base = last_checkpoint(TRAINED[0], tag)
    return base is not None and (stage.name == "tokenizer" or bool(base.state["finished"]))


def is_trained(tag: str) -> bool:
    """Whether every training stage is finished."""
    return not unfinished(tag)


def unfinished(tag: str) -> list[Stage]:
    """The training stages that are still to do, or to finish."""
    return [stage for stage in TRAINED if not is_finished(stage, tag)]


def tokens_read(tag: str) -> int:
    """Tokens that a model has been trained with, over its stages."""
    found = (last_checkpoint(stage, tag) for stage in TRAINED)
    return sum(checkpoint.state["tokens"] for checkpoint in found if checkpoint)


def is_smoke_test(tag: str) -> bool:
    """Whether the model has seen next to nothing, and answers accordingly."""
    answers = measured("chat_eval", tag)
    guesses = answers is None or answers["mean"] < SOME_ANSWERS
    return tokens_read(tag) < SMOKE_TEST_TOKENS and guesses


def metrics_of(name: str, tag: str) -> list[dict[str, Any]]:
    """The records of metrics/<name>_<tag>.jsonl; a line that a power cut damaged is left out."""
    path = storage.base_dir() / "metrics" / f"{name}_{tag}.jsonl"
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def measured(stage: str, tag: str) -> dict[str, float] | None:
    """What a stage that only measures found."""
    lines = metrics_of(stage_named(stage).measures or "", tag)
    return lines[-1]["eval"] if lines else None


def note_start(tag: str, stage: str, session: str) -> None:
    """Note in the plan that a stage begins now."""
    plan = read_plan(tag)
    start = [round(time.time(), 3), stage, session]
    write_plan(replace(plan, started=[*plan.started, start]))


def worked(tag: str, now: float | None = None) -> list[Worked]:
    """Every stretch of work on a tag so far; `now` where the last one is still at it.

    A stretch ends where the next stage of its session begins; the last of a session that is over
    ends with its last line of metrics.
    """
    # Nothing notes the end of a stage, since a power cut could not: it is read off the next start,
    # or off the last line of metrics.
    alive = sorted(_times_of_metrics(tag))
    starts = read_plan(tag).started
    stretches = []
    for i, (started, stage, session) in enumerate(starts):
        if i + 1 < len(starts):
            ended, _, followed_in = starts[i + 1]
        else:
            ended, followed_in = (math.inf, "") if now is None else (now, session)
        if followed_in != session:
            ended = max((t for t in alive if started <= t < ended), default=started)
        stretches.append(Worked(stage, started, ended, session))
    return stretches


def worked_s(tag: str) -> float:
    """Seconds of work on a tag so far, without the breaks between sessions."""
    return sum(work.seconds for work in worked(tag))


def spent_s(plan: Plan) -> float:
    """Seconds of the run's budget that its work has taken so far. Downloads do not count."""
    stretches = worked(plan.recipe.model_tag, time.time())
    sessions = [work.session for work in stretches]
    first = sessions.index(plan.budget_since) if plan.budget_since in sessions else 0
    return sum(
        work.seconds
        for work in stretches[first:]
        if not (work.stage == "data" and plan.recipe.data == "fineweb")
    )


def _times_of_metrics(tag: str) -> Iterator[float]:
    for name in (name for s in STAGES if (name := s.checkpoint or s.measures)):
        for record in metrics_of(name, tag):
            yield record["time"]
