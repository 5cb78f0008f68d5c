"""dev/setup.sh with made-up Pythons, pip and uv: its decisions, without network and in seconds."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from clone import ROOT, Clone, Result, alive, clone_fixture, wait_for  # noqa: F401

# A Python that answers what setup.sh asks it. `-m venv` copies it; pip writes its arguments down.
PYTHON = r"""
version=@VERSION@ machine=@MACHINE@
case "$1 $2" in
  "-V "*) echo "Python 3.${version#3}" ;;
  "-c "*ensurepip*) echo "$version $machine @VENV@ $0" ;;
  "-c "*python_version*) echo "$version $machine" ;;
  "-c "*tomllib*) exec @REAL@ "$@" ;;
  "-c "*importlib.metadata*) echo "torch==2.15.0+made.up" ;;
  "-c "*sysconfig*) mkdir -p "$HOME/site"; echo "$HOME/site" ;;
  "-c "*urllib*) [ -n "${CPU_INDEX_THERE-}" ] ;;
  "-c "*__version__*) echo 2.15.0+made.up ;;
  "-m venv")
    mkdir -p "$3/bin"
    cp "$0" "$3/bin/python"
    echo "VIRTUAL_ENV='$3'" > "$3/bin/activate" ;;
  "-m pip")
    shift 2
    [ "$1" != --version ] || exit 0
    if [ "$1" = config ]; then
      [ -z "${LINKS-}" ] || echo ":env:.find-links='$LINKS'"
      [ -z "${CONF-}" ] || printf '%b\n' "$CONF"
      exit 0
    fi
    echo "$*" >> "$HOME/calls"
    env | grep -E '^(PIP|UV)_' > "$HOME/env"
    case "$*" in *"${SLOW-@none@}"*) echo $$ > "$HOME/slow"; exec sleep 20 ;; esac
    case "$*" in *"${FAIL-@none@}"*) echo "${WHY-made-up pip: no}"; exit 1 ;; esac
    # Only what is there already, or in a folder of wheels, comes without an index.
    case "$*" in
      *--no-index*constraints*) [ -e "$HOME/torch" ] || exit 1 ;;
      *--no-index*) [ -n "${LINKS-}" ] || exit 1 ;;
    esac
    case "$*" in *torch*) touch "$HOME/torch" ;; esac ;;
  *) echo "unexpected: $*"; exit 1 ;;
