"""Midtraining: learn what a conversation looks like. `python -m scripts.mid_train`"""

from __future__ import annotations

from dataclasses import dataclass

from nanochat.system import cli
from nanochat.training.stage_config import StageConfig


@dataclass(frozen=True)
class Config(StageConfig):
    """Go on from a base model with conversations, joined end to end, every token supervised."""

    warmdown: float = 0.4
    """share of the updates in which the learning rate falls to 0"""


def main(config: Config) -> None:
    """Open or resume, train, save."""
    from nanochat.data import dataloader, dataset, mixture
    from nanochat.system import log
    from nanochat.training import opening, stage

    log.keep_in(config.log_file)
    opened = opening.open_next("mid", config, default_iterations=100)
    tokenizer = opened.tokenizer
    stage.print_plan(opened)
    if config.dry_run:
        return
    log.say("reading conversations ...")
    source = dataset.open_source(opened.data)
    tokens = opened.planned_tokens
    talks, held_out = mixture.conversations_of(source, "mid", tokens)
    length = opened.model.config.max_seq_len
    lanes = dataloader.lanes_for(len(talks))

    def rows_of(conversations, position=None):
        read = dataloader.conversation_reader(conversations, tokenizer)
        return dataloader.packed_rows(read, length, lanes, position)

    stage.run(
        opened,
        lambda position: rows_of(talks, position),
        lambda: {"val_loss": stage.mean_loss(opened, rows_of(held_out))},
        warmdown=config.warmdown,
    )


if __name__ == "__main__":
    cli.run(main, Config, "python -m scripts.mid_train")
