"""What goes wrong in a step: divergence, memory that runs out, sleep."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nanochat.data.dataloader import IGNORED, Batch, Prefetcher
from nanochat.gpt import GPT
from nanochat.system import log
from nanochat.system.errors import Failure, UserError
from nanochat.training import checkpoint_manager as checkpoints
from nanochat.training import faults, loop, optim, step_clock
from tests.training.test_train_stage import losses, weights

Run = Callable[..., None]


@pytest.mark.parametrize(
    ("loss", "norm"), [(float("nan"), 1.0), (1.0, float("inf")), (7.1, 1.0), (1.0, 1100.0)]
)
def test_the_guard_notices_what_can_not_be_right(loss: float, norm: float) -> None:
    guard = faults.DivergenceGuard()
    for i in range(60):
        guard.check(3.0 + 0.5 * (i % 3), 0.8 + 0.3 * (i % 2))
    with pytest.raises(faults.Diverged, match="loss"):
        guard.check(loss + 1, norm)


def test_the_guard_lets_ordinary_training_pass() -> None:
    """A loss that falls from its first value, noise, and a batch that is harder than usual."""
    guard = faults.DivergenceGuard()
    for i in range(300):
        guard.check(0.5 + 9.0 * 0.97**i + (2.5 if i == 200 else 0.0), 20.0 if i % 70 == 0 else 0.4)


def broken_at(monkeypatch: pytest.MonkeyPatch, bad: int, times: int = 10**9) -> list[torch.Tensor]:
    """Every loss over batch number `bad` of the run is not a number; returns the batches seen."""
    real, seen = GPT.loss, []

    def loss(self: object, ids: torch.Tensor, targets: torch.Tensor, *rest: object) -> torch.Tensor:
        value = real(self, ids, targets, *rest)
        if not torch.is_grad_enabled():
            return value
        seen.append(ids.clone())
        is_bad = len(seen) >= bad and torch.equal(ids, seen[bad - 1])
        return value * float("nan") if is_bad and len(seen) < bad + times else value

    monkeypatch.setattr(GPT, "loss", loss)
    return seen


ONE_BATCH = {"device_batch_size": 4, "total_batch_size": 128}


def test_a_rollback_goes_back_to_the_checkpoint_and_past_the_batch(
    run_stage: Run, base_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    seen = broken_at(monkeypatch, bad=4)
    run_stage("base_train", num_iterations=5, save_every=2, on_divergence="rollback", **ONE_BATCH)
    said = capsys.readouterr().out
    assert "diverged at step 4" in said
    assert "back to step 2, skipping that batch" in said
    records = [json.loads(x) for x in (base_dir / "metrics" / "base_d1.jsonl").open()]
    assert [r["step"] for r in records if "loss" in r] == [1, 2, 3, 4, 5]
    assert len(seen) == 4 + 3, "steps 3, 4 and 5 on batches 5, 6 and 7"
    assert all(bool(w.isfinite().all()) for w in weights("base").values())


@pytest.mark.slow
def test_a_run_that_was_rolled_back_is_resumed_exactly(
    run_stage: Run, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.training.test_train_stage import interrupt_after

    flags = {"num_iterations": 7, "save_every": 2, "on_divergence": "rollback", **ONE_BATCH}
    with monkeypatch.context() as patch:
        broken_at(patch, bad=4)
        run_stage("base_train", **flags)
    straight, after = weights("base"), losses(base_dir, "base_d1")
    with monkeypatch.context() as patch:
        broken_at(patch, bad=4)
        interrupt_after(patch, 6)  # the fifth update: step 4 was tried and taken back
        with pytest.raises(BaseException, match="interrupted"):
            run_stage("base_train", **flags)
    run_stage("base_train", resume=True, model_tag="d1-2")
    assert losses(base_dir, "base_d1-2") == after
    again = weights("base", "d1-2")
    assert all(torch.equal(again[key], straight[key]) for key in straight)


def test_a_divergence_that_always_comes_back_ends_the_run(
    run_stage: Run, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = GPT.loss
    monkeypatch.setattr(GPT, "loss", lambda *rest: real(*rest) * float("inf"))
    with pytest.raises(Failure, match="diverged at step 1"):
        run_stage("base_train", num_iterations=3, on_divergence="rollback", **ONE_BATCH)


# ---- memory


def test_parts_of_a_batch_teach_what_the_batch_does() -> None:
    targets = torch.tensor([[1, IGNORED], [IGNORED, IGNORED], [3, 4]])
    batch = Batch(torch.arange(6).view(3, 2), targets, 3, {"at": 1})
    for parts in (1, 2, 3, 8):
        pieces = faults.split(batch, parts)
        assert torch.equal(torch.cat([p.inputs for p in pieces]), batch.inputs)
        assert torch.equal(torch.cat([p.targets for p in pieces]), targets)
        assert sum(p.n_valid for p in pieces) == 3
        assert max(len(p.inputs) for p in pieces) == -(-3 // min(parts, 3))


def too_much(monkeypatch: pytest.MonkeyPatch, rows: int, error: type[RuntimeError]) -> None:
    """More than so many rows at once are out of memory, half-way through the backward pass."""
    real = GPT.loss

    def loss(self: object, ids: torch.Tensor, *rest: object) -> torch.Tensor:
        value = real(self, ids, *rest)
        if len(ids) > rows and torch.is_grad_enabled():
            value.backward(retain_graph=True)
            raise error("MPS backend out of memory (MPS allocated: 8 GB)")
        return value

    monkeypatch.setattr(GPT, "loss", loss)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_a_full_memory_halves_what_is_done_at_once_and_nothing_else(
    run_stage: Run,
    base_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    error: type[RuntimeError],
) -> None:
    run_stage("base_train", num_iterations=3, model_tag="straight", **ONE_BATCH)
    capsys.readouterr()
    too_much(monkeypatch, 1, error)
    run_stage("base_train", num_iterations=3, **ONE_BATCH)
    said = capsys.readouterr().out
    assert said.count("out of memory: ") == 2, "4 rows to 2, 2 to 1, and then no more"
    assert "1 row per micro-batch instead of 2, as many tokens per step as before" in said
    found = checkpoints.find("base", "d1")
    assert found.state["parts"] == 4
    assert found.state["tokens"] == 3 * 128
    assert losses(base_dir, "base_d1") == pytest.approx(losses(base_dir, "base_straight"), rel=1e-5)


def test_where_one_row_is_too_much_the_remedy_is_said(
    run_stage: Run, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    too_much(monkeypatch, 0, torch.OutOfMemoryError)
    with pytest.raises(Failure, match=r"one row at once: set a smaller DEVICE_BATCH_SIZE"):
        run_stage("base_train", num_iterations=1, **ONE_BATCH)


def test_memory_that_runs_out_in_the_update_ends_the_run_before_it_is_applied_twice(
    run_stage: Run, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AdamW has stepped when Muon's buffers do not fit: half of an update can't be tried again."""
    updates = []

    def orthogonalize(*arguments: object) -> torch.Tensor:
        updates.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(optim, "orthogonalize", orthogonalize)
    with pytest.raises(Failure, match=r"out of memory on cpu in the update itself: set a smaller"):
        run_stage("base_train", num_iterations=2, **ONE_BATCH)
    assert updates == [1]
    assert not checkpoints.is_there("base", "d1"), "nothing half-done is saved"


