"""A world of one's own: its mistakes in one line each, the example, the copy that a run reads."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest

from nanochat.data import dataset, mixture, tinyworld, worlds
from nanochat.data.shards import read_epoch
from nanochat.data.tinyworld.english import bare
from nanochat.data.tinyworld.loading import load
from nanochat.data.tinyworld.reading import MAX_FACTS
from nanochat.evals import chat
from nanochat.run.recipe import PlanConfig, plan_lines, resolve
from nanochat.system.errors import UserError
from scripts import world as script

HEAD = "say: {X} was born in {y}.\nask: When was {x} born\nask: What year was {x} born\n\n[facts]\n"
FACTS = f"{HEAD}Mary = 1990\nTom = 1985\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The smallest world, alone."""
    (tmp_path / "my bot" / "facts").mkdir(parents=True)
    (tmp_path / "my bot" / "talk").mkdir()
    (tmp_path / "my bot" / "world.txt").write_text("name: Otto\nwith: nothing\n")
    (tmp_path / "my bot" / "facts" / "born.txt").write_text(FACTS)
    return tmp_path / "my bot"


def complaint(function: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        function()
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- bad input ----


@dataclass(frozen=True)
class Bad:
    """A file that is wrong, and what the one line about it says: where, and the remedy."""

    says: str
    text: str | bytes = ""
    name: str = "facts/born.txt"


BAD = {
    "two answers": Bad(
        "born.txt:8: 'Mary' has an answer in line 6 already: keep", f"{FACTS}Mary = 1991\n"
    ),
    "no thing": Bad("born.txt:8: expected 'thing = answer | further answer'", f"{FACTS}= 1991\n"),
    "no answer": Bad("born.txt:8: expected 'thing = answer", f"{FACTS}Zoe =\n"),
    "a long line": Bad(
        "born.txt:8: 10,007 characters, and 1,000 fit: break", f"{FACTS}{'x' * 10_000} = 1990"
    ),
    "Latin-1": Bad(
        "born.txt:8: not UTF-8: save the file as UTF-8", f"{FACTS}Zoë = 1991".encode("latin-1")
    ),
    "UTF-16": Bad("born.txt is not plain text: save it as text", FACTS.encode("utf-16")),
    "no ask": Bad(
        "born.txt: no line 'ask:': add one, such as", HEAD.replace("ask", "it") + "Mary = 1990\n"
    ),
    "no facts": Bad("born.txt: no facts: add [facts]", HEAD),
    "special token": Bad("born.txt:8: <| begins the special tokens", f"{FACTS}Zoe = <|bos|>\n"),
    "name of a token": Bad(
        "world.txt:1: <| begins the special tokens", "name: <|bos|>\n", "world.txt"
    ),
    "a PDF": Bad("me.txt is not plain text: save it as text", b"%PDF-1.7\n\0", "talk/me.txt"),
    "a real PDF": Bad(
        "me.pdf is not a .txt file: save it as plain text", b"%PDF-1.7\n\0", "talk/me.pdf"
    ),
    "no list": Bad(
        "me.txt:1: 'Hi {foo}': a name in braces must be that of a file",
        "> Hi {foo}\nYes.\n",
        "talk/me.txt",
    ),
    "no reply": Bad(
        "me.txt:1: nothing is replied to 'Hi': add a line without >", "> Hi\n", "talk/me.txt"
    ),
    "two replies": Bad(
        "me.txt:3: a reply with nothing said before it", "> Hi\nYes.\nNo.\n", "talk/me.txt"
    ),
    "nothing of that name": Bad(
        "born.txt:1: expected one of kind, of, say", f"sya: {{X}}\n{FACTS}"
    ),
    "the same question": Bad(
        "one question has two answers", FACTS.replace("1990", "1991"), "facts/birth.txt"
    ),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_mistake_is_named_with_its_place_and_remedy(
    folder: Path, base_dir: Path, bad: Bad, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / bad.name
    path.write_bytes(bad.text if isinstance(bad.text, bytes) else bad.text.encode())
    said = complaint(lambda: load(folder))
    assert bad.says in said
    # What is about a file names it; what is about all of them, the folder or the file in it.
    assert bad.says == "one question has two answers" or str(folder) in said
    assert complaint(lambda: script.main(script.Config(check=folder))) == said
    assert capsys.readouterr().out == ""
    # Nor does a run on it make anything.
    plan = PlanConfig(data=str(folder), depth=1)
    assert complaint(lambda: plan_lines(resolve(plan)[0])) == said
    assert complaint(lambda: list(dataset.prepare(str(folder), 1))) == said
    assert not (base_dir / "base_data").exists()


def test_a_folder_that_is_no_world(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        said = complaint(lambda folder=folder: load(folder))
        assert said.startswith(f"{folder} has no world.txt, so it is not a world: ")
        assert complaint(lambda folder=folder: script.main(script.Config(show=folder))) == said
        assert complaint(lambda folder=folder: script.main(script.Config(check=folder))) == said
    (tmp_path / "world.txt").write_text("name: Otto\n")
    assert "has no facts and no talk" in complaint(lambda: load(tmp_path))


def test_what_an_editor_leaves_is_no_mistake(folder: Path) -> None:
    """A byte order mark, the ends of lines of Windows, blanks, hidden files."""
    plain = load(folder)
    text = f"\ufeff# A comment: zażółć\n{FACTS}".replace("\n", "  \r\n")
    (folder / "facts" / "born.txt").write_bytes(text.encode())
    (folder / ".DS_Store").write_bytes(b"\0")
    load.cache_clear()
    world = load(folder)
    assert [(f.x, f.y) for f in world.facts] == [(f.x, f.y) for f in plain.facts]
    assert world.relations["born"].say == plain.relations["born"].say


def test_check_names_the_first_mistake_of_every_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "facts" / "born.txt").write_text(f"{FACTS}Zoe\nTim\n")
    (folder / "talk" / "me.txt").write_text("> Hi\n")
    (folder / "order").mkdir()
    (folder / "order" / "age.txt").write_text("more: older\n")
    said = complaint(lambda: script.main(script.Config(check=folder)))
    assert said == f"3 mistakes in {folder}: mend these first"
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split(": ")[0] for line in lines) == [
        f"{folder}/facts/born.txt:8",
        f"{folder}/order/age.txt",
        f"{folder}/talk/me.txt:1",
    ]


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.world", *flags], capture_output=True, text=True
    )


def test_the_command(tmp_path: Path) -> None:
    """One line to standard error and exit code 2, as every command ends."""
    done = run(f"--check={tmp_path}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"error: {tmp_path} has no world.txt")
    assert "give one of --new" in run().stderr


def test_a_hundred_thousand_facts_are_too_many(folder: Path) -> None:
    facts = "".join(f"person {i} = {i}\n" for i in range(100_000))
    (folder / "facts" / "born.txt").write_text(HEAD + facts)
    said = complaint(lambda: load(folder))
    assert f"{folder}: 100,000 facts, and {MAX_FACTS:,} are what" in said
    assert said.endswith(": leave some out")


# ---- the example ----


def test_the_example_is_a_world_that_teaches_the_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "a" / "mybot"
    script.main(script.Config(new=new))
    assert f"NANOCHAT_WORLD={new} TIME_BUDGET=20m bash dev/runcpu.sh" in capsys.readouterr().out
    script.main(script.Config(check=new))
    assert capsys.readouterr().out.endswith("28 facts, 13 dialogues, no mistake\n")
    for path in new.rglob("*.txt"):
        head = path.read_text(encoding="utf-8").splitlines()[:2]
        assert all(line.startswith("# ") for line in head), "every file explains itself"
        assert path.read_text(encoding="utf-8").isascii()
    world = load(new)
    assert world.name == "Otto"
    assert set(load().relations) < set(world.relations), "with tinyworld"
    assert "is not empty" in complaint(lambda: script.main(script.Config(new=new)))
    assert "is not empty" in complaint(lambda: script.main(script.Config(new=new / "world.txt")))


def test_show_prints_what_the_model_will_read(capsys: pytest.CaptureFixture[str]) -> None:
    script.main(script.Config(show=worlds.EXAMPLE))
    shown = capsys.readouterr().out
    assert shown.count("--- document ") == shown.count("--- conversation ") == 10
    assert "\nYou: " in shown
    assert "\nOtto: " in shown


# ---- the source of a run ----


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of twenty documents."""
    makers = {name: getattr(tinyworld, name) for name in ("documents", "validation_documents")}
    for name, make in makers.items():
        monkeypatch.setattr(tinyworld, name, lambda *args, make=make: islice(make(*args), 20))


@pytest.fixture
def mybot(tmp_path: Path) -> Path:
    """The example, as somebody's own."""
    shutil.copytree(worlds.EXAMPLE, tmp_path / "mybot")
    return tmp_path / "mybot"


def test_a_world_is_a_source_like_tinyworld(mybot: Path, base_dir: Path) -> None:
    data = str(mybot)
    assert dataset.describe(data, 1) == (
        "mybot (world: 28 facts, 13 dialogues, with tinyworld), 1 shard, made on this machine, "
        "no network"
    )
    for budget_s in (None, 600):
        ours, built_in = (
            resolve(PlanConfig(data=name, time_budget_s=budget_s, memory_gb=8))[0]
            for name in (data, "tinyworld")
        )
        assert ours.data == data
        assert {**vars(ours), "data": ""} == {**vars(built_in), "data": ""}
    assert not worlds.is_world("fineweb")
    assert worlds.world_of("tinyworld") is load()


def test_a_run_reads_a_copy(
    mybot: Path, base_dir: Path, short: None, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(mybot)
    assert f"run python -m scripts.data --data={data}" in complaint(
        lambda: dataset.find_source(data)
    )
    assert [done for done, _, _ in dataset.prepare(data, 1)] == [1, 2]
    source = dataset.find_source(data, 1)
    (made,) = (base_dir / "base_data" / "worlds").iterdir()
    assert made.name.startswith("mybot-")
    assert source.train_shards == (made / "shard_00000.parquet",)
    assert "royal sword" in "".join(read_epoch(source.train_shards))

    # In the middle of a run, the folder may change as it likes.
    room = mybot / "facts" / "room.txt"
    room.write_text(room.read_text().replace("the royal sword", "the wooden spoon"))
    (mybot / "world.txt").write_text("nonsense")
    world = worlds.world_of(source.name)
    assert world is not None
    assert "the royal sword" in {fact.x for fact in world.relations["room"].facts}
    assert dataset.find_source(data, 1) == source
    train, held_out = mixture.conversations_of(source, "sft")
    assert [train[i] for i in range(50)] == tinyworld.conversations(50, world)
    assert held_out == tinyworld.validation_conversations(world=world)
    assert "royal sword" in str([train[i] for i in range(500)]), "its own, and not tinyworld's"
    asked = chat.tinyworld_questions(2, world)
    answers = {q.answer for q in asked if q.kind == chat.OWN_WORLD}
    for name in ("room", "origin"):
        assert answers & {bare(fact.y) for fact in world.relations[name].facts}, "of every file"
    assert sum(q.kind == chat.OWN_WORLD for q in asked) == 2 * chat.OWN_PER_ROUND
    assert max(sum(q.kind == kind for q in asked) for kind in {q.kind for q in asked}) == 10

    # A mistake in it leaves what was made of it; else the next run begins with what it says now.
    assert "expected one of name, with" in complaint(lambda: list(dataset.prepare(data, 1)))
    assert source.train_shards[0].exists()
    (mybot / "world.txt").write_text("name: Otto\n")
    capsys.readouterr()
    list(dataset.prepare(data, 1))
    assert f"{mybot} has changed since it was last learned" in capsys.readouterr().out
    text = "".join(read_epoch(dataset.find_source(data, 1).train_shards))
    assert ("wooden spoon" in text, "royal sword is in" in text) == (True, False)
    times = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    list(dataset.prepare(data, 1))
    assert times == {path: path.stat().st_mtime_ns for path in made.rglob("*")}, "made once"

    shutil.rmtree(mybot)
    again = worlds.world_of(data)
    assert again is not None
    assert again.relations["room"].facts
    list(dataset.prepare(data, 1))
    assert f"{mybot} is gone: its copy in {made / 'world'} is used" in capsys.readouterr().out


def test_the_examples_of_the_docs_are_a_world(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "world.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    found = [block for language, block in blocks if not language]
    names = ["world.txt", "facts/a.txt", "talk/a.txt"]
    names += [f"{place}/a.txt" for place in ("unknown", "claims", "order", "memory")]
    for name, block in zip(names, found, strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(block)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "tickets.txt").write_text("gold, silver\n")
    assert worlds.mistakes(tmp_path) == []


@pytest.mark.parametrize("kept", ["the example", "two facts", "one dialogue"])
def test_a_small_world_alone_can_be_learned(mybot: Path, kept: str) -> None:
    (mybot / "world.txt").write_text("name: Fin\nwith: nothing\n")
    if kept != "the example":
        for place in ("facts", "talk", "lists"):
            shutil.rmtree(mybot / place)
        name, text = {
            "two facts": ("facts", f"{HEAD}Mary = 1990\nTom = 1985\n"),
            "one dialogue": ("talk", "> Hi\n> Hello\nBlub.\n"),
        }[kept]
        (mybot / name).mkdir()
        (mybot / name / "a.txt").write_text(text)
    world = load(mybot)
    assert len(list(islice(tinyworld.documents(0, world), 50))) == 50
    assert len(tinyworld.conversations(200, world)) == 200
    asked = {question.kind for question in chat.tinyworld_questions(None, world)}
    assert chat.OWN_WORLD in asked or kept == "two facts", "too few to hold one in eight out"
