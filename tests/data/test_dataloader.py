"""Rows and batches: no token lost, every position resumes, nothing spins."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.conversation import Conversation, render
from nanochat.data.dataloader import (
    IGNORED,
    Batch,
    Document,
    Position,
    Prefetcher,
    Row,
    batches,
    conversation_reader,
    lanes_for,
    packed_rows,
    text_reader,
    whole_rows,
)
from nanochat.data.dataset import write_shard
from nanochat.system.errors import Failure, UserError
from nanochat.tokenizer import Tokenizer

SEQ = 16
RowsFrom = Callable[[Position | None], Iterator[Row]]


def reader_of(documents: list[list[int]]):
    """A reader of these ids, epoch after epoch."""

    def read(start):
        epoch, first = start or [0, 0]
        for number in itertools.count(epoch):
            for i in range(first, len(documents)):
                yield Document([number, i], documents[i])
            first = 0

    return read


def take(rows: Iterator, count: int) -> list:
    return list(itertools.islice(rows, count))


def talk(question: str, answer: str) -> Conversation:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


@pytest.fixture
def shards(tmp_path: Path) -> tuple[Path, ...]:
    """Two shards of 7 documents, of lengths between nothing and several rows."""
    texts = [f"{number} stones. " * (number * 7 % 11) for number in range(14)]
    for i in range(2):
        write_shard(tmp_path / f"shard_{i:05d}.parquet", texts[7 * i : 7 * i + 7])
    return tuple(sorted(tmp_path.glob("shard_*.parquet")))


@pytest.fixture
def talks() -> list[Conversation]:
    return [
        talk(f"How many? {'x' * (i * 5 % 13)}", "So many. " * (i * 3 % 8)) for i in range(1, 12)
    ]


# ---- packing keeps every token


def stream_of(documents: list[list[int]], epochs: int) -> list[int]:
    return [i for _ in range(epochs) for ids in documents for i in ids]


def joined(rows: list[Row]) -> list[int]:
    """Rows of one lane as one stream; each begins with the last id of the one before."""
    ids = rows[0].ids[:1]
    for row in rows:
        assert row.ids[0] == ids[-1]
        assert len(row.ids) == len(row.mask) == SEQ + 1
        ids += row.ids[1:]
    return ids


documents_of_ids = st.lists(
    st.lists(st.integers(0, 999), min_size=1, max_size=60), min_size=1
).filter(lambda documents: sum(map(len, documents)) > SEQ)


@settings(max_examples=100, deadline=None)
@given(documents=documents_of_ids)
def test_one_lane_keeps_every_token_in_order(documents: list[list[int]]) -> None:
    total = sum(map(len, documents))
    rows = take(packed_rows(reader_of(documents), SEQ), 2 * total // SEQ + 1)
    found = joined(rows)
    assert len(found) >= 2 * total, "two epochs at least"
    assert found == stream_of(documents, 4)[: len(found)]
    assert all(row.mask == [1] * (SEQ + 1) for row in rows)


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(1, 60), min_size=3, max_size=30), lanes=st.integers(2, 4))
def test_lanes_keep_every_document_whole_and_once_an_epoch(lengths: list[int], lanes: int) -> None:
    if sum(lengths) <= SEQ:
        lengths[0] += SEQ
    # Each id names its document and its place in it; the id is unique within an epoch.
    documents = [[1000 * i + k for k in range(length)] for i, length in enumerate(lengths)]
    rows = take(
        packed_rows(reader_of(documents), SEQ, lanes), lanes * (2 * sum(lengths) // SEQ + 1)
    )
    taken: list[int] = []
    for lane in range(lanes):
        ids = joined(rows[lane::lanes])
        at = 0
        while at < len(ids):
            document = ids[at] // 1000
            assert ids[at : at + lengths[document]] == documents[document][: len(ids) - at]
            taken.append(document)
            at += lengths[document]
    assert len(taken) >= 2 * len(documents)
    counts = [taken.count(document) for document in range(len(documents))]
    assert max(counts) - min(counts) <= 1, "nothing is read again before all was read"


def test_text_on_disk_is_packed_whole(shards: tuple[Path, ...], tokenizer: Tokenizer) -> None:
    import pyarrow.parquet as pq

    texts = [text for path in shards for text in pq.read_table(path)["text"].to_pylist()]
    expected = [i for text in texts for i in (tokenizer.bos, *tokenizer.encode(text))]
    rows = take(packed_rows(text_reader(shards, tokenizer), SEQ), 2 * len(expected) // SEQ)
    found = joined(rows)
    assert found == (expected * 3)[: len(found)]
    epochs = [row.position["epoch"] for row in rows]
    assert epochs[0] == 0
    assert sorted(epochs) == epochs
    assert epochs[-1] == 1


# ---- a run resumes from any position


@pytest.fixture(
    params=["text, 1 lane", "text, 3 lanes", "talks, 1 lane", "talks, 3 lanes", "whole"]
)
def rows_from(request, shards, talks, tokenizer) -> RowsFrom:
    kind, _, lanes = request.param.partition(", ")
    if kind == "whole":
        read = conversation_reader(talks, tokenizer, 40 + 1)
        return lambda position: whole_rows(read, 40, position)
    read = (
        text_reader(shards, tokenizer) if kind == "text" else conversation_reader(talks, tokenizer)
    )
    return lambda position: packed_rows(read, SEQ, int(lanes[0]), position)


def test_resuming_at_any_row_gives_the_same_rows(rows_from: RowsFrom) -> None:
    straight = take(rows_from(None), 150)
    assert straight[-1].position["epoch"] >= 1, "the end of an epoch is among the rows"
    for at in range(0, 120):
        position = json.loads(json.dumps(straight[at].position))
        assert take(rows_from(position), 30) == straight[at + 1 : at + 31], f"after row {at}"


def test_resuming_again_and_again(rows_from: RowsFrom) -> None:
    position, rows = None, []
    for _ in range(60):
        row = next(rows_from(position))
        position = json.loads(json.dumps(row.position))
        rows.append(row)
    assert rows == take(rows_from(None), 60)


def without_turn(rows: dict) -> None:
    rows["turn"] = 0


def without_offsets(rows: dict) -> None:
    rows["state"] = [[cursor, 0] for cursor, _ in rows["state"]]


def without_lane_documents(rows: dict) -> None:
    rows["state"] = [[None, 0] for _ in rows["state"]]


def without_next(rows: dict) -> None:
    rows["next"] = None


@pytest.mark.parametrize(
    "forget", [without_turn, without_offsets, without_lane_documents, without_next]
)
def test_control_every_part_of_a_position_is_needed(
    shards: tuple[Path, ...], tokenizer: Tokenizer, forget: Callable
) -> None:
    read = text_reader(shards, tokenizer)
    straight = take(packed_rows(read, SEQ, 3), 60)
    position = json.loads(json.dumps(straight[9].position))
    assert take(packed_rows(read, SEQ, 3, position), 40) == straight[10:50]
    forget(position["rows"])
    assert take(packed_rows(read, SEQ, 3, position), 40) != straight[10:50]


# ---- batches


def test_four_batches_of_one_are_one_of_four(rows_from: RowsFrom) -> None:
    ones, fours = batches(rows_from(None), 1), batches(rows_from(None), 4)
    for four in take(fours, 12):
        some = take(ones, 4)
        assert torch.equal(torch.cat([one.inputs for one in some]), four.inputs)
        assert torch.equal(torch.cat([one.targets for one in some]), four.targets)
        assert sum(one.n_valid for one in some) == four.n_valid
        assert some[-1].position == four.position


def test_inputs_and_targets_are_one_apart() -> None:
    rows = [
        Row([1, 2, 3, 4], [0, 0, 1, 1], {"epoch": 0}),
        Row([5, 6, 7, 8], [1, 1, 0, 0], {"epoch": 0}),
    ]
    (batch,) = batches(rows, 2)
    assert batch.inputs.tolist() == [[1, 2, 3], [5, 6, 7]]
    assert batch.targets.tolist() == [[IGNORED, 3, 4], [6, IGNORED, IGNORED]]
    assert batch.n_valid == 3
    assert batch.inputs.dtype == batch.targets.dtype == torch.int64


def test_resuming_after_a_batch(rows_from: RowsFrom) -> None:
    straight = take(batches(rows_from(None), 3), 20)
    resumed = take(batches(rows_from(straight[6].position), 3), 13)
    for one, other in zip(straight[7:], resumed, strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.targets, other.targets)
        assert one.position == other.position


# ---- whole conversations


def talks_in(rows: list[Row], bos: int) -> list[list[int]]:
    """The conversations in the rows, without padding (a lone bos)."""
    found: list[list[int]] = []
    for row in rows:
        for token in row.ids:
            if token == bos:
                found.append([])
            found[-1].append(token)
    return [ids for ids in found if len(ids) > 1]


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 60)), min_size=1, max_size=20))
def test_whole_rows_lose_no_conversation(tokenizer: Tokenizer, sizes: list) -> None:
    length = 48
    talks = [talk("?" + "é" * (a // 2), "z" * b) for a, b in sizes]
    read = conversation_reader(talks, tokenizer, length + 1)
    rows = []
    for row in whole_rows(read, length):
        rows.append(row)
        if row.position["next"] and row.position["next"][0] > 1:
            break
    # What was read and is not waiting was given once: nothing is lost, nothing twice.
    waiting = [render(talks[i], tokenizer, length + 1).ids for _, i in row.position["waiting"]]
    epoch, last = row.position["next"]
    read_whole = [render(one, tokenizer, length + 1).ids for one in talks]
    everything = read_whole * epoch + read_whole[: last + 1]
    assert sorted(talks_in(rows, tokenizer.bos) + waiting) == sorted(everything)
    for row in rows:
        assert len(row.ids) == len(row.mask) == length + 1
        assert row.ids[0] == tokenizer.bos


def test_whole_rows_mask_is_the_conversations(tokenizer: Tokenizer) -> None:
    one, other = talk("How many of them?", "Three of them."), talk("Why?", "So.")
    a, b = render(one, tokenizer), render(other, tokenizer)
    length = len(a.ids) + len(b.ids) + 3  # four positions of padding
    row = next(
        whole_rows(conversation_reader([one, other, talk("a" * 60, "b")], tokenizer), length)
    )
    assert row.ids == [*a.ids, *b.ids, *[tokenizer.bos] * 4]
    assert row.mask == [*a.mask, *b.mask, 0, 0, 0, 0]


def test_rows_are_nearly_full(tokenizer: Tokenizer) -> None:
    talks = [talk("?" * (1 + 7 * i % 23), "z" * (1 + 5 * i % 31)) for i in range(100)]
    length = 96
    rows = take(whole_rows(conversation_reader(talks, tokenizer, length + 1), length), 60)
    used = sum(len(ids) for ids in talks_in(rows, tokenizer.bos))
    assert used > 0.95 * 60 * (length + 1)
    full, space = [], length + 1  # the control: taken in order, the rows are emptier
    for one in talks:
        ids = render(one, tokenizer).ids
        if len(ids) > space:
            full.append(length + 1 - space)
            space = length + 1
        space -= len(ids)
    assert sum(full) < 0.9 * len(full) * (length + 1)


def test_a_row_takes_a_conversation_that_just_fits(tokenizer: Tokenizer) -> None:
    ids = render(talk("How?", "So."), tokenizer).ids
    read = conversation_reader([talk("How?", "So.")], tokenizer, len(ids))
    assert next(whole_rows(read, len(ids) - 1)).ids == ids


def test_longer_conversations_are_cut_at_a_turn(tokenizer: Tokenizer) -> None:
    short, long = talk("How?", "So."), talk("How?", "So.") * 30
    length = 40
    rows = take(whole_rows(conversation_reader([long, short], tokenizer, length + 1), length), 6)
    end = tokenizer.special["<|assistant_end|>"]
    for ids in talks_in(rows, tokenizer.bos):
        assert ids[-1] == end
    lengths = {len(ids) for ids in talks_in(rows, tokenizer.bos)}
    assert lengths == {len(render(short, tokenizer).ids), len(render(long, tokenizer, 41).ids)}


def test_every_batch_teaches_something(tokenizer: Tokenizer) -> None:
    """A question that fills a row leaves nothing to learn in it; such a row is left out."""
    talks = [talk("?" * 50, "never read"), talk("How?", "So."), talk("!?" * 30, "nor this")]
    for size in (1, 2):
        read = conversation_reader(talks, tokenizer, 24 + 1)
        for batch in take(batches(whole_rows(read, 24), size), 10):
            assert (batch.targets != IGNORED).any(dim=1).all()
            assert batch.n_valid == int((batch.targets != IGNORED).sum()) > 0


# ---- nothing spins


@pytest.mark.parametrize("lanes", [1, 3])
def test_a_corpus_smaller_than_a_row_is_refused(
    tmp_path: Path, tokenizer: Tokenizer, lanes: int
) -> None:
    write_shard(tmp_path / "shard_00000.parquet", ["a few words", "", "more"])
    read = text_reader((tmp_path / "shard_00000.parquet",), tokenizer)
    tokens = sum(1 + len(tokenizer.encode(text)) for text in ("a few words", "", "more"))
    with pytest.raises(UserError, match=f"^the text has {tokens} tokens, and 65 are ") as error:
        next(packed_rows(read, 64, lanes))
    assert "\n" not in str(error.value)
    assert "set a smaller MAX_SEQ_LEN" in str(error.value)
    (row,) = take(packed_rows(read, 64, lanes, min_tokens=None), 1)
    assert len(row.ids) == 65, "or it is repeated"
    assert len(next(packed_rows(read, tokens - 1, lanes)).ids) == tokens, "just one row"
    with pytest.raises(UserError, match=f"has {tokens} tokens, and {tokens + 1} are needed"):
        list(islice(packed_rows(read, 8, lanes, None, tokens + 1), tokens))


@pytest.mark.timeout(20)
def test_conversations_without_answers_are_refused(tokenizer: Tokenizer) -> None:
    talks = [talk("z" * 99, "never read"), [{"role": "user", "content": "alone"}]]
    read = conversation_reader(talks, tokenizer, 24 + 1)
    with pytest.raises(UserError, match="no conversation has an answer within 25 tokens"):
        next(batches(whole_rows(read, 24), 2))


@pytest.mark.timeout(20)
def test_nothing_to_read_is_an_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(AssertionError):
        next(text_reader((), tokenizer)(None))
    with pytest.raises(AssertionError):
        next(conversation_reader([], tokenizer)(None))


def test_lanes_for_small_and_large_corpora() -> None:
    assert [lanes_for(n) for n in (0, 1, 15, 32, 10**9)] == [1, 1, 1, 2, 64]


# ---- the background thread


def batch_of(number: int) -> Batch:
    return Batch(torch.tensor([[number]]), torch.tensor([[number]]), 1, {"epoch": number})


def ended(ahead: Prefetcher) -> bool:
    ahead._thread.join(timeout=10)
    return not ahead._thread.is_alive()


def test_ahead_keeps_the_order_and_ends() -> None:
    ahead = Prefetcher(map(batch_of, range(50)), depth=3)
    assert [batch.position["epoch"] for batch in ahead] == list(range(50))
    assert list(ahead) == [], "an iterator that has ended stays ended"
    assert ended(ahead)


def test_ahead_reads_no_further_than_its_depth() -> None:
    made: list[int] = []
    enough = threading.Event()

    def items() -> Iterator[Batch]:
        for number in itertools.count():
            made.append(number)
            if len(made) == 4:
                enough.set()
            yield batch_of(number)

    ahead = Prefetcher(items(), depth=3)
    assert enough.wait(timeout=10), "three in the queue, and the one that waits for room"
    assert next(ahead).position == {"epoch": 0}
    ahead.close()
    assert len(made) <= 6
    assert ended(ahead)


class ReadingFailed(Exception):
    pass


@pytest.mark.timeout(20)
def test_an_exception_in_the_thread_comes_out() -> None:
    def items() -> Iterator[Batch]:
        yield batch_of(0)
        yield batch_of(1)
        raise ReadingFailed("shard 7")

    ahead = Prefetcher(items())
    assert [next(ahead).position["epoch"] for _ in range(2)] == [0, 1]
    for _ in range(2):
        with pytest.raises(ReadingFailed, match="shard 7"):
            next(ahead)
    assert ended(ahead)


class Panic(BaseException):
    """What an extension in Rust raises where it gives up: no Exception."""


@pytest.mark.timeout(20)
def test_whatever_ends_the_thread_ends_the_wait() -> None:
    def items() -> Iterator[Batch]:
        yield batch_of(0)
        raise Panic("at a million blanks")

    ahead = Prefetcher(items())
    assert next(ahead).position == {"epoch": 0}
    for _ in range(2):
        with pytest.raises(Failure, match="reading the data ended: Panic: at a million blanks"):
            next(ahead)
    silent = Prefetcher(iter(()))
    ended(silent)
    silent._queue.get()  # as if it had died without a word
    for _ in range(2):
        with pytest.raises(Failure, match="is gone"):
            next(silent)


def test_a_mistake_of_the_users_comes_out_of_the_thread(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    write_shard(tmp_path / "shard_00000.parquet", ["a few words"])
    read = text_reader((tmp_path / "shard_00000.parquet",), tokenizer)
    ahead = Prefetcher(batches(packed_rows(read, 64), 1))
    with pytest.raises(UserError, match=r"^the text has "):
        next(ahead)


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_close_ends_the_thread(taken: int) -> None:
    ahead = Prefetcher(map(batch_of, itertools.count()), depth=2)
    take(ahead, taken)
    assert ahead._thread.is_alive()
    ahead.close()
    assert not ahead._thread.is_alive()


def test_ahead_gives_what_the_iterator_gives(rows_from: RowsFrom) -> None:
    ahead = Prefetcher(batches(rows_from(None), 2))
    for one, other in zip(take(ahead, 20), take(batches(rows_from(None), 2), 20), strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.targets, other.targets)
        assert one.position == other.position
    ahead.close()
