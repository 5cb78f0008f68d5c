"""tinyworld: true and clean texts, the same bytes everywhere, and questions that were held out."""

import doctest
import json
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import islice, pairwise
from pathlib import Path

import pytest

from nanochat.data import tinyworld
from nanochat.data.tinyworld import about_me as about_me_module
from nanochat.data.tinyworld import asking, english, keys, unknown
from nanochat.data.tinyworld import questions as questions_module
from nanochat.data.tinyworld.english import bare
from nanochat.data.tinyworld.keys import plain
from nanochat.data.tinyworld.loading import conflicts, load
from nanochat.data.tinyworld.questions import spoken
from nanochat.data.tinyworld.rng import Rng
from nanochat.data.tinyworld.wordings import asking as asking_for
from nanochat.data.tinyworld.wordings import bare_questions, clauses, new_wording, statement
from nanochat.data.tinyworld.world import fits
from nanochat.tasks.calculator import calculate

ROOT = Path(__file__).parents[2]
WORLD = load()
HASH = """
import hashlib, json
from itertools import islice
from nanochat.data import tinyworld
text = "\\n".join(islice(tinyworld.documents(0), 200))
talks = json.dumps(tinyworld.conversations(500)) + repr(tinyworld.held_out())
print(json.dumps([hashlib.sha256(t.encode()).hexdigest() for t in (text, talks)]))
"""


@pytest.fixture(scope="module")
def shard():
    return list(tinyworld.documents(0))


@pytest.fixture(scope="module")
def talks():
    return tinyworld.conversations(20_000)


@pytest.fixture(scope="module")
def questions():
    return tinyworld.held_out()


def shown(message):
    """A message's content as one text."""
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def replies(conversation):
    """What the assistant says, without its calculator calls."""
    for message in conversation:
        if message["role"] == "assistant":
            yield spoken(message["content"])


# ---- the same everywhere


def test_the_bytes_are_the_same_in_every_process():
    """Made twice, with sets in another order; a world that is edited breaks no test."""
    made = [
        subprocess.run(
            [sys.executable, "-c", HASH],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=True,
        ).stdout
        for hash_seed in ("0", "12345")
    ]  # fmt: skip
    assert made[0] == made[1]
    assert len(json.loads(made[0])) == 2


def test_a_longer_list_begins_with_the_shorter_one(talks):
    assert tinyworld.conversations(50) == talks[:50]


def test_conversations_made_one_by_one_are_the_same(talks):
    one_by_one = tinyworld.Talks(30)
    assert len(one_by_one) == 30
    assert one_by_one[7] == talks[7]
    assert list(one_by_one)[:30] == talks[:30]


def test_validation_conversations_are_hardly_ever_training_ones(talks):
    trained = {json.dumps(talk) for talk in talks}
    validation = tinyworld.validation_conversations()
    assert len(validation) == 400
    assert sum(json.dumps(talk) in trained for talk in validation) < 20


def test_shards_have_their_size_and_differ(shard):
    assert abs(sum(len(d.encode()) for d in shard) - tinyworld.SHARD_BYTES) < 2000
    other = list(islice(tinyworld.documents(7), 2000))
    assert not set(shard) & set(other)
    assert len(set(shard)) == len(shard)
    with pytest.raises(ValueError, match="shard -1"):
        tinyworld.documents(-1)


def test_validation_documents_are_no_training_documents(shard):
    validation = list(tinyworld.validation_documents())
    assert 490_000 < sum(map(len, validation)) < 510_000
    assert not set(validation) & set(shard)
    other = set(islice(tinyworld.documents(1), 3000))
    assert not set(validation) & other


# ---- the facts


def test_no_question_has_two_answers():
    assert conflicts(WORLD) == []


def test_facts_have_questions_to_teach_and_to_hold_out():
    rng = Rng("test wordings")
    for fact in WORLD.facts:
        relation = WORLD.relations[fact.relation]
        assert asking_for(WORLD, rng, relation, fact.x, False), fact
        assert bare_questions(WORLD, fact) or clauses(WORLD, fact), fact
        assert new_wording(WORLD, rng, fact), fact
    held = [
        f for f in WORLD.facts if asking_for(WORLD, rng, WORLD.relations[f.relation], f.x, True)
    ]
    assert len(held) > len(WORLD.facts) / 2


def test_what_is_answered_is_never_unknown():
    """A question that the world answers is not taught as one that it cannot answer."""
    answered = {
        keys.wording_key(WORLD.fill(ask, fact.x, ""))
        for relation in WORLD.relations.values()
        for fact in relation.facts
        for ask in relation.ask
        if fits(ask, fact.x)
    }
    rng = Rng("test unknown")
    for i in range(20_000):
        text, _ = unknown.unknown_question(WORLD, rng, i % 2 == 0)
        assert keys.wording_key(text) not in answered, text