esac
"""


def fake_python(
    clone: Clone, version: int, machine: str = "x86_64", venv: str = "venv", name: str = ""
) -> None:
    """Put a Python 3.x on PATH; version as 312."""
    script = PYTHON.replace("@VERSION@", str(version)).replace("@MACHINE@", machine)
    script = script.replace("@VENV@", venv).replace("@REAL@", f"'{sys.executable}'")
    clone.fake(name or f"python3.{version % 100}", script)
    clone.sleep_less()


def setup(clone: Clone, *arguments: str, **env: str) -> Result:
    return clone.bash("dev/setup.sh", *arguments, **env)


def calls(clone: Clone) -> list[str]:
    """What pip was asked to install since the last look."""
    path = clone.home / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [line.replace(str(clone.root), ".") for line in lines]


def test_from_scratch_and_again(clone: Clone) -> None:
    fake_python(clone, 312)
    first = setup(clone)
    assert (first.code, first.err) == (0, "")
    torch_here, torch_in_links, torch, packages = calls(clone)
    assert "--no-index" in torch_here
    assert "--no-index" in torch_in_links
    assert torch == "install --progress-bar off -c ./constraints.txt torch>=2.9,<3"
    assert "-r ./.venv/requirements.txt -c ./.venv/constraints.txt" in packages
    wanted = (clone.venv / "requirements.txt").read_text().split()
    assert "torch>=2.9,<3" in wanted
    assert any(line.startswith("maturin") for line in wanted), "for `maturin develop` by hand"
    assert not any(line.startswith("pytest") for line in wanted)
    pinned = (clone.venv / "constraints.txt").read_text().splitlines()
    assert [line for line in pinned if line.startswith("torch==")] == ["torch==2.15.0+made.up"]
    # No cargo here: one line with the remedy, and `import nanochat` works all the same.
    assert first.out.count("https://rustup.rs") == 1
    assert (clone.home / "site" / "nanochat-root.pth").read_text() == f"{clone.root}\n"

    again = setup(clone, "--from-driver")
    assert (again.code, again.out, again.err) == (0, "", "")
    assert again.seconds < 3
    assert calls(clone) == []

    (clone.root / "constraints.txt").write_text("torch==2.15.0\n")
    setup(clone)
    assert len(calls(clone)) == 2, "torch is there, the packages are asked for again"


def test_dev_extra_stays(clone: Clone) -> None:
    fake_python(clone, 312)
    setup(clone)
    calls(clone)
    assert setup(clone, "--dev").code == 0
    assert "pytest>=8" in (clone.venv / "requirements.txt").read_text().split()
    assert len(calls(clone)) == 2
    setup(clone)
    setup(clone, "--dev")
    assert calls(clone) == [], "once there, it is enough for both"


def test_newest_that_works(clone: Clone) -> None:
    fake_python(clone, 311)
    fake_python(clone, 313)
    fake_python(clone, 309, name="python3")
    clone.fake("python3.14", 'echo "pyenv: python3.14: command not found" >&2; exit 127')
    assert f"({clone.bin}/python3.13)" in setup(clone).out


@pytest.mark.parametrize("version", [309, 315, 207])
def test_no_python_of_ours(clone: Clone, version: int) -> None:
    fake_python(clone, version, name="python3")
    result = setup(clone)
    assert (result.code, result.out) == (1, "")
    assert result.err.count("\n") == 1
    major, minor = divmod(version, 100)
    assert f"{clone.bin}/python3 is Python {major}.{minor}: install one" in result.err
    assert not clone.venv.exists()


ARM_MAC = 'case "${1-}" in -m) echo arm64 ;; -n) echo mac ;; *) echo Darwin ;; esac'
ROSETTA_SHELL = 'case "${1-}" in -m) echo x86_64 ;; -n) echo mac ;; *) echo Darwin ;; esac'


def test_no_python_at_all_on_a_mac(clone: Clone) -> None:
    clone.fake("uname", ARM_MAC)
    result = setup(clone)
    assert result.code == 1
    assert "brew install python@3.13" in result.err


def test_python_without_venv(clone: Clone) -> None:
    fake_python(clone, 311, venv="no-venv", name="python3")
    result = setup(clone)
    assert result.code == 1
    assert "apt install python3.11-venv" in result.err
    assert not clone.venv.exists()
    fake_python(clone, 310)
    assert setup(clone).code == 0, "an older one that has it will do"


@pytest.mark.parametrize("uname", [ARM_MAC, ROSETTA_SHELL])
def test_rosetta_is_refused(clone: Clone, uname: str) -> None:
    clone.fake("uname", uname)
    clone.fake("sysctl", '[ "$*" = "-n hw.optional.arm64" ] && echo 1')
    fake_python(clone, 313)
    result = setup(clone)
    assert (result.code, result.out) == (1, "")
    assert result.err.count("\n") == 1
    assert f"{clone.bin}/python3.13 is an x86_64 Python" in result.err
    assert "rm -rf .venv" in result.err
    assert not clone.venv.exists()
    fake_python(clone, 311, machine="arm64")
    assert "python3.11)" in setup(clone).out, "a native one is taken, though it is older"


def test_intel_mac_is_refused(clone: Clone) -> None:
    clone.fake("uname", ROSETTA_SHELL)
    clone.fake("sysctl", "exit 1")
    fake_python(clone, 313)
    result = setup(clone)
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert "Intel" in result.err
    assert not clone.venv.exists()


# ---- which torch ----


def torch_calls(clone: Clone, **env: str) -> list[str]:
    """How torch was asked for, after the look at what is there already."""
    assert setup(clone, **env).code == 0
    return [line for line in calls(clone) if "torch>=2." in line][1:]


def test_cpu_build_where_its_index_answers(clone: Clone) -> None:
    fake_python(clone, 312)
    (line,) = torch_calls(clone, CPU_INDEX_THERE="1")
    assert "--index-url https://download.pytorch.org/whl/cpu --no-deps" in line


def test_plain_build_where_the_cpu_index_fails(clone: Clone) -> None:
    fake_python(clone, 312)
    tried, plain = torch_calls(clone, CPU_INDEX_THERE="1", FAIL="--index-url")
    assert "--index-url" in tried
    assert "index" not in plain


def test_plain_build_for_a_mac(clone: Clone) -> None:
    clone.fake("uname", ARM_MAC)
    fake_python(clone, 312, machine="arm64")
    (line,) = torch_calls(clone, CPU_INDEX_THERE="1")
    assert line == "install --progress-bar off -c ./constraints.txt torch>=2.14,<3"


@pytest.mark.parametrize(
    ("cards", "build"),
    [
        ("580.65.06, 8.9", ""),
        ("580.65.06, 7.5", ""),
        ("580.65.06, 6.1", "cu126"),  # Pascal: the plain build holds no kernels for it
        ("580.65.06, 7.0\\n580.65.06, 9.0", ""),  # the better card decides
        ("535.104.05, 8.6", "cu126"),
        ("575.51, 12.0", "update"),  # Blackwell: CUDA 12.6 holds no kernels for it
        ("470.82, 8.6", "update"),
        ("GPU 0", ""),  # no answer that we know: as if it were new
    ],
)
def test_build_for_an_nvidia_card(clone: Clone, cards: str, build: str) -> None:
    fake_python(clone, 312)
    clone.fake("nvidia-smi", f'[ "$1" = -L ] || printf "{cards}\\n"')
    result = setup(clone, CPU_INDEX_THERE="1")
    (line,) = [line for line in calls(clone) if "torch>=2.9,<3" in line][1:]
    assert result.code == 0
    plain = "install --progress-bar off -c ./constraints.txt torch>=2.9,<3"
    assert (line == plain) is (build != "cu126")
    assert ("/whl/cu126 --no-deps" in line) is (build == "cu126")
    assert ("PyTorch for CUDA 12.6" in result.out) is (build == "cu126")
    assert ("update it to 580" in result.out) is (build == "update")


def test_older_cuda_without_the_tested_torch(clone: Clone) -> None:
    fake_python(clone, 312)
    clone.fake("nvidia-smi", '[ "$1" = -L ] || echo "535.104.05, 8.6"')
    tried, older = torch_calls(clone, CPU_INDEX_THERE="1", FAIL="cu126 --no-deps -c")
    assert "constraints" in tried
    assert older.endswith(
        "--index-url https://download.pytorch.org/whl/cu126 --no-deps torch>=2.9,<3"
    )


def test_torch_of_setup_and_of_pyproject() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    in_setup = re.findall(r"TORCH='torch(>=[0-9.]+),<3'", (ROOT / "dev" / "setup.sh").read_text())
    anywhere, on_a_mac = in_setup
    assert f'"torch{anywhere},<3"' in project
    assert f"\"torch{on_a_mac} ; sys_platform == 'darwin'\"" in project


def test_torch_from_pips_own_folders(clone: Clone) -> None:
    """A version other than the tested one is the user's choice, and far smaller."""
    fake_python(clone, 312)
    (line,) = torch_calls(clone, LINKS="/some/wheels")
    assert line.endswith("--no-index --no-deps torch>=2.9,<3")


