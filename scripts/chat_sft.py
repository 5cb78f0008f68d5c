"""Supervised fine-tuning: learn to say the assistant's part. `python -m scripts.chat_sft`"""

from __future__ import annotations

from dataclasses import dataclass

from nanochat.stages import stage_of
from nanochat.system import cli
from nanochat.training.stage_config import StageConfig


@dataclass(frozen=True)
class Config(StageConfig):
    """Continue a midtrained model; only the assistant's tokens are supervised."""


def main(config: Config) -> None:
    """Start or resume, train, save."""
    from nanochat.training import checkpoint_manager as checkpoints

    checkpoints.find("sft" if config.resume else "mid", config.model_tag)
    from nanochat.data import dataloader  # torch: after what a user can get wrong
    from nanochat.training.train_stage import train_on_conversations

    def rows_of(talks, tokenizer, length, position=None):
        read = dataloader.conversation_reader(talks, tokenizer, length + 1)
        return dataloader.whole_rows(read, length, position)

    train_on_conversations(stage_of("sft"), config, rows_of)


if __name__ == "__main__":
    cli.run(main, Config, "python -m scripts.chat_sft")
