"""Bits per byte: how well a model predicts text, whatever its tokenizer.

Cross-entropy in nats, summed over the targets that stand for bytes, divided by ln 2 times those
bytes. Special tokens stand for no bytes and are left out of both. A loss per token can't be
compared between vocabularies: longer tokens are harder to guess, and there are fewer of them.

Shapes: B rows, T time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch

from nanochat.data import dataset, shards
from nanochat.data.dataloader import IGNORED
from nanochat.gpt import GPT
from nanochat.system import log
from nanochat.system.errors import UserError
from nanochat.tokenizer import Tokenizer


def evaluation_rows(
    texts: Iterable[str], tokenizer: Tokenizer, max_seq_len: int
) -> Iterator[list[int]]:
    """Rows of max_seq_len + 1 ids: the documents, <|bos|> before each, joined and cut.

    The last row may be shorter.
    """
    # The last id of a row is also the first of the next, so that every id but the very first is a
    # target exactly once: the bytes below it must add up to those of the text.
    ids: list[int] = []
    for text in texts:
        ids += [tokenizer.bos, *tokenizer.encode(text)]
        while len(ids) > max_seq_len + 1:
            yield ids[: max_seq_len + 1]
            del ids[:max_seq_len]
    if len(ids) > 1:
        yield ids


@torch.no_grad()
def bits_per_byte(
    model: GPT,
    tokenizer: Tokenizer,
    texts: Iterable[str],
    batch_size: int,
    max_tokens: int | None = None,
    progress: Callable[[int], None] = lambda tokens: None,
) -> tuple[float, int, int]:
    """(bits per byte, targets, bytes) of the texts, or of their first max_tokens targets."""
    # Sums, and one division at the end: a mean of means would count a short last batch too much.
    device = model.wte.weight.device
    length = model.config.max_seq_len
    token_bytes = torch.tensor(tokenizer.token_bytes(), device=device)
    nats, n_bytes, n_targets = 0.0, 0, 0
    rows = evaluation_rows(texts, tokenizer, length)
    while max_tokens is None or n_targets < max_tokens:
        some = [row for _, row in zip(range(batch_size), rows, strict=False)]
        if not some:
            break
        ids = torch.zeros(len(some), length, dtype=torch.long)
        targets = torch.full((len(some), length), IGNORED)  # (B, T)
        for i, row in enumerate(some):
            ids[i, : len(row) - 1] = torch.tensor(row[:-1])
            targets[i, : len(row) - 1] = torch.tensor(row[1:])
        ids, targets = ids.to(device), targets.to(device)
        # A target without bytes leaves the loss as well as the count: how well a model foresees the
        # end of a document says nothing about its text.
        sizes = torch.where(targets >= 0, token_bytes[targets.clamp(min=0)], 0)
        targets = targets.masked_fill(sizes == 0, IGNORED)
        nats += model.loss(ids, targets).item()
        n_bytes += int(sizes.sum())
        n_targets += int((targets >= 0).sum())
        progress(n_targets)
    if n_bytes == 0:
        return math.nan, 0, 0
    return nats / (math.log(2) * n_bytes), n_targets, n_bytes


def splits(data: str) -> dict[str, Iterator[str]]:
    """The texts of a source's training and validation split, each once."""
    source = dataset.find_source(data)
    return {
        "train": shards.read_epoch(source.train_shards),
        "val": shards.read_epoch((source.val_shard,)),
    }


def measure(
    model: GPT,
    tokenizer: Tokenizer,
    texts: Mapping[str, Iterable[str]],
    batch_size: int,
    max_tokens: int | None,
) -> dict[str, float]:
    """Measure each of the named texts and say the result; returns <name>_bpb.

    Raises UserError for one that is empty.
    """
    results: dict[str, float] = {}
    for name, documents in texts.items():
        line = log.StepLine(max_tokens or 10**9)  # how long a whole file is, nobody knows yet

        def progress(tokens: int, line: log.StepLine = line, name: str = name) -> None:
            line.show(min(tokens, line.total - 1), f"{name} | {tokens:,} tokens")

        found = bits_per_byte(model, tokenizer, documents, batch_size, max_tokens, progress)
        bpb, tokens, size = found
        line.close()
        if tokens == 0:
            raise UserError(f"{name} has no text to measure: give a file with text in it")
        log.say(f"{name}: {bpb:.4f} bits per byte ({tokens:,} tokens, {size:,} bytes)")
        results[f"{name}_bpb"] = bpb
    return results
