"""A whole run as a user starts it, interrupted, continued, and talked to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TINY = {
    "DEPTH": "1",
    "VOCAB_SIZE": "512",
    "MAX_SEQ_LEN": "64",
    "DATA_SHARDS": "1",
    "BASE_ITERATIONS": "4",
    "MID_ITERATIONS": "3",
    "SFT_ITERATIONS": "3",
    "MEMORY_SIZE": "16",
    "EVAL_TOKENS": "512",
    "SPLIT_TOKENS": "512",
}

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        not (ROOT / ".venv").exists(), reason="no .venv at the root: run bash dev/setup.sh first"
    ),
]


def environment(base: Path, **variables: str) -> dict[str, str]:
    return {**os.environ, "NANOCHAT_BASE_DIR": str(base), **variables}


def run(command: list[str], base: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment(base, **variables),
        capture_output=True,
        text=True,
        timeout=280,
        stdin=subprocess.DEVNULL,
    )


def module(name: str, *flags: str, base: Path) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-m", name, *flags], base)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(base dir with a space in it, what a first run printed)."""
    base = tmp_path_factory.mktemp("a base") / "dir"
    done = run(["bash", "dev/runcpu.sh"], base, **TINY)
    assert done.returncode == 0, done.stdout + done.stderr
    return base, done.stdout


def test_a_run_says_what_it_does_and_ends_honestly(trained: tuple[Path, str]) -> None:
    base, output = trained
    lines = output.splitlines()
    assert "model_tag: d1" in lines
    heads = [line for line in lines if line.startswith("[")]
    assert heads[0].startswith("[1/")
    assert any(line.startswith("[3/") and "base training" in line for line in heads)
    assert any(line.startswith("base 00004/00004 | loss ") for line in lines)
    assert "This was a smoke test" in output
    assert "TIME_BUDGET=20m bash dev/runcpu.sh" in output
    assert "python -m scripts.chat_cli -i sft" in output
    log = next((base / "logs").glob("runcpu-*.log")).read_text()
    assert "base 00004/00004 | loss " in log


def test_the_first_answer_is_all_of_standard_output(trained: tuple[Path, str]) -> None:
    base, _ = trained
    done = module("scripts.chat_cli", "-i", "sft", "-p", "What color is the sky?", base=base)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "<|" not in done.stdout
    assert "Autodetected" not in done.stdout
    piped = subprocess.run(
        [sys.executable, "-m", "scripts.chat_cli", "-p", "-"],
        cwd=ROOT,
        env=environment(base),
        input="What color is the sky?\n",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert piped.stdout == done.stdout


def test_a_conversation_is_held_cleared_and_left(trained: tuple[Path, str]) -> None:
    base, _ = trained
    done = subprocess.run(
        [sys.executable, "-m", "scripts.chat_cli"],
        cwd=ROOT,
        env=environment(base),
        input="Hello!\nclear\nWho are you?\nquit\n",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0
    assert done.stdout.count("nanochat:") == 2
    assert "a new conversation" in done.stdout


def test_base_loss_measures_any_text_and_speaks_json(
    trained: tuple[Path, str], tmp_path: Path
) -> None:
    base, _ = trained
    text = tmp_path / "some text.txt"
    text.write_text("The dog runs to the house. " * 40)
    done = module("scripts.base_loss", "--data", str(text), "--json", base=base)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert 0 < found["some text.txt_bpb"] < 8
    guide = module("scripts.base_loss", "--device_batch_size=16", "--split_tokens=16384", base=base)
    assert guide.returncode == 0, guide.stderr
    assert "val: " in guide.stdout


def test_encode_prints_a_line_of_ids_for_a_line_of_text(
    trained: tuple[Path, str], tmp_path: Path
) -> None:
    from nanochat.tokenizer import Tokenizer

    base, _ = trained
    text = tmp_path / "lines.txt"
    text.write_text("The dog.\n\n<|bos|> é\n", encoding="utf-8")
    done = module("scripts.tokenizer", "--encode", str(text), "--model_tag", "d1", base=base)
    tokenizer = Tokenizer.load(base / "tokenizer" / "tokenizer.json")
    ids = [[int(i) for i in line.split()] for line in done.stdout.split("\n")[:3]]
    assert [tokenizer.decode(line) for line in ids] == ["The dog.", "", "<|bos|> é"]


def test_a_second_run_leaves_the_first_model_alone(trained: tuple[Path, str]) -> None:
    base, _ = trained
    first = base / "sft_checkpoints" / "d1" / "step_000003" / "model.safetensors"
    before = first.read_bytes()
    done = run(["bash", "dev/runcpu.sh", "--plan"], base, **TINY)
    assert done.returncode == 0
    assert "model_tag: d1-2" in done.stdout
    assert first.read_bytes() == before
    refused = run(["bash", "dev/runcpu.sh", "--plan"], base, **{**TINY, "MODEL_TAG": "d1"})
    assert refused.returncode == 2
    assert "MODEL_TAG=d1" in refused.stderr


def test_interrupted_in_the_middle_and_continued(tmp_path: Path) -> None:
    """Interrupted in base training: the driver refuses to start over, and continuing finishes."""
    base = tmp_path / "base"
    variables = {**TINY, "BASE_ITERATIONS": "400"}
    process = subprocess.Popen(
        ["bash", "dev/runcpu.sh"],
        cwd=ROOT,
        env=environment(base, **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    metrics = base / "metrics" / "base_d1.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") > 5):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "bash dev/continue_training.sh" in output
    saved = list((base / "base_checkpoints" / "d1").glob("step_*"))
    assert len(saved) == 1

    again = run(["bash", "dev/runcpu.sh"], base, **variables)
    assert again.returncode == 2
    assert "continue" in again.stderr
    assert "FRESH=1" in again.stderr

    other = run(["bash", "dev/continue_training.sh"], base, BASE_ITERATIONS="7")
    assert other.returncode == 2
    assert "base_iterations=7" in other.stderr.lower()

    done = run(["bash", "dev/continue_training.sh"], base)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "… Base model: d1/step_" in done.stdout
    assert "→ Will run: Base (from step " in done.stdout
    complete = run(["bash", "dev/continue_training.sh"], base)
    assert complete.returncode == 0
    assert "🎉 All training stages complete!" in complete.stdout
    assert "→ Ready to chat!" in complete.stdout
