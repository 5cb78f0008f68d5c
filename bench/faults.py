"""What a user reads when something goes wrong: six faults, really made, and what is printed.

    python bench/faults.py      on Linux; three of them mount a tmpfs, which takes root

It judges nothing (tests do): the output is for a reader.
"""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for tests.data.hub_server

from nanochat.data import fineweb, shards, tinyworld  # noqa: E402
from nanochat.system import cli  # noqa: E402
from tests.data.hub_server import fake_hub  # noqa: E402

SMALL = {
    "DEPTH": "1", "BASE_ITERATIONS": "300", "MID_ITERATIONS": "100", "SFT_ITERATIONS": "100",
    "DEVICE_BATCH_SIZE": "2", "TOTAL_BATCH_SIZE": "512", "MAX_SEQ_LEN": "64", "VOCAB_SIZE": "512",
    "EVAL_TOKENS": "1024", "SPLIT_TOKENS": "1024", "DATA_SHARDS": "1",
}  # fmt: skip
DRIVER = ("bash", str(ROOT / "dev" / "runcpu.sh"))
DATA = (sys.executable, "-m", "scripts.data", "--num_shards=1")
BASE_TRAIN = (
    sys.executable, "-m", "scripts.base_train", "--depth=1", "--num_iterations=3000",
    "--save_every=200", "--max_seq_len=64", "--device_batch_size=2", "--total_batch_size=128",
    "--eval_tokens=128",
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Nothing to choose."""


def main(config: Config) -> None:
    """One fault after another, each in a base dir of its own."""
    faults = (
        disk_too_small, disk_full_for_six_seconds, read_only, shard_cut, download_cut, hang_up
    )  # fmt: skip
    for fault in faults:
        print(f"\n--- {fault.__name__.replace('_', ' ')}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            fault(Path(folder))


def disk_too_small(folder: Path) -> None:
    """A run in 4 MB."""
    with tmpfs(folder, "size=4m"):
        call(folder, *DRIVER)


def disk_full_for_six_seconds(folder: Path) -> None:
    """Filled in the middle of base training, and freed."""
    with tmpfs(folder, "size=24m"):
        text_and_tokenizer(folder)
        process = subprocess.Popen(
            BASE_TRAIN,
            env=environment(folder),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        checkpoints = folder / "base_checkpoints" / "d1"
        wait_for(checkpoints / "step_000400")
        with open(folder / "filler", "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        time.sleep(6)
        (folder / "filler").unlink()
        said, _ = process.communicate()
        print(*(line for line in said.splitlines() if "disk" in line or "saved" in line), sep="\n")
        kept = sorted(path.name for path in checkpoints.glob("step_*"))
        print(f"exit code {process.returncode}; kept: {', '.join(kept)}")


def read_only(folder: Path) -> None:
    """A base dir that can't be written."""
    with tmpfs(folder, "ro"):
        call(folder, *DRIVER)


def shard_cut(folder: Path) -> None:
    """A shard truncated after it was made; then the command that mends it."""
    text_and_tokenizer(folder)
    (shard,) = folder.rglob("shard_00000.parquet")
    os.truncate(shard, 300_000)
    call(folder, *BASE_TRAIN)
    call(folder, *DATA)


def download_cut(folder: Path) -> None:
    """A connection that is cut five times."""
    (folder / "eval_bundle").mkdir()  # the tasks of CORE, which come from elsewhere: not asked for
    with fake_hub() as hub:
        for i in (0, fineweb.LAST_SHARD):
            path = shards.shard_path(folder / "hub", i)
            path.parent.mkdir(exist_ok=True)
            made = tinyworld.documents(i % 100)
            shards.write_shard(path, [next(made) for _ in range(4000)])
            cuts = [("cut", 100_000)] * 5 if i == 0 else []
            hub.add(fineweb.REPO, path.name, path.read_bytes(), *cuts)
        web = {"HF_ENDPOINT": hub.address, "NO_PROXY": "127.0.0.1"}
        call(folder, *DATA, "--data=fineweb", about="shard", **web)
        print("asked for:", hub.ranges("shard_00000.parquet"))


def hang_up(folder: Path) -> None:
    """`nohup bash dev/runcpu.sh &` in a terminal that is then closed."""
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(folder)
        os.execvpe("bash", ["bash", "--norc", "-i"], environment(folder))
    os.write(terminal, f"nohup bash {DRIVER[1]} &\n".encode())
    wait_for(folder / "base_checkpoints")
    os.close(terminal)  # the kernel hangs up: SIGHUP to the shell, and by it to its jobs
    os.waitpid(pid, 0)
    print("(the terminal is closed, its shell is gone)")
    wait_for(folder / "report" / "report.md")
    while (folder / "run.lock").exists():
        time.sleep(0.1)
    print("\n".join((folder / "nohup.out").read_text().splitlines()[-6:]))


@contextlib.contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[None]:
    """A small disk at `folder`."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Of a small run with this base dir."""
    return {**os.environ, **SMALL, "NANOCHAT_BASE_DIR": str(folder), **more}


def text_and_tokenizer(folder: Path) -> None:
    """What base training needs."""
    for command in (DATA, (sys.executable, "-m", "scripts.tokenizer", "--vocab_size=512")):
        subprocess.run(
            command, env=environment(folder), cwd=ROOT, stdout=subprocess.DEVNULL, check=True
        )


def call(folder: Path, *command: str, about: str = "", **more: str) -> None:
    """Run it; print its last three lines, or all of them about something, and its exit code."""
    done = subprocess.run(
        command,
        env=environment(folder, **more),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = done.stdout.splitlines()
    shown = [line for line in lines if about in line] if about else lines[-3:]
    print(*shown, f"exit code {done.returncode}", sep="\n")


def wait_for(path: Path) -> None:
    """Until it exists, two minutes at most."""
    for _ in range(1200):
        if path.exists():
            return
        time.sleep(0.1)
    sys.exit(f"{path} never came")


if __name__ == "__main__":
    cli.run(main, Config, "python bench/faults.py")
