"""A world: what a model is taught, read from a folder of text files.

world/ beside this file is the built-in one; docs/world.md says what the files look like. A world of
one's own is another such folder, learned together with the built-in world or instead of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

from nanochat.data.tinyworld import english
from nanochat.data.tinyworld.english import bare, capital, listed
from nanochat.data.tinyworld.files import (
    Document,
    Line,
    blocks,
    document,
    entries,
    field,
    items,
    lines,
    yes_or_no,
)
from nanochat.data.tinyworld.keys import plain, wording_key
from nanochat.system.errors import UserError

BUILT_IN = Path(__file__).with_name("world")
# In twenty minutes on two cores a model reads about 200,000 questions, and a fact takes about 40.
MAX_FACTS = 4000
OWN_WORLD = "own_world"  # the kind of what is held out of a world of one's own
NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        listed(
            """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
    fifteen sixteen seventeen eighteen nineteen twenty
    """
        )
    )
} | {"thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "hundred": "100"}
DIGITS = {digits: word for word, digits in NUMBERS.items()}


@dataclass(frozen=True, eq=False)
class Fact:
    """The answer to every wording of one question.

    accept: what counts as right, without articles; the first is what is taught. own: from a world
    of one's own.
    """

    relation: str
    x: str
    y: str
    accept: tuple[str, ...]
    own: bool = False


@dataclass(frozen=True, eq=False)
class Relation:
    """How people ask for the facts of one file, and how they are stated; see docs/world.md.

    of: what its things are ("animal"). reverse: the relation that it is read backwards from.
    """

    name: str
    kind: str
    of: str
    say: tuple[str, ...]
    ask: tuple[str, ...]
    clause: tuple[str, ...]
    noun: tuple[str, ...]
    it: tuple[str, ...]
    check: tuple[str, ...]
    new: tuple[str, ...]
    follow: bool
    reverse: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True, eq=False)
class Claims:
    """What is true and what is not: (thing, what is said of it) pairs."""

    name: str
    kind: str
    of: str
    ask: tuple[str, ...]
    yes: str
    no: str
    true: tuple[tuple[str, str], ...]
    false: tuple[tuple[str, str], ...]


@dataclass(frozen=True, eq=False)
class Order:
    """Things in an order, the least first: (thing, rank) pairs, and the words that compare them."""

    name: str
    kind: str
    more: tuple[str, ...]
    less: tuple[str, ...]
    most: str
    least: str
    ranks: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Turn:
    """Wordings of one thing that people say, and the reply to all of them."""

    said: tuple[str, ...]
    reply: str


@dataclass(frozen=True, eq=False)
class Talk:
    """A dialogue of one or more turns. at: "", "start", "end" or "after" (an answer)."""

    name: str
    path: Path
    kind: str
    at: str
    framed: bool
    turns: tuple[Turn, ...]
    own: bool = False


@dataclass(frozen=True, eq=False)
class Memory:
    """What a person says of himself and asks for later."""

    name: str
    kind: str
    say: tuple[str, ...]
    reply: str
    ask: tuple[str, ...]
    answer: str
    change: tuple[str, ...]
    confirm: tuple[str, ...]
    yes: str
    no: str
    values: tuple[tuple[str, tuple[str, ...]], ...]  # (what it is of, or "", the values)
    invented: int  # percent of made-up values
    often: bool  # people try it first
    capital: bool


@dataclass(frozen=True, eq=False)
class World:
    """Everything that can be said and asked. Compared by identity, so that caches can key on it."""

    name: str
    relations: Mapping[str, Relation]
    claims: tuple[Claims, ...]
    orders: tuple[Order, ...]
    talks: tuple[Talk, ...]
    memories: tuple[Memory, ...]
    never_known: tuple[Relation, ...]  # without facts: whoever asks is told that it is not known
    lists: Mapping[str, tuple[str, ...]]
    outside: Mapping[str, tuple[str, ...]]  # type -> things of that type which it knows nothing of
    irregular: Mapping[str, str]  # plurals
    folders: tuple[Path, ...]  # what it was read from, the built-in world first

    @cached_property
    def facts(self) -> tuple[Fact, ...]:
        return tuple(fact for relation in self.relations.values() for fact in relation.facts)

    @cached_property
    def things(self) -> Mapping[str, tuple[str, ...]]:
        """Type -> what the world knows something of, in the order of the files."""
        found: dict[str, dict[str, None]] = {}
        for relation in self.relations.values():
            if relation.of:
                found.setdefault(relation.of, {}).update(dict.fromkeys(f.x for f in relation.facts))
        return {kind: tuple(things) for kind, things in found.items()}

    @cached_property
    def countable_words(self) -> tuple[str, ...]:
        """Every word whose letters may be asked for."""
        of_facts = {bare(text) for fact in self.facts for text in (fact.x, fact.y)}
        words = {*of_facts, *self.lists.get("spelled", ()), *self.lists.get("counted", ())}
        return tuple(sorted(w for w in words if w.isalpha() and w.islower() and 2 < len(w) < 15))

    def plural(self, noun: str) -> str:
        return english.plural(noun, self.irregular, self.lists.get("mass", ()))

    def fill(self, template: str, x: str, y: str) -> str:
        """The template with a thing and its answer in it."""
        n, m = bare(x), bare(y)
        p = self.plural(n)
        u, middle, v = (
            re.split(r" (in|on) ", x, maxsplit=1) if re.search(" (in|on) ", x) else (x, "", "")
        )
        v = f"{middle} {v}"
        return template.format(
            x=x, X=capital(x), n=n, p=p, P=capital(p), y=y, Y=capital(y), m=m, u=u, v=v,
            V=capital(v),
            N=capital(n), bot=self.name,
        )  # fmt: skip

    @cached_property
    def _names(self) -> re.Pattern[str]:
        """The words that keep their capital within a sentence."""
        names = {bare(text) for fact in self.facts for text in (fact.x, fact.y)} - {"A"}
        names = {name for name in names if name[0].isupper()} | {
            "I",
            self.name.capitalize(),
            "A is",
        }
        return re.compile(rf"(?:{'|'.join(map(re.escape, sorted(names)))})\b")

    def small(self, text: str, name: str = "") -> str:
        """The text with a small first letter, unless it begins with a name."""
        if self._names.match(text) or (name and text.startswith(name)):
            return text
        return text[:1].lower() + text[1:]


# ---- reading the files

FACTS = ("kind", "of", "say", "ask", "clause", "noun", "it", "check", "new", "follow", "reverse")
CLAIMS = ("kind", "of", "ask", "yes", "no")
ORDER = ("kind", "of", "more", "less", "most", "least")
TALK = ("kind", "at", "frames")
MEMORY = (
    "kind", "often", "say", "reply", "ask", "answer", "change", "confirm", "yes", "no", "from",
    "invented", "capital",
)  # fmt: skip
PLACES = ("", "start", "end", "after")
SLOT = re.compile(r"\{(\w*)\}")
FACT_SLOTS = frozenset(listed("x X n N p P y Y m u v V bot"))
MEMORY_SLOTS = frozenset(["v", "V", "m", "a", "n"])
THING = re.compile(r"\{[xXnNpPuUvV]\}")  # what is asked about
ANSWER = re.compile(r"\{[yYm]\}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .'-]{0,39}")


@cache
def load(folder: Path | None = None) -> World:
    """The built-in world, or with a folder: that one, alone or added to the built-in world.

    Raises UserError that names file, line and remedy.
    """
    if folder is None:
        return _finished(_read(BUILT_IN, {}, own=False))
    if not is_added(folder):
        return _without_conflicts(_finished(_read(folder, {}, own=True)))
    built_in = _read(BUILT_IN, {}, own=False)
    return _without_conflicts(_finished(_merged(built_in, _read(folder, built_in.lists, own=True))))


def _without_conflicts(world: World) -> World:
    """Raises UserError where one question of somebody's own world has two answers."""
    old = set(conflicts(load()))
    new = [line for line in conflicts(world) if line not in old]
    if new:
        more = f" (and {len(new) - 1} more)" if len(new) > 1 else ""
        raise UserError(f"one question has two answers{more}: {new[0]}")
    return world


