"""The drivers with a stand-in for the pipeline: what they call, pass on and end with."""

from __future__ import annotations

import ast
import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from clone import ROOT, TOOLS, Clone, alive, clone_fixture, wait_for  # noqa: F401
from test_setup import fake_python

from nanochat import stages
from nanochat.system.variables import variables
from nanochat.training.batch_sizes import batch_sizes

# Writes its arguments down, prints a plan, and does to a stage what STAND_IN says: "name:7" ends it
# with that code, "name:slow" makes it wait for a signal and end with 130, as a real one does.
PIPELINE = r"""
import os, signal, sys, time

verb, arguments = sys.argv[1], sys.argv[2:]
base = os.environ["NANOCHAT_BASE_DIR"]
os.makedirs(base, exist_ok=True)
with open(f"{base}/calls", "a") as file:
    file.write(f"{sys.argv[1:]}\n")
wanted = dict(word.split(":") for word in os.environ.get("STAND_IN", "").split())
end = wanted.get(arguments[0] if verb == "stage" else verb, "0")
if verb == "plan" and end == "0":
    print("data: tinyworld\nmodel_tag: d4-2\nminutes: 3")
elif verb == "newest_tag" and end == "0":
    print("d6")
elif verb == "stage":
    print(f"stage {arguments[0]} terminal={os.isatty(1)}", flush=True)
    print(f"a warning of {arguments[0]}", file=sys.stderr, flush=True)
    if end == "slow":
        def stop(number, frame):
            with open(f"{base}/stopped", "w") as file:
                file.write(signal.Signals(number).name)
            sys.exit(130)
        signal.signal(signal.SIGTERM, stop)
        with open(f"{base}/slow", "w") as file:
            file.write(f"{os.getpid()}\n")
        try:
            time.sleep(20)
        except KeyboardInterrupt:
            stop(signal.SIGINT, None)
else:
    print(f"this is {verb}")
if end.isdigit():
    sys.exit(int(end))
os.kill(os.getpid(), getattr(signal, end, 0))
"""
STAGES = [stage.name for stage in stages.STAGES]
FEW = ["data", "base_train", "chat_sft"]  # enough for most tests
FEW_STAGES = f"""
class Stage:
    def __init__(self, name):
        self.name = name

STAGES = [Stage(name) for name in {FEW}]
"""
DRIVERS = ("runcpu", "runmac_overnight", "continue_training")


@pytest.fixture
def ready(clone: Clone) -> Clone:
    """A clone that is set up, with the stand-in and few stages."""
    package = clone.root / "nanochat" / "run"
    package.mkdir(parents=True)
    (package / "pipeline.py").write_text(PIPELINE)
    (clone.root / "nanochat" / "stages.py").write_text(FEW_STAGES)
    (clone.root / "dev" / "setup.sh").write_text('exit "${SETUP_EXIT:-0}"\n')
    python = clone.venv / "bin" / "python"
    python.parent.mkdir(parents=True)
    real = Path(sys.executable).resolve()
    python.symlink_to(real)
    # A driver starts Python 20 times. Without this file, each start would also run what is in the
    # site-packages of the Python behind the link, which takes longer than all else.
    clone.sleep_less()
    (clone.venv / "pyvenv.cfg").write_text(
        f"home = {real.parent}\ninclude-system-site-packages = false\n"
    )
    return clone


@pytest.fixture
def whole(ready: Clone) -> Clone:
    """With all stages."""
    shutil.copy(ROOT / "nanochat" / "stages.py", ready.root / "nanochat" / "stages.py")
    return ready


def calls(clone: Clone, base_dir: Path | None = None) -> list[list[str]]:
    path = (base_dir or clone.base_dir) / "calls"
    if not path.exists():
        return []
    return [ast.literal_eval(line) for line in path.read_text().splitlines()]


def stages_called(clone: Clone) -> list[str]:
    return [call[1] for call in calls(clone) if call[0] == "stage"]


def log(clone: Clone) -> str:
    (path,) = (clone.base_dir / "logs").glob("*.log")
    return path.read_text()


