"""A tiny random generator whose numbers are the same on every platform and Python version."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Generic, TypeVar

T = TypeVar("T")
MASK = (1 << 64) - 1


def stable_hash(text: str) -> int:
    """64 bits of SHA-256: the same everywhere, unlike hash()."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


class Weighted(Generic[T]):
    """Items with weights, from (item, weight) pairs."""

    def __init__(self, pairs: Iterable[tuple[T, int]]) -> None:
        pairs = tuple(pairs)
        self.items = tuple(item for item, _ in pairs)
        self.ends = tuple(accumulate(weight for _, weight in pairs))


class Rng:
    """splitmix64 (Steele, Lea, Flood 2014), integers only.

    random.Random is not used: its choice, shuffle and sample changed between Python versions.
    """

    def __init__(self, seed: str) -> None:
        self.state = stable_hash(seed)

    def below(self, n: int) -> int:
        """A number in 0..n-1."""
        self.state = z = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return ((z ^ (z >> 31)) * n) >> 64

    def between(self, low: int, high: int) -> int:
        """A number in low..high, both included."""
        return low + self.below(high - low + 1)

    def chance(self, percent: int) -> bool:
        return self.below(100) < percent

    def choice(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def shuffle(self, items: list[T]) -> list[T]:
        """Shuffles in place (Fisher-Yates) and returns the list."""
        for i in range(len(items) - 1, 0, -1):
            j = self.below(i + 1)
            items[i], items[j] = items[j], items[i]
        return items

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """Up to `count` different items."""
        pool = list(items)
        count = min(count, len(pool))
        for i in range(count):
            j = i + self.below(len(pool) - i)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:count]

    def weighted(self, table: Weighted[T]) -> T:
        """An item, by its weight."""
        return table.items[bisect_right(table.ends, self.below(table.ends[-1]))]
