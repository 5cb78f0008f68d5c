"""What a start may cost: nothing is imported that the work does not need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = """
import sys, torch
from nanochat.gpt import GPT
from nanochat.gpt_config import GPTConfig
from nanochat.system.device import open_device
from nanochat.tokenizer import Tokenizer
from nanochat.training import checkpoint_manager as checkpoints
from nanochat.training import train_stage
from nanochat.training.optim import MuonAdamW
from nanochat.training.stage_config import OptimConfig

model = GPT(GPTConfig(1, 300, 16))
model.init_weights(0)
state = {"tag": "d1", "step": 1, "time": 1.0, "finished": True, "model": model.config.to_json()}
checkpoints.save("base", state, model, Tokenizer([]), {})
loaded = checkpoints.find("base").model(open_device("cpu"))
optimizer = MuonAdamW(loaded, OptimConfig())
ids = torch.zeros((1, 16), dtype=torch.long)
loaded.loss(ids, ids).backward()
optimizer.clip()
optimizer.step(1.0)
print(*{"torch._dynamo", "sympy", "matplotlib", "fastapi", "huggingface_hub"} & sys.modules.keys())
"""


def test_loading_and_training_a_model_leave_torchs_compiler_out(tmp_path: Path) -> None:
    """Its 900 modules took half of every start: two seconds and more."""
    env = {**os.environ, "NANOCHAT_BASE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", WORK], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")