def test_runcpu(whole: Clone) -> None:
    result = whole.bash("dev/runcpu.sh", MEMORY_SIZE="24")
    assert result.code == 0
    plan, *stages, finish = calls(whole)
    assert plan == [
        *("plan", "--driver=runcpu", "--memory_is_given", "--depth=4", "--data=tinyworld"),
        *("--data_shards=4", "--base_iterations=50", "--mid_iterations=100"),
        *("--sft_iterations=100", "--memory_gb=24", "--tokenizer_max_chars=500000000"),
    ]
    (path,) = (whole.base_dir / "logs").glob("runcpu-*.log")
    same = ["--model_tag=d4-2", f"--session={path.name}", f"--log_file={path}"]
    assert stages == [["stage", name, *same] for name in STAGES]
    assert finish == ["finish", "--model_tag=d4-2"]
    for line in ("model_tag: d4-2", "a warning of mid_train", "this is finish"):
        assert log(whole).count(line) == 1
        assert (result.out + result.err).count(line) == 1
    assert not (whole.base_dir / "run.lock").exists()


def test_overnight_from_elsewhere(whole: Clone) -> None:
    result = whole.bash("../a clone/dev/runmac_overnight.sh", cwd=whole.home.parent / "bin")
    assert result.code == 0
    (plan, *_) = calls(whole)
    assert plan[:8] == [
        *("plan", "--driver=runmac_overnight", "--depth=6", "--data=auto", "--data_shards=50"),
        *("--base_iterations=500", "--mid_iterations=150", "--sft_iterations=150"),
    ]
    assert plan[-1] == "--tokenizer_max_chars=1000000000"
    assert stages_called(whole) == STAGES


def test_overnight_has_a_place_for_its_report(ready: Clone) -> None:
    ready.root.chmod(0o500)
    result = ready.without_privileges().bash("dev/runmac_overnight.sh")
    ready.root.chmod(0o700)
    assert (result.code, calls(ready)) == (2, [])
    assert result.err.startswith(f"error: {ready.root} can't be read and written: ")


@pytest.mark.parametrize("driver", ["runcpu", "runmac_overnight"])
def test_every_variable_reaches_the_plan(ready: Clone, driver: str) -> None:
    base_dir = ready.home / "a place"
    # A world is a source of text by another name, and a run has one.
    env = {row.name: row.example for row in variables() if row.kind != "world"} | {
        "DEPTH": "03",
        "NANOCHAT_DATA": "dev",
        "TIME_BUDGET": "20m",
        "MODEL_TAG": "my.tag",
        "WANDB_RUN": "my run",
        "NANOCHAT_BASE_DIR": str(base_dir),
    }
    result = ready.bash(f"dev/{driver}.sh", "--plan", **env)
    assert result.code == 0
    ((verb, _, *flags),) = calls(ready, base_dir)
    assert verb == "plan"
    numbers = {f"--{row.flags[0]}={row.example}" for row in variables() if row.kind == "whole"}
    assert {flag for flag in flags if "max_chars" not in flag} == {
        *(numbers - {"--depth=4"}),
        *("--depth=3", f"--data={ready.root}/dev", "--time_budget_s=1200"),
        *("--model_tag=my.tag", "--wandb_run=my run", "--fresh"),
        *("--memory_is_given", "--dry_run"),
    }
    assert not list(base_dir.glob("logs")), "--plan leaves no log, and takes no lock"


def test_time_budget_decides_the_iterations(ready: Clone) -> None:
    ready.bash("dev/runcpu.sh", "--plan", TIME_BUDGET="90s", MID_ITERATIONS="5")
    ((_, *flags),) = calls(ready)
    assert "--time_budget_s=90" in flags
    assert [flag for flag in flags if "iterations" in flag] == ["--mid_iterations=5"]


def test_plan_of_a_running_run_may_be_asked(ready: Clone) -> None:
    process = ready.start("dev/runcpu.sh", STAND_IN="base_train:slow")
    wait_for(ready.base_dir / "slow", "\n")
    try:
        refused = ready.bash("dev/continue_training.sh")
        assert refused.code == 2
        assert refused.err.count("\n") == 1
        assert f"in use by runcpu.sh (process {process.pid})" in refused.err
        assert ready.bash("dev/runcpu.sh", "--plan").code == 0
    finally:
        os.killpg(process.pid, 9)
        process.communicate()
    assert ready.bash("dev/runcpu.sh").code == 0, "killed as a whole: the lock is taken over"


def test_driver_killed_alone(ready: Clone) -> None:
    process = ready.start("dev/runcpu.sh", STAND_IN="base_train:slow")
    wait_for(ready.base_dir / "slow", "\n")
    training = int((ready.base_dir / "slow").read_text())
    process.kill()
    process.wait()
    refused = ready.bash("dev/runcpu.sh")
    os.kill(training, 9)
    process.communicate()
    assert refused.code == 2
    assert f"kill {training}" in refused.err


