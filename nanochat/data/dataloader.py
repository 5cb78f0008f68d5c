"""Documents to batches: rows of token ids, and the position after each row.

Two ways to fill rows. `packed_rows` (base, mid) joins documents end to end and cuts the stream:
no token is lost, and none is padding. `whole_rows` (SFT) puts whole conversations into a row as
long as they fit and leaves the rest unsupervised.

A position is plain JSON, so it can be saved beside the weights, and a resumed run reads the very
next row. It belongs to a row and not to a batch: 4 x 1 rows are the same rows as 1 x 4.
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

IGNORED = -1  # the target where there is nothing to learn
# Documents read side by side, one row from each in turn. Otherwise a long document would fill whole
# batches, and consecutive steps would learn from one chapter of one book.
MAX_LANES = 64
BATCHES_AHEAD = 4  # hides a slow document; more would only take memory
CANDIDATES = 16  # conversations to choose from when a row is filled

Position = dict[str, Any]


class Document(NamedTuple):
    """Token ids and where they came from. mask None: all of them are supervised."""

    cursor: Cursor
    ids: list[int]
    mask: list[int] | None = None


class Row(NamedTuple):
    """T + 1 ids, a mask of those to learn, and the position after this row."""

    ids: list[int]
    mask: list[int]
    position: Position


class Batch(NamedTuple):
    """inputs and targets (B, T) int64: n_valid targets are supervised, the others IGNORED."""

    inputs: Tensor
    targets: Tensor
    n_valid: int
    position: Position


# Documents from a cursor on, that document included, and without end: after the last one comes the
# next epoch. Resuming is calling it again with the saved cursor.
Reader = Callable[[Cursor | None], Iterator[Document]]


def text_reader(shards: tuple, tokenizer: Tokenizer, wait_for: WaitFor | None = None) -> Reader:
    """Documents of text shards, each with <|bos|> in front, epoch after epoch."""

    def read(start: Cursor | None) -> Iterator[Document]:
        # One text per call: tiktoken's batches start a pool of threads each time, which costs more
        # than a document (2 to 3 times slower on short ones).
        for cursor, text in read_texts(shards, start, wait_for):
            yield Document(cursor, [tokenizer.bos, *tokenizer.encode(text)])

    return read


def conversation_reader(
    conversations: Sequence[Conversation], tokenizer: Tokenizer, max_tokens: int | None = None
) -> Reader:
    """Rendered conversations in order, epoch after epoch; longer ones are cut at a turn."""
    assert len(conversations) > 0, "reading nothing would never end"

    def read(start: Cursor | None) -> Iterator[Document]:
        epoch, first = start or [0, 0]
        while True:
            for i in range(first, len(conversations)):
                yield Document([epoch, i], *render(conversations[i], tokenizer, max_tokens))
            epoch, first = epoch + 1, 0

    return read


class _Lane:
    """One of the documents read side by side: the tokens of it that are not used yet."""

    def __init__(self) -> None:
        self.cursor: Cursor | None = None  # of the last document added
        self.ids: list[int] = []
        self.last_length = 0  # of that document, all of it

    def add(self, document: Document) -> None:
        self.cursor, self.last_length = document.cursor, len(document.ids)
        self.ids += document.ids

    def position(self) -> list:
        """[cursor, offset]. One pair is enough: what is left is always the end of one document,
        since the next one is added only when it runs short."""
        return [self.cursor, self.last_length - len(self.ids)]


def lanes_for(num_documents: int) -> int:
    """How many documents to read side by side; fewer for a small corpus.

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
    """Rows of max_seq_len + 1 ids from documents joined end to end.

    Raises UserError if a whole epoch does not fill one row, or has fewer than min_tokens. With
    min_tokens None, a text that is too short is repeated instead.
    """
    # A new run starts from a position too: all lanes empty, no document taken.
    rows = position["rows"] if position else {"turn": 0, "next": None, "state": [[None, 0]] * lanes}
    state, turn, taken = [_Lane() for _ in rows["state"]], rows["turn"], rows["next"]
    for lane, (cursor, offset) in zip(state, rows["state"], strict=True):
        if cursor is not None:
            # The position has where the tokens came from instead of the tokens themselves: it stays
            # small, at the price of reading one document per lane again.
            lane.add(next(read(cursor)))
            del lane.ids[:offset]
    documents = read(taken)
    if taken is not None:
        next(documents)  # `next` names the last document taken: a lane has it already
    if position is None and min_tokens is not None:
        documents = _enough(documents, max_seq_len + 1, min_tokens)
    while True:
        lane = state[turn]
        while len(lane.ids) < max_seq_len + 1:
            document = next(documents)
            taken = document.cursor
            lane.add(document)
        # T inputs and T targets take T + 1 ids. Only T of them are used up: the last target here is
        # the first input of the lane's next row, so every token is a target exactly once.
        ids = lane.ids[: max_seq_len + 1]
        del lane.ids[:max_seq_len]
        turn = (turn + 1) % len(state)
        saved = {"turn": turn, "next": taken, "state": [lane.position() for lane in state]}
        yield Row(ids, [1] * len(ids), {"rows": saved, "epoch": taken[0] if taken else 0})


