"""Stages from end to end in miniature: steps, accumulation, resuming bit for bit, what is kept."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nanochat.gpt import GPT
from nanochat.system import storage
from nanochat.system.errors import Failure, Interrupted, UserError
from nanochat.training import checkpoint_manager as checkpoints
from nanochat.training import loop, train_stage

Run = Callable[..., None]


def losses(base: Path, name: str) -> list[float]:
    lines = (base / "metrics" / f"{name}.jsonl").read_text().splitlines()
    return [record["loss"] for record in map(json.loads, lines) if "loss" in record]


def weights(name: str, tag: str = "d1") -> dict[str, torch.Tensor]:
    return load_file(checkpoints.find(name, tag).folder / "model.safetensors")


@contextmanager
def interrupted(
    monkeypatch: pytest.MonkeyPatch, steps: int, match: str | None = None
) -> Iterator[None]:
    """What runs within it must end as interrupted in the middle of step number `steps`."""
    with monkeypatch.context() as patch:
        interrupt_after(patch, steps)
        with pytest.raises(Interrupted, match=match):
            yield


def interrupt_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Send this process SIGINT in the middle of step number `steps`, once."""
    real, done = loop.train_step, []

    def train_step(*args: object, **kwargs: object) -> loop.StepStats:
        done.append(1)
        if len(done) == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*args, **kwargs)

    monkeypatch.setattr(loop, "train_step", train_step)


@pytest.mark.slow
def test_all_stages_train_and_a_checkpoint_is_complete_in_itself(
    run_stage: Run, base_dir: Path
) -> None:
    run_stage("base_train", num_iterations=3)
    run_stage("mid_train", num_iterations=2)
    run_stage("chat_sft", num_iterations=1)
    for name, steps in (("base", 3), ("mid", 2), ("sft", 1)):
        found = checkpoints.find(name)
        assert found.folder == base_dir / f"{name}_checkpoints" / "d1" / f"step_{steps:06d}"
        assert sorted(path.name for path in found.folder.iterdir()) == [
            "model.safetensors",
            "optimizer.safetensors",
            "state.json",
            "tokenizer.json",
        ]
        assert found.state["finished"]
        assert len(losses(base_dir, f"{name}_d1")) == steps
    assert not list(base_dir.rglob("*.part"))


@pytest.mark.parametrize(("rows", "tokens", "accumulate"), [(1, 32, 1), (1, 96, 3), (2, 128, 2)])
def test_iterations_are_steps_whatever_the_accumulation(
    run_stage: Run, base_dir: Path, rows: int, tokens: int, accumulate: int
) -> None:
    run_stage("base_train", num_iterations=2, device_batch_size=rows, total_batch_size=tokens)
    found = checkpoints.find("base")
    assert found.step == 2
    assert found.state["tokens"] == 2 * tokens
    assert tokens == rows * accumulate * 32
    assert load_file(found.folder / "optimizer.safetensors")["step.wte.weight"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["base", "mid", "sft"])
def test_stopped_and_resumed_is_uninterrupted_bit_for_bit(
    run_stage: Run, base_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    script = {"base": "base_train", "mid": "mid_train", "sft": "chat_sft"}[name]
    # None of it is said again by the resume.
    flags = {"num_iterations": 6, "warmup": 0.3, "warmdown": 0.3}
    for before, steps in (("base_train", 2), ("mid_train", 2)):
        if before != script:
            run_stage(before, num_iterations=steps)
        else:
            break
    run_stage(script, **flags)
    straight, straight_losses = weights(name), losses(base_dir, f"{name}_d1")
    folder = checkpoints.stage_folder(name)
    (folder / "d1").rename(folder / "straight")

    with interrupted(monkeypatch, 3, "step 3 of 6"):
        run_stage(script, **flags, **({} if name == "base" else {"model_tag": "d1"}))
    assert checkpoints.find(name, "d1").step == 3
    run_stage(script, resume=True, model_tag="d1")
    assert losses(base_dir, f"{name}_d1") == straight_losses
    resumed = weights(name)
    assert all(torch.equal(resumed[key], straight[key]) for key in straight)


@pytest.mark.parametrize("left_out", ["position", "optimizer", "step"])
def test_leaving_out_a_part_of_the_state_is_noticed(
    run_stage: Run, base_dir: Path, monkeypatch: pytest.MonkeyPatch, left_out: str
) -> None:
    """The control of the test above: it can fail."""
    run_stage("base_train", num_iterations=6)
    straight = losses(base_dir, "base_d1")
    (base_dir / "base_checkpoints" / "d1").rename(base_dir / "base_checkpoints" / "straight")
    with interrupted(monkeypatch, 3):
        run_stage("base_train", num_iterations=6)
    found = checkpoints.find("base", "d1")
    if left_out == "optimizer":
        monkeypatch.setattr(train_stage.MuonAdamW, "load_state_tensors", lambda self, tensors: None)
    else:
        state = (
            found.state | {"position": None}
            if left_out == "position"
            else {**found.state, "step": 2}
        )
        storage.write_sealed(found.folder / "state.json", state)
    run_stage("base_train", resume=True)
    assert losses(base_dir, "base_d1") != straight


def test_micro_batches_sum_to_the_same_update_as_one_batch(run_stage: Run, base_dir: Path) -> None:
    for tag, rows in (("one", 4), ("four", 1)):
        run_stage(
            "base_train",
            num_iterations=2,
            device_batch_size=rows,
            total_batch_size=128,
            model_tag=tag,
        )
    one, four = losses(base_dir, "base_one"), losses(base_dir, "base_four")
    assert one == pytest.approx(four, rel=1e-5)
    a, b = weights("base", "one"), weights("base", "four")
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-3, atol=1e-4)


