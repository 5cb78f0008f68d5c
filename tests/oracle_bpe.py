"""Byte-level BPE, plain and slow: what rustbpe must agree with. No cleverness here."""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import regex

Pair = tuple[int, int]


def pieces(text: str, pattern: str) -> list[bytes]:
    """The matches of the pattern, as bytes. The pattern must match all of the text."""
    return [piece.encode() for piece in regex.findall(pattern, text)]


def merged(ids: list[int], pair: Pair, token: int) -> list[int]:
    """ids with each occurrence of the pair, from the left, replaced.

    >>> merged([1, 1, 1, 2, 1, 1], (1, 1), 9)
    [9, 1, 2, 9]
    """
    out = []
    at = 0
    while at < len(ids):
        if tuple(ids[at : at + 2]) == pair:
            out.append(token)
            at += 2
        else:
            out.append(ids[at])
            at += 1
    return out


def train(texts: Iterable[str], vocab_size: int, pattern: str) -> list[Pair]:
    """The merges: the commonest pair first; of equals, the smaller. None that occurs once."""
    words = [list(piece) for text in texts for piece in pieces(text, pattern)]
    merges: list[Pair] = []
    while 256 + len(merges) < vocab_size:
        counts = Counter(pair for ids in words for pair in pairwise(ids))
        pair = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if pair is None or counts[pair] < 2:
            break
        words = [merged(ids, pair, 256 + len(merges)) for ids in words]
        merges.append(pair)
    return merges


def encode(text: str, merges: list[Pair], pattern: str) -> list[int]:
    """Each piece with all merges in turn."""
    out = []
    for piece in pieces(text, pattern):
        ids = list(piece)
        for number, pair in enumerate(merges):
            ids = merged(ids, pair, 256 + number)
        out += ids
    return out
