"""Ask a chat model questions that it has not seen. `python -m scripts.chat_eval -i sft`"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from nanochat.system import cli


@dataclass(frozen=True)
class Config:
    """Accuracy on tinyworld's held-out questions, by kind."""

    source: Annotated[str, tyro.conf.arg(aliases=["-i"])] = "sft"
    """sft or mid"""
    model_tag: Annotated[str | None, tyro.conf.arg(aliases=["-g"])] = None
    """which model (default: the newest)"""
    step: Annotated[int | None, tyro.conf.arg(aliases=["-s"])] = None
    """which step (default: the last)"""
    max_problems: int | None = None
    """questions of each kind at the most (default: all)"""
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


def main(config: Config) -> None:
    """Ask, count, print, keep in metrics/."""
    from nanochat.data.tinyworld import held_out
    from nanochat.engine import Engine
    from nanochat.evals.chat import ask
    from nanochat.system import log
    from nanochat.system.device import open_device
    from nanochat.training import checkpoint_manager as checkpoints

    log.keep_in(config.log_file)
    found = checkpoints.find(config.source, config.model_tag, config.step)
    device = open_device(config.device_type)
    engine = Engine(found.model(device), found.tokenizer())
    by_kind: dict[str, list] = {}
    for question in held_out():
        by_kind.setdefault(question.kind, []).append(question)
    questions = [q for some in by_kind.values() for q in some[: config.max_problems]]
    line = log.StepLine(len(questions))
    result = ask(engine, questions, lambda n: line.show(n, f"asked {n} of {len(questions)}"))
    line.close()
    accuracy = result.accuracy()
    for kind, share in accuracy.items():
        log.say(f"{kind:18} {share:6.1%} of {result.asked[kind]}")
        wrong = [r for r in result.replies if r[0].kind == kind and not r[2]]
        for question, reply, _ in wrong[: config.show_wrong]:
            asked = question.messages[-1]["content"]
            log.say(f"    {asked!r} -> {reply!r}, not {question.answer!r}")
    summary = {"mean": result.mean(), "repetition": result.repetition()}
    log.say(f"mean over kinds {summary['mean']:.1%}, repetition {summary['repetition']:.1%}")
    metrics = log.Metrics(f"chat_eval_{config.source}", found.tag, 0)
    metrics.write(step=found.step, eval=summary | accuracy)
    metrics.close()
    if config.json:
        print(json.dumps({"model_tag": found.tag, "step": found.step, **summary, **accuracy}))


if __name__ == "__main__":
    cli.run(main, Config, "python -m scripts.chat_eval")
