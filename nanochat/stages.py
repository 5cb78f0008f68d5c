"""The stages of a run, one row each: the only place that lists them. No torch in here.

A new stage is a row, a script and a function that gives its data. Drivers run the rows in order;
flags, checkpoints, plan, status and report take names and numbers from here.
"""

from __future__ import annotations

from typing import NamedTuple


class Stage(NamedTuple):
    """One stage: a command of scripts/ that a driver runs, in a process of its own."""

    name: str  # in drivers, logs and plans
    title: str  # for a person
    measures: str | None = None  # metrics file of a stage that only measures
    checkpoint: str | None = None  # what it trains: the folder is <checkpoint>_checkpoints
    model_name: str = ""  # what it trains, for a person
    parent: str | None = None  # the checkpoint that it starts from; None: new weights
    num_iterations: int = 0  # steps, where neither a number nor a time is given
    warmdown: float = 0.0  # share of the steps in which the learning rate falls to 0
    # With a time budget the rate falls once, in the last stage, and not at the end of each.
    timed_warmdown: float = 0.0
    # Percent of a time budget. tinyworld's conversations teach what its texts do: with 25,000
    # tokens of base text instead of 520,000 a model of the same length of training answered as
    # well (docs/learning.md).
    tinyworld_share: int = 0
    share: int = 0  # on any other text

    @property
    def script(self) -> str:
        """Its module, as in `python -m scripts.base_train`."""
        return f"scripts.{self.name}"


STAGES = (
    Stage("data", "text"),
    Stage("tokenizer", "tokenizer"),
    Stage(
        "base_train", "base training", checkpoint="base", model_name="Base model",
        num_iterations=50, warmdown=0.4, tinyworld_share=7, share=45,
    ),
    Stage("base_eval", "evaluating the base model", measures="base_eval"),
    Stage(
        "mid_train", "midtraining", checkpoint="mid", model_name="Midtraining", parent="base",
        num_iterations=100, warmdown=0.4, tinyworld_share=15, share=20,
    ),
    Stage(
        "chat_sft", "SFT", checkpoint="sft", model_name="SFT", parent="mid",
        num_iterations=100, warmdown=0.8, timed_warmdown=0.8, tinyworld_share=78, share=35,
    ),
    # Of the last stage that trains: chat_eval_<checkpoint>.
    Stage("chat_eval", "evaluating the chat model", measures="chat_eval_sft"),
    Stage("report", "report"),
)  # fmt: skip
TRAINED = tuple(stage for stage in STAGES if stage.checkpoint)
CHECKPOINTS = tuple(stage.checkpoint for stage in TRAINED if stage.checkpoint)
CHAT = tuple(stage.checkpoint for stage in TRAINED if stage.checkpoint and stage.parent)


def stage_named(name: str) -> Stage:
    """The row of this name, such as base_train."""
    return next(stage for stage in STAGES if stage.name == name)


def stage_of(checkpoint: str) -> Stage:
    """The stage that trains this kind of checkpoint: base, mid or sft."""
    return next(stage for stage in TRAINED if stage.checkpoint == checkpoint)


def next_command(checkpoint: str) -> str:
    """The command that uses a finished checkpoint: the next stage to train, or the chat.

    >>> next_command("base"), next_command("sft")
    ('python -m scripts.mid_train', 'python -m scripts.chat_cli -i sft')
    """
    children = (stage.script for stage in TRAINED if stage.parent == checkpoint)
    return f"python -m {next(children, f'scripts.chat_cli -i {checkpoint}')}"
