"""Kills a small pipeline again and again, continues it, and compares it with one left alone.

    python bench/crash.py       100 random kills or more, and one at every write (40 minutes)
    python bench/crash.py --kills 8 --writes 12

The straight run goes first. Then, in a base dir of its own each: (1) SIGKILL at random moments,
during continuations too; (2) SIGKILL at the first write boundary of every stage (a sync, a rename,
a half-written file) and of its continuation, in the next run at their second, and so on until
there are no more. Whatever happens, the run continued must give the losses of every step and the
weights of every stage bit for bit, and no checkpoint that was whole may be gone. The controls leave
out a part of what is resumed, and must be noticed. Every stage is run as the drivers run it, but
forked from this process instead of started again, which takes seconds off each kill. CPU only.
(2) has a shorter pipeline, of three saves a stage, the last of which removes the first.

The same then with web text from a hub on the loopback, slowed down so that kills fall into the
download and the training of the tokenizer: shards and tokenizer must be the same byte for byte.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for tests.data.hub_server

from nanochat.data import fineweb, shards, tinyworld  # noqa: E402
from nanochat.run import pipeline, records  # noqa: E402
from nanochat.stages import STAGES, TRAINED, Stage  # noqa: E402
from nanochat.system import cli, storage  # noqa: E402
from tests.data.hub_server import fake_hub  # noqa: E402

TAG = "crash"
LOOPBACK_ONLY = {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
SHARDS, SHARD_DOCUMENTS, HUB_BYTES_A_SECOND = 3, 400, 200_000  # what the hub has
# Small, with every part of the state in use: accumulation, several lanes, saves within a stage.
PLAN = {
    "depth": 1, "device_batch_size": 2, "total_batch_size": 256, "max_seq_len": 64,
    "vocab_size": 512, "eval_tokens": 1024, "split_tokens": 1024, "data_shards": SHARDS,
    "memory_gb": 8,
}  # fmt: skip
SAVE_EVERY = 20
LONG, SHORT = (240, 120, 120), (60, 60, 60)  # updates of base training, midtraining, SFT
MAX_TRIES = 400  # of one run; a run that makes no progress would never end
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
    within: Counter[str] = field(default_factory=Counter)  # kills by stage
    resumes: int = 0
    runs: int = 0
    mismatches: int = 0
    lost: int = 0


@dataclass(frozen=True)
class Scenario:
    """Stages to be run, on which text, and what must come out the same."""

    name: str
    folder: Path
    data: str
    iterations: tuple[int, int, int]
    stages: tuple[Stage, ...]
    outcome: Callable[[Path], Any]
    kept: Callable[[], dict[str, int]]
    """what is whole now, with a number that must not fall"""


def main(config: Config) -> None:
    """Straight run, kills at random, kills at writes, controls; exit code 1 for any mismatch."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary, slow_hub(Path(temporary)) as address:
        os.environ |= {"HF_ENDPOINT": address, **LOOPBACK_ONLY}
        warm_up()
        folder = Path(temporary)
        write_text(folder / "text")
        text, outcome = str(folder / "text"), weights_and_losses
        long = Scenario("pipeline", folder, text, LONG, STAGES, outcome, newest_steps)
        short = Scenario("short pipeline", folder, text, SHORT, STAGES, outcome, newest_steps)
        download = Scenario(
            "download and tokenizer", folder, "fineweb", SHORT, STAGES[:2], files, whole_shards
        )
        took, expected, failed = straight_run(long)
        failed += kill_at_random(long, took, expected, config.kills, config.seed)
        for left_out in CONTROLS:
            noticed = not control(long, expected, left_out)
            print(f"control, {left_out} left out: {'noticed' if noticed else 'NOT NOTICED'}")
            failed += not noticed
        _, expected, differs = straight_run(short)
        failed += differs + kill_at_writes(short, expected, config.writes)
        took, expected, differs = straight_run(download)
        failed += differs
        failed += kill_at_random(download, took, expected, config.kills // 4, config.seed)
        failed += kill_at_writes(download, expected, config.writes)
    print(f"{time.monotonic() - began:.0f} s, on {os.cpu_count()} CPU cores")
    sys.exit(1 if failed else 0)


def straight_run(scenario: Scenario) -> tuple[float, Any, int]:
    """(seconds of a run left alone, what comes out, 1 if a second one differs: then nothing can be
    compared).
    """
    base = new_run(scenario, Counts())
    started = time.monotonic()
    finish_run(scenario, base, lambda: None, Counts())
    took = time.monotonic() - started
    expected = scenario.outcome(base)
    base = new_run(scenario, Counts())
    finish_run(scenario, base, lambda: None, Counts())
    same = scenario.outcome(base) == expected
    print(
        f"{scenario.name}, left alone: {took:.1f} s; again: {'the same' if same else 'DIFFERENT'}"
    )
    return took, expected, not same


def kill_at_random(scenario: Scenario, took: float, expected: Any, kills: int, seed: int) -> int:
    """How often a run differed or a checkpoint was lost, with so many kills or a few more."""
    rng, counts = random.Random(seed), Counts()
    while counts.kills < kills:
        base = new_run(scenario, counts)
        finish_run(scenario, base, lambda: rng.expovariate(1 / (took / 5)), counts)
        compare(scenario, base, expected, counts)
    show(f"{scenario.name}, random moments", counts)
    return counts.mismatches + counts.lost


def kill_at_writes(scenario: Scenario, expected: Any, most: int) -> int:
    """The same, with a kill at every write boundary, or at the first ones."""
    counts, nth, before = Counts(), 0, -1
    while before < counts.kills < most:
        nth, before = nth + 1, counts.kills
        base = new_run(scenario, counts)
        finish_run(scenario, base, lambda: None, counts, die_at=nth, most=most)
        compare(scenario, base, expected, counts)
    show(f"{scenario.name}, write boundaries (number 1 to {nth} of each process)", counts)
    return counts.mismatches + counts.lost


def show(what: str, counts: Counts) -> None:
    """A line of counts."""
    within = ", ".join(f"{name} {n}" for name, n in counts.within.most_common())
    print(
        f"{what}: {counts.kills} kills ({within}), {counts.resumes} resumes of a stage, "
        f"{counts.runs} runs, {counts.mismatches} mismatches, {counts.lost} lost",
        flush=True,
    )


def warm_up() -> None:
    """Import what the stages import, and make what they share, so that a fork has it."""
    import torch

    torch.set_num_threads(1)  # no thread pool may exist before a fork
    tinyworld.held_out()
    for stage in STAGES:
        importlib.import_module(stage.script)


def write_text(folder: Path) -> None:
    """A small folder of somebody's own text."""
    folder.mkdir()
    for i, document in zip(range(200), tinyworld.documents(0), strict=False):
        (folder / f"note {i:03d}.txt").write_text(document)


@contextlib.contextmanager
def slow_hub(folder: Path) -> Iterator[str]:
    """Address of a hub in a process of its own."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    server = context.Process(target=serve, args=(folder / "hub", there), daemon=True)
    server.start()
    try:
        yield here.recv()
    finally:
        server.kill()


def serve(folder: Path, answer: Any) -> None:
    """The hub's process."""
    folder.mkdir()
    with fake_hub() as hub:
        hub.bytes_a_second = HUB_BYTES_A_SECOND
        for i in (*range(SHARDS), fineweb.LAST_SHARD):
            path = shards.shard_path(folder, i)
            made = tinyworld.documents(i % 100)
            shards.write_shard(path, [next(made) for _ in range(SHARD_DOCUMENTS)])
            hub.add(fineweb.REPO, path.name, path.read_bytes())
        answer.send(hub.address)
        signal.pause()


def plan(folder: Path, data: str, iterations: tuple[int, int, int]) -> None:
    """Write the plan."""
    base, mid, sft = iterations
    os.environ["NANOCHAT_BASE_DIR"] = str(folder)
    with quiet(folder / "log.txt"):
        pipeline.plan(
            pipeline.PlanConfig(
                model_tag=TAG,
                data=data,
                base_iterations=base,
                mid_iterations=mid,
                sft_iterations=sft,
                **PLAN,
            )
        )


def new_run(scenario: Scenario, counts: Counts) -> Path:
    """A base dir with the plan in it; the one before is removed."""
    base = scenario.folder / "base"
    shutil.rmtree(base, ignore_errors=True)
    plan(base, scenario.data, scenario.iterations)
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
            os.execve = in_this_process  # pyrefly: ignore (a stand-in)
            pipeline.stage(pipeline.StageRunConfig(name, TAG, session="crash"))
            code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException as error:
        with open(base / "log.txt", "a") as log:
            print(f"{type(error).__name__}: {error}", file=log)
    return code


def in_this_process(python: str, arguments: list[str], environment: dict[str, str]) -> None:
    """Instead of os.execve: the script's main, with saves within the stages and few questions."""
    os.environ.update(environment)
    script, flags = arguments[2], arguments[3:]
    if script in {stage.script for stage in TRAINED}:
        flags.append(f"--save_every={SAVE_EVERY}")
    flags = [f for f in flags if not f.startswith("--max_problems")]
    if script in {stage.script for stage in STAGES if stage.measures}:
        flags.append("--max_problems=1")
    module = importlib.import_module(script)
    module.main(cli.parse(module.Config, script, flags))


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
    scenario: Scenario,
    base: Path,
    kill_after: Callable[[], float | None],
    counts: Counts,
    die_at: int | None = None,
    most: int = 10**9,
) -> None:
    """Run every stage, from the first one again after each kill, until none is left to do."""
    os.environ["NANOCHAT_BASE_DIR"] = str(base)
    died: Counter[str] = Counter()
    for _ in range(MAX_TRIES):
        before = scenario.kept()
        deadline, killed = kill_after(), False
        started = time.monotonic()
        for stage in scenario.stages:
            dies = die_at if died[stage.name] < 2 and counts.kills < most else None
            resumes = (
                stage.checkpoint is not None and records.last_checkpoint(stage, TAG) is not None
            )
            finished = records.is_finished(stage, TAG)
            pid = run_stage(base, stage.name, dies)
            counts.resumes += resumes and not finished
            code = wait(pid, None if deadline is None else started + deadline)
            if code == -signal.SIGKILL:
                counts.kills += 1
                counts.within[stage.name] += 1
                died[stage.name] += 1
                killed = True
                break
            if code != 0:
                sys.exit(f"{stage.name} failed:\n{(base / 'log.txt').read_text()[-3000:]}")
        after = scenario.kept()
        counts.lost += sum(after.get(name, -1) < step for name, step in before.items())
        if not killed:
            return
    sys.exit(f"no end after {MAX_TRIES} tries")


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
        found = {stage.name: records.last_checkpoint(stage, TAG) for stage in TRAINED}
    return {name: checkpoint.step for name, checkpoint in found.items() if checkpoint}


