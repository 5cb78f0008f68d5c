"""Sums, numbers and letters: what is taught is true, and what is held out is never taught."""

from __future__ import annotations

import doctest
import re
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from nanochat.data.tinyworld import calls, english, letters, numbers, sums
from nanochat.data.tinyworld.questions import Asked, Question, spoken
from nanochat.data.tinyworld.rng import Rng
from nanochat.tasks import spelling_bee
from nanochat.tasks.calculator import calculate

WORDS = (
    "apple banana bee book butter cat cherry coffee dog door elephant goose hello kitchen letter "
    "lion mirror mississippi moon mother once pepper pizza puzzle river sea star strawberry "
    "tree twice"
)
WORLD: Any = SimpleNamespace(
    countable_words=tuple(WORDS.split()),
    lists={
        "girls": ("Anna", "Ruth"),
        "boys": ("Tom", "Ben"),
        "names": ("Priya", "Tom"),
        "countable_things": ("apples", "stones"),
    },
)
Maker = Callable[[Any, Rng, bool], Asked]
BY_NUMBERS: tuple[Maker, ...] = (
    sums.arithmetic, sums.word_problem, numbers.number_check, numbers.larger_number,
    numbers.next_number, numbers.counting,
)  # fmt: skip
BY_WORD: tuple[Maker, ...] = (
    letters.letter_counting, letters.spelling, letters.letters, letters.repeat,
)  # fmt: skip
MAKERS = (*BY_NUMBERS, *BY_WORD)


def name_of(maker: Any) -> str:
    return maker.__name__


def drawn(maker: Maker, count: int, held: bool = False) -> list[Asked]:
    rng = Rng(f"test {name_of(maker)}")
    return [maker(WORLD, rng, held) for _ in range(count)]


def question(asked: Asked) -> Question:
    return Question(asked.kind, [], asked.answer, asked.accept, asked.reject)


def call(asked: Asked) -> str:
    """The expression, or "" where nothing is called."""
    return "" if isinstance(asked.reply, str) else asked.reply[0]["text"]


# ---- every skill


@pytest.mark.parametrize("maker", MAKERS, ids=name_of)
@pytest.mark.parametrize("held", [False, True])
def test_what_is_taught_is_right_short_and_clean(maker: Maker, held: bool) -> None:
    for asked in drawn(maker, 400, held):
        assert asked.kind == name_of(maker)
        reply = spoken(asked.reply)
        assert question(asked).is_right(reply), asked
        assert not question(asked).is_right("I do not know that."), asked
        # A quote would melt with the word behind it into another token.
        assert re.match(r"-?[A-Z0-9]", reply), reply
        assert reply.endswith("."), reply
        assert reply.isascii(), reply
        assert not re.search(r"[{}]|  |\.\.| \.|None|undefined", reply), reply
        assert not re.search(r"[{}\ue000-\uf8ff]|^ | $|^$", asked.text), asked.text
        if not isinstance(asked.reply, str):
            kinds = [part["type"] for part in asked.reply]
            assert kinds == ["python", "python_output", "text"]
            assert call(asked).startswith(" ")
            assert calculate(call(asked)) == asked.reply[1]["text"]


@pytest.mark.parametrize("maker", MAKERS, ids=name_of)
def test_a_skill_is_asked_for_in_many_ways(maker: Maker) -> None:
    def wording(asked: Asked) -> str:
        words = asked.text if maker in BY_NUMBERS else asked.text.replace("'", "")
        return re.sub(r"[\d.,]+|[a-z]*\b(?:" + "|".join(WORDS.split()) + r")\b", "", words.lower())

    assert len({wording(asked) for asked in drawn(maker, 400)}) > 60


# ---- held out


def operands(asked: Asked) -> tuple[object, ...]:
    """What a question is about, whatever words, signs and order it has."""
    # Of the call and not of what is typed: that may be "twenty five", or "half of".
    of_call, typed = sums.numbers_of(call(asked)), sums.numbers_of(asked.text.replace(",", ""))
    if asked.kind == "counting":
        end = asked.text if "too long" in asked.answer else asked.answer
        million = "million" in end.lower() or "1,000,000" in end
        counted = (asked.answer.split(", ") if end == asked.answer else typed)[-1:]
        return (*asked.answer.split(", ")[:2], "1000000" if million else counted[0])
    if asked.kind == "next_number":
        first = typed[:2] if "comes next" in spoken(asked.reply) else typed[:1]
        return (*first, "before" if "before" in spoken(asked.reply) else "")
    if asked.kind == "number_check" and "%" in call(asked):
        return ("even", of_call[0])
    if asked.kind == "number_check":
        return tuple(sorted(of_call[:2])) + (("sum",) if len(of_call) > 2 else ())
    return tuple(sorted(of_call)) or (asked.answer, *typed[:1])