# ---- whose .venv it is ----


def contents(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("there", [True, False])
def test_nothing_is_done_through_a_link(clone: Clone, there: bool) -> None:
    fake_python(clone, 312)
    other = clone.home / "other" / ".venv"
    if there:
        (other / "bin").mkdir(parents=True)
        (other / "pyvenv.cfg").touch()
        (other / "setup.log").touch()  # made by the set-up of another checkout
    clone.venv.symlink_to(other)
    before = contents(clone.home)
    result = setup(clone)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert f"is a link, and set-up would change what it points to: rm {clone.root}" in (
        result.err.replace("\\ ", " ")
    )
    assert contents(clone.home) == before
    assert clone.venv.is_symlink()


@pytest.mark.parametrize("name", [".venv", ".venv/notes", ".venv/bin/activate", ".venv/pyvenv.cfg"])
def test_what_we_did_not_make_is_not_removed(clone: Clone, name: str) -> None:
    """A file, a folder of anything, an environment that is broken or of a Python too old."""
    fake_python(clone, 312)
    path = clone.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"VIRTUAL_ENV='{clone.venv}'\n")
    before = contents(clone.root)
    for _ in range(2):
        result = setup(clone)
        assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
        assert "this set-up did not make it, so won't remove it: mv " in result.err
        assert contents(clone.root) == before