def is_added(folder: Path) -> bool:
    """Whether a world of one's own is learned together with the built-in one."""
    path = folder / "world.txt"
    if not path.is_file():
        raise _no_world(folder)
    head = document(path, ("name", "with"), ())
    with_world = head.one("with", "tinyworld")
    if with_world not in ("tinyworld", "nothing"):
        raise head.fields["with"][0].mistake(f"'with: {with_world}' must be tinyworld or nothing")
    return with_world == "tinyworld"


def _no_world(folder: Path) -> UserError:
    return UserError(
        f"{folder} has no world.txt, so it is not a world: add one with a line such as "
        "'name: Mybot' (python -m scripts.world --new NEW-FOLDER writes a whole example)"
    )


def _read(folder: Path, known: Mapping[str, tuple[str, ...]], own: bool) -> World:
    """The files of one folder; relations that are read backwards are still without facts.

    known: lists that its files may use besides their own.
    """
    head_path = folder / "world.txt"
    if not head_path.is_file():
        raise _no_world(folder)
    head = document(head_path, ("name", "with"), ())
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


def _slots(values: list[Line], allowed: frozenset[str]) -> None:
    """Raises UserError for a {slot} that does not exist here."""
    for line in values:
        for slot in SLOT.findall(line.text):
            if slot not in allowed:
                known = ", ".join(f"{{{name}}}" for name in sorted(allowed))
                raise line.mistake(f"{{{slot}}} does not exist here: {known} do")
        if line.text.count("{") != len(SLOT.findall(line.text)) or "}" in SLOT.sub("", line.text):
            raise line.mistake("a single { or }: write {x}, or leave it out")


