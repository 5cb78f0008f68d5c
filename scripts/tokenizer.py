"""Train the tokenizer, or encode a file with one. `python -m scripts.tokenizer`"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from nanochat.stages import CHECKPOINTS
from nanochat.system import cli, variables
from nanochat.system.errors import UserError


@dataclass(frozen=True)
class Config:
    """Train the tokenizer on the training shards, or encode a file with a trained one."""

    vocab_size: int | None = None
    """entries, special tokens included (default: by the data; at least 265)"""
    max_chars: int = 500_000_000
    """read at most this many characters of text"""
    data: str = "tinyworld"
    """tinyworld, fineweb, or a folder of your own (a world, if it has a world.txt)"""
    data_shards: int | None = None
    """training shards to read (default: all)"""
    trainer: str | None = None
    """rustbpe or tokenizers (default: rustbpe if it was built)"""
    encode: Path | None = None
    """print the ids of this text file instead, one line of ids per line of text"""
    model_tag: str | None = None
    """encode with the tokenizer of this model (default: the newest tokenizer)"""
    log_file: Path | None = None
    """also append everything that is printed to this file"""

    def __post_init__(self) -> None:
        """Validate the flags."""
        variables.check(self)
        if self.max_chars < 1:
            raise ValueError(f"max_chars={self.max_chars}: it must be 1 or more")
        if self.trainer not in (None, "rustbpe", "tokenizers"):
            raise ValueError(f"trainer={self.trainer}: it must be rustbpe or tokenizers")


def main(config: Config) -> None:
    """Train and save, or encode."""
    if config.encode is not None:
        encode(config.encode, config.model_tag)
        return
    from nanochat import tokenizer as tok
    from nanochat.data import dataset, shards
    from nanochat.system import log, storage

    log.log_to(config.log_file)
    source = dataset.find_source(config.data, config.data_shards)
    default = dataset.default_vocab_size(config.data)
    wanted = default if config.vocab_size is None else config.vocab_size
    line = log.StepLine(wanted)
    seen = {"documents": 0, "characters": 0}

    # A generator: the trainer keeps counts and not texts, so memory does not grow with max_chars.
    def texts() -> Iterator[str]:
        for text in shards.read_epoch(source.shards_on_disk()):
            if seen["characters"] >= config.max_chars:
                return
            seen["documents"] += 1
            seen["characters"] += len(text)
            yield text

    def progress(phase: str, done: int, total: int) -> None:
        if phase == "count":
            line.show(0, f"counting pieces | {seen['characters'] / 1e6:.0f} M characters")
        else:
            line.show(done, f"merging | {done:,} of {total:,}")

    started = time.monotonic()
    trained = tok.train(texts(), wanted, config.trainer, progress)
    line.close()
    if trained.vocab_size < wanted:
        log.say(
            f"the text gives a vocabulary of at most {trained.vocab_size:,}, not {wanted:,}: "
            "no pair of tokens occurs twice anymore"
        )
    path = storage.base_dir() / "tokenizer" / "tokenizer.json"
    trained.save(path)
    took_s = time.monotonic() - started
    # On text that it was not trained on. More bytes per token: the model sees more text at once.
    held_out = "".join(islice(shards.read_epoch((source.val_shard,)), 200))
    ratio = len(held_out.encode()) / max(1, len(trained.encode(held_out)))
    log.say(
        f"{trained.vocab_size:,} tokens from {seen['documents']:,} documents, "
        f"{seen['characters'] / 1e6:.1f} M characters, in {took_s:.1f} s "
        f"by {trained.trainer}; {ratio:.2f} bytes per token on held-out text"
    )
    log.say(f"saved {path} (sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:12]})")


def encode(path: Path, model_tag: str | None) -> None:
    """Print ids, one line per line of the file."""
    from nanochat.system import storage
    from nanochat.tokenizer import Tokenizer

    where = storage.base_dir() / "tokenizer" / "tokenizer.json"
    if model_tag is not None:
        from nanochat.training import checkpoint_manager as checkpoints

        # A model's stages share one tokenizer: any checkpoint of it will do. Without one, `find`
        # says which models there are.
        stages = reversed(CHECKPOINTS)
        found = [c for stage in stages for c in checkpoints.find_all(stage, model_tag)]
        checkpoint = found[0] if found else checkpoints.find("base", model_tag)
        where = checkpoint.folder / "tokenizer.json"
    tokenizer = Tokenizer.load(where)
    try:
        lines = path.read_bytes().decode().split("\n")  # a \r stays a part of its line
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--encode={path} can't be read as UTF-8 text ({error})") from None
    if lines[-1] == "":
        lines.pop()
    for text in lines:
        print(" ".join(map(str, tokenizer.encode(text))))


if __name__ == "__main__":
    cli.run(main, Config, "python -m scripts.tokenizer")