@pytest.mark.parametrize("maker", BY_NUMBERS, ids=name_of)
def test_numbers_that_are_asked_are_never_taught(maker: Maker) -> None:
    taught = {operands(asked) for asked in drawn(maker, 5000)}
    held = {operands(asked) for asked in drawn(maker, 200, held=True)}
    assert len(taught) > 300
    assert len(held) > 30
    assert not taught & held


@pytest.mark.parametrize("maker", BY_WORD, ids=name_of)
def test_words_that_are_asked_are_never_taught(maker: Maker) -> None:
    def word(asked: Asked) -> str:
        found = re.search(r"' (\w{2,})'|Sure: (\w{2,})\.$", call(asked) or spoken(asked.reply))
        return (found[1] or found[2]) if found else ""  # a row of words, which only training has

    taught = {word(asked) for asked in drawn(maker, 5000)} - {""}
    held = {word(asked) for asked in drawn(maker, 300, held=True)}
    assert len(taught) > 300
    assert len(held) > 20
    assert "" not in held
    assert not taught & held


def test_a_held_out_sum_does_not_contain_its_answer() -> None:
    for asked in drawn(sums.arithmetic, 300, held=True):
        if call(asked):
            assert asked.answer not in sums.numbers_of(call(asked)), asked


# ---- sums


def value(expression: str) -> Fraction:
    """Worked out exactly, not by the calculator."""
    return eval(re.sub(r"(?<![*\d.])\d+(?:\.\d+)?", r"Fraction('\g<0>')", expression))


def test_sums_are_right_and_in_the_order_of_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "typed", lambda rng, text: text)  # a slip would hide the words
    turned = 0
    for asked in drawn(sums.arithmetic, 3000):
        if not call(asked):
            continue
        expression = call(asked).strip()
        assert abs(value(expression) - Fraction(asked.answer)) < Fraction(1, 10**6), asked
        assert spoken(asked.reply) == f"{sums.aloud(expression)} is {asked.answer}."
        typed = sums.numbers_of(re.sub(r",(?! )", "", asked.text))
        if len(typed) != len(sums.numbers_of(expression)):
            continue  # number words, "double 6"
        if re.search(r"\bfrom\b|\bless than\b", asked.text):
            turned += 1
            typed = typed[::-1]
        assert sums.numbers_of(expression) == typed, asked
    assert turned > 50


def test_strangers_ways_to_ask_for_sums_come_up() -> None:
    text = "\n".join(asked.text.lower() for asked in drawn(sums.arithmetic, 6000))
    for words in (
        "take away", "add ", "subtract ", "double ", "half of", "twice ", "multiply ", "added to",
        "difference between", " squared", "×", "÷", "% of", "twenty", "-", "divided by zero", "^",
    ):  # fmt: skip
        assert words in text, words
    expressions = {call(asked).strip() for asked in drawn(sums.arithmetic, 6000)}
    results = {calculate(expression) or "" for expression in expressions}
    assert any(result.startswith("-") for result in results)
    assert any(len(result) >= 7 and result.isdigit() for result in results)
    assert "3.5" in results
    assert any(len(sums.numbers_of(expression)) == 3 for expression in expressions)


def test_nothing_is_divided_by_zero() -> None:
    refused = 0
    for asked in drawn(sums.arithmetic, 3000):
        assert not re.search(r"/0(?![.\d])", call(asked)), asked
        refused += spoken(asked.reply) == "You cannot divide by zero."
    assert 60 < refused < 240


def test_a_negative_result_is_not_its_number() -> None:
    asked = sums.worked_out("arithmetic", "3 plus 4", "3+4")
    assert question(asked).is_right("It is 7.")
    assert not question(asked).is_right("3 minus 10 is -7.")


