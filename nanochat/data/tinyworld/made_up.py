"""Words that do not exist: for names nobody knows, and for copying any word."""

from __future__ import annotations

from nanochat.data.tinyworld.english import listed
from nanochat.data.tinyworld.rng import Rng

SYLLABLES = listed(
    """
    ba be bi bo bra da de dor du fa fen fi flo ga glo gra ha hu ja ka kel ki kro la lam li lo
    ma mel mi mo na nim no ol pa per pi plo ra ren ri ro sa sel shi sto ta tel ti tra tu va
    vel vi wa wim zo zu
    """
)
LAST = (*listed("n r l k s t p m x ng nd st sh ck rt"), *[""] * 8)


def invented(rng: Rng, low: int = 2, high: int = 3) -> str:
    """A word of `low` to `high` syllables."""
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.between(low, high))) + rng.choice(LAST)
