"""What the documents say can be typed: flags parse, drivers, variables and files exist."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from nanochat.system import cli

ROOT = Path(__file__).parents[2]
DOCS = ("README.md", "MACOS.md", "CONTRIBUTING.md", "docs/tour.md")


def commands(name: str) -> list[str]:
    """Every line of the document's bash blocks, without its comment."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


EVERY = [(name, line) for name in DOCS[:2] for line in commands(name)]
SCRIPTS = [(name, line) for name, line in EVERY if "python -m scripts." in line]
DRIVERS = [(name, line) for name, line in EVERY if "bash dev/" in line]


def test_there_is_something_to_test() -> None:
    assert len(SCRIPTS) > 10
    assert len(DRIVERS) > 8


@pytest.mark.parametrize(("name", "line"), SCRIPTS)
def test_a_script_takes_its_flags(name: str, line: str) -> None:
    _, _, module, *flags = shlex.split(line[line.index("python -m") :])
    config = importlib.import_module(module).Config
    cli.parse(config, module, flags)


@pytest.mark.parametrize(("name", "line"), DRIVERS)
def test_a_driver_takes_its_variables(name: str, line: str, tmp_path: Path) -> None:
    """Its own checks run, with what comes after them left out; a variable unknown to them fails."""
    words = shlex.split(line)
    variables = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    driver = next(word for word in words if word.startswith("dev/"))
    assert (ROOT / driver).exists()
    checks = (ROOT / "dev" / "lib.sh").read_text()
    for variable in variables:
        assert re.search(rf"check_\w+ {variable}\b|\$\{{{variable}[-:]", checks), variable
    (tmp_path / "notes").mkdir()
    done = subprocess.run(
        ["bash", "-c", '. dev/lib.sh; check_variables && echo "fine"'],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **variables},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "fine\n", done.stderr


@pytest.mark.parametrize("name", DOCS)
def test_files_that_are_named_are_there(name: str) -> None:
    text = (ROOT / name).read_text()
    paths = re.findall(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|sh|md|rs|toml))`", text)
    for path in paths:
        assert any((base / path).exists() for base in (ROOT, ROOT / "nanochat")), path
    assert str(ROOT) not in text


def test_the_tour_has_eight_stops_that_exist() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|(.*)\|$", (ROOT / "docs/tour.md").read_text(), re.MULTILINE)
    assert len(rows) == 8
    for path, rest in rows:
        if not path.endswith(".py"):
            continue
        tree = ast.parse((ROOT / path).read_text())
        names = {
            node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)
        }
        for name in re.findall(r"`(\w+)`", rest.split("|")[1]):
            assert name in names, f"{name} in {path}"


def test_the_parameter_counts_are_the_models() -> None:
    from nanochat.gpt_config import GPTConfig

    text = (ROOT / "MACOS.md").read_text()
    for depth, vocabulary in ((4, 65_536), (6, 65_536), (4, 4_096), (6, 4_096)):
        assert f"{GPTConfig(depth, vocabulary, 256).num_params():,}" in text