def test_follow_ups_continue_with_the_last_result() -> None:
    rng, longest = Rng("test follow"), 0
    for asked in drawn(sums.arithmetic, 1500):
        turns = sums.follow_ups(WORLD, rng, asked)
        longest = max(longest, len(turns))
        before: str | None = asked.answer
        assert call(asked) or not turns
        for text, reply in turns:
            assert not isinstance(reply, str)
            expression, result = reply[0]["text"].strip(), calls.result_of(reply)
            assert before is not None
            assert expression.startswith(before), (text, reply)
            number = sums.numbers_of(text)
            assert not number or expression.endswith(number[0]), (text, reply)
            assert abs(value(expression) - Fraction(result or "")) < Fraction(1, 10**6)
            before = result
    assert longest == 3


def test_held_out_follow_ups_are_not_taught() -> None:
    rng = Rng("test follow held")
    taught = {sums.follow_up(WORLD, rng, "7")[1][0]["text"] for _ in range(3000)}
    held = {sums.follow_up(WORLD, rng, "7", held=True)[1][0]["text"] for _ in range(100)}
    assert len(held) > 5
    assert not taught & held


# ---- numbers


def test_yes_and_no_are_right_and_as_frequent() -> None:
    truths = {"bigger": ">", "larger": ">", "greater": ">", "more": ">", "higher": ">"}
    truths |= {"smaller": "<", "less": "<", "lower": "<"}
    checked = drawn(numbers.number_check, 2000)
    said = [asked.answer for asked in checked]
    assert 0.4 < said.count("yes") / (said.count("yes") + said.count("no")) < 0.6
    for asked in checked:
        reply = spoken(asked.reply)
        if found := re.search(r"(\d+) is (not )?(\w+) than (\d+)\.$", reply):
            a, no, word, b = found.groups()
            assert (int(a) > int(b) if truths[word] == ">" else int(a) < int(b)) == (not no), asked
        elif found := re.search(r"(\d+) is (odd|even)\.$", reply):
            assert int(found[1]) % 2 == (found[2] == "odd"), asked
        elif found := re.fullmatch(r"(?:Yes|No), (.*) is (not )?(?:equal to )?(\d+)\.", reply):
            left = found[1]
            for sign, word in sums.SPOKEN.items():
                left = left.replace(f" {word} ", sign)
            assert (value(left) == int(found[3])) == (not found[2]), asked
        else:
            raise AssertionError(reply)
        opposite = {"Yes": "No", "No": "Yes"}.get(reply[: reply.find(",")])
        if opposite:
            assert not question(asked).is_right(re.sub(r"^\w+", opposite, reply))


def test_the_largest_and_the_smallest() -> None:
    for asked in drawn(numbers.larger_number, 1000):
        among = sums.numbers_of(call(asked))
        most = re.search(r"bigg|large|great|high|more", spoken(asked.reply)) is not None
        assert asked.answer == (max if most else min)(among, key=float)
        for other in set(among) - {asked.answer}:
            wrong = spoken(asked.reply).replace(asked.answer, other, 1)
            assert not question(asked).is_right(wrong), (asked, wrong)


def test_what_comes_next() -> None:
    patterns = 0
    for asked in drawn(numbers.next_number, 1000):
        typed, reply = sums.numbers_of(asked.text), spoken(asked.reply)
        if reply.endswith("comes next."):
            patterns += 1
            steps = {int(b) - int(a) for a, b in pairwise([*typed, asked.answer])}
            assert len(steps) == 1, asked
        else:
            step = 1 if "after" in reply else -1
            assert int(asked.answer) == int(typed[0]) + step, asked
            assert reply == f"{asked.answer} comes {'after' if step > 0 else 'before'} {typed[0]}."
    assert 200 < patterns < 400


def in_digits(text: str) -> str:
    """The text with digits for the numbers that are said in words."""
    words = {english.in_words(n): str(n) for n in range(100, -1, -1)}
    longest_first = "|".join(sorted(words, key=len, reverse=True))
    return re.sub(rf"\b(?:{longest_first})\b", lambda word: words[word[0]], text.lower())


