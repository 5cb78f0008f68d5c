"""Stories on request: about whom, what happens, another one, and what was told.

The texts are in world/stories/. Which plot, name and ending a story has is decided by its subject
and its number, not by chance: a small model answers the same question always the same way, so
stories differ only if the question makes them differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from nanochat.data.tinyworld import files
from nanochat.data.tinyworld.english import article, bare, capital, listed
from nanochat.data.tinyworld.files import Line
from nanochat.data.tinyworld.keys import is_held_out, wording_key
from nanochat.data.tinyworld.made_up import invented
from nanochat.data.tinyworld.questions import Asked
from nanochat.data.tinyworld.rng import Rng, stable_hash
from nanochat.data.tinyworld.slips import typed
from nanochat.data.tinyworld.small_talk import marked
from nanochat.system.errors import UserError

if TYPE_CHECKING:
    from nanochat.data.tinyworld.world import World

SUBJECT_KEYS = ("kind", "names", "open", "like", "lives", "friend", "subject")
PLOT_KEYS = ("plot", "for", "tell", "end", "draw", "ask")
WORDING_KEYS = ("wordings", "say", "about", "ask", "answer", "right")
WORDINGS = ("ask", "noun", "named", "any", "another")
NAME_LISTS = {  # names: -> the lists of her names and of his
    "pets": ("pet_girls", "pet_boys"), "people": ("girls", "boys"), "none": ("", ""),
}  # fmt: skip
PRONOUNS = {"he": ("his", "him"), "she": ("her", "her"), "it": ("its", "it")}
# One asker in eight wants a story about what nobody has heard of, which is a hero of this kind.
UNHEARD_OF = "creature"
HERO = listed("x n the he his him name such lives friend the_friend")
HERO_SLOTS = frozenset((*HERO, *map(capital, HERO)))
PART_HELD_OUT = 6


@dataclass(frozen=True)
class Subject:
    """Who a story is about. x: with its article. he: "he", "she" or "" (drawn); names: or drawn."""

    x: str
    kind: str
    he: str = ""
    names: tuple[str, ...] = ()

    @property
    def n(self) -> str:
        return bare(self.x)


@dataclass
class Kind:
    """Subjects that plots, names and friends are shared by."""

    names: str
    subjects: list[Subject]
    texts: dict[str, list[str]]  # "open", "like", "lives", "friend"


@dataclass(frozen=True)
class Plot:
    name: str
    kinds: tuple[str, ...]
    tell: tuple[str, ...]
    ends: tuple[str, ...]
    draws: Mapping[str, tuple[str, ...]]
    asks: tuple[tuple[str, str, str], ...]  # (question, answer, what is right in it)


@dataclass(frozen=True)
class About:
    """A question that fits every story."""

    ask: tuple[str, ...]
    answer: str
    right: str


@dataclass(frozen=True)
class Story:
    """A story as told, and the slots it was filled with."""

    subject: Subject
    number: int
    given: str  # the name that the asker gave the hero, or ""
    text: str
    slots: Mapping[str, str]
    asks: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class AskedStory(Asked):
    """A request for a story with the story, so that there can be another one and questions."""

    told: Story = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class Library:
    """All of world/stories/."""

    kinds: Mapping[str, Kind]
    plots: tuple[Plot, ...]
    wordings: Mapping[str, tuple[str, ...]]
    abouts: tuple[About, ...]

    @cached_property
    def subjects(self) -> tuple[Subject, ...]:
        return tuple(subject for kind in self.kinds.values() for subject in kind.subjects)

    def plots_for(self, kind: str) -> tuple[Plot, ...]:
        return tuple(plot for plot in self.plots if kind in plot.kinds)


# ---- reading the files


@cache
def library(world: World) -> Library:
    """The stories of all folders of a world; those of its own come behind the built-in ones.

    Raises UserError that names file and line.
    """
    kinds: dict[str, Kind] = {}
    plots: list[Plot] = []
    wordings: dict[str, list[str]] = {name: [] for name in WORDINGS}
    abouts: list[About] = []
    for folder in world.folders:
        for block in _blocks(folder / "stories" / "subjects.txt", SUBJECT_KEYS):
            _add_subjects(kinds, block)
        for block in _blocks(folder / "stories" / "plots.txt", PLOT_KEYS):
            plots.append(_plot(block, kinds))
        for block in _blocks(folder / "stories" / "wordings.txt", WORDING_KEYS):
            if "about" in block:
                texts = (_one(block, "about", key) for key in ("answer", "right"))
                abouts.append(About(_texts(block, "ask"), *texts))
            else:
                wordings[_one(block, "say", "wordings", WORDINGS)] += _texts(block, "say")
    for name, kind in kinds.items():
        needed = ("friend",) if kind.names == "none" else ("friend", "open", "like", "lives")
        missing = [key for key in needed if not kind.texts[key]]
        if missing:
            raise UserError(f"the kind of stories {name!r} has no line '{missing[0]}:': add one")
        if not any(name in plot.kinds for plot in plots):
            raise UserError(f"the kind of stories {name!r} has no plot: add one with 'for: {name}'")
    return Library(kinds, tuple(plots), {k: tuple(v) for k, v in wordings.items()}, tuple(abouts))


Block = dict[str, list[Line]]  # key -> its values


def _blocks(path: Path, keys: tuple[str, ...]) -> list[Block]:
    out = []
    for block in files.blocks(files.lines(path)) if path.is_file() else ():
        found: Block = {}
        for line in block:
            key, value = files.field(line, keys)
            found.setdefault(key, []).append(line._replace(text=value))
        out.append(found)
    return out


def _texts(block: Block, key: str) -> tuple[str, ...]:
    return tuple(line.text for line in block.get(key, ()))


def _one(block: Block, beside: str, key: str, known: tuple[str, ...] = ()) -> str:
    """The only value of a key; `beside` is a key that the block has for certain."""
    values = block.get(key, [])
    if len(values) != 1:
        where = (values or next(iter(block.values())))[-1]
        raise where.mistake(f"one line '{key}:' is needed beside '{beside}:'")
    if known and values[0].text not in known:
        raise values[0].mistake(f"{values[0].text!r} is not one of {', '.join(known)}")
    return values[0].text


def _parts(line: Line, by: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in line.text.split(by))
    if not all(parts):
        raise line.mistake(f"nothing stands beside a {by!r}")
    return parts


def _pair(line: Line) -> tuple[str, str]:
    parts = _parts(line, "=")
    if len(parts) != 2:
        raise line.mistake(f"expected 'this = that': {line.text!r}")
    return parts[0], parts[1]


def _add_subjects(kinds: dict[str, Kind], block: Block) -> None:
    name = _one(block, "subject", "kind")
    if name not in kinds:
        kinds[name] = Kind(_one(block, "kind", "names", tuple(NAME_LISTS)), [], {})
    kind = kinds[name]
    files.check_slots(block.get("open", ()), HERO_SLOTS)
    for key in ("open", "like", "lives", "friend"):
        values = [part for line in block.get(key, ()) for part in _parts(line, "|")]
        kind.texts.setdefault(key, []).extend(values)
    for line in block.get("subject", ()):
        x, *rest = _parts(line, "=")
        he, *names = _parts(line._replace(text=rest[0]), "|") if rest else ("",)
        if he not in ("", *PRONOUNS):
            raise line.mistake(f"{he!r} is not one of {', '.join(PRONOUNS)}")
        kind.subjects.append(Subject(x, name, he, tuple(names)))


def _plot(block: Block, kinds: Mapping[str, Kind]) -> Plot:
    name = _one(block, "tell", "plot")
    for_kinds = tuple(kind.strip() for kind in _one(block, "plot", "for").split(","))
    for kind in for_kinds:
        if kind not in kinds:
            raise block["for"][0].mistake(
                f"{kind!r} is not a kind of subjects.txt: {', '.join(kinds)}"
            )
    if "tell" not in block or "end" not in block:
        raise block["plot"][0].mistake("a plot needs lines 'tell:' and 'end:'")
    draws = {}
    for line in block.get("draw", ()):
        slot, values = _pair(line)
        draws[slot] = _parts(line._replace(text=values), "|")
    known = HERO_SLOTS | set(draws) | set(map(capital, draws))
    files.check_slots(
        (line for key in ("tell", "end", "ask") for line in block.get(key, ())), known
    )
    asks = []
    for line in block.get("ask", ()):
        question, rest = _pair(line)
        answer, *right = _parts(line._replace(text=rest), "|")
        asks.append((question, answer, right[0] if right else "{friend_noun}"))
    return Plot(name, for_kinds, _texts(block, "tell"), _texts(block, "end"), draws, tuple(asks))


# ---- telling


def tell(world: World, subject: Subject, number: int, name: str = "") -> Story:
    """Story `number` about the subject. name: if it is said what the hero is called."""
    book = library(world)
    kind = book.kinds[subject.kind]
    plots = book.plots_for(subject.kind)
    # The next story is the next plot of the file, for whomever: that much can be learned of a story
    # which is not the first, and where in the file a subject begins is known by heart.
    plot = plots[(stable_hash(f"plot {subject.n}") + number) % len(plots)]
    rng = Rng(f"story {number} about {subject.n}")
    slots = _hero(world, rng, subject, kind, name)
    opening = rng.choice(kind.texts["open"]) if kind.texts["open"] else ""
    if not opening or "{lives}" not in opening:
        slots.pop("lives", None)
    slots |= {slot: rng.choice(values) for slot, values in plot.draws.items()}
    slots |= {capital(slot): capital(value) for slot, value in slots.items()}
    end = rng.choice(plot.ends).format(**slots)
    sentences = [text.format(**slots) for text in (opening, *plot.tell) if text]
    text = " ".join([*sentences, end])
    return Story(subject, number, name, text, slots | {"end": end}, plot.asks)


def _hero(world: World, rng: Rng, subject: Subject, kind: Kind, name: str) -> dict[str, str]:
    """The slots of hero and friend."""
    he = "it" if kind.names == "none" else subject.he or rng.choice(("he", "she"))
    if name:
        he = subject.he or _as_listed(world, kind, name) or he
    elif kind.names != "none":
        name = rng.choice(subject.names or _names(world, kind, he))
    slots = {"x": subject.x, "n": subject.n, "the": f"the {subject.n}", "he": he}
    slots["his"], slots["him"] = PRONOUNS[he]
    if name:
        slots["name"] = name
        likes = [like for like in kind.texts["like"] if like not in subject.n] or [""]
        slots["such"] = article(f"{rng.choice(likes)} {subject.n}".strip())
        slots["lives"] = rng.choice(kind.texts["lives"] or ["in a land far away"])
    # A fox meets no other fox: "the fox" would be either.
    friends = [f for f in kind.texts["friend"] if f not in subject.n and subject.n not in f]
    friend = rng.choice(friends or kind.texts["friend"])
    return slots | {
        "friend": article(friend), "the_friend": f"the {friend}", "friend_noun": friend,
    }  # fmt: skip


def _names(world: World, kind: Kind, he: str) -> tuple[str, ...]:
    hers, his = NAME_LISTS[kind.names]
    return world.lists.get(hers if he == "she" else his) or world.lists.get("names") or ("Robin",)


def _as_listed(world: World, kind: Kind, name: str) -> str:
    """Whether a name is a girl's or a boy's, as far as the lists know."""
    for he, lists in (("she", ("girls", "pet_girls")), ("he", ("boys", "pet_boys"))):
        if any(name in world.lists.get(listed, ()) for listed in lists):
            return he
    return ""


# ---- asking for one


def story(world: World, rng: Rng, held: bool) -> AskedStory:
    """A request for a story; held out by its wording and subject."""
    book = library(world)
    while True:
        way = rng.choice(("ask",) * 14 + ("noun", "named", "named") + ("any",) * (0 if held else 4))
        if way == "any":
            return _any_story(world, rng)
        subject = rng.choice(book.subjects)
        if rng.chance(12):
            subject = Subject(article(invented(rng)), UNHEARD_OF)
        countable = subject.x != f"the {subject.n}"
        named = book.kinds[subject.kind].names != "none"
        if (way == "noun" and not countable) or (way == "named" and not (countable and named)):
            continue
        x = subject.x
        if way == "ask" and countable and rng.chance(15):
            x = world.plural(subject.n)
        name = ""
        if way == "named":
            name = (
                capital(invented(rng))
                if rng.chance(50)
                else rng.choice(world.lists.get("names", ("Robin",)))
            )
        told = tell(world, subject, 0, name)
        text = rng.choice(book.wordings[way]).format(x=x, X=capital(x), name=name)
        if is_held_out(wording_key(text), PART_HELD_OUT) == held:
            return _asked(world, rng, text, told)


def _any_story(world: World, rng: Rng) -> AskedStory:
    """Never held out: that "Tell me a story" gets one about a fox can only be learned by heart."""
    book = library(world)
    text = rng.choice(book.wordings["any"])
    subject = book.subjects[stable_hash(f"any story: {text}") % len(book.subjects)]
    return _asked(world, rng, text, tell(world, subject, 0))


def another_story(
    world: World, rng: Rng, before: AskedStory, held: bool = False
) -> AskedStory | None:
    """A request for one more, right after a story; None where no wording of it is held out."""
    last = before.told
    allowed = [
        text for text in library(world).wordings["another"]
        if is_held_out(f"another {last.subject.n}: {text}", PART_HELD_OUT) == held
    ]  # fmt: skip
    if not allowed:
        return None
    text = rng.choice(allowed).format(x=last.subject.x)
    return _asked(world, rng, text, tell(world, last.subject, last.number + 1, last.given))


def about_story(world: World, rng: Rng, before: AskedStory, held: bool = False) -> Asked | None:
    """A question about the story just told; None where none is held out."""
    told = before.told
    general = [(ask, a.answer, a.right) for a in library(world).abouts for ask in a.ask]
    # A plot has two or three questions of its own, and those are the ones that need reading.
    for pool in (told.asks, general) if rng.chance(50) else (general, told.asks):
        fitting = [
            parts for parts in pool
            if _fits(" ".join(parts), told)
            and is_held_out(f"about {told.subject.n}: {parts[0]}", PART_HELD_OUT) == held
        ]  # fmt: skip
        if fitting:
            text, answer, right = (part.format(**told.slots) for part in rng.choice(fitting))
            right = bare(right.rstrip("."))
            return Asked("story_question", typed(rng, marked(rng, text)), answer, right, (right,))
    return None


def _fits(template: str, told: Story) -> bool:
    """Whether the story has everything that the template asks for."""
    return all(slot in told.slots for slot in files.SLOT.findall(template))


def _asked(world: World, rng: Rng, text: str, told: Story) -> AskedStory:
    right = told.given or told.subject.n
    text = marked(rng, text)
    careless = typed(rng, text)
    # Who slips in a word that does not exist cannot be helped: nobody knows what was meant.
    made_up = told.given or told.subject not in library(world).subjects
    if made_up and right.lower() not in careless.lower():
        careless = text
    return AskedStory("story", careless, told.text, right, (right,), told=told)