def test_made_by_hand_and_whole(clone: Clone) -> None:
    """Its Python is taken, and what else is in it stays."""
    fake_python(clone, 312)
    clone.bash(str(clone.bin / "python3.12"), "-m", "venv", str(clone.venv))
    (clone.venv / "notes").touch()
    assert setup(clone).code == 0
    assert (clone.venv / "notes").exists()


@pytest.mark.parametrize(
    ("quoted", "kept"),
    [
        ('VIRTUAL_ENV="{}"', True),
        ("VIRTUAL_ENV=shlex", True),
        ("VIRTUAL_ENV='/elsewhere{}'", False),
    ],
)
def test_apostrophe_in_the_path(clone: Clone, quoted: str, kept: bool) -> None:
    fake_python(clone, 312)
    clone.root = clone.root.rename(clone.root.parent / 'Anna\'s "SSD"')
    assert setup(clone).code == 0
    text = quoted.format(clone.venv).replace("=shlex", f"={shlex.quote(str(clone.venv))}")
    (clone.venv / "bin" / "activate").write_text(f"{text}\nexport VIRTUAL_ENV\n")
    (clone.venv / "setup.stamp").unlink()
    again = setup(clone)
    assert again.code == 0
    assert ("Making .venv" not in again.out) is kept


@pytest.mark.parametrize("part", [".venv", "."])
def test_not_ours_to_write(clone: Clone, part: str) -> None:
    """As after a set-up with sudo."""
    fake_python(clone, 312)
    path = clone.root / part
    path.mkdir(exist_ok=True)
    path.chmod(0o500)
    result = setup(clone.without_privileges())
    path.chmod(0o700)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert "can't be read and written: chmod -R u+rwX " in result.err


# ---- other people's settings ----