def test_only_different_ranks_are_compared():
    ranks = dict(WORLD.orders[[o.name for o in WORLD.orders].index("size")].ranks)
    assert ranks["a mouse"] < ranks["a horse"] < ranks["a mountain"]


# ---- held out


def test_there_are_enough_questions_of_each_kind(questions):
    kinds = Counter(question.kind for question in questions)
    assert len(questions) >= 600
    assert len(kinds) >= 12
    assert min(kinds.values()) >= 20, kinds
    assert {"two_turn", "letter_counting", "unknown", "fact_new_wording"} <= set(kinds)
    assert {relation.kind for relation in WORLD.relations.values()} <= set(kinds)


def test_no_question_is_asked_in_training(talks, questions, shard):
    asked, followed = set(), set()
    for conversation in talks:
        said = [plain(shown(m)) for m in conversation if m["role"] == "user"]
        asked.update(said)
        followed.update(pairwise(said))
    for question in questions:
        said = [plain(shown(m)) for m in question.messages if m["role"] == "user"]
        if question.kind == "two_turn":
            assert tuple(said) not in followed, said
        elif question.kind == "memory":  # what is to be remembered is never said in training
            assert said[0] not in asked, said
        else:
            assert said[-1] not in asked, said
    written = set()
    for document in shard:
        written.update(plain(sentence) for sentence in re.split(r'[.?!"\n]|: |- ', document))
    for question in questions:
        if question.kind not in ("two_turn", "story", "small_talk", "memory"):
            assert plain(shown(question.messages[-1])) not in written, question


# ---- right and wrong


def test_the_taught_answer_is_right():
    for fact in WORLD.facts:
        question = tinyworld.Question("x", [], bare(fact.y), fact.accept)
        assert question.is_right(statement(WORLD, fact)), fact
        assert not question.is_right("I do not know that."), fact


def test_is_right_wants_whole_words_and_no_rejected_ones():
    question = tinyworld.Question("x", [], "cat", ("cat",), ("dog is bigger",))
    assert question.is_right("A CAT, I think.")
    assert not question.is_right("A caterpillar.")
    assert not question.is_right("A dog is bigger than a cat.")
    unknown = tinyworld.Question("unknown", [], "I do not know that.", ("do not know",))
    assert unknown.is_right("I do not know that.")
    assert not unknown.is_right("It is Paris.")


@pytest.mark.parametrize("memory", WORLD.memories, ids=lambda memory: memory.name)
def test_what_is_remembered_is_what_was_said(memory):
    rng = Rng("test me")
    for i in range(100):
        told = about_me_module.about_me(WORLD, rng, i % 2 == 0, memory.name)
        assert told.value.lower() in told.text.lower()
        assert told.value.lower() in told.answer.lower()
        assert told.value.lower() not in about_me_module.asked_for(rng, told).lower().split()


@pytest.mark.parametrize(
    ("relation", "x", "right"),
    [("category", "a dog", "a mammal"), ("legs", "a dog", "4"), ("opposite", "big", "little")],
)
def test_yes_or_no_accepts_every_right_answer(relation, x, right):
    """A dog is an animal, and a mammal as well; it has four legs, and 4."""
    fact = next(fact for fact in WORLD.relations[relation].facts if fact.x == x)
    assert right in asking.right_answers(WORLD, fact)
    assert right not in asking.wrong_answers(WORLD, fact)


def test_yes_or_no_says_what_the_calculator_found():
    rng = Rng("test yes")
    for i in range(2000):
        asked = asking.yes_no(WORLD, rng, i % 2 == 0)
        call, output, said = asked.reply
        assert (
            (output["text"] == "True")
            == (asked.answer == "Yes")
            == said["text"].startswith("Yes, ")
        )
        assert calculate(call["text"].strip()) == output["text"]


def test_comparisons_hold_out_pairs_and_are_true():
    rng = Rng("test order")
    for i in range(4000):
        asked = asking.compare(WORLD, rng, i % 2 == 0)
        for order in WORLD.orders:
            ranks = dict(order.ranks)
            for words, sign in ((order.more, 1), (order.less, -1)):
                said = re.fullmatch(
                    rf"(?:Yes, |No, )?(.*) is (?:{'|'.join(words)}) than (.*)\.",
                    spoken(asked.reply),
                )
                pair = said and [x if x in ranks else x[0].lower() + x[1:] for x in said.groups()]
                if pair and all(x in ranks for x in pair):
                    assert (ranks[pair[0]] - ranks[pair[1]]) * sign > 0, asked


