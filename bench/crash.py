"""Kills a small pipeline again and again, continues it, and compares it with one left alone.

    python bench/crash.py                       about 100 random kills, and one at every write
    python bench/crash.py --kills 8 --writes 12

The straight run goes first. Then, in a base dir of its own each: (1) SIGKILL at random moments,
during continuations too; (2) SIGKILL at the first write boundary of every stage (a sync, a rename,
a half-written file) and of its continuation, in the next run at their second, and so on until
there are no more. Whatever happens, the run continued must give the losses of every step and the
weights of every stage bit for bit, and no checkpoint that was whole may be gone. The controls leave
out a part of what is resumed, and must be noticed. Every stage is run as the drivers run it, but
forked from this process instead of started anew, which takes seconds off each kill. CPU only.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.system import cli, storage
from nanochat.training import pipeline, runs
from nanochat.training.runs import STAGES, TRAINED

TAG = "crash"
# Small, with every part of the state in use: accumulation, several lanes, saves within a stage.
PLAN = {
    "depth": 1, "base_iterations": 240, "mid_iterations": 120, "sft_iterations": 120,
    "device_batch_size": 2, "total_batch_size": 256, "max_seq_len": 64, "vocab_size": 512,
    "eval_tokens": 1024, "split_tokens": 1024, "data_shards": 1, "memory_gb": 8,
}  # fmt: skip
SAVE_EVERY = 20
MOST_TRIES = 400  # of one run; a run that makes no progress would go on for ever
CONTROLS = ("optimizer", "position", "step")


@dataclass(frozen=True)
class Config:
    """How often to kill."""

    kills: int = 100
    """at random moments"""
    writes: int = 1_000
    """at write boundaries, at most"""
    seed: int = 1
    """of the random moments"""


@dataclass
class Counts:
    """What happened so far."""

    kills: int = 0
    resumes: int = 0
    runs: int = 0
    mismatches: int = 0
    lost: int = 0


def main(config: Config) -> None:
    """Straight run, kills at random, kills at writes, controls; exit code 1 for any mismatch."""
    warm_up()
    rng, began = random.Random(config.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text"
        write_text(text)
        straight = Path(folder) / "straight"
        plan(straight, text)
        started = time.monotonic()
        finish_run(straight, lambda: None, Counts())
        took = time.monotonic() - started
        expected = outcome(straight)
        print(f"the run left alone: {took:.1f} s, {len(expected['losses'])} steps")
        print(f"the same again: {'the same' if again(folder, text, expected) else 'DIFFERENT'}")

        counts = Counts()
        while counts.kills < config.kills:
            base = new_run(folder, text, counts)
            finish_run(base, lambda: rng.expovariate(1 / (took / 5)), counts)
            compare(base, expected, counts)
        show("random moments", counts)
        failed = counts.mismatches + counts.lost

        counts = Counts()
        base, nth = new_run(folder, text, counts), 0
        while counts.kills < config.writes:
            nth += 1
            before = counts.kills
            finish_run(base, lambda: None, counts, die_at=nth, most=config.writes)
            compare(base, expected, counts)
            if counts.kills == before:
                break
            base = new_run(folder, text, counts)
        show(f"write boundaries (number 1 to {nth} of each process)", counts)
        failed += counts.mismatches + counts.lost

        for left_out in CONTROLS:
            noticed = not control(folder, text, expected, left_out)
            print(f"control, {left_out} left out: {'noticed' if noticed else 'NOT NOTICED'}")
            failed += not noticed
    print(f"{time.monotonic() - began:.0f} s, on {os.cpu_count()} CPU cores")
    sys.exit(1 if failed else 0)


def show(what: str, counts: Counts) -> None:
    """A line of counts."""
    print(
        f"{what}: {counts.kills} kills, {counts.resumes} resumes of a stage, {counts.runs} runs, "
        f"{counts.mismatches} mismatches, {counts.lost} lost checkpoints",
        flush=True,
    )


def warm_up() -> None:
    """Import what the stages import, and make what they share, so that a fork has it."""
    import torch

    from nanochat.data import tinyworld

    torch.set_num_threads(1)  # no thread pool may exist before a fork
    tinyworld.held_out()
    for stage in STAGES:
        importlib.import_module(stage.script)


def write_text(folder: Path) -> None:
    """A small folder of somebody's own text."""
    from nanochat.data import tinyworld

    folder.mkdir()
    for i, document in zip(range(200), tinyworld.documents(0), strict=False):
        (folder / f"note {i:03d}.txt").write_text(document)


