"""Time budgets with a clock of our own: eight hours in a moment."""

from __future__ import annotations

import random

import pytest

from nanochat.training.time_budget import TimeBudget


def run(budget_s: float, step_seconds, end_s: float = 0.0) -> tuple[float, int, TimeBudget]:
    """Simulate a stage: (share of the budget used, steps, budget)."""
    now = [0.0]
    budget = TimeBudget(budget_s, 0.0, end_s, clock=lambda: now[0])
    step = 0
    while True:
        seconds = step_seconds(step, now[0])
        now[0] += seconds
        step += 1
        if step >= budget.iterations(step, seconds):
            return (now[0] + end_s) / budget_s, step, budget


@pytest.mark.parametrize(("budget_s", "step_s"), [(60.0, 0.5), (1200.0, 0.5), (8 * 3600.0, 2.0)])
def test_ends_in_the_last_tenth_with_steady_steps(budget_s: float, step_s: float) -> None:
    noise = random.Random(0)
    used, _, _ = run(budget_s, lambda step, now: step_s * noise.uniform(0.8, 1.3), end_s=3.0)
    assert 0.90 <= used <= 1.0


def test_first_step_is_not_counted() -> None:
    used, _, _ = run(600.0, lambda step, now: 20.0 if step == 0 else 0.5)
    assert 0.90 <= used <= 1.0


def test_iterations_are_fixed_after_the_calibration() -> None:
    _, steps, budget = run(1000.0, lambda step, now: 1.0)
    assert budget.fixed == steps
    assert budget.shortened_at is None


def test_the_run_is_shortened_when_the_machine_becomes_slower() -> None:
    used, _, budget = run(3600.0, lambda step, now: 0.5 if now < 1200 else 1.0)
    assert 0.90 <= used <= 1.03
    assert budget.shortened_at is not None


@pytest.mark.parametrize("begins", [300.0, 700.0])
def test_a_minute_of_something_else_does_not_cut_the_run_short(begins: float) -> None:
    """20 s of steps that take three times as long: a browser opened, a test run."""
    used, _, budget = run(1000.0, lambda step, now: 0.45 if begins <= now < begins + 20 else 0.15)
    assert 0.97 <= used <= 1.02
    assert budget.shortened_at is None


def test_a_clock_that_is_set_back_does_not_make_the_run_longer() -> None:
    clock = [0.0]
    budget = TimeBudget(1000.0, 0.0, clock=lambda: clock[0])
    step = 0
    while step < budget.iterations(step, 1.0):
        step += 1
        clock[0] += 1.0
        if step == 100:
            clock[0] -= 3600.0
    assert 900 <= step <= 1000


def test_a_slow_beginning_does_not_cut_the_run_short() -> None:
    used, _, _ = run(1000.0, lambda step, now: 0.3 if now < 60 else 0.15)
    assert 0.97 <= used <= 1.02


def test_the_slow_first_steps_of_a_resumed_run_do_not_cut_it_short() -> None:
    budget = TimeBudget(100.0, 0.0, clock=lambda: now)
    budget.fixed, now = 722, 4.0
    for step in range(293, 722):
        seconds = 1.0 if step < 297 else 0.2
        now += seconds
        budget.iterations(step, seconds)
    assert budget.fixed == 722
    assert now < 100.0


def test_a_budget_smaller_than_a_step_still_makes_one() -> None:
    _, steps, _ = run(1.0, lambda step, now: 30.0)
    assert steps == 1