def test_the_loss_of_a_step_is_the_mean_over_supervised_tokens(
    run_stage: Run, base_dir: Path
) -> None:
    """SFT's micro-batches have different numbers of supervised tokens; a mean of means is wrong."""
    from nanochat.data import dataloader, tinyworld
    from nanochat.system.device import open_device

    run_stage("base_train", num_iterations=1)
    run_stage("mid_train", num_iterations=1)
    run_stage("chat_sft", num_iterations=1, device_batch_size=1, total_batch_size=256)
    found = checkpoints.find("mid")
    model, tokenizer = found.model(open_device("cpu")), found.tokenizer()
    read = dataloader.conversation_reader(tinyworld.conversations(100), tokenizer, 33)
    rows = dataloader.batches(dataloader.whole_rows(read, 32), 1)
    batches = [next(rows) for _ in range(8)]
    with torch.no_grad():
        total = sum(model.loss(b.inputs, b.targets).item() for b in batches)
    counts = [b.n_valid for b in batches]
    assert len(set(counts)) > 1
    assert losses(base_dir, "sft_d1") == pytest.approx([total / sum(counts)], rel=1e-5)


def test_a_loss_that_is_not_finite_stops_before_the_update(
    run_stage: Run, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage("base_train", num_iterations=2, save_every=1)
    before = weights("base")
    run_stage("mid_train", num_iterations=1)
    real = GPT.loss

    def broken(self: object, *args: torch.Tensor) -> torch.Tensor:
        return real(self, *args) * float("nan")

    monkeypatch.setattr(GPT, "loss", broken)
    with pytest.raises(Failure, match=r"diverged at step 1.*matrix_lr"):
        run_stage("mid_train", num_iterations=1, model_tag="d1")
    after = weights("base")
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_finished_stage_keeps_the_optimizer_of_its_last_step_only(
    run_stage: Run, base_dir: Path
) -> None:
    run_stage("base_train", num_iterations=4, save_every=1)
    folders = sorted((base_dir / "base_checkpoints" / "d1").iterdir())
    assert [f.name for f in folders] == ["best.json", "step_000003", "step_000004"]
    assert [(f / "optimizer.safetensors").exists() for f in folders[1:]] == [False, True]


@pytest.mark.slow
def test_nothing_is_overwritten(run_stage: Run, base_dir: Path) -> None:
    run_stage("base_train", num_iterations=1)
    first = weights("base")
    run_stage("base_train", num_iterations=1, seed=7)
    assert checkpoints.find("base").tag == "d1-2"
    run_stage("mid_train", num_iterations=1, model_tag="d1")
    mid = weights("mid")
    run_stage("mid_train", num_iterations=2, model_tag="d1")
    assert checkpoints.find("mid", "d1").step == 2
    kept = weights("mid", "d1-old1")
    assert all(torch.equal(mid[key], kept[key]) for key in mid)
    assert all(torch.equal(first[key], weights("base", "d1")[key]) for key in first)


def test_the_guides_own_lines_run_after_any_base_run(run_stage: Run, base_dir: Path) -> None:
    run_stage("base_train", num_iterations=1, device_batch_size=1, total_batch_size=96)
    run_stage("mid_train", num_iterations=1, device_batch_size=16)
    assert checkpoints.find("mid").state["batch"]["total_batch_size"] == 16 * 32


def test_a_later_tokenizer_does_not_break_an_earlier_model(
    run_stage: Run, base_dir: Path, prepared: Path
) -> None:
    run_stage("base_train", num_iterations=1)
    (base_dir / "tokenizer" / "tokenizer.json").write_text("{}")
    run_stage("mid_train", num_iterations=1)
    assert checkpoints.find("mid").tokenizer().vocab_size == 512


def test_planned_values_can_not_change_in_a_resumed_run(
    run_stage: Run, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with interrupted(monkeypatch, 1):
        run_stage("base_train", num_iterations=3, data_shards=1)
    with pytest.raises(UserError, match=r"--num_iterations=5 can't be changed.*3"):
        run_stage("base_train", resume=True, num_iterations=5)
    with pytest.raises(UserError, match=r"--data_shards=2 can't be changed.*1"):
        run_stage("base_train", resume=True, data_shards=2)
    run_stage("base_train", resume=True)
    assert checkpoints.find("base").state["config"]["data_shards"] == 1
    with pytest.raises(UserError, match="finished"):
        run_stage("base_train", resume=True)


def test_a_checkpoint_that_is_older_than_a_flag_is_resumed(
    run_stage: Run, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with interrupted(monkeypatch, 1):
        run_stage("base_train", num_iterations=3)
    found = checkpoints.find("base")
    before = {k: v for k, v in found.state["config"].items() if k != "warmup"}
    storage.write_sealed(found.folder / "state.json", {**found.state, "config": before})
    run_stage("base_train", resume=True)
    assert checkpoints.find("base").step == 3


def test_a_resumed_run_keeps_the_iterations_that_its_time_budget_fixed(
    run_stage: Run, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock decides once; the rest goes by step, as in the run that was not interrupted."""
    monkeypatch.setattr(train_stage.TimeBudget, "iterations", lambda self, *_: self.fixed or 7)
    with interrupted(monkeypatch, 3, "step 3 of 7"):
        run_stage("base_train", time_budget_s=1000.0)
    state = checkpoints.find("base").state
    assert not state["iterations_fixed"], "the stand-in fixes nothing"
    storage.write_sealed(
        checkpoints.find("base").folder / "state.json",
        state | {"iterations_fixed": True, "num_iterations": 5},
    )
    run_stage("base_train", resume=True, time_budget_s=1000.0)
    assert checkpoints.find("base").step == 5
