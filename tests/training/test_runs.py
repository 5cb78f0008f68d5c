"""What there is of a run: stretches of work, time that is left, what is finished."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from nanochat.system import storage
from nanochat.training import pipeline, plan, runs
from nanochat.training.plan import PlanConfig, batch_of, resolve, stage_flags


def keep_plan(tag: str, started: list, **variables) -> None:
    resolved = resolve(PlanConfig(model_tag=tag, memory_gb=16, **variables))
    storage.write_json(
        runs.plan_path(tag),
        {
            "time": 1000.0,
            "variables": {
                "data": resolved.data,
                "time_budget_s": resolved.time_budget_s,
                "memory_gb": resolved.memory_gb,
            },
            "stages": stage_flags(resolved, batch_of(resolved)),
            "started": started,
        },
    )


def write_metrics(base: Path, name: str, tag: str, records: list[dict]) -> None:
    path = base / "metrics" / f"{name}_{tag}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in records))


def test_stretches_end_where_the_next_begins_or_with_the_last_sign_of_life(base_dir: Path) -> None:
    started = [
        [100.0, "data", "a"],
        [110.0, "base_train", "a"],  # dies at 150
        [500.0, "base_train", "b"],
        [560.0, "mid_train", "b"],
    ]
    keep_plan("d4", started)
    write_metrics(base_dir, "base", "d4", [{"time": 120.0}, {"time": 150.0}, {"time": 530.0}])
    stretches = runs.worked("d4", now=600.0)
    assert [(w.stage, w.started, w.ended) for w in stretches] == [
        ("data", 100.0, 110.0),
        ("base_train", 110.0, 150.0),
        ("base_train", 500.0, 560.0),
        ("mid_train", 560.0, 600.0),
    ]


def test_a_budget_counts_work_not_breaks_nor_downloads(base_dir: Path) -> None:
    now = time.time()
    started = [
        [now - 9000, "data", "a"],
        [now - 8900, "base_train", "a"],
        [now - 60, "mid_train", "b"],
    ]
    keep_plan("d4", started, time_budget_s=1200)
    write_metrics(base_dir, "base", "d4", [{"time": now - 8700}])
    assert pipeline._spent_s("d4", "tinyworld", None) == pytest.approx(100 + 200 + 60, abs=1)
    assert pipeline._spent_s("d4", "fineweb", None) == pytest.approx(200 + 60, abs=1)
    assert pipeline._spent_s("d4", "tinyworld", "b") == pytest.approx(60, abs=1)


def test_the_stages_of_a_budget_leave_room_for_measuring(base_dir: Path) -> None:
    keep_plan("d4", [], time_budget_s=1200)
    whole = runs.read_plan("d4")
    base = pipeline._share_s(runs.TRAINED[0], "d4", 1200.0, whole)
    mid = pipeline._share_s(runs.TRAINED[1], "d4", 1200.0, whole)
    share = plan.TINYWORLD_SHARES
    assert base < share["base_train"] * 12  # nothing is finished: all three share what is left
    assert base > 0.9 * share["base_train"] * 12
    assert mid > 0.9 * share["mid_train"] * 12
    assert pipeline._share_s(runs.TRAINED[0], "d4", -50.0, whole) == 1.0


def test_what_is_asked_in_a_run_is_bounded(base_dir: Path) -> None:
    def bounds(**variables) -> list[int]:
        resolved = resolve(PlanConfig(model_tag="d4", memory_gb=16, **variables))
        flags = stage_flags(resolved, batch_of(resolved))
        return [
            int(f.split("=")[1])
            for name in ("base_eval", "chat_eval")
            for f in flags[name]
            if f.startswith("--max_seconds=")
        ]

    assert bounds() == [60, 120]
    assert bounds(time_budget_s=180) == [8, 8]
    assert bounds(time_budget_s=1200) == [24, 48]
    assert bounds(time_budget_s=28800) == [60, 120]


def test_a_damaged_line_of_metrics_is_left_out(base_dir: Path) -> None:
    write_metrics(base_dir, "base", "d4", [{"time": 1.0}])
    with open(base_dir / "metrics" / "base_d4.jsonl", "a") as file:
        file.write('{"time": 2.')
    assert runs.metrics_of("base", "d4") == [{"time": 1.0}]


def test_a_run_that_died_while_it_was_asked_is_finished(
    base_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_plan("d4", [])
    done = SimpleNamespace(state={"finished": True}, folder=Path("step_000001"), step=1)
    monkeypatch.setattr(runs, "last_checkpoint", lambda stage, tag: done)
    pipeline.status(PlanConfig(model_tag="d4"))
    assert "→ Will run: questions to the model → report" in capsys.readouterr().out
    write_metrics(base_dir, "chat_eval_sft", "d4", [{"time": 1.0, "eval": {"mean": 0.5}}])
    with pytest.raises(SystemExit) as ended:
        pipeline.status(PlanConfig(model_tag="d4"))
    assert ended.value.code == pipeline.COMPLETE
    assert "→ Ready to chat!" in capsys.readouterr().out


def test_auto_is_what_it_came_to_when_continued(
    base_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_plan("d4", [])
    whole = runs.read_plan("d4")
    whole["variables"]["depth"] = 4
    storage.write_json(runs.plan_path("d4"), whole)
    pipeline.status(PlanConfig(model_tag="d4", data="auto"))
    assert "Will run" in capsys.readouterr().out
    with pytest.raises(pipeline.UserError, match="data=fineweb: the run d4 was started with tiny"):
        pipeline.status(PlanConfig(model_tag="d4", data="fineweb"))


def rows_planned(tag: str = "d4") -> list[str]:
    stages = runs.read_plan(tag)["stages"].values()
    return [f for flags in stages for f in flags if f.startswith("--device_batch_size")]


@pytest.mark.parametrize(
    ("oom_kills", "used", "goes_on_with"),
    [(1, 1e9, "4"), (0, 15e9, "4"), (0, 1e9, "8")],
    ids=["the kernel says so", "nearly all of 16 GB", "killed by somebody"],
)
def test_a_kill_for_want_of_memory_halves_what_is_done_at_once(
    base_dir: Path, capsys: pytest.CaptureFixture, oom_kills: int, used: float, goes_on_with: str
) -> None:
    keep_plan("d4", [], device_batch_size=8, total_batch_size=4096)
    write_metrics(base_dir, "mid", "d4", [{"step": 3, "loss": 2.0, "memory_bytes": used}])
    before = rows_planned()
    pipeline.killed(pipeline.KilledConfig("mid_train", "d4", oom_kills))
    said = capsys.readouterr().out
    after = rows_planned()
    assert after.count(f"--device_batch_size={goes_on_with}") >= 3
    assert (before == after) == (goes_on_with == "8")
    assert ("DEVICE_BATCH_SIZE=4 instead of 8" in said) == (goes_on_with == "4")
    assert ("SIGKILL" in said) == (goes_on_with == "8")


def test_one_row_can_not_be_halved(base_dir: Path, capsys: pytest.CaptureFixture) -> None:
    keep_plan("d4", [], device_batch_size=1, total_batch_size=512)
    before = rows_planned()
    pipeline.killed(pipeline.KilledConfig("base_train", "d4", 1))
    assert "set a smaller DEVICE_BATCH_SIZE, MAX_SEQ_LEN or DEPTH" in capsys.readouterr().out
    assert rows_planned() == before
