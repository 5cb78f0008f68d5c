"""Conversations to ids and mask: what the model learns to say, and what never fits."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.conversation import PARTS, check, render, render_prompt
from nanochat.system.errors import UserError
from nanochat.tokenizer import SPECIAL_TOKENS, Tokenizer


def user(content: object) -> dict:
    return {"role": "user", "content": content}


def assistant(content: object) -> dict:
    return {"role": "assistant", "content": content}


def shown(tokenizer: Tokenizer, ids: list[int], mask: list[int] | None = None) -> str:
    """One line a special token or a run of text; + is supervised, - is not."""
    names = {i: name for name, i in tokenizer.special.items()}
    lines: list[list] = []
    for token, own in zip(ids, mask or [0] * len(ids), strict=True):
        if token in names:
            lines.append([own, names[token]])
        elif lines and lines[-1][0] == own and isinstance(lines[-1][1], list):
            lines[-1][1].append(token)
        else:
            lines.append([own, [token]])
    return "\n".join(
        f"{'-+'[own]} {what if isinstance(what, str) else repr(tokenizer.decode(what))}"
        for own, what in lines
    )


# ---- golden

TOOL_CALL = [
    user("How many r in 'strawberry'?"),
    assistant(
        [
            {"type": "text", "text": "I count. "},
            {"type": "python", "text": " 'strawberry'.count('r')"},
            {"type": "python_output", "text": "3"},
            {"type": "text", "text": "It has 3."},
        ]
    ),
    user("Thanks <|user_end|>"),
    assistant("You're welcome."),
]
GOLDEN = """\
- <|bos|>
- <|user_start|>
- "How many r in 'strawberry'?"
- <|user_end|>
- <|assistant_start|>
+ 'I count. '
+ <|python_start|>
+ " 'strawberry'.count('r')"
+ <|python_end|>
- <|output_start|>
- '3'
- <|output_end|>
+ 'It has 3.'
+ <|assistant_end|>
- <|user_start|>
- 'Thanks <|user_end|>'
- <|user_end|>
- <|assistant_start|>
+ "You're welcome."
+ <|assistant_end|>"""


def test_golden_rendering(tokenizer: Tokenizer) -> None:
    assert shown(tokenizer, *render(TOOL_CALL, tokenizer)) == GOLDEN


def test_golden_system_message(tokenizer: Tokenizer) -> None:
    system = {"role": "system", "content": "Be brief."}
    joined = """\
