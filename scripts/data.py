"""Download or make the text to learn from. `python -m scripts.data -n 4`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from nanochat.system import cli
from nanochat.system.errors import Failure, UserError


@dataclass(frozen=True)
class Config:
    """Download or make the shards of text that base training reads."""

    num_shards: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 4
    """training shards (tinyworld: 1.4 MB each, fineweb: 100), apart from the one for validation"""
    data: str = "tinyworld"
    """tinyworld, fineweb, or a folder of your own (a world, if it has a world.txt)"""
    log_file: Path | None = None
    """also append everything that is printed to this file"""

    def __post_init__(self) -> None:
        """Validate the flags."""
        if self.num_shards < 1:
            raise ValueError(f"num_shards={self.num_shards}: it must be 1 or more")


def main(config: Config) -> None:
    """Make what is missing, check what is there."""
    from nanochat.data import dataset, shards, task_data, worlds
    from nanochat.system import log

    log.log_to(config.log_file)
    line = log.StepLine(100)
    for done, total, what in dataset.prepare(config.data, config.num_shards):
        line.show(100 * done // total, f"text | {done}/{total} | {what}")
    line.close()
    if config.data == "fineweb":
        fetch_tasks()
    elif not worlds.is_world(config.data):
        task_data.check_folder(Path(config.data))
    source = dataset.find_source(config.data, config.num_shards)
    documents = shards.count_documents(source.train_shards)
    count = log.counted(len(source.train_shards), "shard")
    log.say(
        f"{source.name}: {count}, {documents:,} documents, "
        f"{source.text_bytes() / 1e6:.1f} MB compressed; validation {source.val_shard.name}"
    )


def fetch_tasks() -> None:
    """Conversations, questions, CORE: what can't be had is left out, and a line says so."""
    from nanochat.data import eval_bundle, task_data
    from nanochat.system import log

    line = log.StepLine(100)

    def progress(done: int, size: int) -> None:
        text = f"tasks | {done / 1e6:.0f} of {size / 1e6:.0f} MB"
        line.show(99 * done // max(1, size), text)

    task_data.fetch(progress)
    try:
        eval_bundle.prepare(progress)
    except (Failure, UserError) as error:
        log.say(f"CORE is left out: {error}")
    line.close()


if __name__ == "__main__":
    cli.run(main, Config, "python -m scripts.data")
