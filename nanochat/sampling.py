"""How the next token is chosen: the settings with their rules, and the choice itself.

A setting is one field of Sampling and a line in sample. The field makes the flag of the chat
commands and the field of the API; its Rule bounds both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, NamedTuple, get_type_hints

import tyro

if TYPE_CHECKING:  # a command checks its flags before it pays for torch
    from torch import Generator, Tensor

GREEDY_BELOW = 0.01
MAX_INT = 2**63 - 1  # what torch's generators take as a seed; for token counts, in effect no limit


class Rule(NamedTuple):
    """The numbers that a setting takes, from low to high."""

    kind: type[int] | type[float]
    low: float
    high: float

    def allows(self, value: object) -> bool:
        """Whether the setting can have this value, whatever a request brings.

        >>> rule = Rule(int, 1, 9)
        >>> [v for v in (0, 1, 1.0, 1.5, True, "1", float("nan"), 10**999) if rule.allows(v)]
        [1, 1.0]
        """
        if isinstance(value, bool) or not isinstance(value, int | float):  # True == 1 in Python
            return False
        # The range first: int(nan), int(inf) and float(10**999) raise.
        return self.low <= value <= self.high and value == self.kind(value)

    def __str__(self) -> str:
        """The rule in words.

        >>> str(Rule(int, 1, MAX_INT)), str(Rule(float, 0, 10))
        ('a whole number from 1 to 2^63 - 1', 'a number from 0 to 10')
        """
        high = "2^63 - 1" if self.high == MAX_INT else self.high
        return f"a {'whole ' if self.kind is int else ''}number from {self.low} to {high}"


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; temperature 0 takes the most likely one.

    top_k None: among all tokens. seed None: a different answer each time. Raises ValueError.
    """

    temperature: Annotated[float, Rule(float, 0, 10), tyro.conf.arg(aliases=["-t"])] = 0.0
    """0: always the most likely word; around 0.8: livelier, and more often wrong"""
    top_k: Annotated[int | None, Rule(int, 1, MAX_INT), tyro.conf.arg(aliases=["-k"])] = 50
    """choose among this many of the most likely tokens"""
    # Two names for one thing: the field calls it max_new_tokens, OpenAI's API max_tokens.
    max_new_tokens: Annotated[
        int, Rule(int, 1, MAX_INT), tyro.conf.arg(aliases=["--max-tokens"])
    ] = 256
    """longest answer, in tokens"""
    seed: Annotated[int | None, Rule(int, 0, MAX_INT)] = None
    """the same seed and question give the same answer (default: different each time)"""
    min_confidence: Annotated[float, Rule(float, 0, 1)] = 0.75
    """a model of a small world says that it does not know where it is less sure; 0: off"""

    def __post_init__(self) -> None:
        """Check every field; the message names it, its value and the rule."""
        for name, rule in RULES.items():
            value = getattr(self, name)
            if value is not None and not rule.allows(value):
                raise ValueError(f"{name}={value}: it must be {rule}")


RULES: dict[str, Rule] = {
    name: next(fact for fact in hint.__metadata__ if isinstance(fact, Rule))
    for name, hint in get_type_hints(Sampling, include_extras=True).items()
}


def sample(logits: Tensor, sampling: Sampling, generator: Generator) -> Tensor:
    """Logits (B, V) -> the chosen ids (B,)."""
    # Close to 0 as well: the division may overflow, and the most likely token would win anyway.
    if sampling.temperature < GREEDY_BELOW:
        return logits.argmax(dim=-1)
    ids = None
    if sampling.top_k is not None and sampling.top_k < logits.size(-1):
        # Only these are drawn from: quicker than a mask, and MPS has drawn what a mask forbids.
        logits, ids = logits.topk(sampling.top_k, dim=-1)
    weights = (logits / sampling.temperature).softmax(dim=-1)
    drawn = weights.multinomial(1, generator=generator)
    return (drawn if ids is None else ids.gather(-1, drawn)).squeeze(-1)
