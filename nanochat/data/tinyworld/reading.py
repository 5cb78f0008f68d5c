"""The text files of one folder, read into a world; each mistake names file, line and remedy."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from nanochat.data.tinyworld.english import bare, in_words, listed
from nanochat.data.tinyworld.files import (
    Document,
    Line,
    blocks,
    check_slots,
    document,
    entries,
    field,
    items,
    lines,
    yes_or_no,
)
from nanochat.data.tinyworld.world import (
    OWN_WORLD,
    Claims,
    Fact,
    Memory,
    Order,
    Relation,
    Talk,
    Turn,
    World,
    fits,
)
from nanochat.system.errors import UserError

# In twenty minutes on two cores a model reads about 200,000 questions, and a fact takes about 40.
MAX_FACTS = 4000
NUMBERS = {in_words(n): str(n) for n in (*range(21), 30, 40, 50, 60)} | {"hundred": "100"}
DIGITS = {digits: word for word, digits in NUMBERS.items()}
FACTS = ("kind", "of", "say", "ask", "clause", "noun", "it", "check", "new", "follow", "reverse")
CLAIMS = ("kind", "ask", "yes", "no")
ORDER = ("kind", "more", "less", "most", "least")
TALK = ("kind", "at", "frames")
MEMORY = (
    "kind", "often", "say", "reply", "ask", "answer", "change", "confirm", "yes", "no", "from",
    "invented", "capital",
)  # fmt: skip
PLACES = ("", "start", "end", "after")
FACT_SLOTS = frozenset(listed("x X n N p P y Y m u v V bot"))
MEMORY_SLOTS = frozenset(["v", "V", "m", "a", "n"])
THING = re.compile(r"\{[xXnNpPuUvV]\}")  # what is asked about
ANSWER = re.compile(r"\{[yYm]\}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .'-]{0,39}")


def head_of(folder: Path) -> Document:
    """world.txt, which makes a folder a world."""
    path = folder / "world.txt"
    if not path.is_file():
        raise UserError(
            f"{folder} has no world.txt, so it is not a world: add one with a line such as "
            "'name: Mybot' (python -m scripts.world --new NEW-FOLDER writes a whole example)"
        )
    return document(path, ("name", "with"), ())


def read_folder(folder: Path, known: Mapping[str, tuple[str, ...]], own: bool) -> World:
    """The files of one folder; relations that are read backwards are still without facts.

    known: lists that its files may use in addition to their own.
    """
    head = head_of(folder)
    name = head.one("name", "nanochat")
    if not NAME.fullmatch(name):
        raise head.fields["name"][0].mistake(
            f"'name: {name}': at most 40 letters, digits, blanks and .'- make a name"
        )
    found = _Files(folder)
    world = World(
        name=name,
        relations={p.stem: _relation(p, own) for p in found.of("facts")},
        claims=tuple(_claims(p) for p in found.of("claims")),
        orders=tuple(_order(p) for p in found.of("order")),
        talks=tuple(talk for p in found.of("talk") for talk in _talks(p, own)),
        memories=(),
        never_known=tuple(_relation(p, own, with_facts=False) for p in found.of("unknown")),
        lists={p.stem: items(p) for p in found.of("lists") if p.stem != "plurals"},
        outside={p.stem: items(p) for p in found.of("lists/outside")},
        irregular=_irregular(folder / "lists" / "plurals.txt"),
        folders=(folder,),
    )
    if own and not (world.relations or world.talks):
        raise UserError(f"{folder} has no facts and no talk: write facts/NAME.txt or talk/NAME.txt")
    if len(world.facts) > MAX_FACTS:
        raise UserError(
            f"{folder}: {len(world.facts):,} facts, and {MAX_FACTS:,} are what so small a model "
            "can learn: leave some out"
        )
    # Last, because what can be remembered is drawn from the lists.
    lists = {**known, **world.lists}
    memories = tuple(_memory(p, lists) for p in found.of("memory"))
    return replace(world, memories=memories)


class _Files:
    """The files of a folder, by the folder within it; anything else in it is a mistake."""

    KNOWN = (
        "facts", "claims", "order", "talk", "memory", "unknown", "stories", "lists",
        "lists/outside",
    )  # fmt: skip

    def __init__(self, folder: Path) -> None:
        self.found: dict[str, list[Path]] = {}
        for path in sorted(folder.rglob("*")):
            within = path.relative_to(folder)
            if not path.is_file() or any(part.startswith(".") for part in within.parts):
                continue
            place = within.parent.as_posix()
            if path.suffix != ".txt":
                raise UserError(
                    f"{path} is not a .txt file: save it as plain text, or move it away"
                )
            if within.as_posix() == "world.txt":
                continue
            if place not in self.KNOWN:
                raise UserError(
                    f"{path} is in no folder of a world: put it into {', '.join(self.KNOWN[:6])}"
                )
            self.found.setdefault(place, []).append(path)

    def of(self, place: str) -> list[Path]:
        return self.found.get(place, [])


def _irregular(path: Path) -> dict[str, str]:
    return {noun: values[0] for _, noun, values in entries(_filled(path))} if path.exists() else {}


def _filled(path: Path) -> list[Line]:
    return [line for line in lines(path) if line.text]


def _relation(path: Path, own: bool, with_facts: bool = True) -> Relation:
    doc = document(path, FACTS if with_facts else ("of", "ask"), ("facts",) if with_facts else ())
    for key in ("say", "ask", "clause", "noun", "check", "new", "it"):
        _templates(doc, key)
    reverse = doc.one("reverse", "")
    facts, seen = [], dict[str, int]()
    for line, x, values in entries(doc.sections.get("facts", [])):
        # Ours tells "orange", the color, from "an orange"; somebody's "Mary" and "mary" are a slip.
        plainly = bare(x).lower() if own else x
        if plainly in seen:
            raise line.mistake(
                f"{x!r} has an answer in line {seen[plainly]} already: keep one, and put what is "
                "right as well behind a |"
            )
        seen[plainly] = line.number
        accept = tuple(dict.fromkeys(a for v in map(bare, values) for a in (v, *_other_form(v))))
        facts.append(Fact(path.stem, x, values[0], accept, own))
    for key in ("say", "ask") if with_facts else ("of", "ask"):
        if not doc.fields.get(key):
            raise UserError(f"{path}: no line '{key}:': add one, such as '{key}: {_EXAMPLE[key]}'")
    if with_facts and not facts and not reverse:
        raise UserError(f"{path}: no facts: add [facts] and lines such as 'Mary = 1990'")
    for fact in facts:
        for key in ("say", "ask"):
            if not any(fits(line.text, fact.x) for line in doc.fields[key]):
                raise UserError(
                    f"{path}: no line '{key}:' fits {fact.x!r}: {{p}} is only for what has a or an"
                )
    return Relation(
        name=path.stem, kind=doc.one("kind", path.stem), say=doc.all("say"),
        of=doc.one("of", path.stem if own else ""),
        ask=doc.all("ask"), clause=doc.all("clause"), noun=doc.all("noun"), it=doc.all("it"),
        check=doc.all("check"), new=doc.all("new"), follow=yes_or_no(doc, "follow", "yes"),
        reverse=reverse, facts=tuple(facts),
    )  # fmt: skip


_EXAMPLE = {"of": "animal", "say": "{X} was born in {y}.", "ask": "When was {x} born"}


def _templates(doc: Document, key: str) -> None:
    """Checks the templates of a key; a question loses its mark, a sentence gets one."""
    found = doc.fields.get(key, [])
    check_slots(found, FACT_SLOTS)
    for i, line in enumerate(found):
        if key == "say":
            if not (THING.search(line.text) and ANSWER.search(line.text)):
                raise line.mistake(
                    f"a 'say:' needs the thing {{x}} and the answer {{y}}: {line.text!r}"
                )
            found[i] = line._replace(text=ended(line.text))
            continue
        if key in ("ask", "clause", "noun", "new") and not THING.search(line.text):
            raise line.mistake(f"nobody knows what is asked about: put {{x}} into {line.text!r}")
        if key in ("ask", "clause", "noun", "new", "it") and ANSWER.search(line.text):
            raise line.mistake(
                f"{{y}} gives the answer away (a 'check:' may have it): {line.text!r}"
            )
        # What is put around a question brings the mark that fits.
        found[i] = line._replace(text=line.text.rstrip("?.! "))


def ended(sentence: str) -> str:
    """The sentence with a mark at its end."""
    whole = sentence[-1:] in ".!?" or sentence.endswith("{last}")
    return sentence if whole else sentence + "."


def _other_form(value: str) -> tuple[str, ...]:
    """Digits for a number word, and the other way."""
    return tuple(table[value] for table in (NUMBERS, DIGITS) if value in table)


def _claims(path: Path) -> Claims:
    doc = document(path, CLAIMS, ("true", "false"))
    for key in ("ask", "yes", "no"):
        if not doc.fields.get(key):
            raise UserError(f"{path}: no line '{key}:'")
        check_slots(doc.fields[key], FACT_SLOTS)
    pairs: dict[str, tuple[tuple[str, str], ...]] = {}
    where: dict[tuple[str, str], tuple[str, int]] = {}
    for section in ("true", "false"):
        rows = list(entries(doc.sections.get(section, [])))
        for line, x, values in rows:
            for y in values:
                if (x, y) in where:
                    raise line.mistake(f"'{x} = {y}' stands in line {where[x, y][1]} already")
                where[x, y] = section, line.number
        pairs[section] = tuple((x, y) for _, x, values in rows for y in values)
    if not pairs["true"] or not pairs["false"]:
        raise UserError(f"{path}: it needs lines in [true] and in [false]")
    return Claims(
        path.stem, doc.one("kind", path.stem), doc.all("ask"), doc.one("yes", ""),
        doc.one("no", ""), pairs["true"], pairs["false"],
    )  # fmt: skip


def _order(path: Path) -> Order:
    doc = document(path, ORDER, ("order",))
    for key in ("more", "less"):
        if not doc.fields.get(key):
            raise UserError(f"{path}: no line '{key}:', such as 'more: bigger'")
    ranks, seen = [], dict[str, int]()
    for rank, line in enumerate(doc.sections.get("order", [])):
        for thing in map(str.strip, line.text.split(",")):
            if not thing or thing in seen:
                where = f"{thing!r} stands in line {seen[thing]} already" if thing else "two commas"
                raise line.mistake(where)
            seen[thing] = line.number
            ranks.append((thing, rank))
    if len({rank for _, rank in ranks}) < 2:
        raise UserError(f"{path}: [order] needs two lines of things at least, the least first")
    return Order(
        path.stem, doc.one("kind", path.stem), doc.all("more"), doc.all("less"),
        doc.one("most", ""), doc.one("least", ""), tuple(ranks),
    )  # fmt: skip


def _talks(path: Path, own: bool) -> list[Talk]:
    found = lines(path)
    head: dict[str, str] = {}
    while found and (not found[0].text or re.match(r"(?:kind|at|frames)\s*:", found[0].text)):
        line = found.pop(0)
        if line.text:
            key, value = field(line, TALK)
            head[key] = value
            if key == "at" and value not in PLACES:
                raise line.mistake(f"'at: {value}' must be start, end or after")
            if key == "frames" and value not in ("yes", "no"):
                raise line.mistake(f"'frames: {value}' must be yes or no")
    out = [_talk(path, head, block, own) for block in blocks(found)]
    if not out:
        raise UserError(f"{path}: nothing is said in it: write '> Hello', and the reply below it")
    return out


def _talk(path: Path, head: dict[str, str], block: list[Line], own: bool) -> Talk:
    turns: list[Turn] = []
    said: list[str] = []
    for line in block:
        if line.text.startswith(">"):
            text = line.text[1:].strip()
            text = text.rstrip("?. ") or text
            if not text:
                raise line.mistake("a > with nothing behind it")
            said.append(text)
        elif not said:
            raise line.mistake(
                f"a reply with nothing said before it: {line.text!r}. Lines with > come first, "
                "then one line of reply; a blank line separates dialogues"
            )
        else:
            turns.append(Turn(tuple(said), ended(line.text)))
            said = []
    if said:
        raise block[-1].mistake(f"nothing is replied to {said[-1]!r}: add a line without >")
    return Talk(
        path.stem, path, head.get("kind", OWN_WORLD if own else "small_talk"), head.get("at", ""),
        head.get("frames", "yes") == "yes", tuple(turns), own,
    )  # fmt: skip


def _memory(path: Path, lists: Mapping[str, tuple[str, ...]]) -> Memory:
    doc = document(path, MEMORY, ("of",))
    for key in ("say", "reply", "ask", "answer"):
        if not doc.fields.get(key):
            raise UserError(f"{path}: no line '{key}:'")
        check_slots(doc.fields[key], MEMORY_SLOTS)

    def named(line: Line, value: str) -> tuple[str, ...]:
        name = value.strip("{}")
        if name not in lists:
            raise line.mistake(f"lists/{name}.txt does not exist")
        return lists[name]

    values: list[tuple[str, tuple[str, ...]]] = []
    for line, of, words in entries(doc.sections.get("of", [])):
        of_values = [
            w for word in words for w in (named(line, word) if word[0] == "{" else (word,))
        ]
        values.append((of, tuple(of_values)))
    if not values:
        source = doc.fields.get("from", [])
        values = [("", named(source[0], source[0].text) if source else ())]
    said = doc.one("invented", "30")
    if not (said.isdigit() and int(said) <= 100):
        raise doc.fields["invented"][0].mistake(f"'invented: {said}' must be 0 to 100 (percent)")
    if any(not words for _, words in values) and said != "100":
        raise UserError(
            f"{path}: no line 'from:', so nothing can be said: add one, or 'invented: 100'"
        )
    return Memory(
        path.stem, doc.one("kind", "memory"), doc.all("say"), doc.one("reply", ""), doc.all("ask"),
        doc.one("answer", ""), doc.all("change"), doc.all("confirm"), doc.one("yes", ""),
        doc.one("no", ""), tuple(values), int(said), yes_or_no(doc, "often", "no"),
        yes_or_no(doc, "capital", "no"),
    )  # fmt: skip


def mistakes_of_files(folder: Path, known: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The first mistake of each file, read by itself. known: lists that it may use as well."""
    found: list[str] = []

    def try_to(reader: Callable[[Path], Any], path: Path) -> Any:
        try:
            return reader(path)
        except UserError as error:
            found.append(str(error))

    has_head = (folder / "world.txt").is_file()
    if has_head:
        try_to(head_of, folder)
    files = try_to(_Files, folder)
    if files is None or not has_head:
        return found
    lists = {path.stem: try_to(items, path) or () for path in files.of("lists")}
    readers: dict[str, Callable[[Path], Any]] = {
        "lists/outside": items,
        "memory": partial(_memory, lists={**known, **lists}),
        "unknown": partial(_relation, own=True, with_facts=False),
        "facts": partial(_relation, own=True),
        "talk": partial(_talks, own=True),
        "claims": _claims,
        "order": _order,
    }
    for place, reader in readers.items():
        for path in files.of(place):
            try_to(reader, path)
    return found
