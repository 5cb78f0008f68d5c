"""Train the base model: predict the next token of text. `python -m scripts.base_train --depth=4`"""

from __future__ import annotations

from dataclasses import dataclass

from nanochat.stages import stage_of
from nanochat.system import cli
from nanochat.training.stage_config import StageConfig


@dataclass(frozen=True)
class Config(StageConfig):
    """Train a base model from scratch on the training shards."""

    depth: int | None = None
    """layers; the width is 64 times it (default: 4)"""
    data_shards: int | None = None
    """training shards to read (default: all)"""


def main(config: Config) -> None:
    """Start or resume, train, save."""
    from nanochat.data import dataloader, dataset, shards
    from nanochat.evals.bpb import bits_per_byte
    from nanochat.system import log
    from nanochat.training.stage_run import start
    from nanochat.training.train_stage import print_plan, train_stage

    log.log_to(config.log_file)
    run = start(stage_of("base"), config)
    model, tokenizer, batch = run.model, run.tokenizer, run.batch
    print_plan(run)
    assert isinstance(run.config, Config)  # a resumed run's: it has the shards of the first start
    source = dataset.find_source(run.data, run.config.data_shards)
    if config.dry_run:
        return
    lanes = dataloader.lanes_for(shards.count_documents(source.shards_on_disk()))
    wait_for = source.fetch_missing()

    def rows(position):
        read = dataloader.text_reader(source.train_shards, tokenizer, wait_for)
        least = batch.total_batch_size
        return dataloader.packed_rows(read, model.config.max_seq_len, lanes, position, least)

    def evaluate() -> dict[str, float]:
        texts = shards.read_epoch((source.val_shard,))
        bpb, _, _ = bits_per_byte(
            model, tokenizer, texts, batch.device_batch_size, batch.eval_tokens
        )
        return {"val_bpb": bpb}

    train_stage(run, rows, evaluate)


if __name__ == "__main__":
    cli.run(main, Config, "python -m scripts.base_train")
