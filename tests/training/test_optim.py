"""The optimizer against torch's own Muon and AdamW, and the schedule's bounds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from nanochat.gpt import GPT
from nanochat.gpt_config import GPTConfig
from nanochat.training.optim import MuonAdamW, orthogonalize, schedule
from nanochat.training.stage_config import OptimConfig


def small_model(seed: int = 0) -> GPT:
    model = GPT(GPTConfig(depth=2, vocab_size=300, max_seq_len=16))
    model.init_weights(seed)
    return model


def set_gradients(model: GPT, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        weight.grad = torch.randn(weight.shape, generator=generator)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_matrices_move_as_with_torchs_muon(weight_decay: float, dtype: torch.dtype) -> None:
    ours, theirs = small_model(), small_model()
    config = OptimConfig(weight_decay=weight_decay)
    optimizer = MuonAdamW(ours, config)
    optimizer.dtype = dtype
    matrices = {n: w for n, w in theirs.named_parameters() if n.startswith("h.")}
    reference = torch.optim.Muon(
        matrices.values(), lr=config.matrix_lr, momentum=0.95, weight_decay=weight_decay
    )
    before = {n: w.detach().clone() for n, w in matrices.items()}
    for step in range(3):
        set_gradients(ours, step)
        set_gradients(theirs, step)
        optimizer.step(1.0)
        reference.step()
    for name, weight in matrices.items():
        moved = (weight - before[name]).norm()
        apart = (weight - dict(ours.named_parameters())[name]).norm()
        # torch's iteration runs in bfloat16 (8 bits of mantissa), ours in either.
        assert apart < 0.02 * moved, name


def test_embedding_and_head_move_as_with_torchs_adamw() -> None:
    ours, theirs = small_model(), small_model()
    optimizer = MuonAdamW(ours, OptimConfig())
    scale = (128 / 768) ** -0.5
    reference = torch.optim.AdamW(
        [
            {"params": [theirs.wte.weight], "lr": 0.3 * scale * 0.5},
            {"params": [theirs.lm_head.weight], "lr": 0.004 * scale * 0.5},
        ],
        betas=(0.8, 0.95),
        eps=1e-10,
        weight_decay=0.0,
    )
    for step in range(3):
        set_gradients(ours, step)
        set_gradients(theirs, step)
        optimizer.step(0.5)
        reference.step()
    torch.testing.assert_close(ours.wte.weight, theirs.wte.weight)
    torch.testing.assert_close(ours.lm_head.weight, theirs.lm_head.weight)


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 32), (2, 32, 8)])
def test_orthogonalize_brings_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonalize(matrices))
    assert values.min() > 0.3
    assert values.max() < 1.3
    # The directions stay: U V^T of the result is that of the matrix.
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    assert ((u @ vh) * orthogonalize(matrices)).sum() > 0.8 * (u @ vh).square().sum()


def test_stacked_matrices_are_orthogonalized_each_by_itself() -> None:
    a, b = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(2)).unbind()
    together = orthogonalize(torch.stack([a, 100 * b]))
    torch.testing.assert_close(together[0], orthogonalize(a[None])[0])
    torch.testing.assert_close(together[1], orthogonalize(b[None])[0])


def test_state_taken_over_gives_the_same_next_step() -> None:
    one, other = small_model(), small_model()
    first = MuonAdamW(one, OptimConfig())
    set_gradients(one, 0)
    first.step(1.0)
    other.load_state_dict(one.state_dict())
    second = MuonAdamW(other, OptimConfig())
    saved = {name: tensor.clone() for name, tensor in first.state_tensors().items()}
    second.load_state_tensors(saved)
    for model, optimizer in ((one, first), (other, second)):
        set_gradients(model, 1)
        optimizer.step(1.0)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    # The control: without the state the step is another one.
    third_model = small_model()
    third_model.load_state_dict(one.state_dict())
    third = MuonAdamW(third_model, OptimConfig())
    for model, optimizer in ((one, first), (third_model, third)):
        set_gradients(model, 2)
        optimizer.step(1.0)
    assert not torch.equal(one.h[0].attn.c_q.weight, third_model.h[0].attn.c_q.weight)
    assert not torch.equal(one.wte.weight, third_model.wte.weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_resumed_state_is_on_the_device_where_the_first_update_needs_it(dtype) -> None:
    """With fake tensors, which know devices and hold nothing; a fused kernel takes one device."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        with torch.device("cuda"):
            model = GPT(GPTConfig(depth=2, vocab_size=300, max_seq_len=16))
        model.dtype = dtype
        optimizer = MuonAdamW(model, OptimConfig())
        assert optimizer.dtype == dtype
        saved = {n: torch.empty(t.shape) for n, t in optimizer.state_tensors().items()}
        optimizer.load_state_tensors(saved)
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight)
        assert {t.device.type for t in saved.values()} == {"cpu"}
        assert {t.device.type for t in optimizer.state_tensors().values()} == {"cuda"}
        optimizer.step(1.0)  # torch checks the devices
        optimizer.zero_grad()
        assert all(weight.grad is None for weight in model.parameters()), "a card's memory is short"


def test_the_state_is_there_before_the_first_update() -> None:
    """So memory that can't hold it runs out before a weight has moved; torch adds nothing to it."""
    model = small_model()
    optimizer = MuonAdamW(model, OptimConfig())
    before = {name: tensor.data_ptr() for name, tensor in optimizer.state_tensors().items()}
    set_gradients(model, 0)
    optimizer.step(1.0)
    assert {n: t.data_ptr() for n, t in optimizer.state_tensors().items()} == before


def test_gradients_are_cut_to_the_global_norm() -> None:
    model = small_model()
    optimizer = MuonAdamW(model, OptimConfig())
    set_gradients(model, 0)
    before = torch.cat([w.grad.flatten() for w in model.parameters()]).norm()
    assert torch.isclose(optimizer.clip(), before)
    after = torch.cat([w.grad.flatten() for w in model.parameters()]).norm()
    assert torch.isclose(after, torch.tensor(1.0), atol=1e-4)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_multiplier_stays_between_zero_and_one(progress: float, up: float, down: float) -> None:
    assert 0 <= schedule(progress, up, down) <= 1


@given(st.integers(1, 500))
def test_no_update_is_wasted_on_a_multiplier_of_zero(n: int) -> None:
    multipliers = [schedule((i + 0.5) / n, 0.1, 0.4) for i in range(n)]
    assert min(multipliers) > 0
    assert max(multipliers) <= 1