def _enough(documents: Iterator[Document], row: int, min_tokens: int) -> Iterator[Document]:
    """The documents as they are. Raises UserError if the first epoch has too few tokens.

    Nothing would fail otherwise: a model can read one page ten thousand times. It would learn it by
    heart, with a beautiful loss.
    """
    tokens, needed = 0, max(row, min_tokens)
    for document in documents:
        if document.cursor[0] > 0:
            if tokens < needed:
                unit, name = (
                    ("row", "MAX_SEQ_LEN") if needed == row else ("step", "TOTAL_BATCH_SIZE")
                )
                raise UserError(
                    f"the text has {tokens} tokens, and {needed} are needed for one {unit}: "
                    f"add text, or set a smaller {name}"
                )
            needed = 0
        tokens += len(document.ids)
        yield document


def whole_rows(read: Reader, max_seq_len: int, position: Position | None = None) -> Iterator[Row]:
    """Rows of whole conversations, as many as fit; the rest of a row is unsupervised.

    The reader must cut conversations at max_seq_len + 1 tokens.
    """
    # Packed rows would start in the middle of an answer whose question is in another row: fine for
    # learning a language, but here the model is to learn to answer what it sees.
    waiting: list[Document] = []
    last_read: Cursor | None = None
    if position is not None:
        waiting = [next(read(cursor)) for cursor in position["waiting"]]
        last_read = position["next"]
    documents = read(last_read)
    if last_read is not None:
        next(documents)  # taken before the position was saved
    while True:
        while len(waiting) < CANDIDATES:
            waiting.append(next(documents))
            last_read = waiting[-1].cursor
        # First the one that has waited longest, so that nothing waits forever; then, again and
        # again, the longest that still fits. On tinyworld that leaves 2 % of a row of 256 empty;
        # taking them in order of arrival leaves 21 %.
        ids, mask, space = [], [], max_seq_len + 1
        chosen: Document | None = waiting[0]
        while chosen is not None:
            # By identity: two conversations may well be equal, and only one of them was used.
            waiting = [document for document in waiting if document is not chosen]
            ids += chosen.ids
            mask += chosen.mask or [1] * len(chosen.ids)
            space -= len(chosen.ids)
            fitting = (document for document in waiting if len(document.ids) <= space)
            chosen = max(fitting, key=lambda document: len(document.ids), default=None)
        ids += [ids[0]] * space  # any id will do: the mask says that nothing is learned there
        mask += [0] * space
        saved = {"waiting": [document.cursor for document in waiting], "next": last_read}
        yield Row(ids, mask, {**saved, "epoch": last_read[0] if last_read else 0})


def batches(rows: Iterable[Row], batch_size: int) -> Iterator[Batch]:
    """Rows stacked to batches. A row without any supervised token is left out."""
    iterator = _supervised_rows(rows)
    while True:
        some = [row for _, row in zip(range(batch_size), iterator, strict=False)]
        if len(some) < batch_size:
            return
        # (B, T + 1). Inputs and targets are the same ids, one position apart: at each position the
        # target is the token that comes next. The mask goes with the target, hence also [1:].
        ids = torch.tensor([row.ids for row in some])
        mask = torch.tensor([row.mask for row in some], dtype=torch.bool)[:, 1:]
        targets = ids[:, 1:].masked_fill(~mask, IGNORED)
        yield Batch(ids[:, :-1].contiguous(), targets, int(mask.sum()), some[-1].position)


def _supervised_rows(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows with a supervised target. Raises UserError if a whole epoch has none."""
    # A long question can fill a row and push its answer out. Some rows of that kind are normal; if
    # all are, this would search forever, so it counts epochs since the last good row.
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
                "to learn: add shorter conversations, or set a larger MAX_SEQ_LEN"
            )


class Prefetcher:
    """An iterator whose items are made in a background thread, a few ahead of their use.

    Same items, same order. An exception in the thread is raised here, after the items before it
    and every time one asks; what is not an Exception (a panic in Rust) becomes a Failure.
    """

    # A thread and not a process: the tokenizer is Rust and lets go of the GIL, and so does torch
    # while it computes, so the two run side by side. Items carry their position: those that were
    # made ahead and never used are simply made again after a resume.

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
        except BaseException as error:  # the loop must never wait for a thread that died silently
            self._put((None, Failure(f"reading the data ended: {type(error).__name__}: {error}")))

    def _put(self, item: tuple) -> bool:
        # A plain put would block for good if nobody takes items anymore, and close() with it.
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
        # In slices, because on some systems a wait without a timeout hears no Ctrl-C.
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