- <|bos|>
- <|user_start|>
- 'Be brief.\\n\\nHi'
- <|user_end|>
- <|assistant_start|>
+ 'Hello'
+ <|assistant_end|>"""
    talk = [system, user("Hi"), assistant("Hello")]
    assert shown(tokenizer, *render(talk, tokenizer)) == joined
    assert talk[0] == system, "the conversation itself is left alone"


def test_golden_prompt(tokenizer: Tokenizer) -> None:
    ids, dropped = render_prompt([*TOOL_CALL[2:], user("Bye")], tokenizer, 999)
    assert dropped == 0
    assert shown(tokenizer, ids).replace("- ", "") == (
        "<|bos|>\n<|user_start|>\n'Thanks <|user_end|>'\n<|user_end|>\n"
        '<|assistant_start|>\n"You\'re welcome."\n<|assistant_end|>\n'
        "<|user_start|>\n'Bye'\n<|user_end|>\n<|assistant_start|>"
    )


def test_tool_expression_splits_as_in_the_question(tokenizer: Tokenizer) -> None:
    """With a leading space the quoted word gives the same tokens in both places."""
    word = tokenizer.encode(" 'strawberry")

    def count(ids: list[int]) -> int:
        return sum(ids[i : i + len(word)] == word for i in range(len(ids)))

    assert count(render(TOOL_CALL, tokenizer).ids) == 2
    bare = tokenizer.encode("'strawberry'.count('r')")
    assert count(bare) == 0, "without it the quote and the s are one piece"


# ---- properties

texts = st.one_of(st.text(max_size=20), st.sampled_from(SPECIAL_TOKENS))
parts = st.lists(
    st.fixed_dictionaries({"type": st.sampled_from(list(PARTS)), "text": texts}), max_size=4
)
exchanges = st.tuples(texts.map(user), st.one_of(texts, parts).map(assistant))
talks = st.lists(exchanges, min_size=1, max_size=4).map(lambda pairs: [m for p in pairs for m in p])


@settings(max_examples=200, deadline=None)
@given(talk=talks, max_tokens=st.one_of(st.none(), st.integers(1, 80)))
def test_mask_length_and_cut(
    tokenizer: Tokenizer, talk: list[dict], max_tokens: int | None
) -> None:
    whole = render(talk, tokenizer)
    ids, mask = render(talk, tokenizer, max_tokens)
    assert len(ids) == len(mask)
    assert set(mask) <= {0, 1}
    assert ids == whole.ids[: len(ids)], "a cut leaves the beginning as it was"
    assert mask == whole.mask[: len(mask)]
    if max_tokens is None:
        assert len(ids) == len(whole.ids)
        return
    assert len(ids) <= max_tokens
    cuts = [1] + [len(render(talk[:n], tokenizer).ids) for n in range(2, len(talk) + 1, 2)]
    fitting = [cut for cut in cuts if cut <= max_tokens]
    if cuts[1] <= max_tokens:
        assert len(ids) == fitting[-1], "as many whole exchanges as fit"
    else:
        assert len(ids) == max_tokens, "the first exchange is cut inside"


@settings(max_examples=100, deadline=None)
@given(talk=talks)
def test_what_is_supervised_is_what_the_assistant_says(tokenizer: Tokenizer, talk: list) -> None:
    ids, mask = render(talk, tokenizer)
    said = tokenizer.decode_bytes(i for i, own in zip(ids, mask, strict=True) if own).decode()
    expected = ""
    for message in talk[1::2]:
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            expected += part["text"] if part["type"] != "python_output" else ""
    assert said == expected
    ends = [own for i, own in zip(ids, mask, strict=True) if i == tokenizer.special["<|bos|>"]]
    assert ends == [0]
    assert sum(i == tokenizer.special["<|assistant_end|>"] for i in ids) == len(talk) // 2


@settings(max_examples=100, deadline=None)
@given(talk=talks, question=texts, limit=st.integers(8, 120), system=st.booleans())
def test_prompt_drops_whole_exchanges_from_the_left(
    tokenizer: Tokenizer, talk: list, question: str, limit: int, system: bool
) -> None:
    talk = [*talk, user(question)]
    head = [{"role": "system", "content": "sys"}] if system else []
    start = tokenizer.special["<|assistant_start|>"]
    try:
        ids, dropped = render_prompt(head + talk, tokenizer, limit)
    except UserError:
        last = render([*head, user(question), assistant("")], tokenizer).ids
        assert len(last) - 1 > limit, "only where the last message alone is too long"
        return
    assert len(ids) <= limit
    assert dropped % 2 == 0
    kept = render([*head, *talk[dropped:], assistant("")], tokenizer).ids
    assert ids == kept[:-1]
    assert ids[-1] == start
    if dropped:
        longer = render([*head, *talk[dropped - 2 :], assistant("")], tokenizer).ids
        assert len(longer) - 1 > limit, "no more is dropped than must be"


def test_prompt_keeps_the_system_message(tokenizer: Tokenizer) -> None:
    system = {"role": "system", "content": "Be brief."}
    talk = [system, user("one " * 20), assistant("two"), user("three")]
    ids, dropped = render_prompt(talk, tokenizer, 40)
    assert dropped == 2
    assert tokenizer.decode(ids) == "Be brief.\n\nthree"


def system(content: str, role: str = "system") -> dict:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("talk", "same"),
    [
        ([system(""), user("a"), assistant("b")], [user("a"), assistant("b")]),
        ([system(" \n"), user(" "), assistant("b")], [user(" "), assistant("b")]),
        ([system("s", "developer"), user("a")], [user("s\n\na")]),
        ([system("s"), system("t", "developer"), user("a")], [user("s\n\nt\n\na")]),
        ([system("s"), user("")], [user("s")]),
        ([user("a"), user("b"), assistant("c")], [user("a\n\nb"), assistant("c")]),
        (
            [user("a"), assistant("b"), assistant("c"), user(""), user("d")],
            [user("a"), assistant("b\n\nc"), user("d")],
        ),
    ],
)
def test_what_is_taken_as_something_else(tokenizer: Tokenizer, talk: list, same: list) -> None:
    before = [dict(message) for message in talk]
    assert check(talk) == check(same) == same
    assert talk == before
    assert render(talk, tokenizer) == render(same, tokenizer)
    if same[-1]["role"] == "user":
        assert render_prompt(talk, tokenizer, 99) == render_prompt(same, tokenizer, 99)


# ---- mistakes

MISTAKES = [
    ([], "a conversation is a list"),
    ("hello", "a conversation is a list"),
    (None, "a conversation is a list"),
    ({"role": "user"}, "a conversation is a list"),
    (["hello"], "a message needs role and content"),
    ([{"role": "user"}], "a message needs role and content"),
    ([assistant("hi")], "message 1 must be the user's"),
    ([user("a"), user("b"), {"role": "tool", "content": "c"}], "message 3 must be the assistant's"),
    (
        [user("a"), assistant("b"), {"role": "system", "content": "c"}],
        "message 3 must be the user's",
    ),
    ([user("a"), assistant([]), assistant([])], "message 3 must be the user's"),
    ([user("a"), {"role": "tool", "content": "b"}], "message 2 must be the assistant's"),
    ([{"role": "system", "content": "a"}], "a system message must be followed by the user's"),
    (
        [{"role": "system", "content": "a"}, assistant("b")],
        "a system message must be followed by the user's",
    ),
    ([user(None)], "the user's content must be text"),
    ([user(7)], "the user's content must be text"),
    ([user([{"type": "python", "text": "1"}])], "the user's content must be text"),
    ([{"role": "system", "content": ["a"]}, user("b")], "the system's content must be text"),
    ([user("a"), assistant({"type": "text"})], "the assistant's content must be text"),
    ([user("a"), assistant(["b"])], "a part of an answer needs type and text"),
    ([user("a"), assistant([{"type": "text"}])], "a part of an answer needs type and text"),
    ([user("a"), assistant([{"type": "text", "text": 1}])], "a part of an answer needs"),
    ([user("a"), assistant([{"type": "image", "text": ""}])], "a part's type is one of text"),
]


@pytest.mark.parametrize(("talk", "message"), MISTAKES, ids=[str(t)[:50] for t, _ in MISTAKES])
def test_mistakes_in_one_line(tokenizer: Tokenizer, talk: object, message: str) -> None:
    for call in (check, lambda t: render(t, tokenizer), lambda t: render_prompt(t, tokenizer, 99)):
        with pytest.raises(UserError, match=f"^{message}") as error:
            call(talk)
        assert "\n" not in str(error.value)


def test_prompt_must_end_with_a_question(tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="the last message must be the user's"):
        render_prompt([user("a"), assistant("b")], tokenizer, 99)


def test_prompt_too_long_by_itself(tokenizer: Tokenizer) -> None:
    talk = [user("a"), assistant("b"), user("x" * 500)]
    with pytest.raises(UserError, match="the model reads at most 20") as error:
        render_prompt(talk, tokenizer, 20)
    assert "\n" not in str(error.value)
