"""The batch of a plan where there is a card: its memory counts, not the computer's."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from nanochat.run.recipe import PlanConfig, Recipe, flags_of, plan_lines, resolve
from nanochat.stages import TRAINED
from nanochat.system import memory

PLAN = PlanConfig(depth=4, data="tinyworld", memory_gb=8, max_seq_len=256, vocab_size=65_536)


@pytest.fixture
def card_of(monkeypatch: pytest.MonkeyPatch):
    """A card of so many GB, of the kind that computes in bfloat16."""
    return lambda gb: monkeypatch.setattr(memory, "card", lambda: memory.Card(int(gb * 1e9), 2))


@pytest.mark.parametrize(
    ("gb", "said", "rows", "total"),
    [
        (24, {}, 16, 4_096),
        (24, {"time_budget_s": 1_200}, 16, 4_096),
        (80, {"depth": 20, "max_seq_len": 2_048, "total_batch_size": 524_288}, 16, 524_288),
        (24, {"depth": 20, "max_seq_len": 2_048, "total_batch_size": 524_288}, 4, 524_288),
        (24, {"total_batch_size": 65_536}, 128, 65_536),
        (1.5, {}, 8, 2_048),
        (24, {"device_batch_size": 2}, 2, 512),
        (24, {"memory_is_given": True}, 1, 512),
    ],
)
def test_a_batch_for_the_card(card_of, gb: float, said: dict, rows: int, total: int) -> None:
    card_of(gb)
    recipe, _ = resolve(replace(PLAN, **said))
    assert (recipe.device_batch_size, recipe.total_batch_size) == (rows, total)


def test_the_plan_says_how_much_of_the_card_is_used(card_of) -> None:
    card_of(24)
    lines = dict(plan_lines(resolve(PLAN)[0]))
    assert lines["memory_gb"] == "about 2.3 of the 24 of the card"


def test_small_steps_have_their_learning_rate_only_where_steps_are_small(card_of) -> None:
    timed = replace(PLAN, time_budget_s=1_200)
    assert flags_of(resolve(timed)[0], TRAINED[0])["matrix_lr"] == 0.012
    card_of(24)
    assert flags_of(resolve(timed)[0], TRAINED[0])["matrix_lr"] == 0.02


@pytest.mark.parametrize("said", [{}, {"time_budget_s": 1_200}, {"wandb_run": "x", "seed": 0}])
def test_a_recipe_leaves_nothing_open_and_survives_json(said: dict) -> None:
    recipe, _ = resolve(PlanConfig(**said))
    whole = asdict(recipe)
    assert None not in whole.values()
    assert Recipe.from_json(json.loads(json.dumps(whole))) == recipe
