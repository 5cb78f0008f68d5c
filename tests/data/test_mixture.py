"""Who gets how much of what a model learns to say, and in which order."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.data import mixture, task_data, tinyworld
from nanochat.data.dataloader import conversation_reader, packed_rows, whole_rows
from nanochat.data.dataset import Source, find_source
from nanochat.data.mixture import Part
from nanochat.tasks import TASKS, spelling_bee
from nanochat.tokenizer import Tokenizer

NONE = Path("none.parquet")


def characters(talks: list, letter: str) -> int:
    return sum(len(str(m["content"])) for t in talks for m in t if letter in str(m["content"]))


def talks_of(letter: str, lengths: list[int]) -> list:
    return [
        [{"role": "user", "content": letter}, {"role": "assistant", "content": letter * n}]
        for n in lengths
    ]


@pytest.fixture
def world(base_dir: Path, monkeypatch: pytest.MonkeyPatch) -> list:
    found = talks_of("w", [10] * 60)
    monkeypatch.setattr(tinyworld, "conversations", lambda count: found)
    return found


@pytest.mark.parametrize("sizes", [(50, 50), (50, 7), (7, 50), (1, 40), (40, 1)])
def test_equal_shares_are_halves_by_characters(sizes: tuple[int, int]) -> None:
    short, long = talks_of("a", [5, 9] * sizes[0]), talks_of("b", [90, 40] * sizes[1])
    mixed = mixture.interleave([Part(short, 1, 1000), Part(long, 1, 1000)], 10**9)
    assert all(talk in mixed for talk in short + long)
    for end in range(100, len(mixed), 50):
        a, b = (characters(mixed[:end], letter) for letter in "ab")
        assert abs(a - b) <= 91, "at any place, but for one conversation"


def test_shares_are_kept_and_the_length_is_bounded() -> None:
    shares = {"a": 6, "b": 3, "c": 1}
    lists = [Part(talks_of(letter, [20] * 500), share) for letter, share in shares.items()]
    mixed = mixture.interleave(lists, 10_000)
    parts = [characters(mixed, letter) for letter in "abc"]
    assert 10_000 <= sum(parts) < 10_100
    assert [round(part / sum(parts), 1) for part in parts] == [0.6, 0.3, 0.1]


def test_each_is_used_once_before_again() -> None:
    first, second = talks_of("a", list(range(1, 30))), talks_of("b", list(range(1, 12)))
    mixed = mixture.interleave([Part(first, 1), Part(second, 1)], 10**9)
    for own in (first, second):
        found = [talk for talk in mixed if talk in own]
        assert found == (own * 9)[: len(found)]
        assert len(found) >= len(own)


@pytest.mark.parametrize("own", ["tinyworld", "a folder without conversations"])
def test_without_other_conversations_it_is_tinyworlds(tmp_path: Path, own: str) -> None:
    source = Source("tinyworld" if own == "tinyworld" else str(tmp_path), (), NONE)
    train, held_out = mixture.conversations_of(source, "mid", 10**9)
    assert [train[i] for i in range(50)] == tinyworld.conversations(50)
    assert held_out == tinyworld.validation_conversations()


def test_half_of_a_small_stage_is_tinyworlds(world: list, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(map(json.dumps, talks_of("m", list(range(1, 40))))))
    source = Source(str(tmp_path), (), NONE, (path,))
    for tokens in (None, 1000, 19_999_999):
        mixed, held_out = mixture.conversations_of(source, "mid", tokens)
        own = {len(t[1]["content"]) for t in mixed + held_out if "m" in t[0]["content"]}
        assert own == set(range(1, 40))
        assert abs(characters(mixed, "m") - characters(mixed, "w")) <= 40
    large, _ = mixture.conversations_of(source, "mid", 20_000_000)
    assert characters(large, "w") == 0
    assert characters(large, "m") > 0


def hub_file(base: Path, repo: str, name: str, rows: list[dict]) -> None:
    path = base / "task_data" / repo.replace("/", "--") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def rows_of(task: str, split: str, data: str) -> list[dict]:
    return task_data.rows(TASKS[task], split, Source(data, (), NONE))


def choice(answer: int) -> dict:
    return {"question": "q", "choices": ["x", "y", "z", "u"], "answer": answer}


def test_the_hubs_tasks_get_their_shares(
    world: list, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(spelling_bee.COUNTS, "train", 200)
    talk = [{"role": "user", "content": "t"}, {"role": "assistant", "content": "t" * 300}]
    hub_file(
        base_dir,
        "HuggingFaceTB/smol-smoltalk",
        "data/train-00000-of-00001.parquet",
        [{"messages": talk}] * 50,
    )
    rows = [{"train": choice(i % 4)} for i in range(200)]
    hub_file(base_dir, "cais/mmlu", "auxiliary_train/train-00000-of-00001.parquet", rows)
    sums = [{"question": "2 and 3?", "answer": "<<2+3=5>>5\n#### 5"}] * 90
    hub_file(base_dir, "openai/gsm8k", "main/train-00000-of-00001.parquet", sums)
    mixed, _ = mixture.conversations_of(Source("fineweb", (), NONE), "mid", None)
    total = sum(len(str(m["content"])) for talk in mixed for m in talk)
    assert characters(mixed, "www") / total == pytest.approx(0.5, abs=0.1)
    assert characters(mixed, "ttt") / total == pytest.approx(0.3, abs=0.05)
    choices = [talk for talk in mixed if "=A" in str(talk[0]["content"])]
    share = sum(len(str(m["content"])) for talk in choices for m in talk) / total
    assert share == pytest.approx(0.1, abs=0.03)
    assert {talk[1]["content"] for talk in choices} == set("ABCD")
    assert any(
        part["type"] == "python_output"
        for talk in mixed
        if talk[0]["content"] == "2 and 3?"
        for part in talk[1]["content"]
    )


def test_rows_of_the_hub_have_one_shape(base_dir: Path) -> None:
    choices = {"text": ["a", "b", "c"], "label": ["1", "2", "3"]}
    hub_file(
        base_dir,
        "allenai/ai2_arc",
        "ARC-Easy/test-00000-of-00001.parquet",
        [{"question": "q", "choices": choices, "answerKey": "3"}],
    )
    assert rows_of("arc_easy", "test", "fineweb") == [
        {"question": "q", "choices": ["a", "b", "c"], "answer": 2}
    ]
    assert rows_of("arc_challenge", "test", "fineweb") == []
    assert rows_of("arc_easy", "train", "fineweb") == []


def test_a_damaged_file_of_the_hub_is_named(base_dir: Path) -> None:
    path = base_dir / "task_data" / "openai--gsm8k" / "main" / "test-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PAR1")
    with pytest.raises(task_data.UserError, match=r"test-00000-of-00001.parquet is damaged"):
        rows_of("gsm8k", "test", "fineweb")


def test_a_damaged_line_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "evals" / "chat").mkdir(parents=True)
    with gzip.open(tmp_path / "evals" / "chat" / "gsm8k_test.jsonl.gz", "wt") as file:
        file.write('{"question": "q", "answer": "a"}\n{"question\n')
    with pytest.raises(task_data.UserError, match=r"gsm8k_test.jsonl.gz line 2"):
        rows_of("gsm8k", "test", str(tmp_path))


def test_the_shared_folder_has_its_tasks(shared_data: Path) -> None:
    data = str(shared_data)
    for task, split, least in (
        ("gsm8k", "train", 7000),
        ("gsm8k", "test", 1000),
        ("mmlu", "train", 200),
        ("mmlu", "test", 10_000),
        ("arc_easy", "test", 1500),
        ("arc_challenge", "test", 700),
    ):
        found = rows_of(task, split, data)
        assert len(found) >= least
        if task != "gsm8k":
            assert all(0 <= row["answer"] < len(row["choices"]) for row in found)
            assert not any(row["question"].startswith("Question: ") for row in found)
    assert rows_of("smoltalk", "train", data) == []
    assert len(task_data.words(Source(data, (), NONE))) > 100_000


def test_a_small_task_is_not_repeated_forever() -> None:
    parts = [Part(talks_of("a", [10] * 900), 1, 1000), Part(talks_of("b", [10] * 7), 9)]
    mixed = mixture.interleave(parts, 10**9)
    assert sum("b" in talk[0]["content"] for talk in mixed) == 7 * mixture.MAX_REPEATS
    assert sum("a" in talk[0]["content"] for talk in mixed) == 900


@pytest.mark.slow
def test_what_is_held_out_is_never_trained_on(shared_data: Path) -> None:
    source = find_source(str(shared_data))
    train, held_out = mixture.conversations_of(source, "mid", 2_000_000)
    found = {json.dumps(talk) for talk in held_out}
    assert len(found) > 50
    trained = {json.dumps(talk) for talk in train}
    assert len(found & trained) < len(found) / 20  # a few questions stand in a source twice


@pytest.mark.slow
def test_a_smoke_test_has_enough_and_no_long_list(shared_data: Path, tokenizer: Tokenizer) -> None:
    """One small update: enough for rows of it, and for an evaluation of many."""
    train, held_out = mixture.conversations_of(find_source(str(shared_data)), "sft", 256)
    assert sum(len(str(m["content"])) for talk in train for m in talk) < 6 * mixture.MIN_TOKENS
    for talks in (train, held_out):
        packed = packed_rows(conversation_reader(talks, tokenizer), 256)
        whole = whole_rows(conversation_reader(talks, tokenizer, 257), 256)
        for rows in (packed, whole):
            assert [next(rows).position["epoch"] for _ in range(64)] == [0] * 64


@pytest.mark.parametrize("tokens", [1, None, 20_000_000])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_conversations_of_ones_own(
    world: list, tmp_path: Path, count: int, tokens: int | None
) -> None:
    own = talks_of("m", [30, 20][:count])
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, own)))
    source = Source(str(tmp_path), (), NONE, (tmp_path / "mine.jsonl",))
    train, held_out = mixture.conversations_of(source, "mid", tokens)
    found = [talk for talk in own if talk in [train[i] for i in range(len(train))]]
    assert found == own[-1:], "the only one is learned from, of two one is held out"
    assert len(held_out) > 0
    if count == 2:
        assert own[0] in held_out


def test_a_public_row_that_is_not_a_conversation_is_left_out(world: list, base_dir: Path) -> None:
    good = [{"role": "user", "content": "t"}, {"role": "assistant", "content": "t" * 300}]
    rows = [{"messages": good}] * 60 + [{"messages": good[1:]}] * 60
    hub_file(base_dir, "HuggingFaceTB/smol-smoltalk", "data/train-00000-of-00001.parquet", rows)
    train, held_out = mixture.conversations_of(Source("fineweb", (), NONE), "sft", None)
    assert good in train
    assert good[1:] not in train + held_out


def test_a_row_of_another_shape_is_named(base_dir: Path) -> None:
    hub_file(base_dir, "openai/gsm8k", "main/test-00000-of-00001.parquet", [{"question": "q"}])
    message = (
        r"test-00000-of-00001.parquet row 1 is not one of gsm8k's \(test\): it has no 'answer'"
    )
    with pytest.raises(task_data.UserError, match=message):
        rows_of("gsm8k", "test", "fineweb")


def test_split_holds_out_without_overlap() -> None:
    talks = talks_of("a", list(range(1, 201)))
    train, held_out = mixture.split(talks)
    assert len(held_out) == 4
    assert len(train) == 196
    assert not [talk for talk in held_out if talk in train]
