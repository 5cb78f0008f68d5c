"""SmolTalk: conversations on everything, learned from and never asked."""

from __future__ import annotations

from nanochat.tasks.task import Task, require

# No share of its own: together with the conversations of the source it is what data/mixture.py
# calls talk.
TASK = Task(
    "smoltalk",
    read=lambda row: {"messages": require(row, "messages", list)},
    conversation=lambda row: row["messages"],
    hub_repo="HuggingFaceTB/smol-smoltalk",
    hub_files={"train": "data/train-*.parquet"},
)
