"""Supervised fine-tuning: learn to say the assistant's part. `python -m scripts.chat_sft`"""

from __future__ import annotations

from dataclasses import dataclass

from nanochat.system import cli
from nanochat.training.stage_config import StageConfig


@dataclass(frozen=True)
class Config(StageConfig):
    """Go on from a midtrained model; only the assistant's tokens are supervised."""

    warmdown: float = 0.8
    """share of the updates in which the learning rate falls to 0"""


def main(config: Config) -> None:
    """Open or resume, train, save."""
    from nanochat.data import dataloader, dataset, mixture
    from nanochat.system import log
    from nanochat.training import opening, stage

    log.keep_in(config.log_file)
    opened = opening.open_next("sft", config, default_iterations=100)
    tokenizer = opened.tokenizer
    stage.print_plan(opened)
    if config.dry_run:
        return
    log.say("reading conversations ...")
    source = dataset.open_source(opened.data)
    tokens = opened.planned_tokens
    talks, held_out = mixture.conversations_of(source, "sft", tokens)
    length = opened.model.config.max_seq_len

    def rows_of(conversations, position=None):
        read = dataloader.conversation_reader(conversations, tokenizer, length + 1)
        return dataloader.whole_rows(read, length, position)

    stage.run(
        opened,
        lambda position: rows_of(talks, position),
        lambda: {"val_loss": stage.mean_loss(opened, rows_of(held_out))},
        warmdown=config.warmdown,
    )


if __name__ == "__main__":
    cli.run(main, Config, "python -m scripts.chat_sft")
