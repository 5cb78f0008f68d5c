"""What a user's line becomes before the model reads it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.clean_typing import MAX_CHARACTERS, clean_typing
from nanochat.conversation import render, render_prompt
from nanochat.tokenizer import Tokenizer


@pytest.mark.parametrize(
    ("typed", "clean"),
    [
        ("what  colour  is  grass", "what colour is grass"),
        ("\twhat is this? \u00a0", "what is this?"),
        ("WHAT'S THE CAPITAL OF FRANCE", "what's the capital of france"),
        ("I love Paris!!!", "I love Paris!"),
        ("really?!?", "really?"),
        ("hi there ❤️ 👍🏽", "hi there"),
        ("I am from the USA", "I am from the USA"),
        ("2, 4, 6, ...", "2, 4, 6, ..."),
        ("12 ÷ 4 = ?", "12 ÷ 4 = ?"),
        ("x²", "x²"),
        ("नमस्ते", "नमस्ते"),
        ("A", "A"),
        ("", ""),
        ("   ", "   "),
        ("roses  are\nRED", "roses  are\nRED"),
        ("A  " * MAX_CHARACTERS, "A  " * MAX_CHARACTERS),
    ],
)
def test_a_line_as_people_type_it(typed: str, clean: str) -> None:
    assert clean_typing(typed) == clean


@given(st.text(max_size=40))
def test_twice_is_once(text: str) -> None:
    for plain in (False, True):
        assert clean_typing(clean_typing(text, plain), plain) == clean_typing(text, plain)


def test_training_and_chat_see_the_same_line(tokenizer: Tokenizer) -> None:
    def talk(text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": text}, {"role": "assistant", "content": "FINE  😀"}]

    careless, careful = talk("HOW  ARE YOU??? 😀"), talk("how are you?")
    assert render(careless, tokenizer) == render(careful, tokenizer)
    prompts = [render_prompt(some[:1], tokenizer, 99) for some in (careless, careful)]
    assert prompts[0] == prompts[1]
    system = {"role": "system", "content": "BE  KIND"}
    assert (
        tokenizer.encode("BE  KIND")
        == render_prompt([system, *careful[:1]], tokenizer, 99)[0][
            2 : 2 + len(tokenizer.encode("BE  KIND"))
        ]
    )
