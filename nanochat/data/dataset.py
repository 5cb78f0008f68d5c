"""Where text and conversations come from: sources, and how each is made ready to read.

The text of a world (tinyworld, or a folder with a world.txt) is made on this machine; fineweb comes
from the hub; any other folder of your own either has our layout (pretrain/, conversations/) or is
imported, whatever is in it. All of them end up as shards, so what reads them need not know the
source: a Source says where its shards are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nanochat.conversation import Conversation
from nanochat.data import fineweb, hub, imported, jsonl, tinyworld, worlds
from nanochat.data.shards import (
    WaitFor,
    open_shard,
    read_epoch,
    shard_path,
    shards_in,
    write_shard,
)
from nanochat.data.text_files import Tell
from nanochat.data.worlds import is_world
from nanochat.system.errors import Failure, UserError
from nanochat.system.log import counted, say

VALIDATION = imported.VALIDATION  # in what we write ourselves; elsewhere it is the last shard
# Your own text: the vocabulary for text of fewer bytes than this. Each entry is a row of weights
# that must be seen often enough to learn, and most entries of a large vocabulary are rare words.
NEW_VOCAB_SIZES = ((200e6, 8_192), (1e9, 16_384))  # above: 65,536


@dataclass(frozen=True)
class Source:
    """Text to learn from: where its shards are, and what it is called in plans and state.json."""

    name: str
    train_shards: tuple[Path, ...]
    val_shard: Path  # never trained on: how well it knows what it has read says little
    conversation_files: tuple[Path, ...] = ()

    def text_bytes(self) -> int:
        """Bytes of the training shards on disk (compressed)."""
        return sum(path.stat().st_size for path in self.shards_on_disk())

    def shards_on_disk(self) -> tuple[Path, ...]:
        """The training shards that are on disk; fineweb's others come during training."""
        return tuple(path for path in self.train_shards if path.exists())

    def fetch_missing(self) -> WaitFor | None:
        """Start to fetch what is missing. Returns a function that waits for a shard."""
        missing = self.name == "fineweb" and len(self.shards_on_disk()) < len(self.train_shards)
        return fineweb.BackgroundFetch(self.train_shards) if missing else None


def resolve_auto(data: str, num_shards: int) -> tuple[str, str]:
    """(source, a line about it): what `auto` means here and now, within 10 seconds.

    fineweb if its shards are on disk or the hub answers, else tinyworld.
    """
    if data != "auto":
        return data, ""
    # The disk first: a classroom that has the shards needs no network, nor ten seconds of waiting.
    if fineweb.is_downloaded(num_shards):
        return "fineweb", "auto: the web text is on this disk, so fineweb it is"
    try:
        hub.reach(fineweb.REPO, fineweb.folder())
    except (Failure, UserError) as error:
        return "tinyworld", f"auto: tinyworld, since fineweb can't be had: {error}"
    return "fineweb", "auto: the hub answers, so fineweb it is"


def default_vocab_size(data: str) -> int:
    """A world 4,096, fineweb 65,536, your own text by its size."""
    if is_world(data):
        return 4_096
    if data == "fineweb":
        return 65_536
    if _is_laid_out(_folder(data)):  # zstd shrinks English text to about a third
        size = 3 * sum(path.stat().st_size for path in shards_in(Path(data) / "pretrain"))
    else:
        size = imported.scan(Path(data)).text_bytes
    return next((vocab for limit, vocab in NEW_VOCAB_SIZES if size < limit), 65_536)


def _folder(data: str) -> Path:
    """The folder that `data` names. Raises UserError for a name that JSON can't hold."""
    worlds.folder_of(data)
    return Path(data)


def _is_laid_out(folder: Path) -> bool:
    return (folder / "pretrain").is_dir()


def describe(data: str, num_shards: int) -> str:
    """The source in words, for the plan. Raises UserError for a folder without readable text."""
    # For --plan, so nothing is made or fetched here.
    if is_world(data):
        return worlds.describe(data, num_shards)
    if data == "fineweb":
        on_disk = len([p for p in fineweb.train_shards(num_shards) if p.exists()])
        shards = counted(num_shards, "shard")
        return f"fineweb, {shards} of about {fineweb.SHARD_MB:.0f} MB ({on_disk} on disk)"
    if not _is_laid_out(_folder(data)):
        return f"{data}, {imported.scan(Path(data)).describe()}"
    source = find_source(data, num_shards)
    return (
        f"{source.name}, {counted(len(source.train_shards), 'shard')} of text, "
        f"{counted(len(source.conversation_files), 'file')} of conversations"
    )


