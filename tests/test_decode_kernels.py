"""The fused kernels against the model, run by Triton's interpreter: slow, and without a card."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECK = """
import torch
from nanochat import decode_kernels
from nanochat.gpt import GPT
from nanochat.gpt_config import GPTConfig
from nanochat.kv_cache import FixedCache, KVCache

decode_kernels.PROGRAMS, decode_kernels.SPLITS = 4, 3  # the interpreter runs them in turn
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
model, cpu = GPT(GPTConfig(2, 70, 64)), torch.device("cpu")
for weight in model.parameters():
    weight.data.normal_(0, 0.2, generator=generator)
model.freeze()
ids = torch.randint(70, (2, 20), generator=generator)
with torch.inference_mode():
    read = KVCache(model.config, [0, 3], cpu)
    model(ids, read)
    cache = FixedCache(model.config, 2, 37, torch.float32, cpu)
    cache.load(read)
    fused, tokens = decode_kernels.FusedStep(model, 2, overlapped=False), torch.tensor([[1], [2]])
    for _ in range(2):
        right = model(tokens, read)
        torch.testing.assert_close(fused(tokens, cache), right, rtol=1e-4, atol=1e-4)
        tokens = right.argmax(-1)[:, None]
"""


def test_the_kernels_compute_what_the_model_computes() -> None:
    """With padding, in a cache of a size that the splits don't divide."""
    pytest.importorskip("triton", reason="NOT TESTED by Triton's interpreter: it is not installed")
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHECK], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
