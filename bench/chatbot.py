"""How well a first chatbot answers after so many minutes: the whole pipeline, budgets and seeds.

    python bench/chatbot.py                            20m, 10m and 3m, three seeds: 100 minutes
    python bench/chatbot.py --budgets 180 --seeds 1 --interrupted
    python bench/chatbot.py --budgets 0        the default run, which has no budget

Asks all of tinyworld's held-out questions afterwards, outside of the budget, decoding greedily.
Needs a machine that does nothing else: another process makes a step several times slower.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from nanochat.data import tinyworld
from nanochat.data.tinyworld.questions import spoken
from nanochat.engine import Engine
from nanochat.evals import chat
from nanochat.stages import STAGES
from nanochat.system import cli
from nanochat.system.device import open_device
from nanochat.training import checkpoint_manager as checkpoints

NOT_KINDS = (
    "model_tag", "step", "mean", "repetition", "spelling_new", "seconds", "sentences"
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Which runs to make."""

    budgets: tuple[int, ...] = (1200, 600, 180)
    """seconds; 0: the default run"""
    seeds: tuple[int, ...] = (1, 2, 3)
    depth: int | None = None
    """default: what the plan chooses"""
    interrupted: bool = False
    """interrupt each run when half of its time is over, and continue it"""
    keep: Path | None = None
    """folder for the base dirs of the runs (default: a temporary one, removed)"""


def main(config: Config) -> None:
    """Run them one after another; a row each, and for each budget a row of the spread."""
    with tempfile.TemporaryDirectory() as temporary:
        for budget in config.budgets:
            found = []
            for seed in config.seeds:
                base = (config.keep or Path(temporary)) / f"{budget}s-seed{seed}"
                found.append(run(base, budget, seed, config))
                print(row(f"{budget} s, seed {seed}", found[-1]), flush=True)
            means = [result["mean"] for result in found]
            spread = statistics.stdev(means) if len(means) > 1 else 0.0
            print(f"{budget} s: mean {statistics.fmean(means):.1%}, deviation {spread:.1%}")
            for kind in kinds(found[0]):
                shares = [result[kind] for result in found]
                print(f"    {kind:18} " + "  ".join(f"{share:6.1%}" for share in shares))


def run(base: Path, budget: int, seed: int, config: Config) -> dict[str, Any]:
    """One pipeline; chat_eval's figures, the seconds that it took, and how many answers of 50 are
    sentences.
    """
    os.environ["NANOCHAT_BASE_DIR"] = str(base)
    flags = ["--model_tag=bench", f"--seed={seed}", "--memory_gb=16"]
    flags += [f"--time_budget_s={budget}"] if budget else []
    flags += [f"--depth={config.depth}"] if config.depth else []
    call("nanochat.run.pipeline", "plan", *flags)
    started, session = time.monotonic(), 1
    stop_at = started + budget / 2 if config.interrupted else math.inf
    for stage in STAGES:
        command = ["nanochat.run.pipeline", "stage", stage.name, "--model_tag=bench"]
        if not call(*command, f"--session={session}", stop_at=stop_at):
            session, stop_at = session + 1, math.inf
            call(*command, f"--session={session}")
    took = time.monotonic() - started
    result = json.loads(call("scripts.chat_eval", "-i", "sft", "--json").splitlines()[-1])
    return result | {"seconds": took, "sentences": sentences()}


def call(*command: str, stop_at: float = math.inf) -> str:
    """What a module prints; nothing where it was still running at `stop_at` and was interrupted."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    left = stop_at - time.monotonic()
    try:
        out, error = process.communicate(timeout=None if left == math.inf else max(0.0, left))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.communicate()
        return ""
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed: {error}")
    return out


def sentences(count: int = 50) -> int:
    """How many of so many answers begin with a capital letter or a number ("6 times 10 is 60."),
    end with a mark, and have only words that occur in tinyworld or in the question.
    """
    held_out = tinyworld.held_out()
    found = checkpoints.find("sft", "bench")
    engine = Engine(found.model(open_device("cpu")), found.tokenizer())
    asked = chat.ask(engine, [held_out[i * len(held_out) // count] for i in range(count)])
    texts = [*islice(tinyworld.documents(0), 10_000)]
    texts += [spoken(m["content"]) for talk in tinyworld.conversations() for m in talk]
    known = words(texts)
    return sum(
        re.fullmatch(r"[A-Z0-9].*[.!?]", reply, re.DOTALL) is not None
        and words([reply]) <= known | words(m["content"] for m in question.messages)
        for question, reply, _ in asked.replies
    )


def words(texts: Iterable[str]) -> set[str]:
    """The words in some texts, in small letters."""
    return set(re.findall(r"[a-z]+", " ".join(texts).lower()))


def kinds(result: dict[str, Any]) -> list[str]:
    """The kinds that count."""
    return [k for k in result if k not in NOT_KINDS]


def row(name: str, result: dict[str, Any]) -> str:
    """A run in a line."""
    worst = min(kinds(result), key=lambda kind: result[kind])
    return (
        f"{name}: took {result['seconds']:.0f} s, mean {result['mean']:.1%}, "
        f"worst {worst} {result[worst]:.1%}, repetition {result['repetition']:.1%}, "
        f"outside answered by not knowing {result['unknown']:.1%}, "
        f"sentences {result['sentences']} of 50"
    )


if __name__ == "__main__":
    cli.run(main, Config, "python bench/chatbot.py")
