"""Measure bits per byte: of a model's own splits, or of any text of yours.

`python -m scripts.base_loss`, or with --data FILE.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from nanochat.model_choice import ModelChoice
from nanochat.system import cli


@dataclass(frozen=True)
class Config:
    """Bits per byte of a model on training and validation text, or on a file."""

    model: ModelChoice = field(default_factory=ModelChoice)
    data: Path | None = None
    """a .txt, .txt.gz or .parquet file to measure whole, instead of the model's own splits"""
    device_batch_size: int | None = None
    """rows at once (default: as in training)"""
    split_tokens: int | None = None
    """tokens of each split (default: as in training)"""
    json: bool = False
    """print one JSON object as the last line"""
    log_file: Path | None = None
    """also append everything that is printed to this file"""

    def __post_init__(self) -> None:
        """Validate the flags."""
        for name in ("device_batch_size", "split_tokens"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: it must be 1 or more")


def main(config: Config) -> None:
    """Measure, print, keep in metrics/."""
    from nanochat.system import log

    log.log_to(config.log_file)
    found = config.model.find()
    from nanochat.data import shards
    from nanochat.evals import bpb  # torch: after what a user can get wrong

    saved = found.state
    # As in training, so that the figures here are the ones that training logged.
    rows = config.device_batch_size or saved["batch"]["device_batch_size"]
    limit = config.split_tokens or saved["batch"]["split_tokens"]
    if config.data is not None:
        texts, limit = {config.data.name: shards.read_file(config.data)}, None
    else:
        texts = bpb.splits(saved["config"]["data"])
    model, tokenizer, _ = config.model.load(found)
    results = bpb.measure(model, tokenizer, texts, rows, limit)
    # The report shows the base model on its own text; a chat model's figures would replace them.
    if config.data is None and config.model.source == "base":
        metrics = log.Metrics("base_loss", found.tag, 0)
        metrics.write(step=found.step, eval=results)
        metrics.close()
    if config.json:
        print(json.dumps({"model_tag": found.tag, "step": found.step, **results}))


if __name__ == "__main__":
    cli.run(main, Config, "python -m scripts.base_loss")
