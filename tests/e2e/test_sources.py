"""The driver on web text from a hub on the loopback, and on a folder of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nanochat.data import fineweb
from nanochat.data.shards import write_shard
from nanochat.data.tinyworld import documents
from tests.data.hub_server import fake_hub
from tests.e2e.test_run import TINY, pytestmark, run  # noqa: F401 (pytestmark marks this file, too)

NO_NET = {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}


def texts(count: int) -> list[str]:
    made = documents(0)
    return [next(made) for _ in range(count)]


def test_web_text_of_which_a_part_comes_while_it_trains(tmp_path: Path) -> None:
    base, made = tmp_path / "base", tmp_path / "made.parquet"
    write_shard(made, texts(300))
    with fake_hub() as hub:
        for i in (*range(6), fineweb.LAST_SHARD):
            faults = [("cut", 1000)] if i == 1 else [("slow", 0.5)] if i == 5 else []
            hub.add(fineweb.REPO, f"shard_{i:05d}.parquet", made.read_bytes(), *faults)
        variables = {**TINY, "DATA_SHARDS": "6", "NANOCHAT_DATA": "auto", "BASE_ITERATIONS": "60"}
        done = run(["bash", "dev/runcpu.sh"], base, HF_ENDPOINT=hub.address, **NO_NET, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "auto: the hub answers, so fineweb it is" in done.stdout
    assert "shard_00001.parquet: the connection was cut; trying again" in done.stdout
    assert "2 of 6 shards will come during training" in done.stdout
    state = next((base / "base_checkpoints" / "d1").glob("step_*/state.json"))
    assert json.loads(state.read_text())["config"]["data"] == "fineweb"
    assert (base / "report" / "report.md").read_text().startswith("# nanochat d1\n")


@pytest.mark.parametrize("network", ["none"])
def test_auto_without_a_network_says_so_and_continues(tmp_path: Path, network: str) -> None:
    variables = {**TINY, "NANOCHAT_DATA": "auto", "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = run(["bash", "dev/runcpu.sh", "--plan"], tmp_path / "base", **variables)
    assert done.returncode == 0, done.stderr
    assert "auto: tinyworld, since fineweb can't be had: no network" in done.stdout
    assert "\ndata: tinyworld" in done.stdout


def test_a_folder_of_notes_trains_without_preparation(tmp_path: Path) -> None:
    base, notes = tmp_path / "base", tmp_path / "my notes"
    (notes / "more").mkdir(parents=True)
    for number, text in enumerate(texts(400)):
        where = notes if number % 2 else notes / "more"
        (where / f"{number}.{'txt' if number % 3 else 'md'}").write_text(text)
    done = run(["bash", "dev/runcpu.sh"], base, **{**TINY, "NANOCHAT_DATA": str(notes)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "little: expect" in done.stdout
    assert "400 files" in done.stdout
    assert "This was a smoke test" in done.stdout
