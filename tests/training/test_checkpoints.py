"""Checkpoints: damage is found and named, the one before is taken, what is kept and when."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nanochat.gpt import GPT
from nanochat.gpt_config import GPTConfig
from nanochat.run import pipeline, records
from nanochat.stages import TRAINED
from nanochat.system import storage
from nanochat.system.device import open_device
from nanochat.system.errors import Failure, UserError
from nanochat.tokenizer import Tokenizer
from nanochat.training import checkpoint_manager as checkpoints
from nanochat.training import loop, train_stage
from tests.run.test_records import keep_plan
from tests.training.test_train_stage import interrupt_after, interrupted

Run = Callable[..., None]
EVERY_FILE = (*checkpoints.FILES, "state.json")


@pytest.fixture
def two_steps(run_stage: Run, base_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Base d1, stopped at step 4 of 6, with a checkpoint at step 3, too."""
    with interrupted(monkeypatch, 4):
        run_stage("base_train", num_iterations=6, save_every=3)
    folder = base_dir / "base_checkpoints" / "d1"
    assert {f.name for f in folder.glob("step_*")} == {"step_000003", "step_000004"}
    return folder


def forget_what_was_seen() -> None:
    checkpoints._checksum.cache_clear()
    checkpoints._say_once.cache_clear()


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    bit %= 8 * len(data)
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", EVERY_FILE)
@pytest.mark.parametrize("harm", ["flip", "truncate", "remove"])
def test_a_damaged_file_is_named_and_the_checkpoint_before_is_taken(
    two_steps: Path, run_stage: Run, capsys: pytest.CaptureFixture, name: str, harm: str
) -> None:
    path = two_steps / "step_000004" / name
    if harm == "flip":
        flip(path, 4 * path.stat().st_size)
    elif harm == "truncate":
        path.write_bytes(path.read_bytes()[:-7])
    else:
        path.unlink()
    forget_what_was_seen()
    run_stage("base_train", resume=True)
    said = capsys.readouterr().out
    # Without a state.json a folder is not a checkpoint at all.
    assert str(path) in said or (harm == "remove" and name == "state.json")
    assert "resuming base d1 at step 3 of 6" in said
    assert checkpoints.find("base").step == 6


@pytest.mark.parametrize("name", ["depth", "vocab_size", "softcap", "norm_eps"])
@pytest.mark.parametrize("value", ["4\n", [4, 4], None, -1])
def test_a_shape_that_can_not_be_meant_is_named_in_one_line(
    two_steps: Path, name: str, value: object
) -> None:
    folder = two_steps / "step_000004"
    state = storage.read_sealed(folder / "state.json")
    state["model"][name] = value
    with pytest.raises(UserError, match=name) as error:
        checkpoints.Checkpoint(folder, state).model_config()
    assert "\n" not in str(error.value)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=st.sampled_from(EVERY_FILE), bit=st.integers(min_value=0, max_value=2**40))
def test_one_flipped_bit_anywhere_is_found(two_steps: Path, name: str, bit: int) -> None:
    path = two_steps / "step_000004" / name
    whole = path.read_bytes()
    flip(path, bit)
    forget_what_was_seen()
    try:
        found = checkpoints.newest_whole(checkpoints.find_all("base", "d1"))
        assert found is not None
        assert found.step == 3
    finally:
        path.write_bytes(whole)


