"""Ask a chat model questions that it has not seen. `python -m scripts.chat_eval -i sft`"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from nanochat.model_choice import ChatModelChoice
from nanochat.system import cli
from nanochat.system.errors import UserError
from nanochat.tasks import ASKED, chatcore_name
from nanochat.tasks.strangers import Half

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nanochat.engine import Engine
    from nanochat.evals.chat import ChatResult, Question

TINYWORLD = "tinyworld"
STRANGERS: dict[str, Half] = {
    "strangers": "development",
    "strangers_final": "final",
}  # task -> half
NAMES = (TINYWORLD, *ASKED, *STRANGERS)
QUESTIONS_PER_TASK = 5  # times as many as of one of tinyworld's kinds


@dataclass(frozen=True)
class Config:
    """Accuracy on tinyworld's held-out questions by kind, and on the public tasks on this disk."""

    model: ChatModelChoice = field(default_factory=ChatModelChoice)
    # help=, not a docstring: a new task's row must reach this text too.
    tasks: Annotated[
        str | None,
        tyro.conf.arg(
            aliases=["-a"],
            help=f"some of {','.join(NAMES)} (default: all that have rows, "
            "only tinyworld for a model of a world)",
        ),
    ] = None
    data: str | None = None
    """a world or where the tasks' rows are (default: what the model was trained on)"""
    max_problems: int | None = None
    """questions of each of tinyworld's kinds at most; five times as many of a task"""
    max_seconds: float | None = None
    """start no more questions after this long; half of it is tinyworld's"""
    show_wrong: int = 0
    """wrong answers to show, of each kind"""
    json: bool = False
    """print one JSON object as the last line"""
    log_file: Path | None = None
    """also append everything that is printed to this file"""

    def __post_init__(self) -> None:
        """Validate the flags."""
        if self.max_problems is not None and self.max_problems < 1:
            raise ValueError(f"max_problems={self.max_problems}: it must be 1 or more")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise ValueError(f"max_seconds={self.max_seconds}: it must be more than 0")
        for name in (self.tasks or TINYWORLD).split(","):
            if name not in NAMES:
                raise ValueError(f"tasks={self.tasks}: {name!r} is not one of {', '.join(NAMES)}")


def main(config: Config) -> None:
    """Ask, count, print, keep in metrics/."""
    from nanochat.system import log

    log.log_to(config.log_file)
    found = config.model.find()
    from nanochat.engine import Engine  # torch: after what a user can get wrong
    from nanochat.evals.chat import chatcore

    groups = questions_of(config, config.data or found.state["config"]["data"])
    model, tokenizer, _ = config.model.load(found)
    engine = Engine(model, tokenizer)
    strangers = ask_strangers(config, engine)
    summary: dict[str, float] = {}
    for name, result in ask(config, engine, groups).items():
        summary |= result.accuracy()
        if name == TINYWORLD:
            summary |= {"mean": result.mean(), "repetition": result.repetition()}
    core, count = chatcore(summary)
    if count:
        log.say(f"{chatcore_name(count)}: {core:.4f} (0 is guessing, 1 is perfect)")
        summary |= {"chatcore": core, "chatcore_tasks": count}
    if TINYWORLD in groups:  # else the report would lose what it needs
        metrics = log.Metrics(f"chat_eval_{config.model.source}", found.tag, 0)
        metrics.write(step=found.step, eval=summary)
        metrics.close()
    if config.json:
        print(json.dumps({"model_tag": found.tag, "step": found.step, **strangers, **summary}))


def questions_of(config: Config, data: str) -> dict[str, Sequence[Question]]:
    """What to ask, by task. Raises UserError where the source has nothing of what is wanted."""
    from nanochat.data import dataset, worlds
    from nanochat.evals import chat
    from nanochat.system import log

    world = worlds.world_of(data)
    # A model that has read only a world can't know what the public tasks ask.
    default = (TINYWORLD,) if world else (TINYWORLD, *ASKED)
    said = config.tasks.split(",") if config.tasks else default
    wanted = tuple(name for name in said if name not in STRANGERS)
    if not wanted:
        return {}
    groups: dict[str, Sequence[Question]] = {}
    if TINYWORLD in wanted:
        groups[TINYWORLD] = chat.tinyworld_questions(config.max_problems, world)
    if wanted != (TINYWORLD,):
        source, most = dataset.find_source(data), config.max_problems
        for name in wanted:
            if name in ASKED:
                groups[name] = chat.task_questions(
                    ASKED[name], source, most and QUESTIONS_PER_TASK * most
                )
    # What has no rows is left out without a word: which tasks a folder holds is its owner's choice.
    groups = {name: groups[name] for name in wanted if groups[name]}
    if not groups and world and wanted == (TINYWORLD,):
        log.say("so little is in this world that nothing was held out: there is nothing to ask")
    elif not groups:
        raise UserError(f"data={data} has no rows of {', '.join(wanted)}: give another --data")
    return groups


def ask(
    config: Config, engine: Engine, groups: dict[str, Sequence[Question]]
) -> dict[str, ChatResult]:
    """The results by task, each shown as it comes."""
    from nanochat.evals import chat
    from nanochat.system import log

    # tinyworld gets as much time as all the tasks together: its kinds are what a small model knows.
    weights = {name: max(1, len(groups) - 1) if name == TINYWORLD else 1 for name in groups}
    results = {}
    for name, questions in groups.items():
        line = log.StepLine(len(questions))
        result = results[name] = chat.ask(
            engine,
            questions,
            lambda n, line=line, name=name: line.show(n, f"{name} | asked {n} of {line.total}"),
            config.max_seconds and config.max_seconds * weights[name] / sum(weights.values()),
        )
        line.close()
        show(result, config.show_wrong)
        if of_own := result.asked.get(chat.OWN_WORLD):
            right = result.right[chat.OWN_WORLD]
            log.say(f"own world {right} of {of_own} ({right / of_own:.0%})")
        if name == TINYWORLD:
            log.say(f"mean over kinds {result.mean():.1%}, repetition {result.repetition():.1%}")
    return results


def ask_strangers(config: Config, engine: Engine) -> dict[str, float]:
    """The three figures of each half of the stranger's test that is asked for; shown by kind.

    Not kept in metrics/: the report takes what it finds there for kinds of questions.
    """
    from nanochat.evals import strangers
    from nanochat.system import log
    from nanochat.tasks.strangers import load

    summary: dict[str, float] = {}
    for name in (n for n in (config.tasks or "").split(",") if n in STRANGERS):
        result = strangers.ask(engine, load(STRANGERS[name]))
        for kind, counts in sorted(result.by_kind.items()):
            words = ", ".join(f"{counts[v]} {v}" for v in strangers.VERDICTS)
            log.say(f"{kind:34} {words}")
            wrong = [a for a in result.answers if a[0].kind == kind and a[2] != "right"]
            for question, answer, verdict in wrong[: config.show_wrong]:
                log.say(f"    {' / '.join(question.turns)!r} -> {answer!r} ({verdict})")
        figures = ", ".join(f"{result.share(v):.0%} {v}" for v in strangers.VERDICTS)
        log.say(f"{name}: {figures} of {len(result.answers)}")
        summary |= {f"{name}_{v}": result.share(v) for v in strangers.VERDICTS}
    return summary


def show(result: ChatResult, show_wrong: int) -> None:
    """One line per kind, and some of the wrong answers."""
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
