"""How the next token is chosen. A setting of it is a field of Sampling and a line of sample.

Nothing here imports torch: a command checks its flags before it pays for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 10  # below, the division overflows without a difference
MAX_SEED = 2**63 - 1  # what torch's generators take


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; temperature 0 takes the most likely one.

    top_k None: among all tokens. seed None: never the same answer twice. Raises ValueError.
    """

    temperature: float = 0.0
    top_k: int | None = 50
    max_new_tokens: int = 256
    seed: int | None = None

    def __post_init__(self) -> None:
        """Check every field; the message names it, its value and the rule."""
        least, most = MIN_TEMPERATURE, MAX_TEMPERATURE
        if self.temperature != 0 and not least <= self.temperature <= most:
            raise ValueError(
                f"temperature={self.temperature}: it must be 0, or from {least} to {most}"
            )
        for name in ("top_k", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: it must be 1 or more")
        if self.seed is not None and not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed={self.seed}: it must be from 0 to {MAX_SEED}")


def sample(logits: Tensor, sampling: Sampling, generator: Generator) -> Tensor:
    """Logits (B, V) -> the chosen ids (B,)."""
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    ids = None
    if sampling.top_k is not None and sampling.top_k < logits.size(-1):
        # Only these are drawn from: quicker than a mask, and MPS has drawn what a mask forbids.
        logits, ids = logits.topk(sampling.top_k, dim=-1)
    weights = (logits / sampling.temperature).softmax(dim=-1)
    drawn = weights.multinomial(1, generator=generator)
    return (drawn if ids is None else ids.gather(-1, drawn)).squeeze(-1)