def whole_shards() -> dict[str, int]:
    """Size of every shard that has its place."""
    return {path.name: path.stat().st_size for path in fineweb.folder().glob("*.parquet")}


def files(base: Path) -> dict[str, str]:
    """The checksum of every shard, and of the tokenizer."""
    found = [*(base / "base_data").rglob("*.parquet"), *(base / "tokenizer").iterdir()]
    return {path.name: storage.checksum(path) for path in found}


def weights_and_losses(base: Path) -> dict[str, Any]:
    """The loss of every step, and the hash of every stage's weights."""
    losses, weights = [], {}
    for stage in TRAINED:
        name = stage.checkpoint or ""
        lines = records.metrics_of(name, TAG)
        losses += [[name, r["step"], r["loss"]] for r in lines if "loss" in r]
        found = records.last_checkpoint(stage, TAG)
        assert found is not None
        weights[name] = [found.step, storage.checksum(found.folder / "model.safetensors")]
    return {"losses": losses, "weights": weights}


def compare(scenario: Scenario, base: Path, expected: Any, counts: Counts) -> None:
    """Count a run that is not bit for bit the straight one, and say where it parts."""
    found = scenario.outcome(base)
    if found != expected:
        counts.mismatches += 1
        part = ""
        if "losses" in found:
            pairs = zip(found["losses"], expected["losses"], strict=False)
            part = f" from {next((a for a, b in pairs if a != b), 'the weights')}"
        print(f"MISMATCH{part}\n{(base / 'log.txt').read_text()[-3000:]}")