def _relation(path: Path, own: bool, with_facts: bool = True) -> Relation:
    doc = document(path, FACTS if with_facts else ("of", "ask"), ("facts",) if with_facts else ())
    for key in ("say", "ask", "clause", "noun", "check", "new", "it"):
        _templates(doc, key)
    reverse = doc.one("reverse", "")
    facts, seen = [], dict[str, int]()
    for line, x, values in entries(doc.sections.get("facts", [])):
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
    _slots(found, FACT_SLOTS)
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
        _slots(doc.fields[key], FACT_SLOTS)
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
        path.stem, doc.one("kind", path.stem), doc.one("of", ""), doc.all("ask"),
        doc.one("yes", ""),
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
            text = text.rstrip("?.") or text
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
        _slots(doc.fields[key], MEMORY_SLOTS)

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


# ---- putting it together


def _merged(built_in: World, own: World) -> World:
    """Both; where they differ, one's own counts."""
    asked = {
        wording_key(text) for relation in own.relations.values() for text in _asks(own, relation)
    }
    relations = {
        name: replace(relation, facts=_not_asked(built_in, relation, asked))
        for name, relation in built_in.relations.items()
    }
    for name, relation in own.relations.items():
        ours = {fact.x for fact in relation.facts}
        before = relations[name].facts if name in relations else ()
        facts = (*(fact for fact in before if fact.x not in ours), *relation.facts)
        relations[name] = replace(relation, facts=facts)
    said = {wording_key(text) for talk in own.talks for text in talk.turns[0].said}
    return World(
        name=own.name,
        relations=relations,
        claims=_by_name(built_in.claims, own.claims),
        orders=_by_name(built_in.orders, own.orders),
        talks=(*own.talks, *(t for talk in built_in.talks for t in _without(talk, said))),
        memories=_by_name(built_in.memories, own.memories),
        never_known=_by_name(built_in.never_known, own.never_known),
        lists={**built_in.lists, **own.lists},
        outside={**built_in.outside, **own.outside},
        irregular={**built_in.irregular, **own.irregular},
        folders=(*built_in.folders, *own.folders),
    )


def _asks(world: World, relation: Relation) -> Iterator[str]:
    for fact in relation.facts:
        yield from (world.fill(ask, fact.x, "") for ask in relation.ask if fits(ask, fact.x))


def _not_asked(world: World, relation: Relation, asked: set[str]) -> tuple[Fact, ...]:
    """The facts that no question of somebody's own world asks for in other words."""
    if not asked:
        return relation.facts
    return tuple(
        fact
        for fact in relation.facts
        if not any(
            fits(ask, fact.x) and wording_key(world.fill(ask, fact.x, "")) in asked
            for ask in relation.ask
        )
    )


def _by_name(before: tuple, own: tuple) -> tuple:
    names = {part.name for part in own}
    return (*(part for part in before if part.name not in names), *own)


def _without(talk: Talk, said: set[str]) -> list[Talk]:
    """The talk without what somebody's own world replies to."""
    first = talk.turns[0]
    left = tuple(text for text in first.said if wording_key(text) not in said)
    return [replace(talk, turns=(Turn(left, first.reply), *talk.turns[1:]))] if left else []


