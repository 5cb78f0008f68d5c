"""Where everything is kept."""

from __future__ import annotations

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
    monkeypatch.setattr("sys.argv", ["x"])

    def end(main: Callable[[Config], object]) -> tuple[object, str]:
        with pytest.raises(SystemExit) as stopped:
            cli.run(main, Config, "x")
        return stopped.value.code, capsys.readouterr().err

    code, line = end(lambda _: storage.base_dir())
    assert (code, line.count("\n")) == (2, 1)
    assert line.startswith(f"error: {said}")
    # There is nowhere to keep the details of a crash, and it is named all the same.
    assert end(lambda _: 1 / 0) == (1, "failed: ZeroDivisionError: division by zero\n")
