"""What tests share: a base dir of their own, the shared data, a small tokenizer, a tiny model."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# As every command does: two tests at once would spin against each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
import torch

from nanochat import tokenizer as tok
from nanochat.gpt import GPT
from nanochat.gpt_config import GPTConfig

# A run in the background may have Ctrl-C ignored, and what we start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
DATA = ROOT / "../shared/data"
TEXTS = [
    "The river runs down from the hills, past the mill and the market, and into the sea.\n"
    "Anna asked how many stones there were. There were 3, or 12, or 1,234; nobody knew.\n",
    "What is the capital of France? The capital of France is Paris.\n\n"
    "How many times does 'r' occur in 'strawberry'? It's 3. I'll count it: 's', 't', 'r'.\n",
    "Ein Käse für über fünf Brötchen; café, naïve, 漢字 and a 😀 besides.\n",
]


@pytest.fixture
def base_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty NANOCHAT_BASE_DIR."""
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "base"))
    return tmp_path / "base"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real text beside the checkout."""
    if not DATA.is_dir():
        pytest.skip(f"NOT TESTED on real data: there is no {DATA}")
    return DATA


@pytest.fixture(scope="session")
def tokenizer() -> tok.Tokenizer:
    """A small tokenizer, the same wherever the tests run."""
    return tok.train(TEXTS * 3, 400, trainer="tokenizers")


def random_model(depth: int, vocab_size: int, max_seq_len: int, dtype: torch.dtype) -> GPT:
    """A model whose weights are all drawn, none of them zero."""
    torch.set_num_threads(1)
    model = GPT(GPTConfig(depth, vocab_size, max_seq_len))
    generator = torch.Generator().manual_seed(depth)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.empty(weight.shape).normal_(0, 0.2, generator=generator))
    model.to(dtype)
    model.dtype = dtype
    return model


@pytest.fixture
def tiny_model(tokenizer: tok.Tokenizer) -> GPT:
    """Two layers in float64 for the small tokenizer; its answers are noise."""
    return random_model(2, tokenizer.vocab_size, 64, torch.float64)
