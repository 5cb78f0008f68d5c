"""Documents to batches: rows of token ids, every token used, and a position to go on from.

Two ways to fill rows. `packed_rows` (base, mid) joins documents end to end and cuts the stream:
no token is lost, none is padding. `whole_rows` (SFT) puts whole conversations into a row as long
as they fit and leaves the rest of it unsupervised.

A position is plain JSON. Rows come one after another, whatever the batch size, so 4 x 1 rows are
the same rows as 1 x 4.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nanochat.conversation import Conversation, render
from nanochat.data.shards import Cursor, WaitFor, read_texts
from nanochat.system.errors import Failure, UserError
from nanochat.tokenizer import Tokenizer

IGNORED = -1  # target of a position that teaches nothing
# Documents read side by side, a row from each in turn. A long document would otherwise fill whole
# batches, and consecutive steps would learn from one page of one book.
MAX_LANES = 64
BATCHES_AHEAD = 4
CANDIDATES = 16  # conversations to choose from when a row is filled
DOCUMENTS_PER_CALL = 64  # tokenised together; larger calls make the first batch late

Position = dict[str, Any]


class Document(NamedTuple):
    """Token ids with where they came from; mask None: all of them are supervised."""

    cursor: Cursor
    ids: list[int]
    mask: list[int] | None = None


class Row(NamedTuple):
    """T + 1 ids and their targets' mask, and the position after this row."""

    ids: list[int]
    mask: list[int]
    position: Position


class Batch(NamedTuple):
    """inputs and targets (B, T) int64; n_valid targets are supervised, the others are IGNORED."""

    inputs: Tensor
    targets: Tensor
    n_valid: int
    position: Position


Reader = Callable[[Cursor | None], Iterator[Document]]


def text_reader(shards: tuple, tokenizer: Tokenizer, wait_for: WaitFor | None = None) -> Reader:
    """Documents of text shards, each begun by <|bos|>, epoch after epoch."""

    def read(start: Cursor | None) -> Iterator[Document]:
        texts = read_texts(shards, start, wait_for)
        if start is not None:  # a lane that is resumed wants one document, at once
            cursor, text = next(texts)
            yield Document(cursor, [tokenizer.bos, *tokenizer.encode(text)])
        while True:
            some = [next(texts) for _ in range(DOCUMENTS_PER_CALL)]
            for (cursor, _), ids in zip(
                some, tokenizer.encode_batch([text for _, text in some]), strict=True
            ):
                yield Document(cursor, [tokenizer.bos, *ids])

    return read


def conversation_reader(
    conversations: Sequence[Conversation], tokenizer: Tokenizer, max_tokens: int | None = None
) -> Reader:
    """Rendered conversations in order, epoch after epoch; longer ones are cut at a turn."""
    assert len(conversations) > 0, "nothing to read would be read for ever"

    def read(start: Cursor | None) -> Iterator[Document]:
        epoch, first = start or [0, 0]
        while True:
            for i in range(first, len(conversations)):
                yield Document([epoch, i], *render(conversations[i], tokenizer, max_tokens))
            epoch, first = epoch + 1, 0

    return read


class _Lane:
    """One of the documents read side by side: where it is, and its tokens that are not used yet."""

    def __init__(self) -> None:
        self.cursor: Cursor | None = None  # of the last document in the buffer
        self.ids: list[int] = []
        self.last_length = 0  # of that document, whole

    def add(self, document: Document) -> None:
        self.cursor, self.last_length = document.cursor, len(document.ids)
        self.ids += document.ids

    def saved(self) -> list:
        """[cursor, offset]: the buffer is always the end of one document."""
        return [self.cursor, self.last_length - len(self.ids)]


