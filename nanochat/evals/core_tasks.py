"""The questions of CORE's 22 tasks, read from the files of either layout.

A folder with core_tasks.json and one .jsonl.gz per task, or the eval bundle as unpacked. A task
whose file is not found is `missing`, with the reason, and the mean is "CORE (18 of 22)".
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from nanochat.data.text_files import UNREADABLE
from nanochat.system import storage
from nanochat.system.errors import UserError

LABELS = (
    "hellaswag_zeroshot",
    "jeopardy",
    "bigbench_qa_wikidata",
    "arc_easy",
    "arc_challenge",
    "copa",
    "commonsense_qa",
    "piqa",
    "openbook_qa",
    "lambada_openai",
    "hellaswag",
    "winograd",
    "winogrande",
    "bigbench_dyck_languages",
    "agi_eval_lsat_ar",
    "bigbench_cs_algorithms",
    "bigbench_operators",
    "bigbench_repeat_copy_logic",
    "squad",
    "coqa",
    "boolq",
    "bigbench_language_identification",
)
# The fields with the contexts and the continuations of each kind, and whether it is a list.
FIELDS = {
    "multiple_choice": (("query", False), ("choices", True)),
    "schema": (("context_options", True), ("continuation", False)),
    "language_modeling": (("context", False), ("continuation", False)),
}


class Example(NamedTuple):
    """A question: (context, continuation) of each option, and which of them is right."""

    options: tuple[tuple[str, str], ...]
    gold: int


@dataclass(frozen=True)
class Task:
    """One of the 22; `missing` says why it has no examples."""

    label: str
    kind: str = ""
    num_fewshot: int = 0
    delimiter: str = " "  # between a context and its continuation
    baseline: float = 0.0  # accuracy of guessing, in [0, 1)
    examples: tuple[Example, ...] = ()
    missing: str = ""


def name(n_tasks: int) -> str:
    """What a mean over so many tasks may be called.

    >>> name(22), name(18)
    ('CORE', 'CORE (18 of 22)')
    """
    return "CORE" if n_tasks == len(LABELS) else f"CORE ({n_tasks} of {len(LABELS)})"


def load_tasks(folder: Path) -> list[Task]:
    """All 22 tasks, in order, of a folder with core_tasks.json or of the unpacked eval bundle.

    A task whose file is not found or damaged is `missing`. Raises UserError for a folder with
    neither layout, a list that makes no sense, and a line that is not a question (file and line).
    """
    # A missing file is common, and the name of the mean says so. A bad line is not: a task scored
    # without it would pass for the whole task.
    if (folder / "core_tasks.json").is_file():
        listed = _listed_here(folder)
        index = folder / "core_tasks.json"
    elif (folder / "core.yaml").is_file():
        listed = _listed_in_bundle(folder)
        index = folder / "core.yaml"
    else:
        raise UserError(
            f"{folder} has no CORE tasks: it must hold core_tasks.json, or core.yaml as unpacked "
            "from eval_bundle.zip"
        )
    tasks: dict[str, Task] = {}
    try:
        for entry in listed:
            label = entry["label"]
            if label not in LABELS or label in tasks:
                why = "twice" if label in tasks else "not one of the 22 CORE tasks"
                raise UserError(f"{index}: {label!r} is {why}; take it out")
            tasks[label] = _load_task(**entry)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{index} is not a list of CORE tasks ({error!r}): fetch it again"
        ) from None
    absent = f"not listed in {index.name}"
    return [tasks.get(label, Task(label, missing=absent)) for label in LABELS]


def _listed_here(folder: Path) -> Iterator[dict[str, Any]]:
    for task in storage.read_json(folder / "core_tasks.json"):
        yield {
            "label": task["label"],
            "kind": task["task_type"],
            "num_fewshot": int(task["num_fewshot"]),
            "delimiter": task["continuation_delimiter"],
            "baseline": float(task["random_baseline_percent"]) / 100,
            # The list names files from the root of the data; they are next to the list.
            "path": folder / Path(task["file"]).name if task["file"] else None,
        }


def _listed_in_bundle(folder: Path) -> Iterator[dict[str, Any]]:
    import yaml  # slow to load, and only this layout needs it

    try:
        listed = yaml.safe_load((folder / "core.yaml").read_text(encoding="utf-8"))["icl_tasks"]
        with open(folder / "eval_meta_data.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{folder} is not a whole eval bundle ({reason}): unpack it again"
        ) from None
    baselines = {row["Eval Task"]: row["Random baseline"] for row in rows}
    for task in listed:
        yield {
            "label": task["label"],
            "kind": task["icl_task_type"],
            "num_fewshot": int(task["num_fewshot"][0]),
            "delimiter": task.get("continuation_delimiter", " "),
            "baseline": float(baselines[task["label"]]) / 100,
            "path": folder / "eval_data" / task["dataset_uri"],
        }


def _load_task(
    label: str, kind: str, num_fewshot: int, delimiter: str, baseline: float, path: Path | None
) -> Task:
    if kind not in FIELDS:
        raise ValueError(f"{label} has the type {kind!r}, not one of {', '.join(FIELDS)}")
    if num_fewshot < 0 or not 0 <= baseline < 1:
        raise ValueError(f"{label}: {num_fewshot} shots, a baseline of {baseline:.0%}")
    if path is None:
        return Task(label, missing="no file is listed for it")
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return Task(label, missing=f"{path.name} not found")
    except UNREADABLE as error:
        return Task(label, missing=f"{path.name} can't be read ({error})")
    examples = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                examples.append(read_example(json.loads(line.decode("utf-8")), kind))
            except ValueError as error:
                raise UserError(f"{path} line {number}: {error}") from None
    if not examples:
        return Task(label, missing=f"{path.name} is empty")
    return Task(label, kind, num_fewshot, delimiter, baseline, tuple(examples))


def read_example(line: Any, kind: str) -> Example:
    """A line of a task's file. Raises ValueError that says what such a line must have.

    >>> read_example({"query": "2 + 2 =", "choices": ["4", "5"], "gold": 0}, "multiple_choice")
    Example(options=(('2 + 2 =', '4'), ('2 + 2 =', '5')), gold=0)
    """
    if not isinstance(line, dict):
        raise ValueError("a question must be a JSON object")
    contexts, continuations = (_texts(line, *field) for field in FIELDS[kind])
    if contexts is None or continuations is None:
        needed = " and ".join(key + " (texts)" * a_list for key, a_list in FIELDS[kind])
        raise ValueError(f"a {kind} question needs {needed}")
    if not all(text.strip() for text in continuations):
        raise ValueError("a continuation is empty")
    if kind == "language_modeling":
        return Example(((contexts[0].strip(), continuations[0]),), 0)
    # One of the two lists has a single entry, so the product is one option per entry of the other.
    options = tuple((context, rest) for context in contexts for rest in continuations)
    gold = line.get("gold")
    if type(gold) is not int or len(options) < 2 or not 0 <= gold < len(options):
        raise ValueError(f"gold={gold!r} must be the number, from 0, of one of 2 or more options")
    return Example(options, gold)


def _texts(line: dict[str, Any], key: str, a_list: bool) -> list[str] | None:
    """The text or texts of a field; None where it holds something else."""
    found = line.get(key)
    texts = found if a_list else [found]
    if isinstance(texts, list) and all(isinstance(text, str) for text in texts):
        return texts
    return None