def test_where_nothing_is_whole_a_stage_begins_anew_and_keeps_what_was_there(
    two_steps: Path, base_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for path in two_steps.glob("step_*/model.safetensors"):
        flip(path, 12345)
    forget_what_was_seen()
    with pytest.raises(UserError, match=r"every checkpoint of base d1 is damaged"):
        checkpoints.find("base", "d1")
    keep_plan("d1", [], base_iterations=6)
    called = []
    monkeypatch.setattr(pipeline.os, "execve", lambda *arguments: called.append(arguments[1]))
    pipeline.stage(pipeline.StageRunConfig("base_train", "d1"))
    assert "--resume" not in called[0]
    assert "starts from scratch (kept: d1-old1)" in capsys.readouterr().out
    assert (base_dir / "base_checkpoints" / "d1-old1" / "step_000004").exists()


def test_a_save_that_is_killed_leaves_nothing_in_the_way(run_stage: Run, base_dir: Path) -> None:
    """Neither for the first run of that name nor, in the end, on the disk."""
    part = base_dir / "base_checkpoints" / "d1" / ".step_000002.part"
    part.mkdir(parents=True)
    (part / "model.safetensors").write_bytes(b"half")
    run_stage("base_train", num_iterations=2)
    assert checkpoints.find("base").tag == "d1"
    assert not list(base_dir.rglob("*.part"))


def test_a_checkpoint_appears_every_so_many_minutes(
    run_stage: Run, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    saved = []
    keep = checkpoints.save
    monkeypatch.setattr(
        checkpoints,
        "save",
        lambda name, state, *rest: saved.append(state["step"]) or keep(name, state, *rest),
    )
    monkeypatch.setattr(train_stage.time, "monotonic", lambda: now[0])
    step = loop.train_step

    def slow_step(*args: object, **kwargs: object) -> object:
        now[0] += 100.0
        return step(*args, **kwargs)

    monkeypatch.setattr(loop, "train_step", slow_step)
    run_stage("base_train", num_iterations=8, save_minutes=5.0)
    assert saved == [3, 6, 8]


def test_a_full_disk_ends_no_run_that_can_go_on(
    run_stage: Run, base_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Step 2 is not written and step 3 is; the last step waits until there is room."""
    keep, tries = checkpoints.save, []

    def save(name: str, state: dict, *rest: object) -> Path:
        tries.append(state["step"])
        if tries in ([2], [2, 4, 6]):
            raise UserError("the disk is full: x was not written")
        return keep(name, state, *rest)

    monkeypatch.setattr(checkpoints, "save", save)
    monkeypatch.setattr(train_stage.time, "sleep", lambda seconds: None)
    run_stage("base_train", num_iterations=6, save_every=2)
    said = capsys.readouterr().out
    assert "step 2 is not saved: the disk is full" in said
    assert "not saved yet" in said
    assert tries == [2, 4, 6, 6]
    assert checkpoints.find("base").step == 6


def test_an_interrupted_run_that_can_not_be_saved_says_what_there_is(
    run_stage: Run, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = checkpoints.save

    def save(name: str, state: dict, *rest: object) -> Path:
        if state["step"] == 3:
            raise UserError("the disk is full")
        return keep(name, state, *rest)

    monkeypatch.setattr(checkpoints, "save", save)
    interrupt_after(monkeypatch, 3)
    with pytest.raises(Failure, match=r"step 3 could not be saved; step 2 is on the disk"):
        run_stage("base_train", num_iterations=6, save_every=2)


def test_too_little_room_is_said_before_the_first_step(
    run_stage: Run, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "free_bytes", lambda path: 1_000_000)
    with pytest.raises(UserError, match=r"needs 4.1 MB and 1.0 MB are free"):
        run_stage("base_train", num_iterations=2)
    assert not (base_dir / "base_checkpoints").exists()


def test_too_little_memory_is_said_before_the_first_step(
    run_stage: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    little = type("Memory", (), {"available": 1_000, "total": 8 * 2**30})()
    monkeypatch.setattr(train_stage.psutil, "virtual_memory", lambda: little)
    run_stage("base_train", num_iterations=1)
    assert "0.0 GB are free: close other programs, or set a smaller" in capsys.readouterr().out


def test_the_best_is_kept_and_pointed_to(
    run_stage: Run, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([6.0, 5.0, 3.0, 4.0, 4.5, 4.4])
    monkeypatch.setattr("nanochat.evals.bpb.bits_per_byte", lambda *rest: (next(values), 1, 1))
    run_stage("base_train", num_iterations=5, save_every=1, eval_every=1)
    folder = base_dir / "base_checkpoints" / "d1"
    assert storage.read_sealed(folder / "best.json") == {"step": 2, "loss": 3.0}
    assert sorted(f.name for f in folder.glob("step_*")) == [
        "step_000002", "step_000004", "step_000005",
    ]  # fmt: skip


def test_one_of_another_version_is_left_out_and_said(
    two_steps: Path, capsys: pytest.CaptureFixture
) -> None:
    path = two_steps / "step_000004" / "state.json"
    state = storage.read_sealed(path)
    storage.write_sealed(path, state | {"schema": 1})
    forget_what_was_seen()
    assert checkpoints.find("base").step == 3
    assert "was written by another version (schema 1, this one reads 2)" in capsys.readouterr().out


# ---- which one is the newest

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("save"), st.integers(min_value=1, max_value=3)),
        st.tuples(st.just("damage the newest"), st.sampled_from(EVERY_FILE)),
        st.tuples(st.just("another tag"), st.integers(min_value=1, max_value=900)),
        st.tuples(st.just("note"), st.floats(min_value=0, max_value=9)),
        st.tuples(st.just("clock"), st.integers(min_value=-10_000, max_value=10_000)),
    ),
    max_size=8,
)
# What is saved after these is at an earlier step than the two that are damaged.
TWO_DAMAGED = [
    ("save", 3), ("note", 1.0), ("save", 2), ("save", 2),
    ("damage the newest", EVERY_FILE[0]), ("damage the newest", EVERY_FILE[0]),
]  # fmt: skip
TINY_MODEL, NO_WORDS = GPT(GPTConfig(1, 300, 8)), Tokenizer([])


def save(tag: str, step: int, time: float, finished: bool = False) -> Path:
    state = {
        "tag": tag, "step": step, "time": time, "finished": finished,
        "model": TINY_MODEL.config.to_json(),
    }  # fmt: skip
    optimizer = {"step": torch.full((4,), float(step))}
    return checkpoints.save("base", state, TINY_MODEL, NO_WORDS, optimizer)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(events=EVENTS)
@example(events=TWO_DAMAGED)
@example(events=[("save", 3), ("another tag", 1), ("clock", -3600), ("save", 3)])
def test_what_was_saved_last_is_the_newest_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: list[tuple[str, Any]]
) -> None:
    """Resumed from what is whole, over damaged later steps, while the clock jumps."""
    shutil.rmtree(tmp_path, ignore_errors=True)
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    monkeypatch.setattr(storage, "_sync", lambda path: None)
    clock = 1e6
    for event, value in [*events, ("save", 1), ("save", 2)]:
        clock += 1.0
        found = checkpoints.newest_whole(checkpoints.find_all("base", "d1"))
        if event == "save":
            step = (found.step if found else 0) + value
            folder = save("d1", step, clock)
            assert folder.exists(), "not removed by its own save"
            assert checkpoints.find("base").folder == folder
            assert checkpoints.find("base", "d1").folder == folder
            assert checkpoints.newest_whole(checkpoints.find_all("base", "d1")).folder == folder
            if found is not None and found.step < step:
                assert found.damage(resume=True) is None, "the one before it is kept, too"
        elif event == "damage the newest" and found is not None:
            flip(found.folder / value, 99)
            forget_what_was_seen()
        elif event == "another tag":
            folder = save("d2", value, clock)
            assert checkpoints.find("base").folder == folder
        elif event == "note" and found is not None:
            checkpoints.note_best("base", "d1", found.step, value)
        elif event == "clock":
            clock += value
    last = save("d1", 10_000, 1.0, finished=True)
    assert records.is_finished(TRAINED[0], "d1")
    kept = [c.folder for c in checkpoints.find_all("base", "d1")]
    assert [f for f in kept if (f / checkpoints.OPTIMIZER).exists()] == [last]


def test_checkpoints_from_before_saves_had_numbers_are_older_and_go_by_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    for step, time in ((20, 5.0), (10, 9.0)):
        path = save("d1", step, time) / "state.json"
        state = storage.read_sealed(path)
        del state["number"]
        storage.write_sealed(path, state)
    assert [c.step for c in checkpoints.find_all("base")] == [20, 10]
    save("d1", 15, 1.0)
    assert [c.step for c in checkpoints.find_all("base")] == [10, 15]


# ---- files from elsewhere

CHANGES = st.one_of(
    st.none(), st.integers(), st.floats(), st.text(max_size=20), st.lists(st.integers(), max_size=3)
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_state_from_elsewhere_is_used_or_refused_in_one_line(
    two_steps: Path, data: st.DataObject
) -> None:
    """Sealed again, so that the checksum does not help."""
    path = two_steps / "step_000004" / "state.json"
    whole = path.read_text()
    state = json.loads(whole)
    del state["sha256"]
    key = data.draw(st.sampled_from([*state, *(f"model.{name}" for name in state["model"])]))
    where = state["model"] if key.startswith("model.") else state
    where[key.removeprefix("model.")] = data.draw(CHANGES)
    storage.write_sealed(path, state)
    forget_what_was_seen()
    try:
        checkpoint = checkpoints.find("base", "d1")
        checkpoint.model(open_device("cpu"))
    except UserError as error:
        if "\n" in str(error):
            raise AssertionError("more than one line") from error
    finally:
        path.write_text(whole)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    header=st.one_of(
        st.binary(max_size=64),
        st.dictionaries(st.text(max_size=8), CHANGES, max_size=3).map(
            lambda value: json.dumps(value).encode()
        ),
    ),
    length=st.one_of(st.none(), st.integers(min_value=0, max_value=2**64 - 1)),
)
def test_weights_from_elsewhere_are_refused_in_one_line(
    two_steps: Path, header: bytes, length: int | None
) -> None:
    """Any header, of any length that it claims, the checksum made to fit."""
    folder = two_steps / "step_000004"
    kept = {name: (folder / name).read_bytes() for name in EVERY_FILE}
    size = len(header) if length is None else length
    (folder / "model.safetensors").write_bytes(size.to_bytes(8, "little") + header)
    state = storage.read_sealed(folder / "state.json")
    state["files"]["model.safetensors"] = storage.checksum(folder / "model.safetensors")
    storage.write_sealed(folder / "state.json", state)
    forget_what_was_seen()
    try:
        with pytest.raises(UserError, match=r"can't be used \([^\n]*\)$"):
            checkpoints.find("base", "d1").model(open_device("cpu"))
    finally:
        for name, content in kept.items():
            (folder / name).write_bytes(content)


@pytest.mark.parametrize("tag", ["../../etc", "/etc", "a/b", "..", ".hidden", "x" * 65, "", "a\nb"])
def test_no_tag_leaves_its_folder(base_dir: Path, tag: str) -> None:
    with pytest.raises(UserError, match="letters, digits"):
        checkpoints.step_folder("base", tag, 1)


def test_nothing_loads_a_pickle() -> None:
    root = Path(checkpoints.__file__).parents[2]
    for path in [*root.glob("nanochat/**/*.py"), *root.glob("scripts/*.py")]:
        text = path.read_text()
        assert "torch.load" not in text, path
        assert "import pickle" not in text, path


def test_a_copied_checkpoint_is_whole(two_steps: Path, base_dir: Path) -> None:
    """Names and times of the files don't matter, only what is in them."""
    shutil.copytree(two_steps, base_dir / "base_checkpoints" / "mine")
    assert checkpoints.find("base", "mine").damage(resume=True) is None
