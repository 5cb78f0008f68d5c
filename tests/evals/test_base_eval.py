"""`base_eval` with a tiny model: what it says, its JSON, its metrics, and what it refuses."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch

from nanochat.data.shards import write_shard
from nanochat.gpt import GPT
from nanochat.system import log
from nanochat.system.cli import parse
from nanochat.system.errors import UserError
from nanochat.tokenizer import Tokenizer
from nanochat.training import checkpoint_manager as checkpoints
from scripts import base_eval, base_loss

QUESTIONS = {
    "copa": ("multiple_choice", {"query": "The river runs", "choices": ["down", "3"], "gold": 0}),
    "winograd": (
        "schema",
        {"context_options": ["The sea", "A mill"], "continuation": "was there", "gold": 1},
    ),
}


@pytest.fixture
def text_folder(tmp_path: Path) -> Path:
    """Own text to train on, with CORE tasks beside it."""
    folder = tmp_path / "own text"
    for i in range(2):
        write_shard(folder / "pretrain" / f"shard_{i:05d}.parquet", ["The river and the sea."] * 50)
    core = folder / "evals" / "core"
    core.mkdir(parents=True)
    listed = []
    for label, (kind, line) in QUESTIONS.items():
        with gzip.open(core / f"{label}.jsonl.gz", "wt") as file:
            file.write((json.dumps(line) + "\n") * 5)
        task = {"label": label, "task_type": kind, "num_fewshot": 0, "continuation_delimiter": " "}
        task |= {"random_baseline_percent": 50.0, "file": f"evals/core/{label}.jsonl.gz"}
        listed.append(task)
    (core / "core_tasks.json").write_text(json.dumps(listed))
    return folder


@pytest.fixture
def saved(base_dir: Path, text_folder: Path, tiny_model: GPT, tokenizer: Tokenizer) -> Path:
    """A finished base model d2, and its base dir."""
    state = {
        "tag": "d2",
        "step": 7,
        "time": 1.0,
        "finished": True,
        "model": tiny_model.config.to_json(),
        "config": {"data": str(text_folder)},
        "batch": {"device_batch_size": 2, "split_tokens": 300},
    }
    checkpoints.save("base", state, tiny_model.float(), tokenizer, {"x": torch.zeros(1)})
    return base_dir


@pytest.fixture(autouse=True)
def no_log_file_is_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_log_file", None)


def run(*flags: str) -> None:
    base_eval.main(parse(base_eval.Config, "base_eval", ["--device_type=cpu", *flags]))


def metrics(base: Path, stage: str) -> dict:
    (line,) = (base / "metrics" / f"{stage}_d2.jsonl").read_text().splitlines()
    return json.loads(line)


@pytest.mark.slow
def test_everything(saved: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    log_file = tmp_path / "said.log"
    run("--max_problems=3", "--json", f"--log_file={log_file}")
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["copa", "winograd"]
    assert all("    3 asked" in line for line in lines[:2])
    assert sum(" missing: not listed" in line for line in lines) == 20
    (core,) = (line for line in lines if line.startswith("CORE"))
    assert core.startswith("CORE (2 of 22): ")
    assert lines[-7].startswith("  The capital of France is ... "), "samples come last"
    assert set(lines) <= {*log_file.read_text().splitlines()}
    result = json.loads(last)
    assert (result["model_tag"], result["step"], result["core_tasks"]) == ("d2", 7, 2)
    assert set(result["tasks"]) == set(QUESTIONS)
    for label, task in result["tasks"].items():
        assert task["asked"] == 3
        assert task["accuracy"] in (0.0, 1.0), f"{label} asks the same question three times"
        assert task["centered"] == 2 * task["accuracy"] - 1
    mean = sum(task["centered"] for task in result["tasks"].values()) / 2
    assert result["core"] == mean
    assert f"{mean:.4f} (6 questions)" in core
    kept = metrics(saved, "base_eval")
    assert kept["step"] == 7
    assert kept["eval"] == {
        "core": mean,
        "core_tasks": 2,
        **{f"core_{label}": task["centered"] for label, task in result["tasks"].items()},
        "train_bpb": result["train_bpb"],
        "val_bpb": result["val_bpb"],
    }


def test_the_bits_are_those_of_base_loss(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("--eval=bpb", "--split_tokens=200")
    ours = capsys.readouterr().out
    flags = ["--device_type=cpu", "--split_tokens=200"]
    base_loss.main(parse(base_loss.Config, "base_loss", flags))
    assert capsys.readouterr().out == ours != ""
    assert metrics(saved, "base_eval")["eval"] == metrics(saved, "base_loss")["eval"]


def test_samples_alone_measure_nothing(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("--eval", "sample")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(base_eval.BEGINNINGS)
    assert not (saved / "metrics").exists()


def test_a_drivers_run_says_nothing_twice(
    saved: Path,
    text_folder: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What base training has just shown, and how to get CORE: only to a person who asks."""
    (text_folder / "evals").rename(text_folder / "elsewhere")
    monkeypatch.setenv(log.DRIVEN, "1")
    flags = ["--eval=core,sample", f"--log_file={tmp_path / 'a.log'}"]
    run(*flags)
    first, *samples = capsys.readouterr().out.splitlines()
    assert first == "CORE skipped: its tasks are not on this disk"
    assert len(samples) == len(base_eval.BEGINNINGS)
    run(*flags)
    assert capsys.readouterr().out.splitlines() == [first]


def test_core_is_skipped_where_its_files_are_not(
    saved: Path, text_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (text_folder / "evals").rename(text_folder / "elsewhere")
    run("--eval=core,sample", "--json")
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("CORE skipped")
    assert str(saved / "eval_bundle") in first
    assert json.loads(last) == {
        "model_tag": "d2",
        "step": 7,
        "core": None,
        "core_tasks": 0,
        "tasks": {},
    }
    with pytest.raises(UserError, match="there are no CORE tasks"):
        run("--eval=core")
    (text_folder / "elsewhere" / "core").rename(saved / "eval_bundle")
    run("--eval=core", "--max_seconds=0.001", "--json")
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {label: task["asked"] for label, task in found["tasks"].items()} == {
        "copa": 1,
        "winograd": 1,
    }


def test_a_folder_that_was_named_must_hold_tasks(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no CORE tasks"):
        run(f"--data={tmp_path / 'nowhere'}")
    (tmp_path / "core_tasks.json").write_text("[]")
    with pytest.raises(UserError, match="none of the 22"):
        run(f"--data={tmp_path}")


@pytest.mark.parametrize(
    ("flag", "named"),
    [
        ("--eval=bpb,quiz", "'quiz'"),
        ("--eval=", "eval="),
        ("--source=rl", "source=rl"),
        ("--max_problems=0", "max_problems=0"),
        ("--max_seconds=0", "max_seconds=0"),
        ("--max_seconds=nan", "max_seconds=nan"),
        ("--split_tokens=-1", "split_tokens=-1"),
        ("--device_batch_size=0", "device_batch_size=0"),
        ("--device_type=tpu", "device_type=tpu"),
    ],
)
def test_wrong_flags_are_refused(flag: str, named: str) -> None:
    with pytest.raises(UserError, match=named):
        parse(base_eval.Config, "base_eval", [flag])
