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
from nanochat.data.tinyworld import facts, skills, words
from nanochat.data.tinyworld import questions as questions_module
from nanochat.data.tinyworld import wordings as wordings_module
from nanochat.data.tinyworld.asking import yes_no
from nanochat.data.tinyworld.facts import all_facts, bare, sizes
from nanochat.data.tinyworld.questions import spoken
from nanochat.data.tinyworld.rng import Rng
from nanochat.data.tinyworld.wordings import RELATIONS, plain, statement, wordings

ROOT = Path(__file__).parents[2]
# Change these only together with the texts, and say so in the change.
SHA256 = {
    "documents": "855f536269f73983a297e77e976f7d5a4ab73a6ed7710aab0e2d3a0dcee0e3c4",
    "conversations": "1e1d7c60b1cd1f54133310a94f92bc99cd4f001ec77c2ff7dc6ef7eb7065d893",
}
HASH = """
import hashlib, json
from itertools import islice, pairwise
from nanochat.data import tinyworld
text = "\\n".join(islice(tinyworld.documents(0), 400))[:100_000]
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


@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_the_bytes_are_the_same_everywhere(hash_seed):
    env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    out = subprocess.run(
        [sys.executable, "-c", HASH], env=env, capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(out) == [SHA256["documents"], SHA256["conversations"]]


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


def test_each_fact_is_there_once():
    keys = Counter((fact.relation, fact.x) for fact in all_facts())
    assert [key for key, count in keys.items() if count > 1] == []
    assert 400 <= len(all_facts()) <= 1200


def test_facts_have_questions_to_teach_and_to_hold_out():
    for fact in all_facts():
        ways = wordings(fact)
        assert len(ways.taught.items) >= 40, fact
        assert ways.new, fact
        assert ways.clauses, fact
    without = [fact for fact in all_facts() if not wordings(fact).held_out]
    assert len(without) < 10


def test_capitals_lie_on_one_continent_and_speak():
    countries = {fact.x for fact in all_facts() if fact.relation == "capital"}
    for fact in all_facts():
        if fact.relation in ("continent", "language"):
            assert fact.x in countries, fact


def test_nothing_outside_is_in_the_table():
    known = {bare(text).lower() for fact in all_facts() for text in (fact.x, fact.y)}
    for table in (words.COUNTRIES, words.CITIES, words.ODD_ANIMALS, words.ODD_THINGS):
        for half in words.halves(table):
            assert not known & {word.lower() for word in half}
    opposites = {fact.x for fact in all_facts() if fact.relation == "opposite"}
    for half in words.halves(words.ODD_WORDS):
        assert not opposites & set(half)


def test_only_different_sizes_are_compared():
    ranks = dict(sizes())
    assert ranks["a mouse"] < ranks["a horse"] < ranks["a mountain"]


# ---- held out


def test_there_are_enough_questions_of_each_kind(questions):
    kinds = Counter(question.kind for question in questions)
    assert len(questions) >= 600
    assert len(kinds) >= 12
    assert min(kinds.values()) >= 20, kinds
    assert {"two_turn", "letter_counting", "unknown", "fact_new_wording"} <= set(kinds)
    assert {relation.kind for relation in RELATIONS.values()} <= set(kinds)


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


NUMBERS = {word: n for n, word in enumerate(skills.NUMBERS)}


@pytest.mark.parametrize(
    "maker",
    [
        skills.larger_number,
        skills.next_number,
        skills.counting,
        skills.arithmetic,
        skills.word_problem,
    ],
)
def test_numbers_of_a_skill_are_never_seen(maker, questions):
    def operands(text):
        text = text.lower()
        if maker is skills.arithmetic:  # "one" of "which one" is no number
            text = re.sub("[a-z]+", lambda m: str(NUMBERS.get(m[0], m[0])), text)
        return tuple(sorted(map(int, re.findall(r"\d+", text)))), "before" in text

    rng = Rng("test")
    seen = {operands(maker(rng, False).text) for _ in range(4000)}
    for question in questions:
        if question.kind == maker.__name__:
            assert operands(shown(question.messages[-1])) not in seen


def test_letters_are_counted_in_words_never_counted(talks, questions):
    calls = {
        part["text"].split("'")[1]  # 'word'.count('l')
        for conversation in talks
        for message in conversation
        if not isinstance(message["content"], str)
        for part in message["content"]
        if part["type"] == "python" and re.search(r"count\('.'\)", part["text"])
    }
    assert len(calls) > 500
    around = set(re.findall(r"[a-z]{3,}", " ".join(skills.LETTERS).lower()))
    for question in questions:
        if question.kind == "letter_counting":
            said = set(re.findall(r"[a-z]{3,}", shown(question.messages[-1]).lower()))
            assert not calls & (said - around), said


def test_sizes_are_compared_in_pairs_never_compared():
    rng = Rng("test")

    def pair(asked):
        return frozenset(re.findall(r"[a-z]+", asked.reply.lower())) - {"a", "an", "the"}

    seen = {frozenset(pair(skills.compare(rng, False)) - SIZE_WORDS) for _ in range(4000)}
    held = {frozenset(pair(skills.compare(rng, True)) - SIZE_WORDS) for _ in range(400)}
    assert not seen & held


SIZE_WORDS = {"is", "bigger", "larger", "smaller", "than", "of", "grain"}


# ---- right and wrong


def test_the_taught_answer_is_right():
    for fact in all_facts():
        question = tinyworld.Question("x", [], bare(fact.y), fact.accept)
        assert question.is_right(statement(fact)), fact
        assert not question.is_right("I do not know that."), fact


def test_is_right_wants_whole_words_and_no_rejected_ones():
    question = tinyworld.Question("x", [], "cat", ("cat",), ("dog is bigger",))
    assert question.is_right("A CAT, I think.")
    assert not question.is_right("A caterpillar.")
    assert not question.is_right("A dog is bigger than a cat.")
    unknown = tinyworld.Question("unknown", [], "I do not know that.", ("do not know",))
    assert unknown.is_right("I do not know that.")
    assert not unknown.is_right("It is Paris.")


@pytest.mark.parametrize(
    "maker",
    [
        yes_no,
        skills.compare,
        skills.larger_number,
        skills.next_number,
        skills.counting,
        skills.arithmetic,
        skills.word_problem,
        skills.letter_counting,
        skills.repeat,
        skills.spelling,
        skills.spelling_new,
        skills.abilities,
    ],
)
def test_what_a_skill_teaches_is_right(maker):
    rng = Rng("test right")
    for i in range(300):
        asked = maker(rng, i % 2 == 0)
        question = tinyworld.Question(asked.kind, [], asked.answer, asked.accept, asked.reject)
        reply = asked.reply if isinstance(asked.reply, str) else asked.reply[-1]["text"]
        assert question.is_right(reply), asked


@pytest.mark.parametrize("kind", about_me_module.SAY)
def test_what_is_remembered_is_what_was_said(kind):
    rng = Rng("test me")
    for i in range(200):
        told = about_me_module.about_me(rng, i % 2 == 0, kind)
        assert told.value.lower() in told.text.lower()
        assert told.value in told.answer
        assert told.value.lower() not in told.ask.lower()


def test_yes_or_no_accepts_every_right_answer():
    """A dog is an animal, and a mammal as well; it has four legs, and 4."""
    rng, said = Rng("test yes"), set()
    for _ in range(20_000):
        asked = yes_no(rng, False)
        if asked.answer == "yes":
            said.add(spoken(asked.reply))
    for known in ("A dog is a mammal", "A dog has 4 legs", "The opposite of big is little"):
        assert f"{known}. So the answer is yes." in said


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
            result = str(eval(python["text"].strip())).removesuffix(".0")  # of a division
            assert result == output["text"]
            calls += 1
    assert calls > 500


# ---- clean

BAD = (
    (r"\b[Aa] (?!is )[aeiou]", "a before a vowel"),
    (r"\b[Aa]n [^aeiouAEIOUl]", "an before a consonant"),
    (r"  ", "two spaces"),
    (r" [.,?!]", "space before a mark"),
    (r"[.,]{2}|[?!]\.|\.\?", "two marks"),
    (r"[{}]|None|\bnan\b", "a hole in a template"),
    (r"\bthe the\b|\ba the\b|\bis is\b|\ba a\b", "doubled word"),
    (
        r"\b(?:he|she|it|[A-Z](?!eople|ice|heep|ish|eer|ou\b)[a-z]*[a-rt-z]) "
        r"(?:have|say|eat|live)\b",
        "verb",
    ),
    (r"[^\x00-\x7f]", "not ASCII"),
)
# The opposite of a word, and letters and invented names, have no article.
FINE = re.compile(r"letter '?[a-z]'?|'[a-z]+'|\b[aA] is\b|\bhow many a\b|an'?s?\b", re.I)


def faults(text):
    text = re.sub(r"(?:Q|A|User|Nanochat): ", "", text)
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
            assert re.match(r"[A-Z0-9]", reply), reply
            assert reply[-1] in ".?!", reply
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


@pytest.mark.parametrize("module", [facts, questions_module, wordings_module])
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
