"""Text to token ids and back.

A tokenizer is the 256 bytes, the merges that a trainer found, and nine special tokens, in this
order. It is stored as tokenizer.json in the format of the `tokenizers` library, so that other
programs can read it; tiktoken does the encoding, since it is faster. Text never becomes a special
token, whoever wrote it: those are added by name only (conversation.py). Otherwise a user could type
<|assistant_start|> and put words into the model's mouth.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

from nanochat.system import storage
from nanochat.system.errors import UserError

SPECIAL_TOKENS = (
    "<|bos|>",  # in front of every document and conversation
    "<|user_start|>",
    "<|user_end|>",
    "<|assistant_start|>",
    "<|assistant_end|>",
    "<|python_start|>",
    "<|python_end|>",
    "<|output_start|>",
    "<|output_end|>",
)
MIN_VOCAB_SIZE = 256 + len(SPECIAL_TOKENS)

# How text is split before any merging: at words, with the space in front of them. Without it the
# best pairs would run across words, and "dog." "dog," "dog!" would each cost an entry. This is
# GPT-4's pattern, but with numbers in groups of two digits instead of three: a small vocabulary has
# better uses for its entries than a thousand numbers.
PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)

# On a million blanks in a row tiktoken gives up, with a panic that is not even an Exception.
MAX_BLANKS = 500_000  # half of what it can take
BLANKS = re.compile(r"[^\S\r\n]+")

Merge = tuple[int, int]
Progress = Callable[[str, int, int], None]


def cut_long_blanks(text: str) -> list[str]:
    """The text, cut inside every run of blanks that is too long for tiktoken."""
    # A cut there costs a token or two: blanks are one piece of the pattern, and now they are two.
    cuts = [0]
    for run in BLANKS.finditer(text):
        cuts += range(run.start() + MAX_BLANKS, run.end(), MAX_BLANKS)
    return [text[start:end] for start, end in zip(cuts, [*cuts[1:], len(text)], strict=True)]


def _byte_alphabet() -> list[str]:
    """The character that stands for each byte in tokenizer.json (GPT-2's table)."""
    # JSON holds text and not bytes, and a token may well be half of a character. So printable bytes
    # stand for themselves, and the others get the characters from 256 on, in order: a space is "Ġ".
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]


