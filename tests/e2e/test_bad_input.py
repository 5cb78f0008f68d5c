"""Nonsense gets one line with the remedy and exit code 2, and leaves what was there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat.data.shards import write_shard

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.e2e

# (script, flags, words that the one line must hold)
CASES = [
    ("base_train", ["--depth=abc"], ["--depth", "abc"]),
    ("base_train", ["--depth=0"], ["depth=0", "1 to 64"]),
    ("base_train", ["--dept=4"], ["--dept=4", "--depth"]),
    ("base_train", ["--num_iterations=0"], ["num_iterations=0"]),
    ("base_train", ["--device_type=tpu"], ["device_type=tpu", "cpu"]),
    ("base_train", ["--matrix_lr=-1"], ["matrix_lr=-1"]),
    ("base_train", ["--depth=4"], ["no tokenizer", "scripts.tokenizer"]),
    ("mid_train", [], ["no base checkpoint", "base_train"]),
    ("chat_sft", [], ["no mid checkpoint", "mid_train"]),
    ("chat_sft", ["--model_tag=../../etc"], ["model_tag", "letters"]),
    ("chat_cli", ["-i", "sft", "-g", "d99"], ["d99", "chat_sft"]),
    ("chat_cli", ["-t", "-1"], ["temperature=-1"]),
    ("chat_cli", ["-p", ""], ["prompt", "empty"]),
    ("tokenizer", ["--vocab_size=100"], ["vocab_size=100", "265"]),
    ("tokenizer", [], ["no text", "scripts.data"]),
    ("tokenizer", ["--data=/nowhere"], ["/nowhere", "folder"]),
    ("data", ["-n", "0"], ["num_shards=0"]),
    ("base_loss", ["--split_tokens=0"], ["split_tokens=0"]),
]


def run(script: str, flags: list[str], base: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"scripts.{script}", *flags],
        cwd=ROOT,
        env={**os.environ, "NANOCHAT_BASE_DIR": str(base)},
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize(("script", "flags", "words"), CASES)
def test_one_line_and_exit_2(
    script: str, flags: list[str], words: list[str], tmp_path: Path
) -> None:
    done = run(script, flags, tmp_path / "base")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "scripts").glob("[a-z]*.py")))
def test_help_loads_no_torch(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", f"scripts.{name}", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "tyro" in loaded
    assert "torch" not in loaded


def folder_of(tmp_path: Path, shards: int = 2, words: str = "One dog ran home. ") -> Path:
    folder = tmp_path / "text"
    for i in range(shards):
        write_shard(folder / "pretrain" / f"shard_{i:05d}.parquet", [words * 3] * 5)
    return folder


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("empty", ["shard_00000.parquet", "damaged"]),
        ("truncated", ["shard_00000.parquet", "damaged"]),
        ("column", ["shard_00000.parquet", "`text`", "body"]),
        ("rows", ["shard_00000.parquet", "no rows"]),
    ],
)
def test_a_bad_shard_is_named(harm: str, words: list[str], tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = folder_of(tmp_path)
    shard = folder / "pretrain" / "shard_00000.parquet"
    if harm == "empty":
        shard.write_bytes(b"")
    elif harm == "truncated":
        shard.write_bytes(shard.read_bytes()[:-20])
    elif harm == "column":
        pq.write_table(pa.table({"body": ["a"]}), shard)
    else:
        pq.write_table(pa.table({"text": pa.array([], pa.string())}), shard)
    done = run("tokenizer", [f"--data={folder}", "--vocab_size=300"], tmp_path / "base")
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


def test_a_corpus_smaller_than_a_batch_is_refused_and_a_large_vocabulary_shrinks(
    tmp_path: Path,
) -> None:
    folder, base = folder_of(tmp_path), tmp_path / "base"
    done = run("tokenizer", [f"--data={folder}", "--vocab_size=5000"], base)
    assert done.returncode == 0, done.stderr
    assert "of at most 278, not 5,000" in done.stdout
    done = run("base_train", [f"--data={folder}", "--depth=1", "--device_batch_size=4"], base)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1
    assert "add text" in done.stderr
    assert "1024 are needed" in done.stderr
    assert not (base / "base_checkpoints").exists()


def test_a_base_dir_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    done = run("data", ["-n", "1"], file / "base")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "NANOCHAT_BASE_DIR" in done.stderr
    assert file.read_text() == "in the way"
