"""How well a first chatbot answers after so many minutes: the whole pipeline, budgets and seeds.

    python bench/chatbot.py                            20m, 10m and 3m, three seeds: 100 minutes
    python bench/chatbot.py --budgets 180 --seeds 1 --interrupted
    python bench/chatbot.py --budgets 0        the default run, which has no budget
    python bench/chatbot.py --world village    learns a world of one's own (bench/own_world.py)
    python bench/chatbot.py --tiny             three steps a stage: does all of it run?

Afterwards, outside of the budget and greedily: all held-out questions, the stranger's test, and
what bench/probes.py does to a chatbot. Needs a machine that does nothing else: another process
makes a step several times slower.
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

from bench.probes import Probed, probe
from nanochat.data import tinyworld, worlds
from nanochat.data.tinyworld import World
from nanochat.data.tinyworld.questions import spoken
from nanochat.engine import Engine
from nanochat.evals import chat
from nanochat.stages import STAGES
from nanochat.system import cli
from nanochat.system.device import open_device
from nanochat.training import checkpoint_manager as checkpoints

NOT_KINDS = ("model_tag", "step", "mean", "repetition")  # of what chat_eval reports
TINY = ("--depth=1", "--base_iterations=3", "--mid_iterations=3", "--sft_iterations=3")


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
    world: Path | None = None
    """a world of one's own to learn, as NANOCHAT_WORLD (default: the built-in one)"""
    final: bool = False
    """also ask the final half of the stranger's test: for figures, not for finding what to mend"""
    tiny: bool = False
    """one run of three steps a stage, and few held-out questions: only shows that all of it runs"""
    keep: Path | None = None
    """folder for the base dirs of the runs (default: a temporary one, removed)"""


@dataclass(frozen=True)
class Result:
    """What one run gave."""

    seconds: float
    held_out: dict[str, Any]
    """chat_eval's figures"""
    sentences: int
    """of 50 answers"""
    probed: Probed

    @property
    def kinds(self) -> list[str]:
        """The kinds of held-out questions; own_world is one where a world was given."""
        return [name for name in self.held_out if name not in NOT_KINDS]


def main(config: Config) -> None:
    """Run them one after another; some lines each, and for each budget the spread."""
    budgets, seeds = ((0,), (1,)) if config.tiny else (config.budgets, config.seeds)
    with tempfile.TemporaryDirectory() as temporary:
        for budget in budgets:
            found = []
            for seed in seeds:
                base = (config.keep or Path(temporary)) / f"{budget}s-seed{seed}"
                found.append(run(base, budget, seed, config))
                print(*lines(f"{budget} s, seed {seed}", found[-1]), sep="\n    ", flush=True)
            means = [result.held_out["mean"] for result in found]
            spread = statistics.stdev(means) if len(means) > 1 else 0.0
            print(f"{budget} s: mean {statistics.fmean(means):.1%}, deviation {spread:.1%}")
            for kind in found[0].kinds:
                shares = [result.held_out[kind] for result in found]
                print(f"    {kind:18} " + "  ".join(f"{share:6.1%}" for share in shares))


def run(base: Path, budget: int, seed: int, config: Config) -> Result:
    """One pipeline, and what its chat model answers."""
    os.environ["NANOCHAT_BASE_DIR"] = str(base)
    flags = ["--model_tag=bench", f"--seed={seed}", "--memory_gb=16"]
    flags += [f"--time_budget_s={budget}"] if budget else []
    flags += [f"--depth={config.depth}"] if config.depth else []
    # What a driver makes of NANOCHAT_WORLD.
    flags += [f"--data={config.world.absolute()}"] if config.world else []
    flags += TINY if config.tiny else []
    call("nanochat.run.pipeline", "plan", *flags)
    started, session = time.monotonic(), 1
    stop_at = started + budget / 2 if config.interrupted else math.inf
    for stage in STAGES:
        command = ["nanochat.run.pipeline", "stage", stage.name, "--model_tag=bench"]
        if not call(*command, f"--session={session}", stop_at=stop_at):
            session, stop_at = session + 1, math.inf
            call(*command, f"--session={session}")
    took = time.monotonic() - started
    some = ["--max_problems=1"] if config.tiny else []
    held_out = json.loads(call("scripts.chat_eval", "-i", "sft", "--json", *some).splitlines()[-1])
    trained = checkpoints.find("sft", "bench")
    engine = Engine(trained.model(open_device("cpu")).freeze(), trained.tokenizer())
    world = worlds.world_of(trained.state["config"]["data"])
    probed = probe(engine, tinyworld.held_out(world), config.final)
    return Result(took, held_out, sentences(engine, world), probed)


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


def sentences(engine: Engine, world: World | None, count: int = 50) -> int:
    """How many of so many answers begin with a capital letter or a number ("6 times 10 is 60."),
    end with a mark, and have only words that occur in the world or in the question.
    """
    held_out = tinyworld.held_out(world)
    asked = chat.ask(engine, [held_out[i * len(held_out) // count] for i in range(count)])
    texts = [*islice(tinyworld.documents(0, world), 10_000)]
    texts += [spoken(m["content"]) for talk in tinyworld.conversations(world=world) for m in talk]
    known = words(texts)
    return sum(
        re.fullmatch(r"[A-Z0-9].*[.!?]", reply, re.DOTALL) is not None
        and words([reply]) <= known | words(m["content"] for m in question.messages)
        for question, reply, _ in asked.replies
    )


def words(texts: Iterable[str]) -> set[str]:
    """The words in some texts, in small letters."""
    return set(re.findall(r"[a-z]+", " ".join(texts).lower()))


def lines(name: str, result: Result) -> list[str]:
    """A run: its row, then what bench/probes.py found."""
    shares = result.held_out
    worst = min(result.kinds, key=lambda kind: shares[kind])
    of_own = f"own world {shares['own_world']:.1%}, " if "own_world" in shares else ""
    row = (
        f"{name}: took {result.seconds:.0f} s, mean {shares['mean']:.1%}, {of_own}"
        f"worst {worst} {shares[worst]:.1%}, repetition {shares['repetition']:.1%}, "
        f"outside answered by not knowing {shares.get('unknown', 0):.1%}, "
        f"sentences {result.sentences} of 50"
    )
    return [row, *result.probed.lines()]


if __name__ == "__main__":
    cli.run(main, Config, "python bench/chatbot.py")
