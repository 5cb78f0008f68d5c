"""What a setting of Sampling may be, and what follows from it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nanochat.sampling import MAX_INT, Sampling, sample


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"temperature": -0.1}, "temperature=-0.1: it must be a number from 0 to 10"),
        ({"temperature": 10.5}, "temperature=10.5: it must be"),
        ({"temperature": float("nan")}, "temperature=nan: it must be"),
        ({"top_k": 0}, r"top_k=0: it must be a whole number from 1 to 2\^63 - 1"),
        ({"max_new_tokens": 0}, "max_new_tokens=0: it must be"),
        ({"seed": MAX_INT + 1}, f"seed={MAX_INT + 1}: it must be a whole number from 0 to"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(wrong: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=f"^{rule}"):
        Sampling(**wrong)


@pytest.mark.parametrize("temperature", [0.0, 1e-320, 0.009])
def test_a_temperature_near_zero_takes_the_most_likely(temperature: float) -> None:
    """Divided by it, these logits would overflow, or the second might be drawn."""
    logits = torch.tensor([[0.0, 3.0, 2.999]]).expand(200, 3)
    generator = torch.Generator().manual_seed(0)
    assert sample(logits, Sampling(temperature), generator).unique().tolist() == [1]
    assert sample(logits, Sampling(0.01), generator).unique().tolist() == [1, 2]
