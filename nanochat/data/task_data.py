"""Rows of public tasks, in one shape a task, from the hub's files or from a folder of one's own.

A row: arc_easy, arc_challenge and mmlu {"question", "choices", "answer": index}; gsm8k {"question",
"answer"}; smoltalk {"messages"}. What is not there is None: a run goes on without it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from nanochat.data import hub
from nanochat.data.dataset import Source
from nanochat.data.shards import read_epoch
from nanochat.data.text_files import read_bytes
from nanochat.system import storage
from nanochat.system.errors import Failure, UserError
from nanochat.system.log import say

Row = dict[str, Any]

# (task, split) -> the repository and the files in it.
HUB_FILES: dict[tuple[str, str], tuple[str, str]] = {
    ("smoltalk", "train"): ("HuggingFaceTB/smol-smoltalk", "data/train-*.parquet"),
    ("mmlu", "train"): ("cais/mmlu", "auxiliary_train/train-*.parquet"),
    ("mmlu", "test"): ("cais/mmlu", "all/test-*.parquet"),
    ("gsm8k", "train"): ("openai/gsm8k", "main/train-*.parquet"),
    ("gsm8k", "test"): ("openai/gsm8k", "main/test-*.parquet"),
    ("arc_easy", "train"): ("allenai/ai2_arc", "ARC-Easy/train-*.parquet"),
    ("arc_easy", "test"): ("allenai/ai2_arc", "ARC-Easy/test-*.parquet"),
    ("arc_challenge", "train"): ("allenai/ai2_arc", "ARC-Challenge/train-*.parquet"),
    ("arc_challenge", "test"): ("allenai/ai2_arc", "ARC-Challenge/test-*.parquet"),
}
# The same in a folder laid out as the evaluation sets of `NANOCHAT_DATA=folder`.
FOLDER_FILES = {
    ("mmlu", "train"): "evals/chat/mmlu_dev.jsonl.gz",
    ("mmlu", "test"): "evals/chat/mmlu_test.jsonl.gz",
    ("gsm8k", "train"): "evals/chat/gsm8k_train.jsonl.gz",
    ("gsm8k", "test"): "evals/chat/gsm8k_test.jsonl.gz",
    ("arc_easy", "test"): "evals/core/arc_easy.jsonl.gz",
    ("arc_challenge", "test"): "evals/core/arc_challenge.jsonl.gz",
}
# A night on a laptop reads less than this, and every row is an object in memory.
MOST_ROWS = 100_000
WORDS_OF_DOCUMENTS = 500
WORD = re.compile(r"\b[a-z]{3,15}\b")


def rows(task: str, split: str, data: str) -> list[Row] | None:
    """The rows of a task's split for a source (a folder, or anything else for the hub's files).

    None where they are not there. Raises UserError that names a damaged file.
    """
    folder = Path(data)
    if folder.is_dir():
        name = FOLDER_FILES.get((task, split))
        path = folder / name if name else None
        found = _lines(path) if path is not None and path.exists() else None
    else:
        paths = _hub_paths(task, split)
        found = (row for path in paths for row in _parquet(path)) if paths else None
    if found is None:
        return None
    same, shaped = _SHAPES[task.split("_")[0]], []
    try:
        for row, _ in zip(found, range(MOST_ROWS), strict=False):
            shaped.append(same(row))
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{task} ({split}) of {data}: row {len(shaped) + 1} is not of its shape ({error!r})"
        ) from None
    return shaped


def check_folder(folder: Path) -> None:
    """Raise UserError for a file of a task that can't be read, before hours are spent."""
    for task, split in FOLDER_FILES:
        rows(task, split, str(folder))


def words(source: Source) -> list[str]:
    """Words to spell: a folder's list (words/*.txt.gz, a word a line), else those of the text."""
    for path in sorted(Path(source.name).glob("words/*.txt.gz")):
        return read_bytes(path).decode("utf-8", errors="replace").split()
    found: dict[str, None] = {}  # in the order of the text
    shards = source.shards_on_disk()
    texts = read_epoch(shards) if shards else iter(())
    for text, _ in zip(texts, range(WORDS_OF_DOCUMENTS), strict=False):
        found.update(dict.fromkeys(WORD.findall(text)))
    return list(found)


def fetch(progress: hub.Progress = lambda done, size: None) -> None:
    """Fetch every task from the hub; one that can't be had is said and left out."""
    for (task, split), (repo, pattern) in HUB_FILES.items():
        try:
            hub.fetch_matching(repo, pattern, _place(repo), progress)
        except (Failure, UserError) as error:
            say(f"{task} ({split}) is left out: {error}")


def _place(repo: str) -> Path:
    return storage.base_dir() / "task_data" / repo.replace("/", "--")


def _hub_paths(task: str, split: str) -> list[Path]:
    if (task, split) not in HUB_FILES:
        return []
    repo, pattern = HUB_FILES[task, split]
    place = _place(repo)
    names = (str(path.relative_to(place)) for path in sorted(place.rglob("*.parquet")))
    return [place / name for name in names if fnmatch(name, pattern)]


def _lines(path: Path) -> Iterator[Row]:
    for number, line in enumerate(read_bytes(path).splitlines(), 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise UserError(f"{path} line {number}: {error}") from None


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        for batch in file.iter_batches(1024):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is damaged ({reason}): remove it, it will be fetched") from None


def _choices(row: Row) -> Row:
    """MMLU and ARC as the hub has them, and ARC as CORE has it."""
    row = row.get("train") or row  # MMLU's auxiliary split is nested
    if "query" in row:
        question = row["query"].removeprefix("Question: ")
        return {"question": question, "choices": row["choices"], "answer": int(row["gold"])}
    if "answerKey" in row:
        choices = row["choices"]
        answer = choices["label"].index(row["answerKey"])  # letters, or digits in some rows
        return {"question": row["question"], "choices": choices["text"], "answer": answer}
    return {"question": row["question"], "choices": row["choices"], "answer": int(row["answer"])}


_SHAPES: dict[str, Callable[[Row], Row]] = {
    "mmlu": _choices,
    "arc": _choices,
    "gsm8k": lambda row: {"question": row["question"], "answer": row["answer"]},
    "smoltalk": lambda row: {"messages": row["messages"]},
}
