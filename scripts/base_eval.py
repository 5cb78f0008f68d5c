"""Examine a base model: CORE, bits per byte, and how it continues a few words.

`python -m scripts.base_eval`, or a part of it with --eval bpb,sample.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanochat.model_choice import ModelChoice
from nanochat.system import cli
from nanochat.system.errors import UserError

if TYPE_CHECKING:
    from nanochat.evals.core import TaskScore
    from nanochat.evals.core_tasks import Task
    from nanochat.gpt import GPT
    from nanochat.tokenizer import Tokenizer

PARTS = ("core", "bpb", "sample")
BEGINNINGS = (
    "The capital of France is",
    "The opposite of hot is",
    "If yesterday was Friday, then tomorrow will be",
    "The planets of the solar system are:",
    "My favorite color is",
    "Water is made of",
    "Once there was a",
)
SAMPLE_TOKENS = 24


@dataclass(frozen=True)
class Config:
    """CORE, bits per byte, and samples of a base model."""

    model: ModelChoice = field(default_factory=ModelChoice)
    eval: str = ",".join(PARTS)
    """what to do, separated by commas: core, bpb, sample"""
    data: Path | None = None
    """folder of the CORE tasks (default: evals/core of the model's own data folder, else
    eval_bundle in NANOCHAT_BASE_DIR)"""
    max_problems: int | None = None
    """questions of each CORE task at most (default: all)"""
    max_seconds: float | None = None
    """stop CORE after about this long, each task getting its share (default: never)"""
    split_tokens: int | None = None
    """tokens of each split that bits per byte are measured on (default: as in training)"""
    device_batch_size: int | None = None
    """rows at once for bits per byte (default: as in training)"""
    json: bool = False
    """print one JSON object as the last line"""
    log_file: Path | None = None
    """also append everything that is printed to this file"""

    def __post_init__(self) -> None:
        """Validate the flags."""
        for part in self.parts():
            if part not in PARTS:
                raise ValueError(f"eval={self.eval}: {part!r} is not one of {', '.join(PARTS)}")
        for name in ("max_problems", "split_tokens", "device_batch_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: it must be 1 or more")
        if self.max_seconds is not None and not 0 < self.max_seconds < float("inf"):
            raise ValueError(f"max_seconds={self.max_seconds}: it must be a number above 0")

    def parts(self) -> list[str]:
        """What to do."""
        return [part.strip() for part in self.eval.split(",")]


def main(config: Config) -> None:
    """Examine, print, keep in metrics/."""
    from nanochat.system import log

    log.log_to(config.log_file)
    found = config.model.find()
    from nanochat.evals import bpb  # torch: after what a user can get wrong

    saved, parts = found.state, config.parts()
    # What is wrong with the data is said before the weights are read.
    tasks = open_tasks(config, saved["config"]["data"]) if "core" in parts else []
    texts = bpb.splits(saved["config"]["data"]) if "bpb" in parts else {}
    model, tokenizer, _ = config.model.load(found)
    scores = ask_tasks(config, model, tokenizer, tasks) if tasks else []
    rows = config.device_batch_size or saved["batch"]["device_batch_size"]
    limit = config.split_tokens or saved["batch"]["split_tokens"]
    losses = bpb.measure(model, tokenizer, texts, rows, limit)
    if "sample" in parts:
        show_samples(model, tokenizer)
    summary = core_summary(scores) | losses
    # The report reads these as the base model's: a chat model's would replace them.
    if config.model.source == "base" and summary:
        metrics = log.Metrics("base_eval", found.tag, 0)
        centered = {f"core_{score.label}": score.centered for score in scores}
        metrics.write(step=found.step, eval=summary | centered)
        metrics.close()
    if config.json:
        of_task = {
            s.label: {"accuracy": s.accuracy, "centered": s.centered, "asked": s.asked}
            for s in scores
        }
        nothing: dict[str, Any] = {"core": None, "core_tasks": 0}
        result = {"model_tag": found.tag, "step": found.step, **nothing, **summary}
        print(json.dumps(result | {"tasks": of_task}))


def open_tasks(config: Config, trained_on: str) -> list[Task]:
    """The CORE tasks; none, said in one line, where no files are found and none were named."""
    from nanochat.data import eval_bundle
    from nanochat.evals.core_tasks import load_tasks
    from nanochat.system import log

    bundle = eval_bundle.folder()
    beside = Path(trained_on) / "evals" / "core"
    folder = config.data or next((f for f in (beside, bundle) if f.is_dir()), None)
    if folder is None:
        how = f"unpack {eval_bundle.URL} so that {bundle} exists, or give --data FOLDER"
        if config.parts() == ["core"]:
            raise UserError(f"there are no CORE tasks: {how}")
        # In a driver's run nobody waits to read it.
        advice = "" if log.started_by_driver() else f"; {how}"
        log.say(f"CORE skipped: its tasks are not on this disk{advice}")
        return []
    tasks = load_tasks(folder)
    if all(task.missing for task in tasks):
        raise UserError(f"{folder} has none of the 22 CORE tasks' files: fetch them again")
    return tasks


def ask_tasks(
    config: Config, model: GPT, tokenizer: Tokenizer, tasks: list[Task]
) -> list[TaskScore]:
    """Ask the tasks that have files, one line each; then what is missing, then CORE."""
    from nanochat.evals import core, core_tasks
    from nanochat.system import log

    lines: dict[str, log.StepLine] = {}

    def progress(task: Task, asked: int, of: int) -> None:
        line = lines.setdefault(task.label, log.StepLine(of))
        line.show(min(asked, of - 1), f"{task.label} | {asked:,} of {of:,}")

    # Each line as soon as it is known: all of CORE takes minutes.
    scores = []
    for score in core.evaluate(
        model, tokenizer, tasks, config.max_problems, config.max_seconds, progress
    ):
        scores.append(score)
        overflow = f" | {score.overflow()}" if score.overflow() else ""
        line = lines[score.label]
        line.show(
            line.total,
            f"{score.label:32} accuracy {score.accuracy:6.1%} | centered {score.centered:7.4f} | "
            f"{score.asked:5,} asked | {score.seconds:5.1f} s{overflow}",
        )
        line.close()
    for task in tasks:
        if task.missing:
            log.say(f"{task.label:32} missing: {task.missing}")
    asked = sum(score.asked for score in scores)
    log.say(
        f"{core_tasks.name(len(scores))}: {core.mean_centered(scores):.4f} ({asked:,} questions)"
    )
    return scores


def core_summary(scores: list[TaskScore]) -> dict[str, float]:
    """CORE and over how many tasks; empty where none was asked."""
    from nanochat.evals.core import mean_centered

    return {"core": mean_centered(scores), "core_tasks": len(scores)} if scores else {}


def show_samples(model: GPT, tokenizer: Tokenizer) -> None:
    """What the model finds most likely after a few words; in a driver's run only what is new."""
    from nanochat.engine import Engine
    from nanochat.sampling import Sampling
    from nanochat.system import log

    # As a base model has learned it: text after <|bos|>, without the marks of a conversation.
    prompts = {text: [tokenizer.bos, *tokenizer.encode(text)] for text in BEGINNINGS}
    length = model.config.max_seq_len
    prompts = {text: ids for text, ids in prompts.items() if len(ids) < length}
    if prompts:
        said = Engine(model, tokenizer).complete(
            list(prompts.values()), Sampling(max_new_tokens=SAMPLE_TOKENS)
        )
        for text, rest in zip(prompts, said, strict=True):
            log.say_once(f"  {text} ... {' '.join(rest.split())}")


if __name__ == "__main__":
    cli.run(main, Config, "python -m scripts.base_eval")
