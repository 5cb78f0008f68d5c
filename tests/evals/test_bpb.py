"""Bits per byte, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.evals.bpb import bits_per_byte, evaluation_rows
from nanochat.gpt import GPT
from nanochat.tokenizer import Tokenizer

TEXTS = ["The river runs into the sea.", "", "É 😀", "And so on. " * 40, "x"]


@pytest.fixture
def uniform(tiny_model: GPT) -> GPT:
    """Every token is as likely as any other."""
    tiny_model.lm_head.weight.data.zero_()
    return tiny_model


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("texts", [TEXTS, ["a"], ["", "a", ""], ["And so on. " * 99]])
def test_a_uniform_model(uniform: GPT, tokenizer: Tokenizer, texts: list, batch_size: int) -> None:
    tokens = sum(len(tokenizer.encode(text)) for text in texts)
    size = sum(len(text.encode()) for text in texts)
    found, n_targets, n_bytes = bits_per_byte(uniform, tokenizer, texts, batch_size)
    assert (n_targets, n_bytes) == (tokens, size), "no special token is in either sum"
    assert found == pytest.approx(math.log2(tokenizer.vocab_size) * tokens / size, rel=1e-12)


def test_by_hand(tiny_model: GPT, tokenizer: Tokenizer) -> None:
    """Each row alone, each target alone, bos left out."""
    stream = [i for text in TEXTS for i in (tokenizer.bos, *tokenizer.encode(text))]
    length, nats, counted = tiny_model.config.max_seq_len, 0.0, 0
    assert len(stream) > 2 * length
    assert (len(stream) - 1) % length > 0, "the last row is a partial one"
    for start in range(0, len(stream) - 1, length):
        row = stream[start : start + length + 1]
        with torch.no_grad():
            logits = tiny_model.logits(tiny_model.hidden(torch.tensor([row[:-1]])))[0]
        logp = logits.double().log_softmax(dim=-1)
        for position, target in enumerate(row[1:]):
            if target != tokenizer.bos:
                nats -= logp[position, target].item()
                counted += 1
    size = sum(len(text.encode()) for text in TEXTS)
    found, n_targets, n_bytes = bits_per_byte(tiny_model, tokenizer, TEXTS, 2)
    assert (n_targets, n_bytes) == (counted, size)
    assert found == pytest.approx(nats / math.log(2) / size, rel=1e-5)


def test_the_batch_size_does_not_matter(tiny_model: GPT, tokenizer: Tokenizer) -> None:
    results = [bits_per_byte(tiny_model, tokenizer, TEXTS, size) for size in (1, 2, 3, 50)]
    for bpb, n_targets, n_bytes in results:
        assert bpb == pytest.approx(results[0][0], rel=1e-10)
        assert (n_targets, n_bytes) == results[0][1:]


def test_a_better_model_has_fewer_bits(uniform: GPT, tokenizer: Tokenizer) -> None:
    before = bits_per_byte(uniform, tokenizer, TEXTS, 2)[0]
    optimizer = torch.optim.SGD(uniform.parameters(), lr=1e-3)
    ids = torch.tensor([[tokenizer.bos, *tokenizer.encode("And so on. " * 40)][:33]])
    for _ in range(3):
        optimizer.zero_grad()
        uniform.loss(ids[:, :-1], ids[:, 1:]).backward()
        optimizer.step()
    assert bits_per_byte(uniform, tokenizer, TEXTS, 2)[0] < before


def test_max_tokens_bounds_the_work(uniform: GPT, tokenizer: Tokenizer) -> None:
    seen: list[int] = []
    texts = (text for text in TEXTS * 1000)
    _, n_targets, _ = bits_per_byte(uniform, tokenizer, texts, 2, 200, seen.append)
    assert 200 <= n_targets < 200 + 2 * 64, "at the end of a batch"
    assert seen[-1] == n_targets
    assert sorted(seen) == seen
    assert next(texts), "the rest is not even read"


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_nothing_to_measure(uniform: GPT, tokenizer: Tokenizer, texts: list[str]) -> None:
    bpb, n_targets, n_bytes = bits_per_byte(uniform, tokenizer, texts, 2)
    assert math.isnan(bpb)
    assert (n_targets, n_bytes) == (0, 0)


@settings(max_examples=100, deadline=None)
@given(
    texts=st.lists(st.text(alphabet="ab .é", max_size=40), max_size=8), length=st.integers(1, 20)
)
def test_every_token_is_a_target_once(tokenizer: Tokenizer, texts: list[str], length: int) -> None:
    stream = [i for text in texts for i in (tokenizer.bos, *tokenizer.encode(text))]
    rows = list(evaluation_rows(texts, tokenizer, length))
    assert [i for row in rows for i in row[1:]] == stream[1:]
    assert [row[0] for row in rows] == stream[: len(rows) * length : length][: len(rows)]
    assert all(len(row) == length + 1 for row in rows[:-1])
    assert all(2 <= len(row) <= length + 1 for row in rows)