@pytest.mark.parametrize(("name", "to_group"), [("INT", True), ("TERM", False)])
def test_interrupted(ready: Clone, name: str, to_group: bool) -> None:
    """Ctrl-C goes to the whole group; `kill` to the driver, which hands it on."""
    process = ready.start("dev/runcpu.sh", STAND_IN="base_train:slow")
    wait_for(ready.base_dir / "slow", "\n")
    number = {"INT": 2, "TERM": 15}[name]
    (os.killpg if to_group else os.kill)(process.pid, number)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 130
    assert (ready.base_dir / "stopped").read_text() == f"SIG{name}", "and only that one"
    assert out.splitlines()[-1].endswith("MODEL_TAG=d4-2 bash dev/continue_training.sh")
    assert stages_called(ready) == ["data", "base_train", "report"]
    assert log(ready).splitlines()[-1] == out.splitlines()[-1]
    assert not (ready.base_dir / "run.lock").exists()


def test_nohup_outlives_its_terminal(ready: Clone) -> None:
    process = ready.start("-c", "trap '' HUP; exec bash dev/runcpu.sh", STAND_IN="base_train:slow")
    wait_for(ready.base_dir / "slow", "\n")
    os.killpg(process.pid, 1)
    assert alive(process.pid)
    os.killpg(process.pid, 2)
    process.communicate(timeout=10)
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("stand_in", "code", "said"),
    [
        ("base_train:1", 1, "base_train failed (exit code 1)"),
        ("chat_sft:2", 2, "Then continue from there: "),
        ("base_train:130", 130, "Interrupted."),
        ("chat_sft:SIGKILL", 1, "this is killed"),
        ("chat_sft:SIGTERM", 130, "Interrupted."),
        ("finish:1", 1, ""),
    ],
)
def test_exit_codes(ready: Clone, stand_in: str, code: int, said: str) -> None:
    result = ready.bash("dev/runcpu.sh", STAND_IN=stand_in)
    assert result.code == code
    assert said in result.out
    name = stand_in.split(":")[0]
    if name in FEW:
        after = [] if code == 2 else ["report"]
        assert stages_called(ready)[FEW.index(name) :] == [name, *after], "nothing after it"
        assert "bash dev/continue_training.sh" in result.out
    assert not (ready.base_dir / "run.lock").exists()


def test_how_to_continue_names_the_place(ready: Clone) -> None:
    there = ready.home / "other place"
    result = ready.bash(
        "dev/runcpu.sh", STAND_IN="data:1", NANOCHAT_BASE_DIR=str(there), MODEL_TAG="x"
    )
    line = result.out.splitlines()[-1].split("from there: ")[1]
    assert line.startswith(f"NANOCHAT_BASE_DIR={ready.home}/other\\ place MODEL_TAG=")


def test_plan_or_set_up_that_fails_ends_it(ready: Clone) -> None:
    assert ready.bash("dev/runcpu.sh", STAND_IN="plan:2").code == 2
    assert ready.bash("dev/runcpu.sh", SETUP_EXIT="1").code == 1
    assert stages_called(ready) == []


