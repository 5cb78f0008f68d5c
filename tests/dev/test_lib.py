"""dev/lib.sh: every variable's nonsense, memory, and the lock. No network, no Python of ours."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest
from clone import ROOT, Clone, clone_fixture, wait_for  # noqa: F401

from nanochat import stages
from nanochat.data import fineweb
from nanochat.run.recipe import PlanConfig
from nanochat.system.memory import linux_memory_gb
from nanochat.system.variables import limits, variables
from nanochat.training import checkpoint_manager
from scripts import base_train, tokenizer

LIB = (ROOT / "dev" / "lib.sh").read_text()
DRIVERS = ("runcpu", "runmac_overnight", "continue_training")
WHOLE = {row.name: (row.least or 0, row.most or 0) for row in variables() if row.kind == "whole"}
NONSENSE = [
    *((name, value) for name in WHOLE for value in ("abc", "1.5")),
    *(("DEPTH", value) for value in ("-1", "+1", "1e3", "4 4", "0x4", "4\n", "٤")),
    *((name, str(least - 1)) for name, (least, _) in WHOLE.items()),
    *((name, str(most + 1)) for name, (_, most) in WHOLE.items()),
    *((name, "99999999999999999999") for name in WHOLE),  # more than 2^63: bash wraps around
    ("DEPTH", "$(touch pwned)"),
    ("DEPTH", "a[$(touch pwned)]"),  # what bash arithmetic would run
    *(("TIME_BUDGET", value) for value in ("8", "h", "0s", "59s", "721h", "20 m", "m20", "1m1h")),
    ("TIME_BUDGET", "99999999999999999999h"),
    *(
        ("MODEL_TAG", value)
        for value in ("../d4", ".d4", "-d4", "a/b", "a b", "d4\n", "é", "x" * 65)
    ),
    *(("WANDB_RUN", value) for value in ("-x", "a\nb", "a;b", "$(x)")),
    *(
        ("NANOCHAT_DATA", value)
        for value in ("nowhere", "/nowhere/at all", "~/nowhere", "Tinyworld", "~no-such-user/x")
    ),
    # Not there; without a world.txt; nobody's home.
    *(("NANOCHAT_WORLD", value) for value in ("nowhere", "dev", "~no-such-user/x")),
    *(("FRESH", value) for value in ("2", "yes", "-1")),
    *(
        ("NANOCHAT_BASE_DIR", value)
        for value in ("/dev/null/x", "/proc/x", "dev/lib.sh", "~no-such-user/x")
    ),
]


@pytest.mark.parametrize(("name", "value"), NONSENSE)
def test_nonsense_is_refused_by_name(clone: Clone, name: str, value: str) -> None:
    result = clone.lib("PROGRAM=runcpu.sh; begin about", **{name: value})
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1, "one line"
    assert result.err.startswith(f"error: {name}=")
    assert "must be" in result.err
    assert "For example: " in result.err
    assert not (clone.root / "pwned").exists()


def test_the_limits_hold_for_the_flags() -> None:
    assert len(WHOLE) > 11
    assert limits()["data_shards"][1] == fineweb.LAST_SHARD
    for name, most in checkpoint_manager.MAX.items():
        assert most >= limits()[name][1], "what is made here can be loaded"
    for config in (base_train.Config, tokenizer.Config):
        for name in limits().keys() & {field.name for field in fields(config)}:
            least, most = limits()[name]
            for value in (least, most):
                config(**{name: value})
            for value in (least - 1, most + 1):
                with pytest.raises(ValueError, match=f"^{name}={value}: "):
                    config(**{name: value})


def test_every_variable_is_a_field_of_the_plan() -> None:
    """Those that become a flag, that is. The examples are typed in test_sense_is_taken."""
    names = {field.name for field in fields(PlanConfig)}
    assert {row.flags[0] for row in variables() if row.flags} <= names
    assert {row.name for row in variables() if not row.flags} == {
        "NANOCHAT_BASE_DIR",
        "NANOCHAT_WORLD",
    }


def test_a_table_edited_by_hand(clone: Clone) -> None:
    table = clone.root / "nanochat" / "variables.txt"
    table.write_text(f"{table.read_text()}LAST whole 1 9 5 - last - without a newline")
    assert (
        "LAST=0: must be a whole number from 1 to 9" in clone.lib("check_variables", LAST="0").err
    )
    table.write_text("ODD color 1 9 5 - odd - of no kind")
    assert "ODD has the kind color" in clone.lib("check_variables").err


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_driver_refuses_before_it_touches_anything(clone: Clone, driver: str) -> None:
    before = sorted(clone.root.rglob("*"))
    result = clone.bash(f"dev/{driver}.sh", DEPTH="0")
    assert (result.code, result.out) == (2, "")
    rule = "must be a whole number from 1 to 64"
    assert result.err == f"error: DEPTH=0: {rule}. For example: DEPTH=4 bash dev/{driver}.sh\n"
    assert result.seconds < 2
    assert sorted(clone.root.rglob("*")) == before
    assert not list(clone.home.iterdir())


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        *((name, str(bound), str(bound)) for name, bounds in WHOLE.items() for bound in bounds),
        *((row.name, row.example, row.example) for row in variables() if "~" not in row.example),
        ("DEPTH", "010", "10"),  # not octal
        ("DEPTH", "", ""),  # empty is unset
        ("FRESH", "0", "0"),
        ("MODEL_TAG", "my_Model-2.b", "my_Model-2.b"),
        ("WANDB_RUN", "team/run: one", "team/run: one"),
        ("NANOCHAT_DATA", "fineweb", "fineweb"),
    ],
)
def test_sense_is_taken(clone: Clone, name: str, value: str, kept: str) -> None:
    result = clone.lib(f'PROGRAM=runcpu.sh; begin about; printf %s "${name}"', **{name: value})
    assert (result.code, result.out, result.err) == (0, kept, "")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("20m", 1200),
        ("8h", 28800),
        ("1h30m", 5400),
        ("08m09s", 489),
        ("720h", 2592000),
    ],
)
def test_time_budget_in_seconds(clone: Clone, text: str, seconds: int) -> None:
    result = clone.lib('check_variables; printf %s "$TIME_BUDGET_S"', TIME_BUDGET=text)
    assert (result.code, result.out) == (0, str(seconds))


def test_two_explicit_values_that_disagree(clone: Clone) -> None:
    def refusal(device: str, total: str, **env: str) -> str:
        result = clone.lib(
            "check_variables", DEVICE_BATCH_SIZE=device, TOTAL_BATCH_SIZE=total, **env
        )
        assert result.code == (2 if result.err else 0)
        return result.err

    assert refusal("8", "2048") == ""
    assert "= 8 x 256 = 2048 (nearest: 4096 or 6144)" in refusal("8", "5000")
    assert "= 16 x 1024 = 16384 (nearest: 16384)" in refusal("16", "4096", MAX_SEQ_LEN="1024")
    # One of them alone is never refused: what is derived is raised, by Python.
    assert clone.lib("check_variables", TOTAL_BATCH_SIZE="1000").code == 0


def test_data_folder_is_made_absolute(clone: Clone) -> None:
    (clone.home / "my notes").mkdir()
    show = 'check_variables; printf %s "$NANOCHAT_DATA"'
    there = str(clone.home / "my notes")
    assert clone.lib(show, NANOCHAT_DATA="~/my notes").out == there
    assert clone.lib(show, NANOCHAT_DATA="../home/my notes").out == there
    (clone.root / "tinyworld").mkdir()
    assert clone.lib(show, NANOCHAT_DATA="tinyworld").out == "tinyworld", "the word wins"


def test_a_world_is_the_source_of_the_run(clone: Clone) -> None:
    folder = clone.home / "my bot"
    folder.mkdir()
    (folder / "world.txt").write_text("name: Otto\n")
    show = "PROGRAM=runcpu.sh; begin about; default NANOCHAT_DATA tinyworld; set_flags fixed; "
    show += 'echo "$FLAGS"'
    result = clone.lib(show, NANOCHAT_WORLD="~/my bot")
    assert (result.code, result.out) == (0, f"--data={folder}\n")
    both = clone.lib(show, NANOCHAT_WORLD="~/my bot", NANOCHAT_DATA="tinyworld")
    assert (both.code, both.err.count("\n")) == (2, 1)
    assert "must be given without NANOCHAT_DATA" in both.err


def test_base_dir_is_made_absolute_and_left_unmade(clone: Clone) -> None:
    show = 'check_variables; printf %s "$NANOCHAT_BASE_DIR"'
    assert clone.lib(show).out == str(clone.base_dir)
    assert clone.lib(show, NANOCHAT_BASE_DIR="a b/c").out == str(clone.root / "a b/c")
    assert clone.lib(show, NANOCHAT_BASE_DIR="~/x").out == str(clone.home / "x")
    assert not list(clone.home.iterdir())
    assert not (clone.root / "a b").exists()
    for given in ("", "~", "~/x"):
        result = clone.lib(show, HOME="", NANOCHAT_BASE_DIR=given)
        assert (result.code, result.err.count("\n")) == (2, 1)
        assert "NANOCHAT_BASE_DIR=/some/folder" in result.err


def test_base_dir_without_permission(clone: Clone) -> None:
    clone.home.chmod(0o500)
    result = clone.without_privileges().lib("check_variables")
    assert result.code == 2
    assert f"({clone.home} cannot)" in result.err


# Folders and files in the base dir, and where lib.sh names them.
FOLDERS = re.findall(r"\w+", re.findall(r"\$1\"/\{(.*)\}", LIB)[0])
READ_ONLY = re.findall("for name in (.*); do", LIB)[0].split()
CHECKPOINTS = [f"{kind}_checkpoints" for kind in stages.CHECKPOINTS]
PARTS = [*FOLDERS, *READ_ONLY, *CHECKPOINTS, "run.lock"]


def test_every_part_of_the_base_dir_is_looked_at() -> None:
    files = (*(ROOT / "nanochat").rglob("*.py"), *(ROOT / "scripts").glob("*.py"))
    code = "".join(path.read_text() for path in files)
    used = set(re.findall(r"base_dir\(\) / \"(\w+)\"", code))
    assert {"report", "metrics"} < used
    assert used | {"logs"} == {*FOLDERS, *READ_ONLY}


@pytest.mark.parametrize("owner", ["own", "another"])
@pytest.mark.parametrize("name", PARTS)
def test_part_that_is_not_ours(clone: Clone, name: str, owner: str) -> None:
    """As a run with sudo leaves them; found before anything is set up or trained."""
    path = clone.base_dir / name
    path.parent.mkdir(parents=True)
    path.touch() if name == "run.lock" else path.mkdir()
    remedy = f"chmod -R u+rwX {path}"
    if owner == "another":
        if os.geteuid() != 0:
            pytest.skip("NOT TESTED: only root can give a file away")
        os.chown(path, 65534, 65534)
        remedy = f"sudo chown -R 0 {clone.base_dir}"
    path.chmod(0)
    result = clone.without_privileges().bash("dev/runcpu.sh")
    path.chmod(0o700)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error: {path} ")
    assert result.err.endswith(f"can't be read and written: {remedy}\n")
    assert not clone.venv.exists()


@pytest.mark.parametrize("name", ["run.lock", "logs", "report", "sft_checkpoints"])
def test_part_of_the_wrong_kind(clone: Clone, name: str) -> None:
    clone.base_dir.mkdir(parents=True)
    path = clone.base_dir / name
    path.mkdir() if name == "run.lock" else path.touch()
    result = clone.bash("dev/runcpu.sh")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert result.err.startswith(f"error: {path} is ")
    path.unlink() if path.is_file() else path.rmdir()
    path.symlink_to("nowhere")
    assert clone.lib("check_variables").code == (0 if name == "run.lock" else 2)


# ---- the last resort, and where it runs ----


def test_nothing_ends_without_a_word(clone: Clone) -> None:
    """What `set -e` ends silently: in a function, behind a pipe, in a substitution."""
    silent = 'f() { local x; x=$(sed -n p nowhere 2>/dev/null | tail -n 1); }; f; echo "not here"'
    result = clone.lib(silent)
    assert (result.code != 0, result.out) == (True, "")
    assert result.err.startswith("failed: x=$(sed")
    assert result.err.count("\n") == 1
    assert clone.lib("x=$(false) || x=; if false; then :; fi; ! true || false || :").err == ""


@pytest.mark.parametrize("system", ["MINGW64_NT-10.0-19045", "MSYS_NT-10.0", "CYGWIN_NT-10.0"])
def test_windows_is_sent_to_wsl(clone: Clone, system: str) -> None:
    clone.fake("uname", f"echo {system}")
    for script in ("runcpu", "setup", "test"):
        result = clone.bash(f"dev/{script}.sh")
        assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
        assert "WSL2" in result.err
    assert not clone.venv.exists()


@pytest.mark.parametrize("driver", DRIVERS)
def test_arguments(clone: Clone, driver: str) -> None:
    unknown = clone.bash(f"dev/{driver}.sh", "--paln")
    assert unknown.code == 2
    assert "--paln" in unknown.err
    assert unknown.err.count("\n") == 1
    help_page = clone.bash(f"dev/{driver}.sh", "--help")
    assert help_page.code == 0
    assert help_page.out.count("\n") <= 24, "one screen"
    listed = help_page.out.partition("Variables, ")[2].partition("\n")[2]
    for row in variables():
        assert re.search(rf"\b{row.name}\b.*  {re.escape(row.help)}\n", listed)


# ---- memory ----


def test_memory_of_a_mac(clone: Clone) -> None:
    clone.fake("uname", "echo Darwin")
    clone.fake("sysctl", '[ "$*" = "-n hw.memsize" ] && echo 137438953472')
    assert clone.lib("detect_memory_gb").out == "128\n"
    clone.fake("sysctl", "exit 1")
    assert clone.lib("detect_memory_gb || echo unknown").out == "unknown\n"


def linux_memory(clone: Clone, kb: int, group: str = "0::/", **limits: str) -> str:
    """linux_memory_gb on a made-up machine; limits are files below the cgroup root."""
    (clone.home / "meminfo").write_text(f"MemFree: 1 kB\nMemTotal:  {kb} kB\n")
    (clone.home / "self").write_text(f"12:cpu:/x\n{group}\n")
    for path, text in limits.items():
        file = clone.home / "cgroup" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    home = clone.home
    arguments = f"'{home}/meminfo' '{home}/cgroup' '{home}/self'"
    found = clone.lib(f"linux_memory_gb {arguments}").out.strip()
    # A stage that is typed by hand finds the same.
    assert found == str(linux_memory_gb(1024 * kb, home / "cgroup", home / "self"))
    return found


GB = 2**30


@pytest.mark.parametrize(
    ("kb", "gb"),
    [
        (131_900_000, "128"),
        (65_536_000, "64"),
        (24_550_000, "24"),
        (16_777_216, "16"),
        (900_000, "4"),
    ],
)
def test_linux_memory_is_rounded_up_to_4(clone: Clone, kb: int, gb: str) -> None:
    assert linux_memory(clone, kb) == gb


@pytest.mark.parametrize(
    ("group", "limits", "gb"),
    [
        ("0::/", {"memory.max": "max"}, "64"),
        ("0::/", {"memory.max": str(10 * GB)}, "10"),  # in a container: no rounding of a limit
        ("0::/a/b", {"a/memory.max": str(8 * GB), "a/b/memory.max": "max"}, "8"),
        ("0::/a", {"a/memory.max": str(GB // 2)}, "1"),
        ("0::/a", {"a/memory.max": str(500 * GB)}, "64"),
        ("4:memory:/d", {"memory/d/memory.limit_in_bytes": str(6 * GB)}, "6"),
        ("4:memory:/d", {"memory/memory.limit_in_bytes": "9223372036854771712"}, "64"),
    ],
)
def test_cgroup_limit(clone: Clone, group: str, limits: dict[str, str], gb: str) -> None:
    assert linux_memory(clone, 65_000_000, group, **limits) == gb


# ---- lock ----

HOLD = "PROGRAM=runcpu.sh; take_lock lock 'The folder'; touch held; sleep 20"


@pytest.fixture(name="quick")
def quick_clone(clone: Clone) -> Clone:
    clone.sleep_less()
    return clone


def hold(clone: Clone) -> subprocess.Popen[str]:
    """A process that holds the lock; its command has the driver's name in it, as a driver's has."""
    process = clone.start("-c", f"set -euo pipefail; . dev/lib.sh; {HOLD}")
    wait_for(clone.root / "held")
    return process


def test_live_holder_is_named(quick: Clone) -> None:
    holder = hold(quick)
    try:
        result = quick.lib("take_lock lock 'The folder'")
        assert result.code == 2
        assert result.err.count("\n") == 1
        assert f"The folder is in use by runcpu.sh (process {holder.pid}) since 20" in result.err
        assert (quick.root / "lock").exists()
    finally:
        os.killpg(holder.pid, 9)
        holder.communicate()
    after = quick.lib("take_lock lock 'The folder'; cat lock")
    assert after.code == 0, "a dead holder's lock is taken over"
    assert f"{holder.pid} " not in after.out
    assert not (quick.root / "lock").exists(), "given back at the end"


def test_pid_of_a_dead_holder_used_again(quick: Clone) -> None:
    """After a reboot the number may belong to something else."""
    host = subprocess.run(["uname", "-n"], capture_output=True, text=True).stdout.strip()
    (quick.root / "lock").write_text(f"{os.getpid()} {host} runcpu.sh 2026-01-01 00:00:00\n")
    assert quick.lib("take_lock lock x").code == 0


def test_lock_of_another_machine_stands(quick: Clone) -> None:
    (quick.root / "lock").write_text("1 elsewhere runcpu.sh 2026-01-01 00:00:00\n")
    result = quick.lib("take_lock lock x")
    assert result.code == 2
    assert "elsewhere" in result.err
    assert "rm lock" in result.err


def test_dead_driver_whose_training_lives(quick: Clone) -> None:
    host = subprocess.run(["uname", "-n"], capture_output=True, text=True).stdout.strip()
    python = quick.venv / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(shutil.which("sleep") or "")
    orphan = subprocess.Popen([str(python), "20"])
    try:
        (quick.root / "lock").write_text(f"99999999 {host} runcpu.sh 2026\n{orphan.pid}\n")
        result = quick.lib("take_lock lock x")
        assert result.code == 2
        assert f"kill {orphan.pid}" in result.err
    finally:
        orphan.kill()
        orphan.wait()
    assert quick.lib("take_lock lock x").code == 0


def test_lock_that_cannot_be_read(quick: Clone) -> None:
    (quick.root / "lock").touch(0)
    result = quick.without_privileges().lib("take_lock lock x")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert result.err.startswith("error: lock can't be read and written: chmod ")


def test_empty_lock_is_taken_over(quick: Clone) -> None:
    (quick.root / "lock").write_text("")
    assert quick.lib("take_lock lock x").code == 0


@pytest.mark.slow
def test_two_at_once(clone: Clone) -> None:
    (clone.root / "lock").write_text(
        "99999999 gone runcpu.sh 2026\n".replace("gone", os.uname().nodename)
    )
    code = "set -euo pipefail; . dev/lib.sh; PROGRAM=lib.sh; take_lock lock x; sleep 2"
    both = [clone.start("-c", code) for _ in range(4)]
    for process in both:
        process.communicate()
    assert sorted(process.returncode for process in both) == [0, 2, 2, 2]


# ---- style ----


@pytest.mark.parametrize("path", sorted((ROOT / "dev").glob("*.sh")), ids=lambda path: path.name)
def test_bash_3_2(path: Path) -> None:
    """Syntax, and the words that bash 3.2 or BSD tools do not know."""
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    code = "\n".join(line.split(" # ")[0] for line in path.read_text().splitlines())
    for word in [
        *("declare -A", "local -A", "mapfile", "readarray", ",,}", "^^}", "local -n", "&>>", "|&"),
        *("wait -n", "sed -i", "readlink -f", "realpath", "date -d", "stat -c", "grep -P"),
        *("coproc", "EPOCHSECONDS", "BASHPID", "[[ -v", "timeout ", "nproc", "sort -V", "head -c"),
    ]:
        assert word not in code, word
