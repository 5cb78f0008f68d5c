"""What a stage takes over from a checkpoint, and what this command line changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nanochat.stages import TRAINED, stage_of
from nanochat.system.errors import UserError
from nanochat.training import checkpoint_manager as checkpoints
from nanochat.training import stage_run, train_stage
from nanochat.training.stage_config import PLANNED, TAKEN_OVER, OptimFlags, Settings, StageConfig
from scripts import base_train, chat_sft, mid_train
from tests.training.test_train_stage import interrupted

Run = Callable[..., None]
SAVED = {
    "num_iterations": 6, "time_budget_s": None, "warmup": 0.2, "warmdown": 0.3, "seed": 7,
    "device_batch_size": 4, "total_batch_size": 128, "max_seq_len": 32, "data": "tinyworld",
    "eval_every": 5, "eval_tokens": 64, "save_every": 3, "save_minutes": 2.0, "compile": True,
    "dtype": "bfloat16", "on_divergence": "rollback", "memory_gb": 64, "device_type": "cpu",
    "wandb_run": "a run", "data_shards": 2, "depth": 3,
    "optim": {
        "embedding_lr": 0.3, "unembedding_lr": 0.004, "matrix_lr": 0.01, "weight_decay": 0.1,
        "grad_clip": 1.0,
    },
}  # fmt: skip


def resumed(config: StageConfig, fixed: bool = True, **saved: object) -> StageConfig:
    batch = {"device_batch_size": 4, "eval_tokens": 64}
    derived = dict.fromkeys(batch)  # neither was given
    state = {"config": {**SAVED, **derived, **saved}, "batch": batch, "iterations_fixed": fixed}
    found: Any = SimpleNamespace(state=state)
    config = stage_run.resumed_config(config, found)
    # As a checkpoint keeps it: with the defaults of what nobody said.
    return replace(config, **asdict(Settings.of(config, TRAINED[0])))


def test_a_resumed_run_takes_over_what_is_not_said_again() -> None:
    taken = resumed(base_train.Config(resume=True))
    assert all(getattr(taken, name) == SAVED[name] for name in (*PLANNED, *TAKEN_OVER))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("compile", False), ("eval_every", 0), ("save_every", 0), ("save_minutes", 0.0),
        ("on_divergence", "stop"), ("device_batch_size", 1), ("eval_tokens", 1), ("wandb_run", ""),
        ("dtype", "float32"), ("memory_gb", 1), ("device_type", "mps"),
    ],
)  # fmt: skip
def test_what_is_said_again_counts_even_where_it_is_a_default(name: str, value: object) -> None:
    given: Any = {name: value}
    found = getattr(resumed(base_train.Config(resume=True, **given)), name)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_iterations", 50), ("warmup", 0.0), ("warmdown", 0.0), ("seed", 42), ("seed", 0),
        ("depth", 4), ("data", "fineweb"), ("weight_decay", 0.0),
    ],
)  # fmt: skip
def test_a_planned_value_is_refused_even_where_it_is_a_default(name: str, value: object) -> None:
    given: Any = {name: value}
    if name == "weight_decay":
        given = {"optim": OptimFlags(**given)}
    with pytest.raises(UserError, match=rf"--{name}={value} can't be changed .* \(it has "):
        resumed(base_train.Config(resume=True, **given))


def test_every_flag_of_a_stage_tells_not_given_from_given() -> None:
    """A default that is a value could not be told from the same value on the command line."""
    for config in (base_train.Config(), mid_train.Config(), chat_sft.Config()):
        values = {name: getattr(config, name) for name in (*PLANNED, *TAKEN_OVER) if
                  hasattr(config, name)}  # fmt: skip
        assert set(values.values()) == {None}
        assert set(vars(config.optim).values()) == {None}


def test_less_memory_means_fewer_rows_for_as_many_tokens(run_stage: Run, base_dir: Path) -> None:
    """On a resume and in the next stage, unless the rows themselves are given."""
    assert resumed(base_train.Config(resume=True, memory_gb=8)).device_batch_size is None
    both = base_train.Config(resume=True, memory_gb=8, device_batch_size=2)
    assert resumed(both).device_batch_size == 2
    run_stage("base_train", num_iterations=1)
    for given, rows in (({}, 2), ({"memory_gb": 8}, 1)):
        run = stage_run.start(stage_of("mid"), mid_train.Config(device_type="cpu", **given))
        assert run.batch.device_batch_size == rows
        assert run.batch.total_batch_size == 128


def test_a_time_budget_that_had_fixed_nothing_yet_is_taken_over() -> None:
    saved = {"num_iterations": None, "time_budget_s": 600.0}
    assert resumed(StageConfig(resume=True), False, **saved).time_budget_s == 600.0
    assert resumed(StageConfig(resume=True, time_budget_s=60.0), False, **saved).time_budget_s == 60
    fixed = resumed(StageConfig(resume=True), True, **saved)
    assert (fixed.time_budget_s, fixed.num_iterations) == (None, None)
    with pytest.raises(UserError, match=r"--num_iterations=50 .* \(it was left out there\)"):
        resumed(StageConfig(resume=True, num_iterations=50), False, **saved)


def test_killed_after_the_first_save_a_time_budget_still_decides(
    run_stage: Run, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollback saves step 0, before anything could be timed."""
    monkeypatch.setattr(train_stage.TimeBudget, "iterations", lambda self, *_: self.fixed or 3)
    timed = {"time_budget_s": 1000.0, "on_divergence": "rollback"}
    keep = checkpoints.save

    def killed(*arguments: Any) -> None:
        keep(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            run_stage("base_train", **timed)
    found = checkpoints.find("base")
    assert (found.step, found.state["iterations_fixed"]) == (0, False)
    run_stage("base_train", resume=True)
    assert checkpoints.find("base").step == 3


def test_a_bad_number_is_refused_by_name() -> None:
    for given in ({"seed": -1}, {"seed": 2**70}, {"memory_gb": 0}, {"eval_every": -1},
                  {"save_minutes": float("nan")}, {"time_budget_s": float("inf")}):  # fmt: skip
        (name,) = given
        with pytest.raises(ValueError, match=f"^{name}="):
            replace(StageConfig(), **given)


def test_what_was_interrupted_is_resumed_as_it_was_saved(
    run_stage: Run, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with interrupted(monkeypatch, 1):
        run_stage("base_train", num_iterations=4, save_every=1, eval_every=2, seed=0)
    run_stage("base_train", resume=True)
    config = checkpoints.find("base").state["config"]
    assert [config[name] for name in ("save_every", "eval_every", "seed")] == [1, 2, 0]
