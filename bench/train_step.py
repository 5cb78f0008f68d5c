"""One training step: seconds, tokens per second, share of a matmul's speed, peak memory.

    python bench/train_step.py                       d4, vocabulary 8,192, 16 x 256
    python bench/train_step.py --vocab_size 65536 --max_seq_len 1024

Prints ratios measured in one run: with the memory that glibc keeps against without (each in a
fresh process), and against plain torch modules (autograd through full logits).
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

from nanochat.system import cli


@dataclass(frozen=True)
class Config:
    """Shape of the model and of a step."""

    depth: int = 4
    vocab_size: int = 8_192
    rows: int = 16
    max_seq_len: int = 256
    steps: int = 8
    variant: str = "all"
    """all, ours, returns (memory given back to the kernel), or plain"""


def main(config: Config) -> None:
    """Measure each variant in a process of its own, or one of them here."""
    if config.variant != "all":
        measure(config)
        return
    seconds = {}
    for variant in ("ours", "returns", "plain"):
        flags = [f"--{k}={v}" for k, v in vars(config).items() if k != "variant"]
        done = subprocess.run(
            [sys.executable, __file__, *flags, f"--variant={variant}"],
            capture_output=True,
            text=True,
            check=True,
        )
        print(done.stdout, end="")
        seconds[variant] = float(done.stdout.split("step ")[1].split(" s")[0])
    for variant, name in (("returns", "memory given back to the kernel"), ("plain", "plain torch")):
        print(f"{name} / ours: {seconds[variant] / seconds['ours']:.2f}")


def measure(config: Config) -> None:
    """Print one line: what a step takes."""
    import torch
    import torch.nn.functional as F

    from nanochat.gpt import GPT
    from nanochat.gpt_config import GPTConfig
    from nanochat.system.device import cpu_threads, keep_memory
    from nanochat.training.optim import MuonAdamW
    from nanochat.training.stage_config import OptimConfig

    torch.set_num_threads(cpu_threads())
    if config.variant != "returns":
        keep_memory()
    model = GPT(GPTConfig(config.depth, config.vocab_size, config.max_seq_len))
    model.init_weights(0)
    optimizer = MuonAdamW(model, OptimConfig())
    generator = torch.Generator().manual_seed(0)
    shape = (config.rows, config.max_seq_len + 1)
    ids = torch.randint(0, config.vocab_size, shape, generator=generator)
    tokens = config.rows * config.max_seq_len

    def loss() -> torch.Tensor:
        if config.variant != "plain":
            return model.loss(ids[:, :-1], ids[:, 1:])
        logits = model.logits(model.hidden(ids[:, :-1]))
        return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")

    times = []
    for _ in range(config.steps):
        started = time.monotonic()
        (loss() / tokens).backward()
        optimizer.clip()
        optimizer.step(1.0)
        optimizer.zero_grad()
        times.append(time.monotonic() - started)
    step = statistics.median(times[2:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    gflops = model.config.flops_per_token() * tokens / step / 1e9
    share = gflops / matmul_gflops()
    print(
        f"{config.variant:8} step {step:.3f} s, {tokens / step:,.0f} tok/s, {gflops:.0f} GFLOP/s "
        f"({share:.0%} of a matmul's, measured after it), peak resident {peak:.2f} GB"
    )


def matmul_gflops(n: int = 2048) -> float:
    """float32 matmul on all threads, median of 8."""
    import torch

    a, b, out = torch.randn(n, n), torch.randn(n, n), torch.empty(n, n)
    times = []
    for _ in range(10):
        started = time.monotonic()
        torch.mm(a, b, out=out)
        times.append(time.monotonic() - started)
    return 2 * n**3 / statistics.median(times[2:]) / 1e9


if __name__ == "__main__":
    cli.run(main, Config, "python bench/train_step.py")