def test_counting_begins_and_ends_where_it_should() -> None:
    downward = by_steps = too_long = 0
    for asked in drawn(numbers.counting, 1500):
        typed = [int(number) for number in sums.numbers_of(in_digits(asked.text.replace(",", "")))]
        reply = spoken(asked.reply)
        if asked.answer not in reply or "too long" in reply:
            too_long += 1
            assert "million" in asked.text.lower() or max(typed) > 30, asked
            continue
        said = [int(number) for number in asked.answer.split(", ")]
        (step,) = {b - a for a, b in pairwise(said)}
        assert 3 <= len(said) <= 30
        downward += step < 0
        by_steps += step > 1
        if step > 1:
            assert said[0] == step
            assert said[-1] in typed or len(said) == 10, asked
        else:  # "count to 5" begins at 1, "count down from 5" ends there
            whole = typed if len(typed) == 2 else [1, *typed] if step > 0 else [*typed, 1]
            assert [said[0], said[-1]] == whole, asked
        for wrong in ([*said, said[-1] + step], [said[0] - step, *said], said[:-1], said[1:]):
            assert not question(asked).is_right(", ".join(map(str, wrong)) + "."), (asked, wrong)
    assert min(downward, by_steps, too_long) > 60


def test_word_problems_have_an_answer_of_their_own() -> None:
    for asked in drawn(sums.word_problem, 1000):
        assert asked.answer.isdigit(), asked
        assert asked.answer not in sums.numbers_of(asked.text)
        assert spoken(asked.reply) == f"The answer is {asked.answer}."


# ---- letters


def test_letters_are_counted_in_the_same_words_as_in_the_spelling_bee() -> None:
    ways = set()
    for asked in drawn(letters.letter_counting, 1500):
        word, letter = re.findall(r"' (\w+)'", call(asked))
        assert spoken(asked.reply) == spelling_bee.counted(letter, word)
        assert word in asked.text
        count = word.count(letter)
        ways.add(min(count, 3))
        wrong = spelling_bee.counted(letter, word + letter).replace(word + letter, word)
        assert not question(asked).is_right(wrong), asked  # one more than there are
        assert not question(asked).is_right(spelling_bee.counted(letter, f"x{word}"))
    assert ways == {0, 1, 2, 3}


def test_words_are_spelled_as_they_are_typed() -> None:
    names = 0
    for held in (False, True):
        for asked in drawn(letters.spelling, 600, held):
            word = re.findall(r"' (\w+)'", call(asked))[0]
            names += word[0].isupper()
            assert word in asked.text
            assert spoken(asked.reply) == f"The word {word} is spelled {'-'.join(word)}."
            if held:
                assert not question(asked).is_right(f"It is spelled {'-'.join(word)}-e.")
            assert not question(asked).is_right(f"It is spelled {'-'.join(word[:-1])}.")
    assert names > 10


def test_letters_are_where_the_reply_says() -> None:
    seen = set()
    places = {"first": 0, "second": 1, "third": 2, "last": -1}
    for asked in drawn(letters.letters, 2000):
        reply = spoken(asked.reply)
        if found := re.fullmatch(r"The (\w+) letter of (\w+) is (.)\.", reply):
            assert found[2][places[found[1]]] == found[3]
            seen.add(found[1])
        elif found := re.fullmatch(r"The word (\w+) has (\d+) letters\.", reply):
            assert len(found[1]) == int(found[2])
            seen.add("length")
        elif found := re.fullmatch(r"The word (\w+) (backwards|in capitals) is (\w+)\.", reply):
            right = found[1][::-1] if found[2] == "backwards" else found[1].upper()
            assert found[3] == right
            seen.add(found[2])
        elif found := re.fullmatch(r"(Yes|No), the letter (.) is (not )?in (\w+)\.", reply):
            assert (found[2] in found[4]) == (found[1] == "Yes") == (not found[3])
            if " an " in asked.text:
                assert found[2] in "aefhilmnorsx", asked
            seen.add(found[1])
        else:
            raise AssertionError(reply)
    assert seen == {*places, "length", "backwards", "in capitals", "Yes", "No"}


def test_what_is_repeated_is_what_was_said() -> None:
    rows = 0
    for asked in drawn(letters.repeat, 600):
        assert asked.answer in asked.text
        rows += " " in asked.answer
    assert 200 < rows < 400


@pytest.mark.parametrize("module", [calls, letters, numbers, sums], ids=name_of)
def test_examples(module: ModuleType) -> None:
    assert not doctest.testmod(module).failed
