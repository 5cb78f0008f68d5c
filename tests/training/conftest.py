"""A small prepared base dir, and stages run in this process."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nanochat import tokenizer
from nanochat.data import dataset, tinyworld
from nanochat.data.shards import write_shard

TINY = {"max_seq_len": 32, "device_batch_size": 2, "total_batch_size": 128, "eval_tokens": 64}


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base dir with two small shards, a validation shard and a tokenizer of 512."""
    base = tmp_path_factory.mktemp("prepared")
    folder = base / "base_data" / "tinyworld"
    texts = list(itertools.islice(tinyworld.documents(0), 240))
    write_shard(folder / "shard_00000.parquet", texts[:120])
    write_shard(folder / "shard_00001.parquet", texts[120:200])
    write_shard(folder / dataset.VALIDATION, texts[200:])
    tokenizer.train(texts, 512, "tokenizers").save(base / "tokenizer" / "tokenizer.json")
    return base


@pytest.fixture
def base_dir(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, set as NANOCHAT_BASE_DIR."""
    torch.set_num_threads(1)
    base = tmp_path / "base dir"
    shutil.copytree(prepared, base)
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(base))
    return base


@pytest.fixture
def run_stage(base_dir: Path) -> Callable[..., None]:
    """run_stage("base_train", num_iterations=4): the script's main with a tiny model."""
    from scripts import base_train, chat_sft, mid_train

    scripts = {"base_train": base_train, "mid_train": mid_train, "chat_sft": chat_sft}

    def run(name: str, **flags: object) -> None:
        script = scripts[name]
        shape = {**TINY, "depth": 1} if name == "base_train" and not flags.get("resume") else {}
        script.main(script.Config(**{**shape, "device_type": "cpu", **flags}))

    return run
