"""Ask a chat model questions that it has not seen. `python -m scripts.chat_eval -i sft`"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from nanochat.system import cli
from nanochat.system.errors import UserError

if TYPE_CHECKING:
    from nanochat.evals.chat import ChatResult


TASKS = ("tinyworld", "arc_easy", "arc_challenge", "mmlu", "gsm8k", "spelling_bee")
OF_A_TASK = 5  # times as many questions of a task as of one of tinyworld's 25 kinds


@dataclass(frozen=True)
class Config:
    """Accuracy on tinyworld's held-out questions by kind, and on public tasks that are there."""

    source: Annotated[str, tyro.conf.arg(aliases=["-i"])] = "sft"
    """sft or mid"""
    model_tag: Annotated[str | None, tyro.conf.arg(aliases=["-g"])] = None
    """which model (default: the newest)"""
    step: Annotated[int | None, tyro.conf.arg(aliases=["-s"])] = None
    """which step (default: the last)"""
    tasks: Annotated[str | None, tyro.conf.arg(aliases=["-a"])] = None
    """some of tinyworld,arc_easy,arc_challenge,mmlu,gsm8k,spelling_bee (default: all that are
    there, only tinyworld for a model of tinyworld)"""
    data: str | None = None
    """fineweb or a folder with the tasks' rows (default: what the model was trained on)"""
    max_problems: int | None = None
    """questions of each of tinyworld's kinds at most, of a task five times as many"""
    max_seconds: float | None = None
    """begin no more questions after this long; half of it is tinyworld's"""
    show_wrong: int = 0
    """wrong answers to show, of each kind"""
    device_type: str | None = None
    """cuda, mps or cpu (default: the best there is)"""
    json: bool = False
    """print one JSON object as the last line"""
    log_file: Path | None = None
    """append everything that is said to this file, too"""

    def __post_init__(self) -> None:
        """Refuse nonsense by name."""
        if self.source not in ("mid", "sft"):
            raise ValueError(f"-i {self.source}: it must be sft or mid")
        if self.max_problems is not None and self.max_problems < 1:
            raise ValueError(f"max_problems={self.max_problems}: it must be 1 or more")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise ValueError(f"max_seconds={self.max_seconds}: it must be more than 0")
        for task in (self.tasks or "tinyworld").split(","):
            if task not in TASKS:
                raise ValueError(f"tasks={self.tasks}: {task!r} is none of {', '.join(TASKS)}")
        cli.check_device_type(self.device_type)


def main(config: Config) -> None:
    """Ask, count, print, keep in metrics/."""
    from nanochat.system import log
    from nanochat.training import checkpoint_manager as checkpoints

    log.log_to(config.log_file)
    found = checkpoints.find(config.source, config.model_tag, config.step)
    from nanochat.data import dataset
    from nanochat.engine import Engine  # torch: after what a user can get wrong
    from nanochat.evals import chat
    from nanochat.system.device import open_device
    from nanochat.tasks import chatcore_name

    data = config.data or found.state["config"]["data"]
    default = TASKS[:1] if data == "tinyworld" else TASKS
    wanted = tuple(config.tasks.split(",")) if config.tasks else default
    groups = {"tinyworld": chat.tinyworld_questions(config.max_problems)}
    if wanted != TASKS[:1]:
        source, most = dataset.find_source(data), config.max_problems
        for task in TASKS[1:]:
            groups[task] = chat.task_questions(task, source, most and OF_A_TASK * most)
    groups = {name: groups[name] for name in wanted if groups[name]}
    if not groups:
        raise UserError(f"none of {', '.join(wanted)} is there for data={data}: give --data")
    device = open_device(config.device_type)
    engine = Engine(found.model(device).freeze(), found.tokenizer())
    summary: dict[str, float] = {}
    # tinyworld gets as much time as all the tasks together.
    weights = {name: max(1, len(groups) - 1) if name == "tinyworld" else 1 for name in groups}
    for name, questions in groups.items():
        line = log.StepLine(len(questions))
        result = chat.ask(
            engine,
            questions,
            lambda n, line=line, name=name: line.show(n, f"{name} | asked {n} of {line.total}"),
            config.max_seconds and config.max_seconds * weights[name] / sum(weights.values()),
        )
        line.close()
        show(result, config.show_wrong)
        summary |= result.accuracy()
        if name == "tinyworld":
            summary |= {"mean": result.mean(), "repetition": result.repetition()}
            log.say(f"mean over kinds {result.mean():.1%}, repetition {result.repetition():.1%}")
    core, count = chat.chatcore(summary)
    if count:
        log.say(f"{chatcore_name(count)}: {core:.4f} (0 is guessing, 1 is perfect)")
        summary |= {"chatcore": core, "chatcore_tasks": count}
    if "tinyworld" in groups:  # else the report would lose what it needs
        metrics = log.Metrics(f"chat_eval_{config.source}", found.tag, 0)
        metrics.write(step=found.step, eval=summary)
        metrics.close()
    if config.json:
        print(json.dumps({"model_tag": found.tag, "step": found.step, **summary}))


def show(result: ChatResult, show_wrong: int) -> None:
    """A line a kind, and some of the wrong answers."""
    from nanochat.system import log

    for kind, share in result.accuracy().items():
        log.say(f"{kind:18} {share:6.1%} of {result.asked[kind]}")
        wrong = [r for r in result.replies if r[0].kind == kind and not r[2]]
        for question, reply, _ in wrong[:show_wrong]:
            asked = question.messages[-1]["content"]
            log.say(f"    {asked!r} -> {reply!r}, not {question.answer!r}")
    if result.too_long:
        log.say(f"({result.too_long} are longer than the model's context, and count as wrong)")


if __name__ == "__main__":
    cli.run(main, Config, "python -m scripts.chat_eval")