def test_a_stream_that_fails_in_the_middle_loses_nothing_that_was_learned(
    run_stage: Run, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, drawn = Prefetcher.__next__, []

    def damaged(self: Prefetcher) -> Batch:
        drawn.append(1)
        if len(drawn) == 4:
            raise UserError("shard_00001.parquet is damaged: remove it or fetch it again")
        return real(self)

    with monkeypatch.context() as patch:
        patch.setattr(Prefetcher, "__next__", damaged)
        with pytest.raises(UserError, match="shard_00001"):
            run_stage("base_train", num_iterations=6, **ONE_BATCH)
    assert checkpoints.find("base", "d1").step == 3
    run_stage("base_train", resume=True)
    run_stage("base_train", num_iterations=6, model_tag="straight", **ONE_BATCH)
    assert losses(base_dir, "base_d1") == losses(base_dir, "base_straight")


def test_another_error_of_torchs_is_not_taken_for_memory(
    run_stage: Run, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss(*rest: object) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(GPT, "loss", loss)
    with pytest.raises(RuntimeError, match="shapes"):
        run_stage("base_train", num_iterations=1)


# ---- sleep


@pytest.mark.parametrize("monotonic_stands_still", [True, False])
def test_sleep_is_logged_and_kept_out_of_the_speed(
    run_stage: Run,
    base_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    monotonic_stands_still: bool,
) -> None:
    wall, monotonic, count = [1000.0], [50.0], [0]
    real = loop.train_step

    def step(*args: object, **kwargs: object) -> loop.StepStats:
        count[0] += 1
        asleep = 7200.0 if count[0] == 4 else 0.0
        wall[0] += 0.5 + asleep
        monotonic[0] += 0.5 + (0.0 if monotonic_stands_still else asleep)
        return real(*args, **kwargs)

    monkeypatch.setattr(loop, "train_step", step)
    monkeypatch.setattr(step_clock.time, "time", lambda: wall[0])
    monkeypatch.setattr(step_clock.time, "monotonic", lambda: monotonic[0])
    run_stage("base_train", num_iterations=6, save_minutes=0)
    assert "slept for 2 h 0 min in step 4" in capsys.readouterr().out
    records = [json.loads(x) for x in (base_dir / "metrics" / "base_d1.jsonl").open()]
    steps = [r for r in records if "loss" in r]
    assert [r["step_s"] for r in steps] == [0.5] * 6
    assert [r.get("slept_s") for r in steps] == [None, None, None, 7200.0, None, None]


# ---- a full disk under what is said and measured


class FullDisk:
    """Takes so many bytes more, and then none."""

    def __init__(self, room: int) -> None:
        self.room, self.content = room, b""

    def write(self, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = data[: self.room]
        self.room -= len(taken)
        self.content += taken
        return len(taken)


def test_no_record_is_lost_when_the_disk_is_full_for_a_while(tmp_path: Path) -> None:
    file = log.GrowingFile(tmp_path / "metrics.jsonl")
    file._file = disk = FullDisk(room=12)
    for i in range(5):
        file.write(f"record {i}")
    assert disk.content == b"record 0\nrec"
    disk.room = 1_000
    file.write("record 5")
    assert disk.content.decode() == "".join(f"record {i}\n" for i in range(6))


def test_a_full_disk_under_standard_output_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    full = io.TextIOWrapper(io.BufferedWriter(RawFullDisk()))
    monkeypatch.setattr(log, "_log_file", log.GrowingFile(tmp_path / "log.txt"))
    monkeypatch.setattr("sys.stdout", full)
    log.say("what is said")
    line = log.StepLine(1)
    line.show(1, "a step")
    line.close()
    assert (tmp_path / "log.txt").read_text() == "what is said\na step\n"


class RawFullDisk(io.RawIOBase):
    """A file on a full disk."""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        """Nothing to flush: a test's end is no place for the error."""
