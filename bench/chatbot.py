"""How well a first chatbot answers after so many minutes: the whole pipeline, budgets and seeds.

    python bench/chatbot.py                            20m, 10m and 3m, three seeds: 100 minutes
    python bench/chatbot.py --budgets 180 --seeds 1

Asks all of tinyworld's held-out questions afterwards, outside of the budget, decoding greedily.
Needs a machine that does nothing else: another process makes a step several times slower.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.system import cli
from nanochat.training.runs import STAGES

NOT_KINDS = ("model_tag", "step", "mean", "repetition", "spelling_new")


@dataclass(frozen=True)
class Config:
    """Which runs to make."""

    budgets: tuple[int, ...] = (1200, 600, 180)
    """seconds"""
    seeds: tuple[int, ...] = (1, 2, 3)
    depth: int | None = None
    """default: what the plan chooses"""
    keep: Path | None = None
    """folder for the base dirs of the runs (default: a temporary one, removed)"""


def main(config: Config) -> None:
    """Run them one after another; a row each, and for each budget a row of the spread."""
    with tempfile.TemporaryDirectory() as temporary:
        for budget in config.budgets:
            found = []
            for seed in config.seeds:
                base = (config.keep or Path(temporary)) / f"{budget}s-seed{seed}"
                found.append(run(base, budget, seed, config.depth))
                print(row(f"{budget} s, seed {seed}", found[-1]), flush=True)
            means = [result["mean"] for result in found]
            spread = statistics.stdev(means) if len(means) > 1 else 0.0
            print(f"{budget} s: mean {statistics.fmean(means):.1%}, deviation {spread:.1%}")
            for kind in kinds(found[0]):
                shares = [result[kind] for result in found]
                print(f"    {kind:18} " + "  ".join(f"{share:6.1%}" for share in shares))


def run(base: Path, budget: int, seed: int, depth: int | None) -> dict[str, Any]:
    """One pipeline; chat_eval's figures, and the share of the budget that it took."""
    environment = {**os.environ, "NANOCHAT_BASE_DIR": str(base)}

    def call(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *command], env=environment, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed: {done.stderr}")
        return done.stdout

    sizes = [f"--depth={depth}"] if depth else []
    flags = ["--model_tag=bench", f"--time_budget_s={budget}", f"--seed={seed}", "--memory_gb=16"]
    call("nanochat.training.pipeline", "plan", *flags, *sizes)
    started = time.monotonic()
    for stage in STAGES:
        call("nanochat.training.pipeline", "stage", stage.name, "--model_tag=bench", "--session=1")
    took = time.monotonic() - started
    result = json.loads(call("scripts.chat_eval", "-i", "sft", "--json").splitlines()[-1])
    return result | {"share_of_budget": took / budget}


def kinds(result: dict[str, Any]) -> list[str]:
    """The kinds that count."""
    return [k for k in result if k not in (*NOT_KINDS, "share_of_budget")]


def row(name: str, result: dict[str, Any]) -> str:
    """A run in a line."""
    worst = min(kinds(result), key=lambda kind: result[kind])
    return (
        f"{name}: {result['share_of_budget']:.1%} of the time, mean {result['mean']:.1%}, "
        f"worst {worst} {result[worst]:.1%}, repetition {result['repetition']:.1%}, "
        f"outside answered by not knowing {result['unknown']:.1%}"
    )


if __name__ == "__main__":
    cli.run(main, Config, "python bench/chatbot.py")
