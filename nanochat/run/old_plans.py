"""Plans of before a recipe: they kept each stage's command line. Read so that such runs continue.

Nothing writes them any more. Once nobody has an unfinished run of that time, this file can go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nanochat.run.recipe import given
from nanochat.stages import STAGES, TRAINED
from nanochat.training.stage_config import OptimConfig, Settings


def from_schema_1(whole: Mapping[str, Any]) -> dict[str, Any]:
    """A plan of schema 1 as schema 2 has it."""
    said = {name: value for name, value in whole["variables"].items() if value is not None}
    flags = {
        name: dict(flag.removeprefix("--").split("=", 1) for flag in line)
        for name, line in whole["stages"].items()
    }
    base, budget = flags["base_train"], whole.get("budget", {})
    training = {
        stage.name: {
            "num_iterations": int(flags[stage.name].get("num_iterations", 0)),
            "warmdown": float(flags[stage.name].get("warmdown", stage.warmdown)),
        }
        for stage in TRAINED
        if stage.name in flags
    }
    same = {n: said[n] for n in ("driver", "data", "data_shards", "tokenizer_max_chars")}
    shape = {n: said[n] for n in ("model_tag", "depth", "vocab_size", "max_seq_len")}
    batch = {n: int(base[n]) for n in ("device_batch_size", "total_batch_size", "eval_tokens")}
    recipe = {
        **same,
        **shape,
        **batch,
        "split_tokens": int(flags["base_eval"]["split_tokens"]),
        "memory_gb": int(base["memory_gb"]),
        "matrix_lr": float(base.get("matrix_lr", OptimConfig().matrix_lr)),
        "seed": said.get("seed", Settings.seed),
        "wandb_run": said.get("wandb_run", ""),
        "run_budget_s": budget.get("seconds") or said.get("time_budget_s", 0),
        "training": training,
        "max_seconds": {
            stage.name: int(flags[stage.name]["max_seconds"])
            for stage in STAGES
            if stage.measures and stage.name in flags
        },
    }
    return {
        "recipe": recipe,
        "given": given(said),
        "number": whole.get("number", 0),
        "time": whole["time"],
        "budget_since": budget.get("since") or "",
        "started": whole.get("started", []),
    }
