"""Midtraining: learn what a conversation looks like. `python -m scripts.mid_train`"""

from __future__ import annotations

from dataclasses import dataclass

from nanochat.stages import stage_of
from nanochat.system import cli
from nanochat.training.stage_config import StageConfig


@dataclass(frozen=True)
class Config(StageConfig):
    """Continue a base model on conversations, joined end to end, every token supervised."""


def main(config: Config) -> None:
    """Start or resume, train, save."""
    from nanochat.training import checkpoint_manager as checkpoints

    checkpoints.find("mid" if config.resume else "base", config.model_tag)
    from nanochat.data import dataloader  # torch: after what a user can get wrong
    from nanochat.training.train_stage import train_on_conversations

    def rows_of(talks, tokenizer, length, position=None):
        read = dataloader.conversation_reader(talks, tokenizer)
        lanes = dataloader.lanes_for(len(talks))
        return dataloader.packed_rows(read, length, lanes, position, min_tokens=None)

    train_on_conversations(stage_of("mid"), config, rows_of)


if __name__ == "__main__":
    cli.run(main, Config, "python -m scripts.mid_train")
