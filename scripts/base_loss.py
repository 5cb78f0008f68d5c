"""Measure a base model in bits per byte, and let it go on from a few words.

`python -m scripts.base_loss`, or with --data FILE on any text of your own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from nanochat.system import cli


@dataclass(frozen=True)
class Config:
    """Bits per byte of a model on training and validation text, or on a file."""

    model_tag: str | None = None
    """which model (default: the newest)"""
    source: str = "base"
    """base, mid or sft"""
    step: int | None = None
    """which step (default: the last)"""
    data: Path | None = None
    """a .txt, .txt.gz or .parquet file to measure whole, instead of the model's own splits"""
    device_batch_size: int | None = None
    """rows at once (default: as in training)"""
    split_tokens: int | None = None
    """tokens of each split (default: as in training)"""
    device_type: str | None = None
    """cuda, mps or cpu (default: the best there is)"""
    json: bool = False
    """print one JSON object as the last line"""
    log_file: Path | None = None
    """append everything that is said to this file, too"""

    def __post_init__(self) -> None:
        """Refuse nonsense by name."""
        if self.source not in ("base", "mid", "sft"):
            raise ValueError(f"source={self.source}: it must be base, mid or sft")
        for name in ("device_batch_size", "split_tokens"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: it must be 1 or more")
        cli.check_device_type(self.device_type)


def main(config: Config) -> None:
    """Measure, print, keep in metrics/."""
    from nanochat.system import log
    from nanochat.training import checkpoint_manager as checkpoints

    log.log_to(config.log_file)
    found = checkpoints.find(config.source, config.model_tag, config.step)
    from nanochat.data import shards
    from nanochat.evals import bpb  # torch: after what a user can get wrong
    from nanochat.system.device import open_device

    saved = found.state
    limit = config.split_tokens or saved["batch"]["split_tokens"]
    if config.data is not None:
        texts, limit = {config.data.name: shards.read_file(config.data)}, None
    else:
        texts = bpb.splits(saved["config"]["data"])
    device = open_device(config.device_type)
    model, tokenizer = found.model(device), found.tokenizer()
    rows = config.device_batch_size or saved["batch"]["device_batch_size"]
    results = bpb.measure(model, tokenizer, texts, rows, limit)
    if config.data is None and config.source == "base":
        metrics = log.Metrics("base_loss", found.tag, 0)
        metrics.write(step=found.step, eval=results)
        metrics.close()
    if config.json:
        print(json.dumps({"model_tag": found.tag, "step": found.step, **results}))


if __name__ == "__main__":
    cli.run(main, Config, "python -m scripts.base_loss")
