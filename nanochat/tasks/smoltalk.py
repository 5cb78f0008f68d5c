"""SmolTalk: conversations on everything, learned from and never asked."""

from __future__ import annotations

from nanochat.tasks.task import Task, require

# No share of its own: together with the conversations of the source it is what data/mixture.py
# calls talk.
TASK = Task(
    "smoltalk",
    # Whether they are a conversation is checked later: the odd one that is not is left out.
    read=lambda row: {"messages": require(row, "messages", object)},
    conversation=lambda row: row["messages"],
    hub_repo="HuggingFaceTB/smol-smoltalk",
    hub_files={"train": "data/train-*.parquet"},
)
