"""The fixture of the bash tests; the tools are in clone.py."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from clone import ROOT, TOOLS, Clone


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    root, home, tools = tmp_path / "a clone", tmp_path / "home", tmp_path / "bin"
    for folder in (root, home, tools):
        folder.mkdir()
    shutil.copytree(ROOT / "dev", root / "dev")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, root / name)
    for name in TOOLS:
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    return Clone(root, home, tools, {"PATH": str(tools), "HOME": str(home), "LANG": "C.UTF-8"})