def plan(base: Path, text: Path) -> None:
    """Write the plan, with saves within the stages and few questions."""
    os.environ["NANOCHAT_BASE_DIR"] = str(base)
    with quiet(base / "log.txt"):
        pipeline.plan(pipeline.PlanConfig(model_tag=TAG, data=str(text), **PLAN))
    whole = runs.read_plan(TAG)
    for name, flags in whole["stages"].items():
        if name in {stage.name for stage in TRAINED}:
            flags.append(f"--save_every={SAVE_EVERY}")
        if name in ("base_eval", "chat_eval"):
            flags[:] = [f for f in flags if not f.startswith("--max_problems")]
            flags.append("--max_problems=1")
    storage.write_json(runs.plan_path(TAG), whole)


def new_run(folder: str, text: Path, counts: Counts) -> Path:
    """A base dir with the plan in it; the one before is removed."""
    base = Path(folder) / "killed"
    shutil.rmtree(base, ignore_errors=True)
    plan(base, text)
    counts.runs += 1
    return base


@contextlib.contextmanager
def quiet(log: Path) -> Any:
    """Standard output and error into a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        yield


def run_stage(base: Path, name: str, die_at: int | None = None) -> int:
    """Fork a process that runs one stage as a driver does; its pid."""
    pid = os.fork()
    if not pid:
        os._exit(stage_in_child(base, name, die_at))
    return pid


def stage_in_child(base: Path, name: str, die_at: int | None) -> int:
    """Run one stage; its exit code."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        with quiet(base / "log.txt"):
            if die_at is not None:
                die_at_write(die_at)
            os.execv = in_this_process  # pyrefly: ignore (a stand-in)
            pipeline.stage(pipeline.StageRunConfig(name, TAG, session="crash"))
            code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException as error:
        with open(base / "log.txt", "a") as log:
            print(f"{type(error).__name__}: {error}", file=log)
    return code


def in_this_process(python: str, arguments: list[str]) -> None:
    """Instead of os.execv: the script's main with these flags."""
    module = importlib.import_module(arguments[2])
    module.main(cli.parse(module.Config, arguments[2], arguments[3:]))


