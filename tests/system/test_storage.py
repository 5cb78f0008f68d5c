"""Where everything is kept."""

from __future__ import annotations

import errno
import os
import pwd
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from nanochat.system import cli, storage


@pytest.mark.parametrize(
    ("given", "place"),
    [(None, "~/.cache/nanochat"), ("", "~/.cache/nanochat"), ("~/x", "~/x"), ("/a/b", "/a/b")],
)
def test_base_dir(
    given: str | None, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NANOCHAT_BASE_DIR", raising=False)
    if given is not None:
        monkeypatch.setenv("NANOCHAT_BASE_DIR", given)
    assert storage.base_dir() == Path(place.replace("~", str(tmp_path)))


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without HOME and without an entry, as in a container that is given a number alone."""

    def unknown(who: object) -> None:
        raise KeyError(who)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)


@dataclass(frozen=True)
class Config:
    pass


def end(main: Callable[[Config], object], capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """How a command without flags ends: its exit code, and what it says."""
    with pytest.raises(SystemExit) as stopped:
        cli.run(main, Config, "x")
    return stopped.value.code, capsys.readouterr().err


@pytest.fixture(autouse=True)
def no_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["x"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "~/.cache/nanochat: HOME is not set; say where to keep things"),
        ("~/x", "~/x: HOME is not set; say where to keep things"),
        ("~no-such-user/x", "~no-such-user/x: there is no user no-such-user; say where"),
    ],
)
def test_a_home_that_is_not_there(
    given: str | None,
    said: str,
    homeless: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("NANOCHAT_BASE_DIR", raising=False)
    if given is not None:
        monkeypatch.setenv("NANOCHAT_BASE_DIR", given)
    code, line = end(lambda _: storage.base_dir(), capsys)
    assert (code, line.count("\n")) == (2, 1)
    assert line.startswith(f"error: {said}")
    # There is nowhere to keep the details of a crash, and it is named all the same.
    assert end(lambda _: 1 / 0, capsys) == (1, "failed: ZeroDivisionError: division by zero\n")


def test_what_another_user_left(base_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever a stage comes upon it. Root may read everything, so the refusal is made up."""

    def refuse(path: Path) -> tuple[object, str]:
        refused = PermissionError(errno.EACCES, "Permission denied", str(path))
        return end(lambda _: (_ for _ in ()).throw(refused), capsys)

    said = "can't be used (Permission denied); if another user made it: sudo chown -R"
    for path, top in ((base_dir / "metrics/x", base_dir), (Path("/a/b"), Path("/a/b"))):
        assert refuse(path) == (2, f"error: {path} {said} {os.geteuid()} {top}\n")


def test_a_folder_that_is_a_link_is_replaced_and_its_target_kept(tmp_path: Path) -> None:
    shared, path = tmp_path / "shared", tmp_path / "eval_bundle"
    shared.mkdir()
    (shared / "theirs").touch()
    path.symlink_to(shared)
    with storage.new_folder(path) as beside:
        (beside / "ours").touch()
    assert not path.is_symlink()
    assert [file.name for file in path.iterdir()] == ["ours"]
    assert [file.name for file in shared.iterdir()] == ["theirs"]
