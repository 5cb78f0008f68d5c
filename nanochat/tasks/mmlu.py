"""MMLU: 57 school and university subjects, four choices each (arXiv 2009.03300)."""

from __future__ import annotations

from nanochat.tasks import multiple_choice

TASK = multiple_choice.task(
    "mmlu",
    guess=1 / 4,
    hub_repo="cais/mmlu",
    hub_files={"train": "auxiliary_train/train-*.parquet", "test": "all/test-*.parquet"},
    # A folder has the five development questions of each subject to learn the format from.
    folder_files={
        "train": "evals/chat/mmlu_dev.jsonl.gz",
        "test": "evals/chat/mmlu_test.jsonl.gz",
    },
    shares={"mid": 2},
)
