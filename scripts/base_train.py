"""Train the base model: predict the next token of text. `python -m scripts.base_train --depth=4`"""

from __future__ import annotations

from dataclasses import dataclass, replace

from nanochat.system import cli
from nanochat.training.stage_config import OptimConfig, StageConfig


@dataclass(frozen=True)
class Config(StageConfig):
    """Train a base model from nothing on the training shards."""

    depth: int | None = None
    """layers; the width is 64 times it (default: 4)"""
    data_shards: int | None = None
    """training shards to read (default: all)"""


def main(config: Config) -> None:
    """Open or resume, train, save."""
    from nanochat.data import dataloader, dataset, shards
    from nanochat.evals.bpb import bits_per_byte
    from nanochat.system import log
    from nanochat.training import opening, stage

    log.log_to(config.log_file)
    opened = opening.open_resumed("base", config) if config.resume else open_new(config)
    model, tokenizer = opened.model, opened.tokenizer
    stage.print_plan(opened)
    planned = opened.config
    assert isinstance(planned, Config)
    source = dataset.find_source(opened.data, planned.data_shards)
    if config.dry_run:
        return
    lanes = dataloader.lanes_for(shards.count_documents(source.shards_on_disk()))

    wait_for = source.fetch_missing()

    def rows(position):
        read = dataloader.text_reader(source.train_shards, tokenizer, wait_for)
        least = opened.batch.total_batch_size
        return dataloader.packed_rows(read, model.config.max_seq_len, lanes, position, least)

    def evaluate() -> dict[str, float]:
        texts = shards.read_epoch((source.val_shard,))
        bpb, _, _ = bits_per_byte(
            model, tokenizer, texts, opened.batch.device_batch_size, opened.batch.eval_tokens
        )
        return {"val_bpb": bpb}

    stage.run(opened, rows, evaluate)


def open_new(config: Config):
    """A new model of the depth asked for, with the newest tokenizer, under a free tag."""
    from nanochat.gpt import GPT
    from nanochat.gpt_config import GPTConfig
    from nanochat.system import storage
    from nanochat.system.device import open_device
    from nanochat.system.memory import machine_memory_gb
    from nanochat.tokenizer import Tokenizer
    from nanochat.training import checkpoint_manager as checkpoints
    from nanochat.training import opening

    depth = 4 if config.depth is None else config.depth
    tokenizer = Tokenizer.load(storage.base_dir() / "tokenizer" / "tokenizer.json")
    length = config.max_seq_len or 256
    tag = checkpoints.free_tag("base", config.model_tag, f"d{depth}")
    shape = GPTConfig(depth, tokenizer.vocab_size, length)
    batch = opening.resolve_batch(config, shape, None)
    data, optim = config.data or "tinyworld", config.optim.over(OptimConfig())
    config = replace(
        opening.with_defaults(config, "base"),
        depth=depth,
        max_seq_len=length,
        total_batch_size=batch.total_batch_size,
        data=data,
        memory_gb=config.memory_gb or machine_memory_gb(),
    )
    device = open_device(config.device_type, config.dtype, config.compile)
    model = GPT(shape)
    assert config.seed is not None  # by with_defaults
    if not config.dry_run:
        model.init_weights(config.seed)
    model.to(device.torch)
    model.dtype = device.dtype
    state = opening.new_state(config, "base")
    return opening.Opened(
        "base", tag, config, data, optim, model, tokenizer, device, batch, state, None
    )


if __name__ == "__main__":
    cli.run(main, Config, "python -m scripts.base_train")