def test_terminal_stays_a_terminal(ready: Clone) -> None:
    """The step line overwrites itself only on one; the log is kept all the same."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["bash", "dev/runcpu.sh"], cwd=ready.root, env=ready.env, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    text = b""
    while process.poll() is None or select.select([ours], [], [], 0.1)[0]:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                text += os.read(ours, 65536)
            except OSError:
                break
    assert process.wait() == 0
    assert text.decode().count("terminal=True") == len(FEW)
    assert "a warning of data" in log(ready)


# ---- on a Mac ----


def apple_silicon(clone: Clone, memory_bytes: int) -> None:
    """uname, sysctl and caffeinate as on such a Mac; each refuses what macOS would not know."""
    clone.fake(
        "uname",
        'case "${1--s}" in -s) echo Darwin ;; -m) echo arm64 ;; -n) echo mac ;; *) exit 1 ;; esac',
    )
    clone.fake(
        "sysctl",
        f'case "$*" in "-n hw.memsize") echo {memory_bytes} ;; '
        '"-n hw.optional.arm64") echo 1 ;; *) exit 1 ;; esac',
    )
    clone.fake("caffeinate", 'echo "$*" > "$HOME/caffeinate"')


# Options that GNU tools have and those of macOS lack, or read otherwise. A long option is one more:
# BSD tools take none. (`readlink -f` came with macOS 12.3 only.)
GNU_ONLY = {
    "date": "-d* | -I*",
    "find": "-printf | -executable | -quit",
    "grep": "-P* | -*oP*",
    "head": "-n-*",
    "mktemp": "-p*",
    "ps": "-C* | -q*",
    "readlink": "-f* | -e* | -m*",
    "sed": "-r* | -z* | -s* | -i | -i[e]*",
    "sort": "-V* | -h*",
    "stat": "-c* | -L*c*",
    "touch": "-d*",
    "tr": "-t*",
}
ONLY_GNU_TOOLS = ("nproc", "realpath", "setsid", "tac", "timeout", "free", "numfmt", "flock")


def bsd_tools(clone: Clone) -> None:
    """Put a guard before every tool that dies of a GNU option; what only GNU has is not there."""
    for name in sorted(TOOLS | GNU_ONLY.keys()):
        real = shutil.which(name)
        if name in ("bash", "sh", "env") or real is None:  # long options of those are our scripts'
            continue
        refuse = GNU_ONLY.get(name, "@nothing@")
        clone.fake(
            name,
            f"""for argument in "$@"; do
  case $argument in
    --) break ;;
    --* | {refuse})
      echo "{name}: illegal option $argument" | tee -a "$HOME/illegal" >&2
      exit 64 ;;
  esac