def control(scenario: Scenario, expected: Any, left_out: str) -> bool:
    """Whether a run resumed without a part of its state is (wrongly) the straight one."""
    from nanochat.training import optim, stage_run

    base = new_run(scenario, Counts())
    load, resume = optim.MuonAdamW.load_state_tensors, stage_run._resume

    def without(stage: Stage, config: Any) -> Any:
        found = resume(stage, config)
        if left_out == "position":
            found.state.position = None
        elif left_out == "step":
            found.state.step -= 1
        return found

    if left_out == "optimizer":
        optim.MuonAdamW.load_state_tensors = lambda self, tensors: None  # pyrefly: ignore
    else:
        stage_run._resume = without  # pyrefly: ignore (a stand-in)
    try:
        # Killed once, where base training has saved once or twice.
        for stage in STAGES[:2]:
            wait(run_stage(base, stage.name), None)
        pid = run_stage(base, "base_train")
        while newest_steps().get("base_train", 0) < SAVE_EVERY:
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        wait(pid, None)
        finish_run(scenario, base, lambda: None, Counts())
        return scenario.outcome(base) == expected
    finally:
        optim.MuonAdamW.load_state_tensors, stage_run._resume = load, resume


if __name__ == "__main__":
    cli.run(main, Config, "python bench/crash.py")
