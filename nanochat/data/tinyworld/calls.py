"""How a question is answered with the calculator, and typed without harm to its operands."""

from __future__ import annotations

from nanochat.data.tinyworld.questions import Part, with_tool
from nanochat.data.tinyworld.rng import Rng
from nanochat.data.tinyworld.slips import typed
from nanochat.tasks.calculator import calculate

STAND_IN = 0xE000  # the first of Unicode's private characters: nobody types one


def typed_with(rng: Rng, template: str, **parts: object) -> str:
    """The template as somebody might type it, with its parts as they are.

    A slip of the fingers in "what" is practice; in a word that is to be spelled, it would make the
    reply wrong.
    """
    marks = {name: chr(STAND_IN + i) for i, name in enumerate(parts)}
    text = typed(rng, template.format(**marks))
    for name, mark in marks.items():
        text = text.replace(mark, str(parts[name]))
    return text


def called(expression: str, sentence: str) -> list[Part]:
    """A calculator call and the sentence that uses its result, {r}.

    >>> called("3+4", "3 plus 4 is {r}.")[-1]["text"]
    '3 plus 4 is 7.'
    """
    # The output is what the calculator will really say when the model calls it.
    result = calculate(expression)
    assert result is not None, expression
    return with_tool(expression, result, sentence.format(r=result))


def result_of(reply: str | list[Part]) -> str | None:
    """What the calculator said, where a reply called it."""
    if isinstance(reply, str):
        return None
    return next((part["text"] for part in reply if part["type"] == "python_output"), None)
