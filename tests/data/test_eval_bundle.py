"""CORE's tasks come as a zip from the web: unpacked once, whole, and nowhere else."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nanochat.data import eval_bundle, hub
from nanochat.system.errors import Failure
from tests.data.hub_server import COMMIT, FakeHub, fake_hub

PATH = "eval_bundle.zip"


@pytest.fixture
def server(base_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fake_hub() as found:
        monkeypatch.setattr(hub, "RETRY_PAUSES_S", (0.0,))
        yield found


def fetched(server: FakeHub, content: bytes, *faults) -> None:
    server.add("a/b", PATH, content, *faults)
    eval_bundle.prepare(url=f"{server.address}/datasets/a/b/resolve/{COMMIT}/{PATH}")


def zipped(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, text in files.items():
            packed.writestr(name, text)
    return buffer.getvalue()


GOOD = zipped(
    {
        "eval_bundle/": "",
        "eval_bundle/core.yaml": "icl_tasks: []",
        "eval_bundle/eval_data/a/b.jsonl": "{}",
        "eval_bundle/../../evil": "x",
        "/tmp/evil": "x",
        "__MACOSX/x": "x",
    }
)


@pytest.mark.parametrize("faults", [[], [("cut", 100)], [503]], ids=str)
def test_it_is_unpacked_once_and_inside(server: FakeHub, base_dir: Path, faults: list) -> None:
    fetched(server, GOOD, *faults)
    found = [str(p.relative_to(base_dir)) for p in base_dir.rglob("*") if p.is_file()]
    assert sorted(found) == ["eval_bundle/core.yaml", "eval_bundle/eval_data/a/b.jsonl"]
    asked = len(server.requests)
    fetched(server, GOOD)
    assert len(server.requests) == asked


@pytest.mark.parametrize("content", [b"<html>not found</html>", GOOD[:-30]], ids=["page", "cut"])
def test_what_is_not_a_zip_leaves_nothing(server: FakeHub, base_dir: Path, content: bytes) -> None:
    with pytest.raises(Failure, match="not a whole zip file"):
        fetched(server, content)
    assert not [p for p in base_dir.rglob("*") if p.is_file()]


def test_a_bomb_is_not_unpacked(
    server: FakeHub, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eval_bundle, "MAX_UNPACKED_BYTES", 10)
    with pytest.raises(Failure, match="not unpacked"):
        fetched(server, GOOD)
    assert not eval_bundle.folder().exists()