def test_calculator_calls_are_right(talks):
    calls = 0
    for conversation in talks[:4000]:
        for message in conversation:
            if isinstance(message["content"], str):
                continue
            python, output, text = message["content"][-3:]
            assert [python["type"], output["type"], text["type"]] == [
                "python",
                "python_output",
                "text",
            ]
            assert python["text"][0] == " "
            assert str(calculate(python["text"].strip())) == output["text"]
            calls += 1
    assert calls > 500


# ---- clean

BAD = (
    (r"\b[Aa] (?!is |uni(?!n)|us[aeiu]|eu|one\b|ukulele)[aeiou]", "a before a vowel"),
    (r"\b[Aa]n (?!hour|honest|X-ray)[^aeiouAEIOUl]", "an before a consonant"),
    (r"  ", "two spaces"),
    (r" [.,?!]", "space before a mark"),
    (r"[.,]{2}|[?!]\.|\.\?", "two marks"),
    (r"[{}]|None(?! (?:is spelled|means))|\bnan\b", "a hole in a template"),
    (r"\bthe the\b|\ba the\b|\bis is\b|\ba a\b", "doubled word"),
    (
        r"\b(?:he|she|it|(?!We\b|They\b|To\b|You\b)[A-Z](?!eople|ice|heep|ish|eer|eese)"
        r"[a-z]*[a-rt-z]) (?:have|say|eat|live)\b",
        "verb",
    ),
    (r"[^\x00-\x7f]", "not ASCII"),
)
# The opposite of a word, and letters and invented names, have no article.
FINE = re.compile(
    r"letter '?[a-z]'?|'[a-z]+'|\b[aA] is\b|\bhow many a\b|an'?s?\b",
    re.I,
)


def faults(text):
    text = re.sub(r"(?:Q|A|User|Nanochat): ", "", text)
    text = re.sub(r"\bletter [a-z]\b", "letter", text)  # the letter a
    told = re.sub(r"[^.?!\n]*\?", "", text)
    return [
        (why, text[max(0, m.start() - 20) : m.end() + 20])
        for pattern, why in BAD
        for m in re.finditer(pattern, told if why == "verb" else text)
        if not FINE.search(m.group())
    ]


def test_documents_are_clean(shard):
    for document in shard[:4000]:
        assert 200 <= len(document) <= 1200
        if "\nNanochat: " in document:  # a chat: what people type into it is not clean
            document = "\n".join(re.findall(r"Nanochat: .*", document))
        assert faults(document) == [], document
        for line in document.split("\n"):
            assert re.match(r'[-"]? ?[A-Z0-9]', line), line
            assert line[-1] in '.?!"', line
        for sentence in re.split(r"(?<=[.?!]) ", document):
            assert sentence[0].isupper() or sentence[0] in '"-0123456789', sentence


def test_replies_are_short_clean_sentences(talks):
    for conversation in talks:
        for reply in replies(conversation):
            assert re.match(r'-?[A-Z0-9]|"', reply), reply
            assert re.search(r"[.?!]\"?$", reply), reply
            assert len(reply.split()) <= 60, reply
            assert faults(reply) == [], reply


def test_replies_repeat_no_four_words(talks):
    for conversation in talks:
        for reply in replies(conversation):
            said = reply.lower().split()
            fours = list(zip(said, said[1:], said[2:], said[3:], strict=False))
            assert len(set(fours)) == len(fours), reply


def test_conversations_alternate(talks):
    for conversation in talks:
        assert [m["role"] for m in conversation] == ["user", "assistant"] * (len(conversation) // 2)
        assert all(shown(m).strip() == shown(m) or m["role"] == "assistant" for m in conversation)
        assert all(shown(m) for m in conversation)


def test_the_words_are_few(shard):
    kinds = Counter(word for d in shard[:4000] for word in re.findall(r"[a-z]+", d.lower()))
    assert 800 < len(kinds) < 5000


@pytest.mark.parametrize("module", [english, keys, questions_module])
def test_examples(module):
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed


def test_seeded_numbers_are_spread():
    rng = Rng("spread")
    counts = Counter(rng.below(10) for _ in range(10_000))
    assert set(counts) == set(range(10))
    assert min(counts.values()) > 850
    assert len(set(rng.sample(range(50), 50))) == 50
    assert [Rng("a").below(1000) for _ in range(2)] == [Rng("a").below(1000)] * 2
