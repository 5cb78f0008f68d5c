"""Downloads from a hub on the loopback: whole or not at all, checked, resumed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nanochat.data import dataset, fineweb, hub
from nanochat.data.shards import write_shard
from nanochat.system.errors import Failure, UserError
from tests.data.hub_server import COMMIT, FakeHub, fake_hub

ROOT = Path(__file__).parents[2]
REPO = "someone/texts"
CONTENT = random.Random(1).randbytes(3_000_000)


@pytest.fixture
def server(base_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fake_hub() as found:
        monkeypatch.setattr(hub, "endpoint", lambda: found.address)
        monkeypatch.setattr(hub, "RETRY_PAUSES_S", (0.0, 0.0))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setenv("HF_TOKEN_PATH", str(base_dir / "none"))
        yield found


def fetched(server: FakeHub, folder: Path, *faults) -> Path:
    server.add(REPO, "a/file.bin", CONTENT, *faults)
    file = hub.manifest_of(REPO, folder)["a/file.bin"]
    hub.fetch(file, folder / "file.bin")
    return folder / "file.bin"


def test_a_file_comes_whole_and_its_manifest_is_kept(server: FakeHub, tmp_path: Path) -> None:
    path = fetched(server, tmp_path)
    assert path.read_bytes() == CONTENT
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file.bin", "manifest.json"]
    kept = json.loads((tmp_path / "manifest.json").read_text())
    assert kept["revision"] == COMMIT
    assert kept["files"]["a/file.bin"]["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    asked = len(server.requests)
    hub.manifest_of(REPO, tmp_path)
    assert len(server.requests) == asked  # the revision stays what it was


@pytest.mark.parametrize(
    "faults",
    [
        [("cut", 1_000_000), ("cut", 500_000)],
        [503, 503],
        [("slow", 1.0)],
        [("wrong",)],
        [("cut", 1_200_000), ("ignore range",)],
    ],
    ids=str,
)
def test_what_passes_is_tried_again(
    faults: list, server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "TIMEOUT_S", 0.5)
    assert fetched(server, tmp_path, *faults).read_bytes() == CONTENT


def test_a_cut_download_goes_on_where_it_stopped(server: FakeHub, tmp_path: Path) -> None:
    fetched(server, tmp_path, ("cut", 1_000_000))
    first, second = server.ranges("file.bin")
    assert first is None
    assert second is not None
    assert 0 < int(second.removeprefix("bytes=").rstrip("-")) <= 1_000_000


def test_the_next_run_goes_on_too(server: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"file.bin: .* out of order .503.; what came is kept"):
        fetched(server, tmp_path, ("cut", 2_000_000), 503, 503, 503, 503)
    assert not (tmp_path / "file.bin").exists()
    kept = (tmp_path / ".file.bin.part").stat().st_size
    assert 2_000_000 - hub.CHUNK_BYTES < kept <= 2_000_000
    assert fetched(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges("file.bin")[-1] == f"bytes={kept}-"


def test_a_wrong_checksum_is_never_kept(server: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(Failure, match="twice with a wrong checksum"):
        fetched(server, tmp_path, ("wrong",), ("wrong",))
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.json"]


def test_a_part_of_something_else_does_no_harm(server: FakeHub, tmp_path: Path) -> None:
    (tmp_path / ".file.bin.part").write_bytes(b"x" * 4_000_000)
    assert fetched(server, tmp_path).read_bytes() == CONTENT
    (tmp_path / "file.bin").unlink()
    (tmp_path / ".file.bin.part").write_bytes(b"x" * 1_000)
    assert fetched(server, tmp_path).read_bytes() == CONTENT


def test_gone_for_good_is_not_tried_again(server: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"file.bin: .* does not have it \(404\)"):
        fetched(server, tmp_path, 404)
    assert len(server.ranges("file.bin")) == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (401, "refused .401.: the token in HF_TOKEN"),
        (403, "refused .403."),
        (404, "does not have it"),
        (503, "out of order .503."),
        (("text", b"<html>please log in</html>"), "does not look like a Hugging Face hub"),
        (("slow", 2.0), "no network, or a very slow one"),
    ],
)
def test_why_there_is_no_list(
    fault, words: str, server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "TIMEOUT_S", 0.5)
    server.list_faults.append(fault)
    with pytest.raises(hub.Unreachable, match=words):
        hub.manifest_of(REPO, tmp_path)
    assert not (tmp_path / "manifest.json").exists()


def test_no_network_is_told_from_a_refusing_proxy(
    server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "endpoint", lambda: "http://127.0.0.1:9")
    with pytest.raises(hub.Unreachable, match=r"no network: .* can't be reached"):
        hub.manifest_of(REPO, tmp_path)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setattr(hub, "endpoint", lambda: "http://hub.invalid")
    with pytest.raises(hub.Unreachable, match="proxy refused"):
        hub.manifest_of(REPO, tmp_path)


def test_the_token_is_sent_to_the_hub(
    server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetched(server, tmp_path)
    assert {authorization for _, _, authorization in server.requests} == {"Bearer hf_secret"}


def test_names_from_outside_stay_inside(server: FakeHub, tmp_path: Path) -> None:
    for name in ("../../evil", "/etc/passwd", "a/../../b", "fine/file.bin"):
        server.add(REPO, name, b"x")
    assert list(hub.manifest_of(REPO, tmp_path)) == ["fine/file.bin"]


def test_a_damaged_manifest_is_named(server: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"files": 3}')
    with pytest.raises(UserError, match=r"manifest.json is damaged: remove it"):
        hub.manifest_of(REPO, tmp_path)


# ---- fineweb


def shard_of(tmp_path: Path, text: str) -> bytes:
    path = tmp_path / "made.parquet"
    write_shard(path, [f"{text} number {i}." for i in range(50)])
    return path.read_bytes()


@pytest.fixture
def web(server: FakeHub, tmp_path: Path) -> FakeHub:
    for i in (0, 1, 2, 1822):
        content = shard_of(tmp_path, f"Page {i}")
        server.add(fineweb.REPO, f"shard_{i:05d}.parquet", content)
    return server


def test_fineweb_fetches_the_validation_shard_first(web: FakeHub, base_dir: Path) -> None:
    assert [done for done, _, _ in dataset.prepare("fineweb", 2)][-1] == 3
    got = [where.rsplit("/", 1)[1] for where, _, _ in web.requests[1:]]
    assert got == ["shard_01822.parquet", "shard_00000.parquet", "shard_00001.parquet"]
    source = dataset.find_source("fineweb", 2)
    assert source.val_shard.name == "shard_01822.parquet"
    assert source.fetch_missing() is None


@pytest.mark.parametrize("harm", ["truncated", "flipped"])
def test_a_damaged_shard_is_named_and_fetched_again(
    harm: str, web: FakeHub, base_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    list(dataset.prepare("fineweb", 1))
    path = dataset.find_source("fineweb").train_shards[0]
    raw = path.read_bytes()
    path.write_bytes(raw[:-9] if harm == "truncated" else raw[:50] + b"\xff" + raw[51:])
    list(dataset.prepare("fineweb", 1))
    assert path.read_bytes() == raw
    assert f"{path} is damaged or cut off: fetching it again" in capsys.readouterr().out


def test_more_shards_than_the_hub_has(web: FakeHub, base_dir: Path) -> None:
    with pytest.raises(UserError, match=r"no shard_00003.parquet: set a smaller DATA_SHARDS"):
        list(dataset.prepare("fineweb", 4))


def test_the_rest_comes_while_training_reads(web: FakeHub, base_dir: Path) -> None:
    from nanochat.data.shards import read_texts

    list(dataset.prepare("fineweb", 1))
    web.faults["shard_00001.parquet"] = [("slow", 0.3)]
    source = dataset.find_source("fineweb", 3)
    texts = read_texts(source.train_shards, None, source.fetch_missing())
    read = [next(texts) for _ in range(151)]
    assert [cursor for cursor, _ in read[49:52]] == [[0, 0, 49], [0, 1, 0], [0, 1, 1]]
    assert read[100][1] == "Page 2 number 0."
    assert read[150] == ([1, 0, 0], "Page 0 number 0.")


@pytest.mark.parametrize("trouble", ["404", "no space left"])
def test_a_shard_that_never_comes_is_passed_over(
    trouble: str,
    web: FakeHub,
    base_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    from nanochat.data.shards import read_texts

    list(dataset.prepare("fineweb", 1))
    monkeypatch.setattr(fineweb, "GIVE_UP_S", 0.6)
    web.faults["shard_00001.parquet"] = [404] * 9
    fetch = hub.fetch

    def fails(file: hub.RemoteFile, path: Path) -> None:
        if trouble != "404" and path.name == "shard_00001.parquet":
            raise OSError(trouble)  # which nothing below it expects
        fetch(file, path)

    monkeypatch.setattr(hub, "fetch", fails)
    source = dataset.find_source("fineweb", 3)
    texts = read_texts(source.train_shards, None, source.fetch_missing())
    assert [next(texts) for _ in range(51)][50][0] == [0, 2, 0], "the one after it has come"
    said = capsys.readouterr().out
    assert "shard_00001.parquet did not come" in said
    assert trouble in said


# ---- auto


def test_auto_takes_the_hub_where_it_answers(web: FakeHub, base_dir: Path) -> None:
    assert dataset.resolve_auto("auto", 1) == ("fineweb", "auto: the hub answers, so fineweb it is")


def test_auto_asks_nobody_where_the_shards_are_there(
    web: FakeHub, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(dataset.prepare("fineweb", 1))
    monkeypatch.setattr(hub, "endpoint", lambda: "http://127.0.0.1:9")
    assert dataset.resolve_auto("auto", 1)[0] == "fineweb"
    # The list is kept, so shards can be named.
    assert dataset.resolve_auto("auto", 2)[0] == "fineweb"


def test_auto_says_why_it_takes_tinyworld(web: FakeHub, base_dir: Path) -> None:
    web.list_faults.append(401)
    name, line = dataset.resolve_auto("auto", 1)
    assert name == "tinyworld"
    assert "HF_TOKEN" in line
    assert "\n" not in line


def test_auto_waits_no_longer_than_it_says(web: FakeHub, tmp_path: Path) -> None:
    web.list_faults.append(("slow", 5.0))
    with pytest.raises(hub.Unreachable, match=r"no answer from .* within 0 s"):
        hub.reach(fineweb.REPO, tmp_path, within_s=0.2)


def test_a_stage_typed_by_hand_refuses_auto(base_dir: Path) -> None:
    with pytest.raises(UserError, match="use tinyworld, fineweb or a folder"):
        dataset.find_source("auto")


# ---- the command


def command(address: str, base: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NANOCHAT_BASE_DIR": str(base), "HF_ENDPOINT": address}
    # CORE's file is not on the hub: no test asks for it out there.
    environment |= {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
    return subprocess.run(
        [sys.executable, "-m", "scripts.data", *flags],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_command_fetches_and_says_what_there_is(web: FakeHub, base_dir: Path) -> None:
    done = command(web.address, base_dir, "--data=fineweb", "-n", "2")
    assert done.returncode == 0, done.stderr
    assert "fineweb: 2 shards, 100 documents" in done.stdout
    assert "gsm8k (train) is left out: " in done.stdout
    assert "CORE is left out: eval_bundle.zip: the proxy refused" in done.stdout


def test_the_command_without_a_net(base_dir: Path) -> None:
    done = command("http://127.0.0.1:9", base_dir, "--data=fineweb", "-n", "2")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "no network" in done.stderr
    assert "tinyworld" in done.stderr


def test_the_server_that_failed_is_named(
    server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "RETRY_PAUSES_S", (0.0,))
    with pytest.raises(Failure, match=r"no network: http://127.0.0.1:9 can't be reached"):
        hub.fetch(hub.RemoteFile("http://127.0.0.1:9/a.zip"), tmp_path / "a.zip")
