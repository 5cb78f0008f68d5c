"""Stories on request: different for each subject, clean, and they answer what is asked of them."""

import re
from collections import Counter

import pytest

from nanochat.data.tinyworld.loading import load
from nanochat.data.tinyworld.rng import Rng
from nanochat.data.tinyworld.stories import about_story, another_story, library, story, tell
from nanochat.system.errors import UserError


@pytest.fixture(scope="module")
def world():
    return load()


@pytest.fixture(scope="module")
def every_story(world):
    book = library(world)
    return [
        tell(world, subject, number)
        for subject in book.subjects
        for number in range(len(book.plots_for(subject.kind)))
    ]


def words_of(text):
    return re.findall(r"[\w'-]+", text.lower())


def test_stories_differ_by_subject_and_number(world, every_story):
    assert len({told.text for told in every_story}) == len(every_story) > 2000
    book = library(world)
    assert len(book.subjects) > 200
    assert len(book.plots) >= 24
    # Nobody's first stories are alike: plot, name and ending are drawn.
    first = [tell(world, subject, 0) for subject in book.subjects]
    assert len({told.asks for told in first}) > len(book.plots) * 0.8
    assert (
        max(Counter(told.slots.get("name") for told in first if told.slots["he"] != "it").values())
        < 15
    )


def test_stories_are_short_and_clean(every_story):
    for told in every_story:
        text, words = told.text, words_of(told.text)
        assert text[0].isupper(), text
        assert text[-1] in '.!"', text
        assert text.isascii(), text
        assert len(words) <= 60, text
        assert 4 <= len(re.findall(r'[.!?]"?(?= [A-Z"]|$)', text)) <= 7, text
        fours = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
        assert len(set(fours)) == len(fours), text
        assert not re.search(r"[{}]|\ba [aeio]|  ", text), text
        assert told.subject.n in text, text


def test_everything_asked_of_a_story_stands_in_it(world, every_story):
    for told in every_story:
        for question, answer, right in told.asks:
            question, answer, right = (p.format(**told.slots) for p in (question, answer, right))
            assert right.lower() in answer.lower(), (question, answer, right)
            assert right.lower() in told.text.lower(), (told.text, question, right)
    rng = Rng("asked of stories")
    for _ in range(300):
        before = story(world, rng, held=False)
        asked = about_story(world, rng, before)
        assert asked is not None
        right = asked.accept[0]
        assert right in str(asked.reply)
        assert right == "end" or right.lower() in before.told.text.lower()


def test_the_same_subject_is_told_the_same_story_and_then_the_next(world):
    rng = Rng("stories")
    first: dict[tuple[str, str], str] = {}
    for _ in range(2000):
        asked = story(world, rng, held=False)
        told = asked.told
        assert asked.reply == told.text
        assert first.setdefault((told.subject.n, told.given), told.text) == told.text
        another = another_story(world, rng, asked)
        assert another is not None
        assert another.told.subject == told.subject
        assert another.told.number == 1
        assert another.told.given == told.given
        assert another.reply != asked.reply
        assert asked.accept[0] in str(asked.reply)


def test_a_given_name_is_the_name_of_the_hero(world):
    subject = next(s for s in library(world).subjects if s.n == "dog")
    told = tell(world, subject, 0, "Wobo")
    assert "Wobo" in told.text
    assert "Wobo" in tell(world, subject, 1, "Wobo").text
    assert " she " not in tell(world, subject, 3, "Ben").text.lower()


def test_held_out_requests_are_not_taught(world):
    taught, held = Rng("taught"), Rng("held")
    texts = {story(world, taught, held=False).text.lower().strip("?.! ") for _ in range(3000)}
    asked = [story(world, held, held=True) for _ in range(200)]
    assert not any(a.text.lower().strip("?.! ") in texts for a in asked)
    assert len({a.told.subject.n for a in asked}) > 60


SUBJECTS = """
kind: robots
names: pets
open: Once there was {such} named {name}.
like: old
lives: in a shed
friend: cat
subject: a toaster
"""
PLOTS = """
plot: bread
for: robots
tell: {He} was afraid of {thing}.
draw: thing = bread
end: {Friend} took it away.
ask: What was {the} afraid of = {He} was afraid of {thing}. | {thing}
"""


def own_world(tmp_path, subjects=SUBJECTS, plots=PLOTS):
    for name, text in (("subjects", subjects), ("plots", plots)):
        path = tmp_path / "stories" / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (tmp_path / "world.txt").write_text("name: tick\n")
    (tmp_path / "talk").mkdir(exist_ok=True)
    (tmp_path / "talk" / "hi.txt").write_text("> Hi\nHello!\n")
    return load(tmp_path)


def test_a_world_of_ones_own_adds_stories(tmp_path):
    world = own_world(tmp_path)
    toaster = library(world).subjects[-1]
    first, rest = tell(world, toaster, 0).text.split(". ", 1)
    assert re.fullmatch(r"Once there was an old toaster named \w+", first)
    assert re.fullmatch(r"S?[Hh]e was afraid of bread\. A cat took it away\.", rest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("for: robots", "for: robot"), r"plots\.txt:3: 'robot' is not a kind"),
        (("{He} was", "{Who} was"), r"plots\.txt:4: \{Who\} does not exist here"),
        (("names: pets", "names: pet"), r"subjects\.txt:3: 'pet' is not one of pets"),
        (("draw: thing = bread", "draw: thing"), r"plots\.txt:5: expected 'this = that'"),
        (("friend: cat\n", ""), "'robots' has no line 'friend:'"),
        (("end: {Friend} took it away.\n", ""), "a plot needs lines 'tell:' and 'end:'"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path, change, message):
    world = own_world(tmp_path, SUBJECTS.replace(*change), PLOTS.replace(*change))
    with pytest.raises(UserError, match=message):
        library(world)
