"""From gigabytes of memory to batch sizes.

One rule holds: total_batch_size is a multiple of device_batch_size x max_seq_len. A derived or
inherited number that breaks it is raised, and one line says so; only two explicit values that
disagree are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nanochat.gpt_config import GPTConfig
from nanochat.system import memory
from nanochat.system.errors import UserError
from nanochat.system.log import counted

# (GB at least, rows per micro-batch, tokens per evaluation); the last row is for less.
TABLE = ((128, 16, 65_536), (64, 8, 32_768), (32, 4, 16_384), (0, 1, 8_192))
# Tokens of a micro-batch on a card, where a step has so many: smaller ones leave most of it idle.
CARD_TOKENS = 32_768
CARD_SHARE = 0.9  # of a card's memory that a plan may fill: the desktop and the driver take some
TOO_LARGE = "set a smaller DEVICE_BATCH_SIZE, MAX_SEQ_LEN or DEPTH"  # where memory runs out
MIN_TOTAL = 512  # tokens; a single row of 256 would make a step too noisy to learn from


@dataclass(frozen=True)
class BatchSizes:
    """What one step is made of, in rows and tokens; `notes` tell the user of raised numbers."""

    device_batch_size: int
    total_batch_size: int
    eval_tokens: int
    split_tokens: int
    notes: tuple[str, ...] = ()

    def grad_accum(self, max_seq_len: int) -> int:
        """Micro-batches per step."""
        return self.total_batch_size // (self.device_batch_size * max_seq_len)


def row_for(memory_gb: int) -> tuple[int, int]:
    """(device_batch_size, eval_tokens) for a machine with this much memory.

    >>> row_for(64), row_for(24)
    ((8, 32768), (1, 8192))
    """
    return next((batch, tokens) for least, batch, tokens in TABLE if memory_gb >= least)


def rows_for_card(max_seq_len: int, total: int | None, fits: Callable[[int], bool]) -> int:
    """device_batch_size on a card: the table's first row, doubled while the step has tokens for
    it and a micro-batch is small, then halved until it fits.

    >>> [rows_for_card(256, total, lambda rows: rows <= 64) for total in (None, 32_768, 65_536)]
    [16, 64, 64]
    """
    rows = TABLE[0][1]
    while total and 2 * rows * max_seq_len <= CARD_TOKENS and total % (2 * rows * max_seq_len) == 0:
        rows *= 2
    while rows > 1 and not fits(rows):
        rows //= 2
    return rows


def batch_sizes(
    memory_gb: int,
    max_seq_len: int,
    device_batch_size: int | None = None,
    total_batch_size: int | None = None,
    eval_tokens: int | None = None,
    split_tokens: int | None = None,
    inherited_total: int | None = None,
    fits: Callable[[int], bool] | None = None,
) -> BatchSizes:
    """Resolve the batch sizes; explicit values win over inherited ones, those over the table.

    fits: on a card, whether its memory holds so many rows at once; memory_gb is the computer's
    and says nothing about it.

    Tokens: total_batch_size, eval_tokens, split_tokens. Raises UserError where two explicit values
    disagree, naming the nearest totals that work.

    >>> batch_sizes(128, 256).total_batch_size
    4096
    """
    from_table, table_tokens = row_for(memory_gb)
    if fits is not None:
        total = total_batch_size or inherited_total
        from_table, table_tokens = rows_for_card(max_seq_len, total, fits), TABLE[0][2]
    device = device_batch_size if device_batch_size is not None else from_table
    tokens = device * max_seq_len  # of one micro-batch
    notes: list[str] = []
    if total_batch_size is not None and total_batch_size % tokens and device_batch_size is not None:
        below, above = total_batch_size // tokens * tokens, _up(total_batch_size, tokens)
        nearest = f"{below} or {above}" if below else f"{above}"
        raise UserError(
            f"total_batch_size={total_batch_size} is not a multiple of device_batch_size x "
            f"max_seq_len = {device} x {max_seq_len} = {tokens}; the nearest that work: {nearest}"
        )
    if total_batch_size is not None and total_batch_size % tokens:
        # Only the total was given: shrink the micro-batch until it divides it, if any does.
        fitting = [d for d in range(device, 0, -1) if total_batch_size % (d * max_seq_len) == 0]
        if fitting:
            notes.append(f"device_batch_size lowered from {device} to {fitting[0]} to divide it")
            device, tokens = fitting[0], fitting[0] * max_seq_len
    wanted = total_batch_size or inherited_total or max(tokens, MIN_TOTAL)
    return BatchSizes(
        device,
        _raised("total_batch_size", wanted, tokens, notes),
        _raised("eval_tokens", eval_tokens or table_tokens, tokens, notes),
        _raised("split_tokens", split_tokens or table_tokens, tokens, notes),
        tuple(notes),
    )


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _raised(name: str, value: int, multiple: int, notes: list[str]) -> int:
    fits = _up(value, multiple)
    if fits != value:
        notes.append(f"{name} raised from {value:,} to {fits:,}, a multiple of {multiple:,}")
    return fits


def fits_card(model: GPTConfig) -> Callable[[int], bool] | None:
    """Whether a card's memory holds the training of so many rows at once; None without a card."""
    card = memory.card()
    if card is None:
        return None
    room = CARD_SHARE * card.memory_bytes
    return lambda rows: model.training_bytes(rows, "cuda", card.float_bytes) <= room


def batch_in_words(batch: BatchSizes, max_seq_len: int) -> str:
    """What one step reads.

    >>> batch_in_words(BatchSizes(4, 1024, 0, 0), 256)
    '4 rows x 256 tokens = 1,024 tokens per step'
    >>> batch_in_words(BatchSizes(1, 512, 0, 0), 256)
    '1 row x 256 tokens x 2 micro-batches = 512 tokens per step'
    """
    parts, rows = batch.grad_accum(max_seq_len), counted(batch.device_batch_size, "row")
    accumulated = f" x {parts} micro-batches" if parts > 1 else ""
    return (
        f"{rows} x {max_seq_len} tokens{accumulated} = {batch.total_batch_size:,} tokens per step"
    )
