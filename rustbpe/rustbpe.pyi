"""Byte-level BPE in Rust: learns merges from texts, and encodes texts with them.

Ids 0 to 255 are the raw bytes; merge i makes token 256 + i. Special tokens are not known here.
"""

from collections.abc import Callable, Iterable, Sequence

DEFAULT_PATTERN: str
"""GPT-4's split pattern, but with at most two digits per piece."""

__version__: str

def train(
    texts: Iterable[str],
    vocab_size: int,
    pattern: str | None = None,
    num_threads: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[tuple[int, int]]:
    """The merges learned from `texts`, in order: pairs of ids.

    Each step merges the most common pair; among equals, the smaller (left id, right id). The
    result depends on the texts alone, not on num_threads (None: one per core).

    vocab_size counts the 256 bytes and the merges, not special tokens. There are fewer merges if
    at some point no pair occurs twice.

    progress(phase, done, total) is called on this thread, about ten times a second and at the end
    of each phase: "count" with the texts read (total is 0: unknown), then "merge" with the merges.

    Ctrl-C, and an exception in `texts` or in progress, stop the work and are raised here.
    ValueError: a vocab_size below 256, a bad pattern, a lone surrogate in a text.
    """

class Encoder:
    def __init__(self, merges: Sequence[tuple[int, int]], pattern: str | None = None) -> None:
        """`pattern` must be the one used in training. Text that it does not match is encoded too.

        ValueError: a merge of ids that do not exist before it, a repeated merge, a bad pattern.
        """

    def encode(self, text: str) -> list[int]:
        """The ids of a text. ValueError: a lone surrogate in it."""

    def encode_batch(self, texts: Sequence[str], num_threads: int | None = None) -> list[list[int]]:
        """The ids of each text, in order (num_threads None: one per core)."""

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes of the ids: UTF-8 that may begin or end inside a character.

        ValueError: an unknown id.
        """

    @property
    def vocab_size(self) -> int:
        """256 + len(merges); every id is below it."""