def lanes_for(num_documents: int) -> int:
    """How many documents to read side by side; few where a corpus is few documents.

    >>> lanes_for(3), lanes_for(160), lanes_for(10**6)
    (1, 10, 64)
    """
    return max(1, min(MAX_LANES, num_documents // 16))


def packed_rows(
    read: Reader,
    max_seq_len: int,
    lanes: int = 1,
    position: Position | None = None,
    min_tokens: int | None = 0,
) -> Iterator[Row]:
    """Rows of max_seq_len + 1 ids from documents joined end to end; the last id of a row is the
    first of the next one in its lane, so every token is a target exactly once.

    Raises UserError where a whole epoch does not fill one row, or has fewer than min_tokens;
    None: the little that there is is repeated.
    """
    state = [_Lane() for _ in range(position["rows"]["lanes"] if position else lanes)]
    turn, next_cursor = 0, None
    if position is not None:
        rows = position["rows"]
        turn, next_cursor = rows["turn"], rows["next"]
        for lane, (cursor, offset) in zip(state, rows["state"], strict=True):
            if cursor is not None:
                lane.add(next(read(cursor)))
                del lane.ids[:offset]
    documents = read(next_cursor)
    if next_cursor is not None:
        next(documents)  # it was used already: `next` names the last document taken
    least = 0 if min_tokens is None else max(max_seq_len + 1, min_tokens)
    taken, tokens_taken, first_epoch = next_cursor, 0, position is None
    while True:
        lane = state[turn]
        while len(lane.ids) < max_seq_len + 1:
            document = next(documents)
            if first_epoch and document.cursor[0] > 0:
                first_epoch = False
                if tokens_taken < least:
                    of_a_step = least > max_seq_len + 1
                    raise UserError(
                        f"the text has {tokens_taken} tokens, and {least} are needed for one "
                        f"{'step' if of_a_step else 'row'}: add text, or set a smaller "
                        f"{'TOTAL_BATCH_SIZE' if of_a_step else 'MAX_SEQ_LEN'}"
                    )
            taken = document.cursor
            tokens_taken += len(document.ids)
            lane.add(document)
        ids = lane.ids[: max_seq_len + 1]
        del lane.ids[:max_seq_len]
        turn = (turn + 1) % len(state)
        saved = {
            "lanes": len(state),
            "turn": turn,
            "next": taken,
            "state": [lane.saved() for lane in state],
        }
        yield Row(ids, [1] * len(ids), {"rows": saved, "epoch": taken[0] if taken else 0})


def whole_rows(read: Reader, max_seq_len: int, position: Position | None = None) -> Iterator[Row]:
    """Rows of whole conversations, as many as fit, the rest unsupervised.

    A row takes the one that has waited longest, then the longest of those waiting that still fit:
    rows are nearly full, and nothing waits for ever. The reader must cut at max_seq_len + 1 tokens.
    """
    waiting: list[Document] = []
    last_read: Cursor | None = None
    if position is not None:
        waiting = [next(read(cursor)) for cursor in position["waiting"]]
        last_read = position["next"]
    documents = read(last_read)
    if last_read is not None:
        next(documents)  # it was taken already
    while True:
        while len(waiting) < CANDIDATES:
            waiting.append(next(documents))
            last_read = waiting[-1].cursor
        ids, mask, space = [], [], max_seq_len + 1
        chosen: Document | None = waiting[0]
        while chosen is not None:
            waiting = [document for document in waiting if document is not chosen]
            ids += chosen.ids
            mask += chosen.mask or [1] * len(chosen.ids)
            space -= len(chosen.ids)
            fitting = (document for document in waiting if len(document.ids) <= space)
            chosen = max(fitting, key=lambda document: len(document.ids), default=None)
        ids += [ids[0]] * space
        mask += [0] * space
        saved = {"waiting": [document.cursor for document in waiting], "next": last_read}
        yield Row(ids, mask, {**saved, "epoch": last_read[0] if last_read else 0})


def batches(rows: Iterable[Row], batch_size: int) -> Iterator[Batch]:
    """Stack rows to batches; a row without any supervised token is passed over."""
    iterator = _supervised_rows(rows)
    while True:
        some = [row for _, row in zip(range(batch_size), iterator, strict=False)]
        if len(some) < batch_size:
            return
        ids = torch.tensor([row.ids for row in some])
        mask = torch.tensor([row.mask for row in some], dtype=torch.bool)[:, 1:]
        targets = ids[:, 1:].masked_fill(~mask, IGNORED)
        yield Batch(ids[:, :-1].contiguous(), targets, int(mask.sum()), some[-1].position)


def _supervised_rows(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows with a supervised target. Raises UserError where a whole epoch has none."""
    since = None
    for row in rows:
        if any(row.mask[1:]):
            since = None
            yield row
        elif since is None:
            since = row.position["epoch"]
        elif row.position["epoch"] > since + 1:
            raise UserError(
                f"no conversation has an answer within {len(row.ids)} tokens, so there is nothing "
                "to learn: add shorter ones or set a larger MAX_SEQ_LEN"
            )


class Prefetcher:
    """An iterator whose items are made in a background thread, a few ahead of their use.

    Order and items are those of the iterator itself. An exception in the thread comes out here,
    after the items before it and as often as one asks; what is no Exception becomes a Failure.
    """

    def __init__(self, items: Iterator[Batch], depth: int = BATCHES_AHEAD) -> None:
        self._queue: queue.Queue = queue.Queue(maxsize=depth)
        self._stopped = threading.Event()
        self._ended: Exception | None = None
        self._thread = threading.Thread(target=self._fill, args=(items,), daemon=True)
        self._thread.start()

    def _fill(self, items: Iterator[Batch]) -> None:
        try:
            for item in items:
                if not self._put((item, None)):
                    return
            self._put((None, StopIteration()))
        except Exception as error:
            self._put((None, error))
        except BaseException as error:  # a panic in an extension: nobody may wait for ever
            self._put((None, Failure(f"reading the data ended: {type(error).__name__}: {error}")))

    def _put(self, item: tuple) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._ended is not None:
            raise self._ended
        # In slices, since a wait without an end hears no signal on every system.
        while True:
            with contextlib.suppress(queue.Empty):
                item, self._ended = self._queue.get(timeout=0.2)
                break
            if not self._thread.is_alive() and self._queue.empty():
                self._ended = Failure("the thread that reads the data is gone")
                raise self._ended
        if self._ended is not None:
            raise self._ended
        return item

    def close(self) -> None:
        """Stop the thread."""
        self._stopped.set()
        self._thread.join(timeout=5)