def die_at_write(nth: int) -> None:
    """SIGKILL this process at the nth write boundary: before or after it, or in the middle."""
    import safetensors.torch

    count = 0

    def boundary() -> bool:
        nonlocal count
        count += 1
        return count == nth

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def around(call: Callable) -> Callable:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            if boundary():
                die()
            result = call(*arguments, **named)
            if boundary():
                die()
            return result

        return wrapped

    for module, name in ((os, "fsync"), (os, "replace"), (os, "rename"), (shutil, "rmtree")):
        setattr(module, name, around(getattr(module, name)))
    save_file = safetensors.torch.save_file

    def save_half(tensors: Any, path: Path, *rest: Any) -> None:
        save_file(tensors, path, *rest)
        if boundary():
            os.truncate(path, path.stat().st_size // 2)
            die()

    safetensors.torch.save_file = save_half  # pyrefly: ignore (a stand-in)


def finish_run(
    base: Path,
    kill_after: Callable[[], float | None],
    counts: Counts,
    die_at: int | None = None,
    most: int = 10**9,
) -> None:
    """Run every stage, from the first one again after each kill, until none is left to do."""
    os.environ["NANOCHAT_BASE_DIR"] = str(base)
    died: Counter[str] = Counter()
    for _ in range(MOST_TRIES):
        before = newest_steps()
        deadline, killed = kill_after(), False
        started = time.monotonic()
        for stage in STAGES:
            dies = die_at if died[stage.name] < 2 and counts.kills < most else None
            resumes = stage.checkpoint is not None and runs.last_checkpoint(stage, TAG) is not None
            finished = runs.is_finished(stage, TAG)
            pid = run_stage(base, stage.name, dies)
            counts.resumes += resumes and not finished
            code = wait(pid, None if deadline is None else started + deadline)
            if code == -signal.SIGKILL:
                counts.kills += 1
                died[stage.name] += 1
                killed = True
                break
            if code != 0:
                sys.exit(f"{stage.name} failed:\n{(base / 'log.txt').read_text()[-3000:]}")
        after = newest_steps()
        counts.lost += sum(after.get(name, -1) < step for name, step in before.items())
        if not killed:
            return
    sys.exit(f"no end after {MOST_TRIES} tries")


def wait(pid: int, deadline: float | None) -> int:
    """Exit code of a child, negative for a signal; killed at the deadline."""
    while True:
        done, status = os.waitpid(pid, 0 if deadline is None else os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if deadline is not None and time.monotonic() >= deadline:
            os.kill(pid, signal.SIGKILL)
            deadline = None
        time.sleep(0.002)


def newest_steps() -> dict[str, int]:
    """Stage -> step of its newest whole checkpoint."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        found = {stage.name: runs.last_checkpoint(stage, TAG) for stage in TRAINED}
    return {name: checkpoint.step for name, checkpoint in found.items() if checkpoint}


def outcome(base: Path) -> dict[str, Any]:
    """The loss of every step, and the hash of every stage's weights."""
    os.environ["NANOCHAT_BASE_DIR"] = str(base)
    losses, weights = [], {}
    for stage in TRAINED:
        name = stage.checkpoint or ""
        records = runs.metrics_of(name, TAG)
        losses += [[name, r["step"], r["loss"]] for r in records if "loss" in r]
        found = runs.last_checkpoint(stage, TAG)
        assert found is not None
        weights[name] = [found.step, storage.checksum(found.folder / "model.safetensors")]
    return {"losses": losses, "weights": weights}


def compare(base: Path, expected: dict[str, Any], counts: Counts) -> None:
    """Count a run that is not bit for bit the straight one, and say where it parts."""
    found = outcome(base)
    if found != expected:
        counts.mismatches += 1
        pairs = zip(found["losses"], expected["losses"], strict=False)
        part = next((a for a, b in pairs if a != b), "the weights")
        print(f"MISMATCH from {json.dumps(part)}\n{(base / 'log.txt').read_text()[-3000:]}")


def again(folder: str, text: Path, expected: dict[str, Any]) -> bool:
    """Whether a second run left alone gives the same: else nothing could be compared."""
    base = new_run(folder, text, Counts())
    finish_run(base, lambda: None, Counts())
    return outcome(base) == expected


def control(folder: str, text: Path, expected: dict[str, Any], left_out: str) -> bool:
    """Whether a run resumed without a part of its state is (wrongly) the straight one."""
    from nanochat.training import optim
    from nanochat.training import stage as stages

    base = new_run(folder, text, Counts())
    load, opened = optim.MuonAdamW.load_state_tensors, stages.open_resumed

    def without(name: str, config: Any) -> Any:
        found = opened(name, config)
        if left_out == "position":
            found.state.position = None
        elif left_out == "step":
            found.state.step -= 1
        return found

    if left_out == "optimizer":
        optim.MuonAdamW.load_state_tensors = lambda self, tensors: None  # pyrefly: ignore
    else:
        stages.open_resumed = without  # pyrefly: ignore (a stand-in)
    try:
        # Killed once, where base training has saved once or twice.
        for stage in STAGES[:2]:
            wait(run_stage(base, stage.name), None)
        pid = run_stage(base, "base_train")
        while newest_steps().get("base_train", 0) < SAVE_EVERY:
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        wait(pid, None)
        finish_run(base, lambda: None, Counts())
        return outcome(base) == expected
    finally:
        optim.MuonAdamW.load_state_tensors, stages.open_resumed = load, opened


if __name__ == "__main__":
    cli.run(main, Config, "python bench/crash.py")
