"""The report says in words what came out, of a finished run and of one that was not."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.dom.minidom
from pathlib import Path

import pytest

from nanochat import report
from nanochat.run import pipeline
from nanochat.system import storage
from nanochat.training import checkpoint_manager as checkpoints
from tests.run.test_records import keep_plan, write_metrics

CHOICES = {"torch": "2", "device": "cpu", "dtype": "float32", "compile": False, "threads": 2}


def keep_stage(base: Path, stage: str, step: int, total: int, tokens: int) -> None:
    folder = base / f"{stage}_checkpoints" / "d4" / f"step_{step:06d}"
    folder.mkdir(parents=True)
    for name in checkpoints.FILES:
        (folder / name).write_text(name)
    storage.write_sealed(
        folder / "state.json",
        {
            "schema": checkpoints.SCHEMA,
            "files": {name: storage.checksum(folder / name) for name in checkpoints.FILES},
            "stage": stage,
            "tag": "d4",
            "time": 1000.0 + step,
            "step": step,
            "num_iterations": total,
            "finished": step == total,
            "tokens": tokens,
            "model": {"depth": 4, "vocab_size": 4096, "max_seq_len": 256},
            "batch": {"device_batch_size": 8, "total_batch_size": 2048},
            "choices": CHOICES,
            "machine": "a machine",
            "git_commit": "abc",
        },
    )
    records: list[dict] = [
        {
            "time": 100.0 + i,
            "step": i,
            "num_iterations": total,
            "loss": 5 / i,
            "tokens": tokens * i // step,
            "tokens_per_s": 2000.0,
            "step_s": 1.0,
            "memory_bytes": 1.2e9,
        }
        for i in range(1, step + 1)
    ]
    records.append({"time": 200.0, "step": step, "eval": {"val_bpb": 1.5}})
    samples = [["The sky is", "blue <b>|`*_ and\nso on"]]
    records.append({"time": 200.0, "step": step, "eval": {}, "samples": samples})
    write_metrics(base, stage, "d4", records)


@pytest.fixture
def finished(base_dir: Path) -> Path:
    keep_plan("d4", [[90.0, "base_train", "a"], [250.0, "mid_train", "b"]], time_budget_s=600)
    for stage in ("base", "mid", "sft"):
        keep_stage(base_dir, stage, 20, 20, 700_000)
    answers = {"mean": 0.93, "repetition": 0.0, "colours": 1.0, "letter_counting": 0.5}
    record = {"time": 300.0, "step": 20, "eval": answers}
    write_metrics(base_dir, "chat_eval_sft", "d4", [record])
    return base_dir


def text(tag: str = "d4") -> str:
    return "\n".join(report.lines(tag, {}))


def test_the_first_lines_say_whether_it_is_any_good(finished: Path) -> None:
    lines = text().splitlines()
    assert lines[2] == "**It answered 93% of the questions held out from its training.**"
    assert "nearly all simple questions" in lines[3]
    assert "2.1 M tokens" in lines[4]
    assert "not finished" not in text()


@pytest.mark.parametrize(
    ("mean", "words"), [(0.05, "mostly guesses"), (0.4, "some simple"), (0.7, "most simple")]
)
def test_a_worse_one_is_called_worse(finished: Path, mean: float, words: str) -> None:
    answers = {"mean": mean, "repetition": 0.3}
    write_metrics(finished, "chat_eval_sft", "d4", [{"time": 1.0, "step": 1, "eval": answers}])
    first = "\n".join(report.verdict("d4"))
    assert words in first
    assert "repeats itself in 30%" in first


@pytest.mark.parametrize(("mean", "smoke_test"), [(0.08, True), (0.65, False)])
def test_a_short_run_that_answers_is_no_smoke_test(
    base_dir: Path, capsys: pytest.CaptureFixture[str], mean: float, smoke_test: bool
) -> None:
    keep_plan("d4", [[90.0, "base_train", "a"]])
    for stage in ("base", "mid", "sft"):
        keep_stage(base_dir, stage, 20, 20, 200_000)
    answers = {"mean": mean, "repetition": 0.0}
    write_metrics(base_dir, "chat_eval_sft", "d4", [{"time": 1.0, "step": 20, "eval": answers}])
    pipeline.finish(pipeline.TagConfig("d4"))
    said = capsys.readouterr().out
    assert ("This was a smoke test" in said) == ("mostly guesses" in said) == smoke_test
    assert ("smoke test" in "".join(report.verdict("d4"))) == smoke_test


def test_a_run_that_did_not_finish(base_dir: Path) -> None:
    keep_plan("d4", [[90.0, "base_train", "a"]])
    assert "**This run is not finished**: base training, not started." in text()
    keep_stage(base_dir, "base", 7, 20, 10_000)
    assert "base training, at step 7 of 20" in text()
    assert "`MODEL_TAG=d4 bash dev/continue_training.sh`" in text()
    assert "Not evaluated yet" in text()
    assert "smoke test" in text()


def test_every_stage_has_its_figures_and_breaks_are_told(finished: Path) -> None:
    whole = text()
    row = "| base training | 20 of 20 | 700,000 | 20 s | 2,000 | 0.334 | val_bpb 1.5000 | 1.2 GB |"
    assert row in whole
    assert "Interrupted in base training; continued 50 s later." in whole
    assert "| letter counting | 50% |" in whole
    assert "ChatCORE" not in whole


def test_public_tasks_stand_apart_from_tinyworlds_kinds(finished: Path) -> None:
    answers = {"mean": 0.5, "repetition": 0.0, "colours": 0.5, "mmlu": 0.3, "chatcore": 0.0667}
    answers["chatcore_tasks"] = 1
    write_metrics(finished, "chat_eval_sft", "d4", [{"time": 1.0, "step": 1, "eval": answers}])
    assert "ChatCORE (1 of 6): 0.0667" in text()
    assert "| mmlu | 30.0% | 25% |" in text()
    assert "| mmlu | 30% |" not in text()


def test_an_evaluation_of_an_earlier_step_says_so(finished: Path) -> None:
    """The last one failed, or the run was interrupted after it."""
    path = finished / "metrics" / "base_d4.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if line.get("eval"):
            line["step"] = 10
    write_metrics(finished, "base", "d4", lines)
    assert "| val_bpb 1.5000 (at step 10) |" in text()


def test_what_a_model_says_is_not_markup(finished: Path) -> None:
    assert r"- The sky is → blue \<b\>\|\`\*\_ and so on" in text()


def test_the_files_and_the_copy(finished: Path, tmp_path: Path) -> None:
    path = report.write("d4", tmp_path / "copy.md")
    assert path == finished / "report" / "report.md"
    for name in ("d4_loss.svg", "d4_kinds.svg"):
        assert f"]({name})" in path.read_text()
        xml.dom.minidom.parse(str(finished / "report" / name))
        assert f"]({finished / 'report' / name})" in (tmp_path / "copy.md").read_text()
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "d4_kinds.svg",
        "d4_loss.svg",
        "report.md",
    ]


def test_the_command(finished: Path, base_dir: Path) -> None:
    command = [sys.executable, "-m", "scripts.report"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"the report is in {base_dir / 'report' / 'report.md'}\n"


def test_nothing_to_report(base_dir: Path) -> None:
    with pytest.raises(report.UserError, match=r"nothing to report in .* yet"):
        report.newest_tag()