done
exec {shlex.quote(os.path.realpath(real))} "$@" """,
        )
    assert not any((clone.bin / name).exists() for name in ONLY_GNU_TOOLS)


@pytest.mark.parametrize("driver", ["runcpu", "runmac_overnight"])
@pytest.mark.parametrize(
    ("memory_gb", "rows", "total"), [(128, 16, 4096), (64, 8, 2048), (32, 4, 1024), (16, 1, 512)]
)
def test_memory_of_a_mac_decides_the_batch(
    ready: Clone, driver: str, memory_gb: int, rows: int, total: int
) -> None:
    apple_silicon(ready, memory_gb * 2**30)
    assert ready.bash(f"dev/{driver}.sh", "--plan").code == 0
    ((_, *flags),) = calls(ready)
    (found,) = [flag for flag in flags if flag.startswith("--memory_gb=")]
    assert found == f"--memory_gb={memory_gb}"
    assert not (ready.home / "caffeinate").exists(), "a plan keeps nobody awake"
    batch = batch_sizes(int(found.split("=")[1]), 256)
    assert (batch.device_batch_size, batch.total_batch_size) == (rows, total)


def test_memory_of_a_mac_may_be_overruled_or_unknown(ready: Clone) -> None:
    apple_silicon(ready, 128 * 2**30)
    ready.bash("dev/runcpu.sh", "--plan", MEMORY_SIZE="64")
    ready.fake("sysctl", "exit 1")
    result = ready.bash("dev/runcpu.sh", "--plan")
    assert "planning for 8 GB" in result.out
    overruled, unknown = calls(ready)
    assert "--memory_gb=64" in overruled
    assert "--memory_gb=8" in unknown


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_mac_has_no_gnu_tools(ready: Clone, driver: str) -> None:
    """A run, one that fails, and one that finds the lock of a dead one, with BSD tools alone."""
    bsd_tools(ready)
    apple_silicon(ready, 64 * 2**30)
    first = ready.bash(f"dev/{driver}.sh")
    assert first.code == 0
    assert "a closed lid pauses the run" in first.out
    assert ready.bash(f"dev/{driver}.sh", STAND_IN="base_train:1").code == 1
    (ready.base_dir / "run.lock").write_text("99999999 mac runcpu.sh 2026-01-01 00:00:00\n")
    result = ready.bash(f"dev/{driver}.sh")
    assert (result.code, result.err.count("illegal")) == (0, 0)
    assert stages_called(ready)[-len(FEW) :] == FEW
    assert not (ready.home / "illegal").exists()
    assert re.fullmatch(r"-i -w \d+\n", (ready.home / "caffeinate").read_text())


def test_a_mac_is_set_up_without_gnu_tools(clone: Clone) -> None:
    bsd_tools(clone)
    apple_silicon(clone, 64 * 2**30)
    fake_python(clone, 313, machine="arm64")
    assert clone.bash("dev/setup.sh").code == 0
    (clone.venv / "bin" / "python").unlink()
    again = clone.bash("dev/setup.sh", LINKS="/some/wheels")
    assert again.code == 0
    assert "making it from scratch" in again.out
    assert not (clone.home / "illegal").exists()


@pytest.mark.parametrize(
    "line",
    [
        "date -d yesterday",
        "stat -c %s dev/lib.sh",
        "sed -i s/a/a/ /dev/null",
        "sed -r s/a/a/ /dev/null",
        "readlink -f dev",
        "ls --color=never",
        "mktemp -p .",
        "grep -P a dev/lib.sh",
        "timeout 1 true",
    ],
)
def test_a_gnu_tool_would_be_noticed(clone: Clone, line: str) -> None:
    bsd_tools(clone)
    lib = clone.root / "dev" / "lib.sh"
    assert clone.lib("check_variables").code == 0
    lib.write_text(
        lib.read_text().replace("\ncheck_variables() {", f"\ncheck_variables() {{ {line}\n")
    )
    assert clone.lib("check_variables").code in (64, 127)  # refused by the guard, or not there


def test_another_environment_does_not_lead_astray(ready: Clone) -> None:
    elsewhere = ready.home / "elsewhere"
    (elsewhere / "nanochat" / "run").mkdir(parents=True)
    (elsewhere / "nanochat" / "run" / "pipeline.py").write_text("raise SystemExit('wrong')")
    names = ("CONDA_PREFIX", "VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")
    for name in names:
        env = {name: str(elsewhere)}
        assert ready.bash("dev/runcpu.sh", "--plan", **env).code == 0
        assert str(elsewhere) not in ready.lib("env", **env).out, "nor is anything started with it"


# ---- continue_training.sh ----


def test_continue(whole: Clone) -> None:
    result = whole.bash(
        "dev/continue_training.sh",
        DEPTH="6",
        DEVICE_BATCH_SIZE="2",
        MEMORY_SIZE="8",
        TIME_BUDGET="2h",
    )
    assert result.code == 0
    newest, status, *stages, finish = calls(whole)
    assert newest == ["newest_tag"]
    assert status == ["status", "--model_tag=d6", "--depth=6"]
    assert [call[1] for call in stages] == STAGES
    for call in stages:
        assert call[2] == "--model_tag=d6"
        assert call[5:] == ["--time_budget_s=7200", "--memory_gb=8", "--device_batch_size=2"]
    assert finish == ["finish", "--model_tag=d6"]
    assert "this is status" in result.out
    assert "this is status" in log(whole)


def test_continue_with_a_tag_and_a_plan_only(ready: Clone) -> None:
    result = ready.bash("dev/continue_training.sh", "--plan", MODEL_TAG="mine")
    assert (result.code, result.out) == (0, "this is status\n")
    assert calls(ready) == [["status", "--model_tag=mine"]]
    assert not (ready.base_dir / "logs").exists()


@pytest.mark.parametrize(
    ("stand_in", "code"), [("status:3", 0), ("status:2", 2), ("status:1", 1), ("newest_tag:2", 2)]
)
def test_nothing_to_continue(ready: Clone, stand_in: str, code: int) -> None:
    assert ready.bash("dev/continue_training.sh", STAND_IN=stand_in).code == code
    assert stages_called(ready) == []


def test_continue_what_another_user_began(ready: Clone) -> None:
    part = ready.base_dir / "metrics" / "base_d6.jsonl"
    part.parent.mkdir(parents=True)
    part.touch(0o400)
    result = ready.without_privileges().bash("dev/continue_training.sh")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert result.err.startswith(f"error: {part} can't be read and written: chmod -R u+rwX ")
    assert stages_called(ready) == []


def test_continue_never_starts_over(ready: Clone) -> None:
    result = ready.bash("dev/continue_training.sh", FRESH="1")
    assert result.code == 2
    assert "FRESH=1 bash dev/runcpu.sh" in result.err
    # The batch is checked against the plan's sequence length, which bash does not know.
    odd = {"DEVICE_BATCH_SIZE": "3", "TOTAL_BATCH_SIZE": "1000"}
    assert ready.bash("dev/continue_training.sh", "--plan", **odd).code == 0


def test_every_driver_is_a_screenful() -> None:
    for driver in DRIVERS:
        text = (ROOT / "dev" / f"{driver}.sh").read_text()
        assert text.count("\nrun_stages") == 1
        assert len(text.splitlines()) <= 45
