"""Between two steps: a save waits for room and heeds a signal; what only measures ends no run."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nanochat import report
from nanochat.stages import stage_of
from nanochat.system import storage
from nanochat.system.errors import Failure, UserError
from nanochat.training import checkpoint_manager as checkpoints
from nanochat.training import hooks, stage_run, train_stage
from scripts import mid_train
from tests.training.test_faults import broken_at
from tests.training.test_train_stage import losses

Run = Callable[..., None]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_for_room_on_the_disk(
    run_stage: Run,
    base_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    number: int,
) -> None:
    keep, waited = checkpoints.save, []

    def save(name: str, state: dict, *rest: object) -> Path:
        if state["finished"]:
            raise UserError("the disk is full: x was not written")
        return keep(name, state, *rest)

    def sleep(seconds: float) -> None:
        if seconds == hooks.RETRY_SAVE_S:  # git, too, is waited for
            waited.append(seconds)
            assert len(waited) <= 2
            if len(waited) == 2:
                os.kill(os.getpid(), number)

    monkeypatch.setattr(checkpoints, "save", save)
    monkeypatch.setattr(hooks.time, "sleep", sleep)
    with pytest.raises(Failure, match="step 4 could not be saved; step 2 is on the disk"):
        run_stage("base_train", num_iterations=4, save_every=2)
    assert "not saved yet: the disk is full" in capsys.readouterr().out
    assert len(waited) == 2


@pytest.mark.parametrize("error", [ValueError("no text\nat all"), torch.OutOfMemoryError("full")])
def test_an_evaluation_or_a_sample_that_fails_does_not_end_the_run(
    run_stage: Run,
    base_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    error: Exception,
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("nanochat.evals.bpb.bits_per_byte", fail)
    monkeypatch.setattr("nanochat.engine.Engine.complete", fail)
    run_stage("base_train", num_iterations=2, eval_every=1)
    assert checkpoints.find("base").state["finished"]
    said = capsys.readouterr().out
    reason = f"{type(error).__name__}: {str(error).splitlines()[0]} (details: "
    for what in (*(f"evaluating base at step {n}" for n in (0, 1, 2)), "sampling from base"):
        assert f"{what} failed; training is not affected: {reason}" in said
    traceback = next((base_dir / "logs").glob("crash-base-*.txt")).read_text()
    assert "in fail" in traceback
    assert len(losses(base_dir, "base_d1")) == 2
    assert "not measured" in "".join(report._stages("d1", {}))


def test_a_measurement_that_is_no_number_is_not_the_best(
    run_stage: Run, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([float("nan"), 5.0, float("nan"), float("inf")])
    monkeypatch.setattr("nanochat.evals.bpb.bits_per_byte", lambda *rest: (next(values), 1, 1))
    run_stage("base_train", num_iterations=3, save_every=1, eval_every=1)
    folder = base_dir / "base_checkpoints" / "d1"
    assert storage.read_sealed(folder / "best.json")["loss"] == 5.0
    assert "NaN" not in (base_dir / "metrics" / "base_d1.jsonl").read_text()
    mid = stage_run.start(stage_of("mid"), mid_train.Config())
    assert math.isnan(train_stage.mean_loss(mid, iter(())))


def test_a_rollback_before_the_first_update(
    run_stage: Run, base_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    seen = broken_at(monkeypatch, bad=1)
    flags = {"on_divergence": "rollback", "device_batch_size": 4, "total_batch_size": 128}
    run_stage("base_train", num_iterations=2, **flags)
    assert "diverged at step 1" in capsys.readouterr().out
    assert checkpoints.find("base").step == 2
    assert len(seen) == 3
    assert all(math.isfinite(loss) for loss in losses(base_dir, "base_d1"))


def test_after_a_rollback_over_a_damaged_checkpoint_its_step_is_saved_again(
    run_stage: Run, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, saved = checkpoints.save, []

    def save(name: str, state: dict, *rest: Any) -> Path:
        folder = keep(name, state, *rest)
        saved.append(state["step"])
        if saved.count(3) == 1 and state["step"] == 3:
            (folder / "model.safetensors").unlink()
        return folder

    monkeypatch.setattr(checkpoints, "save", save)
    broken_at(monkeypatch, bad=4)
    flags = {"on_divergence": "rollback", "device_batch_size": 4, "total_batch_size": 128}
    run_stage("base_train", num_iterations=4, save_every=1, **flags)
    assert saved == [0, 1, 2, 3, 3, 4]


def test_wandb_that_is_missing_is_said_before_anything_changes(
    run_stage: Run, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage("base_train", num_iterations=1)
    before = sorted(base_dir.rglob("*"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(train_stage, "try_compiling", None)
    monkeypatch.setattr(checkpoints, "free_tag", lambda *arguments: "d1")
    with pytest.raises(UserError, match=r"WANDB_RUN=x, .*pip install wandb"):
        run_stage("base_train", num_iterations=1, wandb_run="x")
    assert sorted(base_dir.rglob("*")) == before