class Tokenizer:
    """Bytes to ids. Ids 0..255 are the bytes, then one per merge, then the special tokens."""

    def __init__(self, merges: Sequence[Merge], trainer: str = "unknown") -> None:
        self.merges = [tuple(merge) for merge in merges]
        self.trainer = trainer
        # Whether what a user types is read in its plain form (clean_typing.py), as it is for a
        # model of a small world. tokenizer.json has no place for it; a checkpoint's state.json has.
        self.plain_typing = False
        # The merges alone say it all. Every byte is a token, so any text can be encoded: there is
        # no "unknown" token, and emoji and Chinese merely take more ids.
        self.pieces = [bytes([b]) for b in range(256)]
        for left, right in self.merges:
            self.pieces.append(self.pieces[left] + self.pieces[right])
        first = len(self.pieces)
        self.special = {name: first + i for i, name in enumerate(SPECIAL_TOKENS)}
        self.bos = self.special["<|bos|>"]
        self.vocab_size = first + len(SPECIAL_TOKENS)

    @cached_property
    def _tiktoken(self):
        import tiktoken  # here, so that --help and plans need not wait for it

        # It merges the pair of lowest rank first. Ours are numbered in the order of their merges,
        # so lowest rank first is exactly the order in which they were learned.
        return tiktoken.Encoding(
            name="nanochat",
            pat_str=PATTERN,
            mergeable_ranks={piece: i for i, piece in enumerate(self.pieces)},
            special_tokens=self.special,
        )

    def encode(self, text: str) -> list[int]:
        """Ids of ordinary text; a special token's name in it is just characters."""
        if len(text) <= MAX_BLANKS:  # nearly always: don't even search
            return self._tiktoken.encode_ordinary(text)
        parts = map(self._tiktoken.encode_ordinary, cut_long_blanks(text))
        return [token for part in parts for token in part]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes that the ids stand for; special tokens stand for none.

        A character may be split between ids, so what streams needs an incremental decoder.
        """
        count = len(self.pieces)
        return b"".join(self.pieces[i] for i in ids if i < count)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, with a replacement character where the bytes are not UTF-8."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def token_bytes(self) -> list[int]:
        """How many bytes each id stands for; special tokens stand for none."""
        # Loss per token depends on the tokenizer: with longer tokens each is harder to guess. Loss
        # per byte can be compared across tokenizers, and this is what it is divided by.
        return [len(piece) for piece in self.pieces] + [0] * len(SPECIAL_TOKENS)

    def names(self) -> dict[str, int]:
        """Each token's name in tokenizer.json and its id, in order; bytes written as characters."""
        alphabet = _byte_alphabet()
        ordinary = ("".join(alphabet[b] for b in piece) for piece in self.pieces)
        return {name: i for i, name in enumerate(ordinary)} | self.special

    def to_json(self) -> str:
        """tokenizer.json, as the `tokenizers` library reads it (transformers and MLX do too)."""
        # Most of this switches things off: the format serves every kind of tokenizer.
        vocab = self.names()
        names = list(vocab)
        model = {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [[names[left], names[right]] for left, right in self.merges],
        }
        flags = {"single_word": False, "lstrip": False, "rstrip": False}
        # Both ways between bytes and the characters that stand for them, and nothing else: its own
        # split pattern is off, since ours has done that already.
        byte_level = {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": False,
        }
        split = {
            "type": "Split",
            "pattern": {"Regex": PATTERN},
            "behavior": "Isolated",
            "invert": False,
        }
        whole = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {"id": i, "content": name, **flags, "normalized": False, "special": True}
                for name, i in self.special.items()
            ],
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
            "post_processor": None,
            "decoder": byte_level,
            "model": model,
        }
        return json.dumps(whole, ensure_ascii=False, indent=1)

    @cached_property
    def sha256(self) -> str:
        """Identifies exactly this tokenizer; checkpoints carry it."""
        return hashlib.sha256(repr(self.merges).encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write tokenizer.json."""
        storage.write_text(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read tokenizer.json. Raises UserError if it is missing or not one of ours."""
        if not path.exists():
            raise UserError(f"there is no tokenizer at {path}: run python -m scripts.tokenizer")
        whole = storage.read_json(path)
        # Strict, because a wrong tokenizer raises no error: every id means another word, and the
        # model talks gibberish. So build ours from the merges and compare it with the whole file.
        try:
            ids: dict[str, int] = whole["model"]["vocab"]
            merges = [(ids[left], ids[right]) for left, right in whole["model"]["merges"]]
            tokenizer = cls(merges)
            ordered = all(max(merge) < 256 + i for i, merge in enumerate(merges))
            if not ordered or ids != tokenizer.names():
                raise ValueError("ids are not in the order bytes, merges, special tokens")
            if whole["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] != PATTERN:
                raise ValueError("it has a different split pattern")
            if whole != json.loads(tokenizer.to_json()):
                raise ValueError("it is damaged, or another program changed it")
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise UserError(
                f"{path} is not a tokenizer of nanochat's ({error}): "
                "train one with python -m scripts.tokenizer"
            ) from None
        return tokenizer


def available_trainer() -> str:
    """The default trainer: "rustbpe" if our extension is built, else "tokenizers"."""
    try:
        import rustbpe
    except ImportError:
        return "tokenizers"
    # In the root of a clone, `import rustbpe` finds the folder of that name: an empty package.
    return "rustbpe" if hasattr(rustbpe, "train") else "tokenizers"


def train(
    texts: Iterable[str],
    vocab_size: int,
    trainer: str | None = None,
    progress: Progress | None = None,
) -> Tokenizer:
    """Learn merges from texts; vocab_size counts the special tokens too.

    If at some point no pair occurs twice, the tokenizer is smaller than asked for.
    `progress(phase, done, total)` is called now and then. Raises UserError if the vocabulary can't
    hold the bytes and the special tokens.
    """
    if vocab_size < MIN_VOCAB_SIZE:
        raise UserError(
            f"vocab_size={vocab_size} is too small: {MIN_VOCAB_SIZE} is the minimum "
            f"(256 bytes and {len(SPECIAL_TOKENS)} special tokens)"
        )
    trainer = trainer or available_trainer()
    # The trainers know nothing of special tokens: those never occur in text, so nothing about them
    # can be learned from it. They are put behind the merges.
    ordinary = vocab_size - len(SPECIAL_TOKENS)
    if trainer == "rustbpe":
        if available_trainer() != "rustbpe":
            raise UserError(
                "the Rust extension is not built: install Rust (https://rustup.rs), then run "
                "bash dev/setup.sh; or leave out --trainer=rustbpe"
            )
        import rustbpe

        merges = rustbpe.train(texts, ordinary, pattern=PATTERN, progress=progress)
    else:
        merges = _train_with_tokenizers(texts, ordinary, progress)
    return Tokenizer(merges, trainer)


def _train_with_tokenizers(
    texts: Iterable[str], vocab_size: int, progress: Progress | None
) -> list[Merge]:
    """The same without our Rust: by the `tokenizers` package. No progress while it merges."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, trainers

    raw = tokenizers.Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    # Same pattern, same bytes, same rule: the merges are the same but for ties, which it breaks by
    # its own ids. Its vocabulary has other numbers, so only the merges are taken over, by name.
    alphabet = _byte_alphabet()
    bpe = trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=2, initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(_counted(texts, progress), bpe)
    ids = {character: b for b, character in enumerate(alphabet)}
    merges: list[Merge] = []
    for left, right in json.loads(raw.to_str())["model"]["merges"]:
        merges.append((ids[left], ids[right]))
        ids[left + right] = 255 + len(merges)
    if progress is not None:
        progress("merge", len(merges), vocab_size - 256)
    return merges


def _counted(texts: Iterable[str], progress: Progress | None) -> Iterator[str]:
    # The trainer pulls texts at its own pace; how many it has pulled is all that it tells.
    last, count = time.monotonic(), 0
    for count, text in enumerate(texts, 1):
        yield text
        if progress is not None and time.monotonic() - last > 0.1:
            progress("count", count, 0)
            last = time.monotonic()
    if progress is not None:
        progress("count", count, 0)
