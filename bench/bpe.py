"""How fast rustbpe is beside `tokenizers` (training) and tiktoken (encoding), in one run.

    python bench/bpe.py [--vocab_size 65536] [--runs 3] [--other_site FOLDER]

Each training is a fresh process, so that its peak memory is its own; so is the comparison of
encoders, which take turns in it. `--other_site` is a folder with PyPI's rustbpe
(`pip install --target FOLDER --no-deps rustbpe==0.1.0`), which has the same module name.
Times are medians; on a shared machine, look at the ratios.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SHARDS = Path(__file__).parents[1] / "../shared/data/pretrain"


def read_texts() -> list[str]:
    """The documents of the first four shards."""
    import pyarrow.parquet as pq

    paths = [SHARDS / f"shard_{number:05}.parquet" for number in range(4)]
    tables = [pq.read_table(path, columns=["text"]) for path in paths]
    return [text for table in tables for text in table["text"].to_pylist()]


def peak_gb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)  # macOS counts bytes, Linux KiB


# ---- in a process of its own


def train_ours(texts: list[str], vocab_size: int, threads: int) -> None:
    import rustbpe

    rustbpe.train(texts, vocab_size, num_threads=threads)


def train_pypi(texts: list[str], vocab_size: int, threads: int) -> None:
    """Takes its threads from RAYON_NUM_THREADS."""
    import rustbpe

    pattern = os.environ["BENCH_PATTERN"]
    rustbpe.Tokenizer().train_from_iterator(iter(texts), vocab_size, pattern=pattern)  # pyrefly: ignore


def train_tokenizers(texts: list[str], vocab_size: int, threads: int) -> None:
    """Takes its threads from RAYON_NUM_THREADS."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(os.environ["BENCH_PATTERN"]), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)


TRAINERS = {"rustbpe": train_ours, "tokenizers": train_tokenizers, "rustbpe 0.1.0": train_pypi}


def measure_training(name: str, vocab_size: int, threads: int) -> dict[str, float]:
    texts = read_texts()
    before_gb = peak_gb()
    started, cpu_started = time.perf_counter(), time.process_time()
    TRAINERS[name](texts, vocab_size, threads)
    return {
        "s": time.perf_counter() - started,
        "cpu_s": time.process_time() - cpu_started,
        "peak_gb": peak_gb(),
        "before_gb": before_gb,
    }


def measure_encoding(vocab_size: int, runs: int) -> dict[str, float]:
    """MB/s of each encoder; raises if they differ in any token."""
    import tiktoken

    import rustbpe

    texts = read_texts()
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    ours = rustbpe.Encoder(rustbpe.train(texts, vocab_size))
    ranks = {ours.decode_bytes([token]): token for token in range(ours.vocab_size)}
    theirs = tiktoken.Encoding(
        "bench", pat_str=rustbpe.DEFAULT_PATTERN, mergeable_ranks=ranks, special_tokens={}
    )
    encoders: dict[str, Callable[[], list[list[int]]]] = {
        "rustbpe, a document a call": lambda: [ours.encode(text) for text in texts],
        "tiktoken, a document a call": lambda: [theirs.encode_ordinary(text) for text in texts],
        "rustbpe, batch, 1 thread": lambda: ours.encode_batch(texts, num_threads=1),
        "rustbpe, batch, 2 threads": lambda: ours.encode_batch(texts, num_threads=2),
        "tiktoken, batch, 2 threads": lambda: theirs.encode_ordinary_batch(texts, num_threads=2),
    }
    expected = theirs.encode_ordinary_batch(texts)
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    for _ in range(runs):
        for name, encode in encoders.items():
            started = time.perf_counter()
            ids = encode()
            seconds[name].append(time.perf_counter() - started)
            if ids != expected:
                raise RuntimeError(f"{name} gives other ids")
    return {name: megabytes / statistics.median(some) for name, some in seconds.items()}


# ---- the process that starts the others


def in_new_process(*args: object, site: str | None = None) -> dict[str, float]:
    import rustbpe

    env = os.environ | {"RAYON_NUM_THREADS": str(args[2]), "BENCH_PATTERN": rustbpe.DEFAULT_PATTERN}
    if site:
        env["PYTHONPATH"] = site
    command = [sys.executable, __file__, "--child", *map(str, args)]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def compare_training(vocab_size: int, runs: int, other_site: str | None) -> None:
    names = [name for name in TRAINERS if other_site or name != "rustbpe 0.1.0"]
    for threads in (1, 2):
        results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for _ in range(runs):
            for name in names:
                site = other_site if name == "rustbpe 0.1.0" else None
                results[name].append(in_new_process(name, vocab_size, threads, site=site))
        print(f"\ntrain, vocabulary {vocab_size}, {threads} thread(s)")
        ours_s = statistics.median(result["s"] for result in results["rustbpe"])
        for name in names:
            median = {
                key: statistics.median(result[key] for result in results[name])
                for key in results[name][0]
            }
            print(
                f"  {name:14} {median['s']:6.2f} s  {median['cpu_s']:6.2f} CPU s"
                f"  peak {median['peak_gb']:.2f} GB ({median['before_gb']:.2f} before)"
                f"  time / ours {median['s'] / ours_s:.1f}"
            )


def compare_encoding(vocab_size: int, runs: int) -> None:
    speeds = in_new_process("encode", vocab_size, 2, runs)
    print(f"\nencode, vocabulary {vocab_size} (all give the same ids)")
    for name, speed in speeds.items():
        print(f"  {name:28} {speed:6.1f} MB/s")
    call = speeds["rustbpe, a document a call"] / speeds["tiktoken, a document a call"]
    batch = speeds["rustbpe, batch, 2 threads"] / speeds["tiktoken, batch, 2 threads"]
    print(f"  ours / tiktoken: {call:.1f} a document a call, {batch:.1f} in a batch on 2 threads")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab_size", type=int, default=65536)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--other_site", help="folder with PyPI's rustbpe 0.1.0")
    parser.add_argument("--child", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not SHARDS.is_dir():
        parser.error(f"no texts to work on: {SHARDS} is missing")
    if args.child:
        name, *numbers = args.child
        vocab_size, threads, *runs = map(int, numbers)
        if name == "encode":
            result = measure_encoding(vocab_size, runs[0])
        else:
            result = measure_training(name, vocab_size, threads)
        print(json.dumps(result))
        return
    compare_training(args.vocab_size, args.runs, args.other_site)
    compare_encoding(args.vocab_size, args.runs)


if __name__ == "__main__":
    main()
