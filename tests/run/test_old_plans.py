"""Plans that were written before there was a recipe continue as they were planned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nanochat.run import pipeline, records
from nanochat.run.recipe import PlanConfig, flags_of
from nanochat.stages import STAGES
from nanochat.system import storage

TRAINING = [
    "--model_tag=d1", "--data=tinyworld", "--device_batch_size=1", "--total_batch_size=512",
    "--max_seq_len=64", "--eval_tokens=1024", "--memory_gb=8",
]  # fmt: skip
# As aa668b3 wrote it for DEPTH=1 VOCAB_SIZE=512 MAX_SEQ_LEN=64 and so on, byte for byte but for
# the order of lines.
OLD = {
    "schema": 1, "time": 1795722601.7463176,
    "variables": {
        "driver": "runcpu", "depth": 1, "base_iterations": 60, "mid_iterations": 20,
        "sft_iterations": 20, "data_shards": 1, "data": "tinyworld", "memory_gb": 8,
        "device_batch_size": None, "total_batch_size": None, "eval_tokens": 1024,
        "split_tokens": 1024, "max_seq_len": 64, "vocab_size": 512, "model_tag": "d1",
        "time_budget_s": None, "wandb_run": None, "tokenizer_max_chars": 500000000, "seed": None,
        "fresh": False, "dry_run": False, "log_file": None,
    },
    "stages": {
        "data": ["--data=tinyworld", "--num_shards=1"],
        "tokenizer": [
            "--data=tinyworld", "--data_shards=1", "--vocab_size=512", "--max_chars=500000000",
        ],
        "base_train": ["--depth=1", "--data_shards=1", "--num_iterations=60", *TRAINING],
        "base_eval": [
            "--model_tag=d1", "--device_batch_size=1", "--split_tokens=1024", "--max_problems=20",
            "--max_seconds=60",
        ],
        "mid_train": ["--num_iterations=20", *TRAINING],
        "chat_sft": ["--num_iterations=20", *TRAINING],
        "chat_eval": ["--model_tag=d1", "--source=sft", "--max_problems=20", "--max_seconds=120"],
        "report": ["--model_tag=d1"],
    },
    "started": [[1795722602.096, "data", "a"], [1795722608.173, "base_train", "a"]],
}  # fmt: skip


def keep(base: Path, plan: dict) -> None:
    path = base / "pipeline" / "d1.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plan))


def test_every_flag_of_an_old_plan_is_in_its_command(base_dir: Path) -> None:
    keep(base_dir, OLD)
    recipe = records.read_plan("d1").recipe
    for stage in STAGES:
        flags = {f"--{name}={value}" for name, value in flags_of(recipe, stage).items()}
        assert set(OLD["stages"][stage.name]) <= flags
        # What it left out were defaults; now they are named.
        more = {f.split("=")[0] for f in flags - set(OLD["stages"][stage.name])}
        assert more <= {"--matrix_lr", "--warmdown", "--seed"}


def test_an_old_timed_plan_keeps_its_time(base_dir: Path) -> None:
    timed = json.loads(json.dumps(OLD))
    timed["variables"] |= {"time_budget_s": 1200, "seed": 7}
    timed["budget"] = {"seconds": 900, "since": "b"}  # TIME_BUDGET=15m when it was continued
    for name, flags in timed["stages"].items():
        begin = [] if name == "chat_sft" else ["--warmdown=0"]
        kept = [flag for flag in flags if not flag.startswith("--num_iterations")]
        timed["stages"][name] = begin + kept if name in ("base_train", "mid_train") else kept
    timed["stages"]["base_train"].append("--matrix_lr=0.012")
    keep(base_dir, timed)
    plan = records.read_plan("d1")
    assert (plan.recipe.run_budget_s, plan.budget_since) == (900, "b")
    assert (plan.recipe.matrix_lr, plan.recipe.seed) == (0.012, 7)
    told = {name: (t.num_iterations, t.warmdown) for name, t in plan.recipe.training.items()}
    assert told == {"base_train": (0, 0.0), "mid_train": (0, 0.0), "chat_sft": (0, 0.8)}


def test_an_old_run_is_compared_with_what_is_said_now_and_noted_in_the_new_form(
    base_dir: Path,
) -> None:
    keep(base_dir, OLD)
    pipeline.status(PlanConfig(model_tag="d1", depth=1, eval_tokens=1024, base_iterations=60))
    with pytest.raises(pipeline.UserError, match="DEPTH=2: the run d1 was started with 1"):
        pipeline.status(PlanConfig(model_tag="d1", depth=2))
    before = records.read_plan("d1")
    records.note_start("d1", "mid_train", "b")
    assert storage.read_json(records.plan_path("d1"))["schema"] == records.SCHEMA
    after = records.read_plan("d1")
    assert (after.recipe, after.given) == (before.recipe, before.given)
    assert [start[1:] for start in after.started] == [
        ["data", "a"],
        ["base_train", "a"],
        ["mid_train", "b"],
    ]


def test_a_plan_of_a_later_version_is_refused_in_one_line(base_dir: Path) -> None:
    keep(base_dir, {**OLD, "schema": 9})
    with pytest.raises(pipeline.UserError, match=r"another version \(schema 9, this one reads 2\)"):
        records.read_plan("d1")
