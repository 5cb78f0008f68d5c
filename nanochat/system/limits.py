"""The numbers that a user may set, in one table; dev/lib.sh has the same for its variables."""

from __future__ import annotations

from typing import Any

# Name of the flag -> the least and the most. Far above what one machine does: they catch slips.
LIMITS = {
    "memory_gb": (1, 65_536),
    "depth": (1, 64),
    "num_iterations": (1, 100_000_000),
    "data_shards": (1, 1_822),  # as many as fineweb has
    "max_seq_len": (8, 65_536),
    "vocab_size": (265, 2**20),  # bytes and special tokens are 265
    "device_batch_size": (1, 65_536),
    "total_batch_size": (1, 1_000_000_000),
    "eval_tokens": (1, 10**12),
    "split_tokens": (1, 10**12),
}


def check(config: Any) -> None:
    """Raise ValueError for a field of a config that is given and out of its range."""
    for name, (least, most) in LIMITS.items():
        value = getattr(config, name, None)
        if value is not None and not least <= value <= most:
            raise ValueError(f"{name}={value}: it must be from {least} to {most}")
