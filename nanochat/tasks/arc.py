"""ARC: science questions from schools, three to five choices (arXiv 1803.05457)."""

from __future__ import annotations

from nanochat.tasks import multiple_choice
from nanochat.tasks.task import Task


def _task(name: str, subset: str) -> Task:
    return multiple_choice.task(
        name,
        guess=1 / 4,
        hub_repo="allenai/ai2_arc",
        hub_files={split: f"{subset}/{split}-*.parquet" for split in ("train", "test")},
        # CORE's file of the same questions; there is none to learn from.
        folder_files={"test": f"evals/core/{name}.jsonl.gz"},
        shares={"sft": 1},
    )


EASY = _task("arc_easy", "ARC-Easy")
CHALLENGE = _task("arc_challenge", "ARC-Challenge")  # what retrieval and word counts get wrong