def _finished(world: World) -> World:
    """With what follows from all of it: relations read backwards, what is not known."""
    relations = {
        name: replace(relation, facts=_backwards(world, relation)) if relation.reverse else relation
        for name, relation in world.relations.items()
    }
    examples = relations.get("example")
    if examples:
        members = _members(relations)
        facts = tuple(
            replace(f, accept=tuple(dict.fromkeys((*f.accept, *members.get(bare(f.x), ())))))
            for f in examples.facts
        )
        relations["example"] = replace(examples, facts=facts)
    known = {
        bare(text).lower() for r in relations.values() for f in r.facts for text in (f.x, *f.accept)
    }
    outside = {
        kind: tuple(item for item in found if bare(item).lower() not in known)
        for kind, found in world.outside.items()
    }
    _check_slots(world)
    # Whatever the bot is called, it is called so by everybody.
    talks = tuple(
        replace(
            talk,
            turns=tuple(
                Turn(
                    tuple(s.replace("{bot}", world.name) for s in turn.said),
                    turn.reply.replace("{bot}", world.name),
                )
                for turn in talk.turns
            ),
        )
        for talk in world.talks
    )
    return replace(world, relations=relations, outside=outside, talks=talks)


def _check_slots(world: World) -> None:
    """Raises UserError for a {list} in talk that does not exist."""
    for talk in world.talks:
        allowed = {*world.lists, "bot", *(("last",) if talk.at == "after" else ())}
        for turn in talk.turns:
            for text in (*turn.said, turn.reply):
                if not set(SLOT.findall(text)) <= allowed or re.search("[{}]", SLOT.sub("", text)):
                    number = next(
                        (line.number for line in lines(talk.path) if text[:-1] in line.text), 1
                    )
                    raise Line(talk.path, number, text).mistake(
                        f"{text!r}: a name in braces must be that of a file in lists/"
                    )


def _backwards(world: World, relation: Relation) -> tuple[Fact, ...]:
    """Who bakes bread: the facts of another relation, from right to left."""
    base = world.relations.get(relation.reverse)
    if base is None:
        raise UserError(
            f"facts/{relation.name}.txt: 'reverse: {relation.reverse}', and there is no "
            f"facts/{relation.reverse}.txt"
        )
    also = {fact.x: fact.accept for fact in relation.facts}
    found: dict[str, list[Fact]] = {}
    for fact in base.facts:
        found.setdefault(fact.y, []).append(fact)
    out = []
    for y, facts in found.items():
        # "Mexico City is the capital of which country" answers itself.
        if any(bare(fact.x).lower() in y.lower() for fact in facts):
            continue
        accept = (*(bare(fact.x) for fact in facts), *also.get(y, ()))
        out.append(Fact(relation.name, y, facts[0].x, accept, facts[0].own))
    return tuple(out)


def _members(relations: Mapping[str, Relation]) -> dict[str, list[str]]:
    """Category -> everything that is known to be one."""
    found: dict[str, list[str]] = {}
    for relation in relations.values():
        for fact in relation.facts:
            if relation.name == "category":
                for category in fact.accept:
                    found.setdefault(category, []).append(bare(fact.x))
            if relation.of:
                found.setdefault(relation.of, []).append(bare(fact.x))
    return found


def conflicts(world: World) -> list[str]:
    """Questions with two different answers, as lines of text."""
    answers: dict[str, tuple[str, str]] = {}
    found = []

    def add(text: str, reply: str, where: str) -> None:
        before = answers.setdefault(key(text), (reply, where))
        if before[0] != reply:
            found.append(f"{where}: {text!r} -> {reply!r}, but {before[1]} -> {before[0]!r}")

    key = wording_key
    for relation in world.relations.values():
        for fact in relation.facts:
            reply = world.fill(relation.say[0], fact.x, fact.y)
            for template in (*relation.ask, *relation.noun):
                if fits(template, fact.x):
                    add(world.fill(template, fact.x, ""), reply, f"facts/{relation.name}.txt")
    key = plain  # of what is said in passing a greeting may be all
    answers = {plain(text): answer for text, answer in answers.items()}
    for talk in world.talks:
        if talk.at != "after":
            for text in talk.turns[0].said:
                add(text, talk.turns[0].reply, f"talk/{talk.name}.txt")
    return found


def fits(template: str, x: str) -> bool:
    """Only what has an article has a plural: not "what color are snow"."""
    return x.startswith(("a ", "an ")) or ("{p}" not in template and "{P}" not in template)
