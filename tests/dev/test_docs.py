"""What the documents say can be typed, and what they say is printed: held to the program itself."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from nanochat.gpt_config import GPTConfig
from nanochat.run import pipeline, records
from nanochat.run.recipe import PlanConfig, resolve
from nanochat.run.records import Plan
from nanochat.stages import TRAINED
from nanochat.system import cli
from nanochat.system.errors import UserError
from nanochat.system.variables import variables
from nanochat.training.batch_sizes import batch_sizes

ROOT = Path(__file__).parents[2]
DOCS = (
    "README.md",
    "MACOS.md",
    "CONTRIBUTING.md",
    "docs/tour.md",
    "docs/learning.md",
    "docs/world.md",
)
MAC = (ROOT / "MACOS.md").read_text()
TOUR = (ROOT / "docs" / "tour.md").read_text()
PLAIN = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


def bash_blocks(text: str) -> list[str]:
    """Every block of commands."""
    return re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """Every line of the bash blocks without its comment, and every command in the running text."""
    lines = [line.split(" #")[0].strip() for b in bash_blocks(text) for line in b.splitlines()]
    inline = re.findall(r"`([^`\n]*(?:bash dev/|python -m scripts\.)[^`\n]*)`", text)
    return [line for line in (*lines, *inline) if line and not line.startswith("#")]


def table(text: str, first: str) -> list[list[str]]:
    """The cells of the table whose head begins with this cell, without the head."""
    _, _, rest = text.partition(f"\n| {first} |")
    assert rest, f"no table of {first!r}"
    rows = rest.split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


EVERY = [(name, line) for name in DOCS for line in commands((ROOT / name).read_text())]
SCRIPTS = [(name, line) for name, line in EVERY if "python -m scripts." in line]
DRIVERS = [(name, line) for name, line in EVERY if "bash dev/" in line]


def parse_script(line: str) -> None:
    """Parse a `python -m scripts.X flags` line as X would, with the errors that it would raise."""
    _, _, module, *flags = shlex.split(line[line.index("python -m") :])
    cli.parse(importlib.import_module(module).Config, module, flags)


def complaint_about_driver(line: str, home: Path) -> str:
    """Why a `VAR=value bash dev/X.sh arguments` line can't be typed; empty where it can.

    lib.sh's own checks run, and nothing after them.
    """
    words = shlex.split(line)
    given = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    path = next(word for word in words if word.startswith("dev/"))
    if not (ROOT / path).exists():
        return f"{path} is not there"
    if path not in ("dev/setup.sh", "dev/test.sh"):
        if unknown := given.keys() - {row.name for row in variables()}:
            return f"unknown variables {unknown}"
        arguments = [word for word in words[words.index(path) + 1 :] if word.startswith("-")]
        if unknown := set(arguments) - {"--plan", "--help"}:
            return f"unknown arguments {unknown}"
    return subprocess.run(
        ["bash", "-c", f". dev/lib.sh; PROGRAM={Path(path).name}; begin about"],
        cwd=ROOT,
        env={**PLAIN, "HOME": str(home), **given, "PATH": PLAIN["PATH"]},
        capture_output=True,
        text=True,
    ).stderr


def test_there_is_something_to_test() -> None:
    assert len(SCRIPTS) > 14
    assert len(DRIVERS) > 20


@pytest.mark.parametrize(("name", "line"), SCRIPTS)
def test_a_script_takes_its_flags(name: str, line: str) -> None:
    parse_script(line)


@pytest.mark.parametrize(("name", "line"), DRIVERS)
def test_a_driver_takes_its_variables(name: str, line: str, tmp_path: Path) -> None:
    for folder in ("notes", "books"):  # named as a source of text
        (tmp_path / folder).mkdir()
    (tmp_path / "mybot").mkdir()
    (tmp_path / "mybot" / "world.txt").touch()
    assert complaint_about_driver(line, tmp_path) == ""


@pytest.mark.parametrize(
    "line",
    [
        "python -m scripts.base_train --detph=4",
        "python -m scripts.base_train --depth=four",
        "python -m scripts.chat_web --compile=True",
        "python -m scripts.base_trian",
    ],
)
def test_a_wrong_script_line_is_noticed(line: str) -> None:
    with pytest.raises((UserError, ModuleNotFoundError)):
        parse_script(line)


@pytest.mark.parametrize(
    "line",
    [
        "DEPTHS=4 bash dev/runcpu.sh",
        "HOME=/tmp bash dev/runcpu.sh",
        "DEPTH=0 bash dev/runcpu.sh",
        "TIME_BUDGET=20 bash dev/runmac_overnight.sh",
        "DEVICE_BATCH_SIZE=16 TOTAL_BATCH_SIZE=2048 bash dev/runcpu.sh",
        "NANOCHAT_DATA=~/no-such-notes bash dev/runcpu.sh",
        "bash dev/runmac.sh",
        "bash dev/runcpu.sh --dry_run",
    ],
)
def test_a_wrong_driver_line_is_noticed(line: str, tmp_path: Path) -> None:
    assert complaint_about_driver(line, tmp_path)


@pytest.mark.parametrize("name", DOCS)
def test_every_block_is_bash(name: str) -> None:
    for block in bash_blocks((ROOT / name).read_text()):
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        assert done.stderr == "", block


@pytest.mark.parametrize("name", DOCS)
def test_files_that_are_named_are_there(name: str) -> None:
    text = (ROOT / name).read_text()
    inside = ROOT / "nanochat" if name == "CONTRIBUTING.md" else ROOT  # which shortens its paths
    paths = re.findall(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|sh|md|rs|toml))`", text)
    assert paths
    for path in paths:
        assert (ROOT / path).exists() or (inside / path).exists(), path


@pytest.mark.parametrize("name", DOCS)
def test_no_path_of_one_machine(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"(?<![\w~.])/(root|work|home|Users|tmp)/", text)
    assert str(ROOT) not in text


# ---- the tour ----


def names_in(path: Path) -> set[str]:
    """Functions, classes and constants of a Python file; the words of any other."""
    if path.suffix != ".py":
        return set(re.findall(r"\w+", path.read_text()))
    nodes = list(ast.walk(ast.parse(path.read_text())))
    defined = {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    return defined | {n.id for n in nodes if isinstance(n, ast.Name) and n.id.isupper()}


def test_the_tour_has_eight_stops_that_exist() -> None:
    stops = re.split(r"^## ", TOUR, flags=re.MULTILINE)[1:]
    assert [stop.split(".")[0] for stop in stops] == list("12345678")
    paths = [re.findall(r"`([^`]+)`", stop.splitlines()[0])[0] for stop in stops]
    assert len(set(paths)) == 8
    for path, stop in zip(paths, stops, strict=True):
        assert re.search(r"^\*\*[^*]+\?\*\*", stop, re.MULTILINE), f"{path}: no question"
        assert "\nTry: " in stop, path
        look = stop.partition("\nLook first at ")[2].partition("\nTry: ")[0]
        named = re.findall(r"`(\w+)`", look)
        assert named, path
        assert set(named) <= names_in(ROOT / path), path


def test_a_name_that_is_not_there_is_noticed() -> None:
    names = names_in(ROOT / "nanochat" / "training" / "loop.py")
    assert "train_step" in names
    assert "train_stpe" not in names


# ---- MACOS.md ----


def test_the_mac_lists_every_variable_of_the_drivers() -> None:
    listed = [name for row in table(MAC, "variable") for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(listed) == sorted(row.name for row in variables())


def test_the_macs_memory_table_is_the_programs() -> None:
    rows = table(MAC, "memory")
    assert len(rows) == 4
    for (_, *cells), gb in zip(rows, (128, 64, 32, 31), strict=True):
        short, long = batch_sizes(gb, 256), batch_sizes(gb, 1024)
        at_256, at_1024 = short.total_batch_size, long.total_batch_size
        assert cells[0] == str(short.device_batch_size)
        assert cells[1].split()[0] == f"{at_256:,}"
        assert cells[2] == f"{at_1024:,}"
        assert cells[3] == f"{short.eval_tokens:,}" == f"{short.split_tokens:,}"
        assert cells[4].split()[0] == f"{250 * at_256 / 1e6:.2f}"
        assert cells[5].split()[0] == f"{800 * at_256 / 1e6:.2f}"


def test_the_defaults_that_the_mac_names_are_the_drivers() -> None:
    defaults = dict((row[0].strip("`"), row[1]) for row in table(MAC, "variable"))
    numbers = {name: re.findall(r"\d+", cell) for name, cell in defaults.items()}
    for column, driver in enumerate(("runcpu", "runmac_overnight")):
        text = (ROOT / "dev" / f"{driver}.sh").read_text()
        base, mid, sft = re.findall(r"^default_iterations (\d+) (\d+) (\d+)$", text, re.M)[0]
        assert f"default DEPTH {numbers['DEPTH'][column]}\n" in text
        assert f"default DATA_SHARDS {numbers['DATA_SHARDS'][column]}\n" in text
        assert numbers["BASE_ITERATIONS"][column] == base
        assert numbers["MID_ITERATIONS`, `SFT_ITERATIONS"][column] == mid == sft


def test_the_macs_estimates_add_up() -> None:
    *parts, together = table(MAC, "minutes")
    for column in (1, 2):
        ranges = [[int(n) for n in row[column].split("-")] for row in parts]
        low, high = (sum(bounds) for bounds in zip(*ranges, strict=True))
        assert together[column] == f"{low}-{high}"
    assert f"{low} to {high} minutes" in MAC  # of the overnight run, in the corrections


def test_the_parameter_counts_are_the_models() -> None:
    wrong = MAC.partition("## Where earlier Mac instructions were wrong")[2]
    for depth, vocabulary in ((4, 65_536), (6, 65_536), (8, 65_536), (4, 4_096), (6, 4_096)):
        assert f"{GPTConfig(depth, vocabulary, 256).num_params():,}" in wrong


STATUS = re.findall(r"^```\n(Status:\n.*?)^```", MAC, re.MULTILINE | re.DOTALL)


def test_there_are_three_states() -> None:
    assert len(STATUS) == 3


@pytest.mark.parametrize("shown", STATUS)
def test_the_status_shown_is_what_is_printed(
    shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its marks, steps and totals are put on the disk, so to say; the words must come back."""
    found, lines = {}, shown.splitlines()[1:4]
    for stage, line in zip(TRAINED, lines, strict=True):
        there = re.search(r"d8/(step_0*(\d+))(?: of (\d+))?", line)
        found[stage.name] = there and SimpleNamespace(
            folder=Path(there[1]),
            step=int(there[2]),
            state={"finished": there[3] is None, "num_iterations": int(there[3] or there[2])},
        )
    monkeypatch.setattr(records, "last_checkpoint", lambda stage, tag: found[stage.name])
    monkeypatch.setattr(
        records, "read_plan", lambda tag: Plan(resolve(PlanConfig())[0], {}, 1, 0.0)
    )
    monkeypatch.setattr(records, "measured", lambda stage, tag: {"mean": 0.5})
    if all(found.values()) and "(interrupted)" not in shown:
        with pytest.raises(SystemExit):
            pipeline.status(PlanConfig(model_tag="d8"))
    else:
        pipeline.status(PlanConfig(model_tag="d8"))
    # PlanConfig's default driver is not compared with a plan, and nothing else is given.
    assert capsys.readouterr().out == shown
