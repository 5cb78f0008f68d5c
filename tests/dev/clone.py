"""A clone of the bash side alone, in a folder with a space in its name, and fake tools for it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What dev/*.sh may rely on: in POSIX or on every Mac. A tool that is missing here fails the tests.
TOOLS = {
    *("awk", "basename", "bash", "cat", "chmod", "cksum", "cp", "date", "dirname", "env", "find"),
    *("grep", "head", "id", "ln", "ls", "mkdir", "mktemp", "mv", "ps", "rm", "sed", "sleep"),
    *("sh", "sort", "tail", "tee", "touch", "tr", "uname"),
}


@dataclass
class Result:
    """How a command ended; seconds of wall clock."""

    code: int
    out: str
    err: str
    seconds: float


@dataclass
class Clone:
    """A copy of dev/ and of the files that it reads, with a home and a PATH of its own."""

    root: Path
    home: Path
    bin: Path
    env: dict[str, str] = field(default_factory=dict)
    prefix: list[str] = field(default_factory=list)

    def without_privileges(self) -> Clone:
        """Root's power to read and write everything taken away; skips where that can't be done."""
        if os.geteuid() == 0:
            self.prefix = [
                shutil.which("setpriv") or "setpriv",
                "--bounding-set=-all",
                "--inh-caps=-all",
            ]
            try:
                subprocess.run([*self.prefix, "bash", "-c", ":"], check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError):
                pytest.skip("NOT TESTED: root may write anywhere, and setpriv can't change that")
        return self

    @property
    def base_dir(self) -> Path:
        return self.home / ".cache" / "nanochat"

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    def fake(self, name: str, script: str) -> Path:
        """Put a shell script of this name first on PATH."""
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!{shutil.which('sh')}\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    def sleep_less(self) -> None:
        """Make a second last 0.05 s, for take-overs of a lock and signs of life."""
        real = shutil.which("sleep")
        self.fake("sleep", f'[ "$1" != 1 ] || set -- .05; exec "{real}" "$@"')

    def start(self, *command: str, cwd: Path | None = None, **env: str) -> subprocess.Popen[str]:
        """Start bash with these arguments, in a process group of its own."""
        return subprocess.Popen(
            [*self.prefix, "bash", *command],
            cwd=cwd or self.root,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def bash(self, *command: str, cwd: Path | None = None, **env: str) -> Result:
        """Run bash with these arguments to its end."""
        begun = time.monotonic()
        process = self.start(*command, cwd=cwd, **env)
        out, err = process.communicate(timeout=30)
        return Result(process.returncode, out, err, time.monotonic() - begun)

    def lib(self, code: str, **env: str) -> Result:
        """Run code after sourcing lib.sh, as a driver would."""
        return self.bash("-c", f"set -euo pipefail; . dev/lib.sh; {code}", **env)


def wait_for(path: Path, text: str = "", seconds: float = 10) -> None:
    """Until this file is there and has this text in it."""
    end = time.monotonic() + seconds
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < end, f"no {text!r} in {path}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process of this number runs (a zombie does not)."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(state.stdout.strip()) and not state.stdout.startswith("Z")


@pytest.fixture(name="clone")
def clone_fixture(tmp_path: Path) -> Clone:
    """A fresh one; a test module imports this to have it."""
    root, home, tools = tmp_path / "a clone", tmp_path / "home", tmp_path / "bin"
    for folder in (root, home, tools):
        folder.mkdir()
    shutil.copytree(ROOT / "dev", root / "dev")
    (root / "nanochat").mkdir()
    for name in ("pyproject.toml", "constraints.txt", "nanochat/variables.txt"):
        shutil.copy(ROOT / name, root / name)
    for name in TOOLS:
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    return Clone(root, home, tools, {"PATH": str(tools), "HOME": str(home), "LANG": "C.UTF-8"})
