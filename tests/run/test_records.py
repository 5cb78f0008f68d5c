"""What there is of a run: stretches of work, time that is left, what is finished."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from nanochat.run import pipeline, records
from nanochat.run.recipe import PlanConfig, flags_of, resolve, stage_budget_s
from nanochat.stages import STAGES, TRAINED


def keep_plan(tag: str, started: list, **given) -> None:
    given = {"model_tag": tag, "memory_gb": 16, **given}
    recipe, _ = resolve(PlanConfig(**given))
    records.write_plan(records.Plan(recipe, given, 1, 1000.0, started=started))


def flags(stage: str, tag: str = "d4") -> dict[str, object]:
    """The flags of a stage by the plan as it stands."""
    this = next(s for s in STAGES if s.name == stage)
    return flags_of(records.read_plan(tag).recipe, this)


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
    stretches = records.worked("d4", now=600.0)
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
    plan = records.read_plan("d4")
    web = replace(plan, recipe=replace(plan.recipe, data="fineweb"))
    assert records.spent_s(plan) == pytest.approx(100 + 200 + 60, abs=1)
    assert records.spent_s(web) == pytest.approx(200 + 60, abs=1)
    assert records.spent_s(replace(plan, budget_since="b")) == pytest.approx(60, abs=1)
    # A clock that went back an hour between two stages takes nothing away.
    keep_plan("d4", [[now - 60, "data", "a"], [now - 3660, "base_train", "a"], [now, "x", "b"]])
    plan = records.read_plan("d4")
    assert records.spent_s(replace(plan, budget_since="b")) == pytest.approx(0, abs=1)
    assert records.spent_s(plan) >= 0


def test_the_stages_of_a_budget_leave_room_for_measuring(base_dir: Path) -> None:
    recipe, _ = resolve(PlanConfig(time_budget_s=1200))
    base, mid = (stage_budget_s(recipe, s, 1200.0, TRAINED) for s in TRAINED[:2])
    base_share, mid_share = (s.tinyworld_share for s in TRAINED[:2])
    assert base < base_share * 12  # nothing is finished: all three share what is left
    assert base > 0.9 * base_share * 12
    assert mid > 0.9 * mid_share * 12
    assert stage_budget_s(recipe, TRAINED[0], -50.0, TRAINED) == 1.0


def test_what_is_asked_in_a_run_is_bounded(base_dir: Path) -> None:
    def bounds(**variables) -> list[int]:
        recipe, _ = resolve(PlanConfig(**variables))
        return [flags_of(recipe, s)["max_seconds"] for s in STAGES if s.measures]

    assert bounds() == [60, 120]
    assert bounds(time_budget_s=180) == [8, 8]
    assert bounds(time_budget_s=1200) == [24, 48]
    assert bounds(time_budget_s=28800) == [60, 120]


def test_a_damaged_line_of_metrics_is_left_out(base_dir: Path) -> None:
    write_metrics(base_dir, "base", "d4", [{"time": 1.0}])
    with open(base_dir / "metrics" / "base_d4.jsonl", "a") as file:
        file.write('{"time": 2.')
    assert records.metrics_of("base", "d4") == [{"time": 1.0}]


def test_a_run_that_died_while_it_was_asked_is_finished(
    base_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_plan("d4", [])
    done = SimpleNamespace(state={"finished": True}, folder=Path("step_000001"), step=1)
    monkeypatch.setattr(records, "last_checkpoint", lambda stage, tag: done)
    pipeline.status(PlanConfig(model_tag="d4"))
    assert "→ Will run: evaluating the chat model → report" in capsys.readouterr().out
    write_metrics(base_dir, "chat_eval_sft", "d4", [{"time": 1.0, "eval": {"mean": 0.5}}])
    with pytest.raises(SystemExit) as ended:
        pipeline.status(PlanConfig(model_tag="d4"))
    assert ended.value.code == pipeline.COMPLETE
    assert "→ Ready to chat!" in capsys.readouterr().out


def test_auto_is_what_it_came_to_when_continued(
    base_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_plan("d4", [])
    pipeline.status(PlanConfig(model_tag="d4", data="auto"))
    assert "Will run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"data": "fineweb"}, "NANOCHAT_DATA=fineweb: the run d4 was started with tinyworld;"),
        ({"depth": 2}, "DEPTH=2: the run d4 was started with 4;"),
        ({"eval_tokens": 4096}, "EVAL_TOKENS=4096: the run d4 was started with 8192;"),
        ({"total_batch_size": 256}, "TOTAL_BATCH_SIZE=256: the run d4 was started with 512;"),
        ({"wandb_run": "x"}, "WANDB_RUN=x: the run d4 was started without it;"),
        # What the plan derived, or the user gave, may be said again.
        ({"eval_tokens": 8192, "split_tokens": 8192, "total_batch_size": 512, "depth": 4}, None),
        ({"base_iterations": 50, "vocab_size": 4096, "data_shards": 4}, None),
        ({"device_batch_size": 7, "memory_gb": 1, "time_budget_s": 60}, None),  # these may change
    ],
)
def test_a_variable_that_differs_is_refused_as_it_was_typed(
    base_dir: Path, given: dict, said: str | None
) -> None:
    keep_plan("d4", [])
    if said is None:
        return pipeline.status(PlanConfig(model_tag="d4", **given))
    with pytest.raises(pipeline.UserError, match=said):
        pipeline.status(PlanConfig(model_tag="d4", **given))


def test_the_newest_plan_is_the_last_one_made_whatever_the_clock_says(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seconds in (9e8, 2e8, 5e8):
        monkeypatch.setattr(pipeline.time, "time", lambda seconds=seconds: seconds)
        tag = f"at-{seconds:.0f}"
        pipeline.plan(PlanConfig(model_tag=tag, memory_gb=16))
        assert records.newest_tag() == tag
    with pytest.raises(pipeline.UserError, match=r"no run named d9 .*there is: at-900000000, at-2"):
        records.read_plan("d9")


def test_wandb_is_asked_for_before_anything_is_made(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(pipeline.UserError, match=r"WANDB_RUN=x, .*pip install wandb"):
        pipeline.plan(PlanConfig(model_tag="d4", memory_gb=16, wandb_run="x"))
    assert not records.plan_path("d4").exists()


@pytest.mark.parametrize(
    ("oom_kills", "used", "rows"),
    [(1, 1e9, 4), (0, 15e9, 4), (0, 1e9, 8)],
    ids=["the kernel says so", "nearly all of 16 GB", "killed by somebody"],
)
def test_a_kill_for_want_of_memory_halves_what_is_done_at_once(
    base_dir: Path, capsys: pytest.CaptureFixture, oom_kills: int, used: float, rows: int
) -> None:
    keep_plan("d4", [], device_batch_size=8, total_batch_size=4096)
    write_metrics(base_dir, "mid", "d4", [{"step": 3, "loss": 2.0, "memory_bytes": used}])
    pipeline.killed(pipeline.KilledConfig("mid_train", "d4", oom_kills))
    said = capsys.readouterr().out
    for stage in ("base_eval", *(s.name for s in TRAINED)):
        assert flags(stage)["device_batch_size"] == rows
        assert flags("chat_sft")["total_batch_size"] == 4096
    assert ("DEVICE_BATCH_SIZE=4 instead of 8" in said) == (rows == 4)
    assert ("SIGKILL" in said) == (rows == 8)


def test_one_row_can_not_be_halved(base_dir: Path, capsys: pytest.CaptureFixture) -> None:
    keep_plan("d4", [], device_batch_size=1, total_batch_size=512)
    pipeline.killed(pipeline.KilledConfig("base_train", "d4", 1))
    assert "set a smaller DEVICE_BATCH_SIZE, MAX_SEQ_LEN or DEPTH" in capsys.readouterr().out
    assert flags("base_train")["device_batch_size"] == 1


# ---- what may be changed about a run that is continued


@pytest.fixture
def continued(base_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """continued("mid_train", memory_gb=8): the flags with which the stage is started."""
    called = []
    monkeypatch.setattr(pipeline.os, "execve", lambda program, argv, _: called.append(argv[3:]))

    def run(name: str, session: str = "now", **given: int) -> list[str]:
        pipeline.stage(pipeline.StageRunConfig(name, "d4", session=session, **given))
        return called.pop()

    return run


def there_is(monkeypatch: pytest.MonkeyPatch, **finished: bool) -> None:
    """Checkpoints: base=True is a finished one, mid=False an interrupted one."""
    found = {k: SimpleNamespace(state={"finished": v}) for k, v in finished.items()}
    monkeypatch.setattr(records, "last_checkpoint", lambda stage, tag: found.get(stage.checkpoint))


@pytest.mark.parametrize(
    ("planned", "given", "rows"),
    [
        ({"memory_gb": 128}, {"memory_gb": 64}, 8),
        ({"memory_gb": 128}, {"memory_gb": 64, "device_batch_size": 2}, 2),
        ({"memory_gb": 32}, {"memory_gb": 128}, 4),  # a step has no more
        ({"memory_gb": 128}, {"device_batch_size": 9}, 8),
        ({"memory_gb": 128, "device_batch_size": 16}, {"memory_gb": 8}, 1),
        ({"memory_gb": 16, "time_budget_s": 1200}, {"memory_gb": 4}, 2),
        ({"memory_gb": 64}, {"memory_gb": 64}, 8),
    ],
)
def test_other_memory_means_other_rows_for_as_many_tokens_per_step(
    base_dir: Path, continued, capsys: pytest.CaptureFixture, planned: dict, given: dict, rows: int
) -> None:
    keep_plan("d4", [], **planned)
    before = flags("base_train")
    called = continued("base_train", **given)
    changes = {"device_batch_size": rows, "memory_gb": given.get("memory_gb", before["memory_gb"])}
    timed = [f for f in called if f.startswith("--time_budget_s")]
    wanted = [f"--{name}={value}" for name, value in (before | changes).items()]
    assert called == wanted + timed
    changed = before["device_batch_size"] != rows
    assert ("as many tokens per step as before" in capsys.readouterr().out) == changed
    # It holds for what is still to do, without being said again.
    assert f"--device_batch_size={rows}" in continued("mid_train")
    continued("chat_sft", **given)
    assert "as many tokens" not in capsys.readouterr().out


def budget_of(called: list[str]) -> float | None:
    found = [flag.split("=")[1] for flag in called if flag.startswith("--time_budget_s=")]
    return float(found[0]) if found else None


def test_a_time_given_to_a_run_of_iterations_sizes_what_has_not_begun(
    base_dir: Path, continued, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    keep_plan("d4", [], base_iterations=500)
    there_is(monkeypatch, base=False)
    called = continued("base_train", time_budget_s=1000)
    assert "TIME_BUDGET: base training keeps its 500 steps; " in capsys.readouterr().out
    assert {"--num_iterations=500", "--warmdown=0.4", "--resume"} <= set(called)
    assert budget_of(called) is None
    there_is(monkeypatch, base=True)
    called = continued("mid_train", time_budget_s=1000)
    assert not [flag for flag in called if flag.startswith("--num_iterations")]
    assert "--warmdown=0.0" in called
    assert flags("chat_eval")["max_seconds"] == 40
    assert 100 < (budget_of(called) or 0) < 250
    # Interrupted there, and continued without a word about time: what is left of it counts.
    there_is(monkeypatch, base=True, mid=False)
    assert 100 < (budget_of(continued("mid_train", "later")) or 0) < 250
    # Another time counts from its own session on.
    assert 1_000 < (budget_of(continued("mid_train", "last", time_budget_s=9000)) or 0) < 2_000
    assert "keeps" not in capsys.readouterr().out


def test_a_time_that_can_change_nothing_is_refused(
    base_dir: Path, continued, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_plan("d4", [])
    there_is(monkeypatch, base=True, mid=True, sft=False)
    before = records.read_plan("d4")
    with pytest.raises(pipeline.UserError, match=r"SFT keeps its 100 steps and is the last"):
        continued("chat_sft", time_budget_s=1000)
    assert records.read_plan("d4") == before
    assert "--num_iterations=100" in continued("chat_sft")