def test_settings_that_would_make_another_venv(clone: Clone) -> None:
    """Where packages come from is the user's to say, in the environment or in pip.conf."""
    fake_python(clone, 312)
    kept = {
        "PIP_INDEX_URL": "http://127.0.0.1/a",
        "PIP_NO_INDEX": "1",
        "PIP_CERT": "/a.pem",
        "PIP_DEFAULT_TIMEOUT": "99",
        "UV_DEFAULT_INDEX": "http://127.0.0.1/b",
        "UV_LINK_MODE": "copy",
    }
    lost = (
        *(
            "PIP_CONSTRAINT",
            "PIP_REQUIRE_HASHES",
            "PIP_NO_DEPS",
            "PIP_ONLY_BINARY",
            "PIP_NO_BINARY",
        ),
        *("PIP_DRY_RUN", "PIP_REQUIREMENT", "PIP_EDITABLE", "PIP_TARGET", "PIP_PREFIX", "PIP_USER"),
        *("PIP_PYTHON", "PIP_ROOT", "UV_REQUIRE_HASHES", "UV_TORCH_BACKEND", "UV_CONSTRAINT"),
        *("UV_VENV_RELOCATABLE", "UV_SYSTEM_PYTHON", "UV_RESOLUTION"),
    )
    conf = [
        ":env:.index-url='http://127.0.0.1/a'",
        "global.constraint='/corporate.txt'",
        "global.extra-index-url='http://127.0.0.1/global'",
        "global.index-url='http://127.0.0.1/not-this'",
        r"global.trusted-host='\\n127.0.0.1\\nlocalhost'",
        'global.find-links="/anna\'s/wheels"',
        "install.extra-index-url='http://127.0.0.1/install'",
        "install.require-hashes='true'",
        "download.proxy='http://127.0.0.1:9'",
    ]
    result = setup(clone, CONF="\\n".join(conf), **kept, **dict.fromkeys(lost, "1"))
    assert result.code == 0
    assert dict(line.split("=", 1) for line in (clone.home / "env").read_text().splitlines()) == {
        **kept,
        "PIP_EXTRA_INDEX_URL": "http://127.0.0.1/install",
        "PIP_TRUSTED_HOST": " 127.0.0.1 localhost",
        "PIP_FIND_LINKS": "/anna's/wheels",
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


@pytest.mark.parametrize(
    ("why", "said"),
    [
        (
            "WARNING: Retrying after connection broken by 'NewConnectionError(x)'\n"
            "ERROR: No matching distribution found for torch",
            "Is the network up?",
        ),
        ("error: Failed to fetch: `x`\n  Caused by: dns error", "Is the network up?"),
        (
            "Collecting pytest-timeout\nERROR: ResolutionImpossible: numpy\n[notice] A new pip\n",
            "ERROR: ResolutionImpossible: numpy",
        ),
        ("  x No solution found\n  Because of that.\n", "Because of that."),
    ],
)
def test_network_is_blamed_only_where_it_is_likely(clone: Clone, why: str, said: str) -> None:
    fake_python(clone, 312)
    result = setup(clone, FAIL="-r ", WHY=why)
    assert result.code == 1
    last = result.err.splitlines()[-1]
    assert re.sub(" +", " ", last).startswith(f"failed: set-up stopped at: packages. {said} Then: ")


# ---- what is broken, unfinished, moved ----


def test_moved_clone_is_set_up_again(clone: Clone) -> None:
    fake_python(clone, 312)
    setup(clone)
    clone.root = clone.root.rename(clone.root.parent / "another place")
    result = setup(clone)
    assert result.code == 0
    assert "was moved: making it from scratch" in result.out
    assert str(clone.root) in (clone.venv / "bin" / "activate").read_text()


def test_python_that_went_away(clone: Clone) -> None:
    """Homebrew removes the old one on an upgrade, and .venv/bin/python points to nothing."""
    fake_python(clone, 312)
    setup(clone)
    (clone.venv / "bin" / "python").unlink()
    result = setup(clone)
    assert result.code == 0
    assert "making it from scratch" in result.out
    assert (clone.venv / "bin" / "python").exists()


def test_failure_shows_why_and_the_next_run_completes_it(clone: Clone) -> None:
    fake_python(clone, 312)
    failed = setup(clone, FAIL="-r ")
    assert failed.code == 1
    assert "made-up pip: no" in failed.err
    assert failed.err.splitlines()[-1].startswith("failed: set-up stopped at: packages.")
    calls(clone)
    result = setup(clone)
    assert result.code == 0
    assert "Making .venv" not in result.out, "what stands is kept"
    assert setup(clone, "--from-driver").out == ""


def test_killed_in_the_middle_of_pip(clone: Clone) -> None:
    fake_python(clone, 312)
    process = clone.start("dev/setup.sh", SLOW="-r ")
    wait_for(clone.home / "slow")
    os.killpg(process.pid, 9)
    process.communicate()
    result = setup(clone)
    assert result.code == 0
    assert "unfinished" in result.out
    assert setup(clone, "--from-driver").out == ""


def test_ctrl_c_in_the_middle_of_pip(clone: Clone) -> None:
    fake_python(clone, 312)
    process = clone.start("dev/setup.sh", SLOW="-r ")
    wait_for(clone.home / "slow", "\n")
    os.killpg(process.pid, 2)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "the next one repairs it" in out + err
    assert not alive(int((clone.home / "slow").read_text()))
    assert not (clone.venv / "setup.lock").exists()
    assert setup(clone).code == 0


def test_two_at_once(clone: Clone) -> None:
    fake_python(clone, 312)
    process = clone.start("dev/setup.sh", SLOW="-r ")
    wait_for(clone.home / "slow")
    second = setup(clone)
    os.killpg(process.pid, 9)
    process.communicate()
    assert second.code == 2
    assert f"in use by setup.sh (process {process.pid})" in second.err


# ---- the extension ----


def test_extension_is_tried_again_when_cargo_appears(clone: Clone) -> None:
    fake_python(clone, 312)
    setup(clone)
    calls(clone)
    clone.fake("cargo", "exit 0")
    result = setup(clone, "--from-driver")
    assert "Rust extension built" in result.out
    assert calls(clone)[-1].endswith(
        "install --progress-bar off --no-build-isolation --no-deps -e ."
    )
    assert not (clone.home / "site" / "nanochat-root.pth").exists()
    assert setup(clone, "--from-driver").out == ""


def test_extension_that_does_not_build(clone: Clone) -> None:
    fake_python(clone, 312)
    clone.fake("cargo", "exit 0")
    result = setup(clone, FAIL="-e ")
    assert result.code == 0
    assert result.out.count("could not be built") == 1
    assert (clone.home / "site" / "nanochat-root.pth").exists()
    calls(clone)
    assert setup(clone, "--from-driver").out == "", "not at every run of a driver"
    assert "Rust extension built" in setup(clone).out, "but by hand"


# ---- uv ----

UV = r"""
case "$1 $2" in
  "--version "*) echo uv 1 ;;
  "venv "*) echo "$*" >> "$HOME/calls"; for venv in "$@"; do :; done
    [ "$4" = --python ] && "$5" -m venv "$venv" ;;
  "pip install") shift 4; exec "$VENV_PYTHON" -m pip install --uv "$@" ;;
  "python find") [ -z "${UV_HAS-}" ] || echo "$UV_HAS" ;;
  "python install") echo "no network" >&2; exit 1 ;;
esac
"""


def test_uv_where_it_is_there(clone: Clone) -> None:
    fake_python(clone, 312, venv="no-venv")  # which uv does without
    clone.fake("uv", UV)
    env = {"VENV_PYTHON": str(clone.venv / "bin" / "python"), "LINKS": "/some/wheels"}
    result = setup(clone, **env)
    assert (result.code, result.err) == (0, "")
    assert "by uv" in result.out
    made, *rest = calls(clone)
    assert made == f"venv --seed --allow-existing --python {clone.bin}/python3.12 ./.venv"
    assert rest
    assert all(line.startswith("install --uv --find-links /some/wheels") for line in rest)


def test_uv_says_so_before_it_fetches_a_python(clone: Clone) -> None:
    clone.fake("uv", UV)
    result = setup(clone)
    assert result.code == 1
    assert "uv fetches Python 3.13 (about 35 MB)" in result.out
    assert result.err.splitlines()[-1].startswith("failed: Python 3.10 to 3.14 is needed: install")
    assert not clone.venv.exists()


# ---- the tested set ----


def test_constraints_are_the_same_for_pip_and_uv() -> None:
    ours = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    block = (ROOT / "pyproject.toml").read_text().split("constraint-dependencies = [")[1]
    theirs = re.findall(r'^    "(.*)",$', block.split("\n]")[0], flags=re.MULTILINE)
    assert ours == theirs


def test_every_dependency_is_pinned() -> None:
    pinned = re.findall(r"^([a-z0-9-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    project = (ROOT / "pyproject.toml").read_text().split("[tool.")[0]
    wanted = re.findall(r'^    "([A-Za-z0-9_.-]+)[>=<~!]', project, re.MULTILINE)
    assert wanted
    assert {name.lower().replace("_", "-") for name in wanted} <= set(pinned)


def test_no_path_or_host_of_one_machine() -> None:
    files = [*(ROOT / "dev").glob("*.sh"), ROOT / "constraints.txt", ROOT / ".ci" / "run"]
    for path in files:
        assert not re.search(r"/(root|work|home)/", path.read_text()), path
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "bash dev/test.sh"


# ---- a clone made on Windows ----


def test_a_clone_with_autocrlf_runs(clone: Clone, tmp_path: Path) -> None:
    """As Git for Windows clones, and WSL reads."""
    if shutil.which("git") is None:
        pytest.skip("NOT TESTED: git is not installed")
    clone.root.joinpath(".gitattributes").write_bytes((ROOT / ".gitattributes").read_bytes())
    git = ["git", "-c", "core.autocrlf=true", "-c", "user.name=x", "-c", "user.email=x"]
    for command in (
        ["init", "-q", str(clone.root)],
        ["-C", str(clone.root), "add", "."],
        ["-C", str(clone.root), "commit", "-q", "-m", "x"],
        ["clone", "-q", str(clone.root), str(tmp_path / "windows")],
    ):
        subprocess.run([*git, *command], check=True, capture_output=True)
    result = clone.bash("dev/runcpu.sh", "--help", cwd=tmp_path / "windows")
    assert (result.code, result.err) == (0, "")
    assert not [p for p in (tmp_path / "windows").glob("*/*.sh") if b"\r" in p.read_bytes()]


# ---- what is imported is declared ----

DISTRIBUTIONS = {"yaml": "pyyaml", "huggingface_hub": "huggingface-hub"}  # where the names differ
OURS = {"nanochat", "scripts", "rustbpe"}
OF_TORCH = {"triton"}  # PyTorch's CUDA builds bring it, and only a GPU needs it


def imported(folder: str) -> dict[str, set[str]]:
    """Distribution -> files that import it, at the top or within a function."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [node.module]
            for module in {module.split(".")[0] for module in modules} - OURS:
                if module not in sys.stdlib_module_names:
                    found.setdefault(DISTRIBUTIONS.get(module, module), set()).add(str(path))
    return found


def declared(block: str) -> set[str]:
    """The distributions in a list of pyproject.toml, by its first line."""
    _, _, rest = (ROOT / "pyproject.toml").read_text().partition(f"\n{block}")
    names = re.findall(r'"([A-Za-z0-9_.-]+)[>=<~!]', rest.split("]")[0])
    assert names, block
    return {name.lower().replace("_", "-") for name in names}


def test_every_import_is_declared() -> None:
    needed = declared("dependencies = [")
    found = imported("nanochat") | imported("scripts")
    extras = found.keys() - needed - OF_TORCH
    assert extras == {"wandb"}, "an import that is not declared, or a new extra"
    for extra in extras:
        assert extra in declared(f"{extra} = [")
        for path in found[extra]:
            text = re.sub(r'"\s+f?"', "", Path(path).read_text())  # strings of several lines
            assert f"pip install {extra}" in text, "the remedy where it is absent"
    assert needed - found.keys() == {"maturin"}, "declared, and not imported"