def prepare(data: str, num_shards: int) -> Iterator[tuple[int, int, str]]:
    """Make, fetch or import what the source needs; yields (done, of how many, what it is doing).

    Raises UserError for what can't be read, Failure without network; what is complete stays.
    """
    if is_world(data):
        yield from _make_world(data, num_shards)
    elif data == "fineweb":
        yield from fineweb.prepare(num_shards)
    elif _folder(data).is_dir() and not _is_laid_out(_folder(data)):
        for number, text in enumerate(imported.import_folder(Path(data))):
            yield min(number, 99), 100, text  # how much is left, nobody knows before it is read
    else:
        # Nothing to make. But read it all once now: a bad line is better found here than by SFT,
        # hours later.
        source = find_source(data, num_shards)
        files = (source.val_shard, *source.train_shards, *source.conversation_files)
        for number, path in enumerate(files):
            if path in source.conversation_files:
                read_conversations(path, say)
            else:
                open_shard(path)
            yield number + 1, len(files), path.name


def _make_world(data: str, num_shards: int) -> Iterator[tuple[int, int, str]]:
    world, folder = worlds.refresh(data), worlds.shard_folder(data)
    jobs = [(folder / VALIDATION, lambda: tinyworld.validation_documents(world))]
    for i in range(num_shards):
        # i=i: a plain lambda would see the last i in every job.
        jobs.append((shard_path(folder, i), lambda i=i: tinyworld.documents(i, world)))
    for number, (path, documents) in enumerate(jobs):
        if not _is_whole(path):
            write_shard(path, documents())
        yield number + 1, len(jobs), path.name


def _is_whole(path: Path) -> bool:
    """Whether a shard exists and can be read to its end."""
    if not path.exists():
        return False
    try:  # all of it: a page's checksum is looked at when the page is read
        for _ in read_epoch((path,)):
            pass
    except UserError as error:
        say(f"{error.args[0].split(':')[0]}: making it again")
        return False
    return True


def find_source(data: str, num_shards: int | None = None) -> Source:
    """The source's shards. Raises UserError, with what to do, if there is nothing to read.

    num_shards None: all that are on disk. With a number, some of fineweb's may still be missing.
    """
    if num_shards is not None and num_shards < 1:
        raise UserError(f"data_shards={num_shards}: it must be 1 or more")
    if data == "auto":
        raise UserError(
            "--data=auto is for the drivers in dev/: use tinyworld, fineweb or a folder"
        )
    if data == "fineweb":
        return _open_fineweb(num_shards)
    folder = _folder(data)
    if is_world(data):
        flags = "-n 4" if data == worlds.TINYWORLD else f"--data={data}"
        return _open_ours(data, worlds.shard_folder(data), flags, num_shards)
    if not folder.is_dir():
        raise UserError(f"--data={data} is not a folder; use tinyworld, fineweb or a folder")
    if not _is_laid_out(folder):
        return _open_ours(data, imported.shard_folder(folder), f"--data={data}", num_shards)
    shards = shards_in(folder / "pretrain")
    if len(shards) < 2:
        raise UserError(
            f"{folder / 'pretrain'} has {counted(len(shards), 'shard')} (shard_00000.parquet ...), "
            "and at least 2 are needed: the last one is for validation"
        )
    # All but the last one, then as many as asked for: validation must not depend on that number.
    talks = sorted((folder / "conversations").glob("*.jsonl*"))
    return Source(str(folder), tuple(shards[:-1][:num_shards]), shards[-1], tuple(talks))


def _open_ours(data: str, folder: Path, flags: str, num_shards: int | None) -> Source:
    shards, val = shards_in(folder), folder / VALIDATION
    if not shards or not val.exists():
        raise UserError(f"no text in {folder} yet: run python -m scripts.data {flags}")
    talks = tuple(folder.glob(imported.CONVERSATIONS))
    return Source(data, tuple(shards[:num_shards]), val, talks)


def _open_fineweb(num_shards: int | None) -> Source:
    if not fineweb.is_downloaded(1):
        raise UserError(
            f"no text in {fineweb.folder()} yet: run python -m scripts.data --data=fineweb -n 4"
        )
    # Those on their way belong to it: with a number, the run is the same whether they are here yet
    # or not, since reading waits for them.
    shards = fineweb.train_shards(num_shards or fineweb.LAST_SHARD)
    source = Source("fineweb", shards, fineweb.val_shard())
    return source if num_shards else Source("fineweb", source.shards_on_disk(), source.val_shard)


def read_conversations(path: Path, tell: Tell = lambda line: None) -> list[Conversation]:
    """The conversations of a .jsonl or .jsonl.gz file; see jsonl.py for their shapes.

    Raises UserError that names file and line if it is mostly something else.
    """
    # In our layout documents have a folder of their own, so here they are most likely a mix-up.
    found = list(jsonl.read(path, tell))
    talks = [item for item in found if not isinstance(item, str)]
    if len(talks) < len(found):
        if not talks:
            raise UserError(f"{path} has documents and not one conversation: remove it")
        documents = counted(len(found) - len(talks), "document")
        tell(f"{path}: {documents} among the conversations left out")
    return talks
