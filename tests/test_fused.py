"""The hand-written backward passes against plain torch: values and gradients, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from nanochat import fused
from nanochat.fused import linear_cross_entropy, relu_squared, rms_norm, rotate

CAP = 15.0


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def drawn(*shape: int, scale: float = 1.0, seed: int = 0, dtype=torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def same(ours, plain, *inputs: Tensor, rtol: float = 1e-9, atol: float = 1e-11) -> None:
    """Equal values, and equal gradients of a random weighting of them."""
    results = []
    for function in (ours, plain):
        leaves = [x.clone().requires_grad_() for x in inputs]
        out = function(*leaves)
        weights = drawn(*out.shape, seed=9).to(out.dtype)
        results.append((out, *torch.autograd.grad((out * weights).sum(), leaves)))
    for one, other in zip(*results, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=rtol, atol=atol)


# ---- rms_norm


def plain_rms_norm(x: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps)


@pytest.mark.parametrize("shape", [(8,), (1, 1), (3, 5, 64), (2, 3, 4, 16)])
@pytest.mark.parametrize("eps", [1e-6, 0.3])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
def test_rms_norm(shape: tuple[int, ...], eps: float, scale: float) -> None:
    x = drawn(*shape, scale=scale)
    same(lambda x: rms_norm(x, eps), lambda x: plain_rms_norm(x, eps), x)
    same(lambda x: rms_norm(x, eps), lambda x: F.rms_norm(x, x.shape[-1:], eps=eps), x)


def test_rms_norm_of_zeros_and_of_a_view() -> None:
    assert torch.equal(rms_norm(torch.zeros(2, 4), 1e-6), torch.zeros(2, 4))
    x = drawn(4, 6, 8)
    same(
        lambda x: rms_norm(x.transpose(0, 1), 1e-6),
        lambda x: plain_rms_norm(x.transpose(0, 1), 1e-6),
        x,
    )


def test_rms_norm_gradcheck() -> None:
    x = drawn(3, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: rms_norm(x, 1e-2), (x,))


# ---- rotate


def angles(time: int, half: int) -> tuple[Tensor, Tensor]:
    angle = torch.outer(torch.arange(time), 100.0 ** (-torch.arange(half) / half)).double()
    return angle.cos()[:, None], angle.sin()[:, None]


def plain_rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos + b * sin, b * cos - a * sin], dim=-1)


@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (2, 5, 3, 8), (3, 16, 1, 64)])
def test_rotate(shape: tuple[int, ...]) -> None:
    cos, sin = angles(shape[1], shape[3] // 2)
    x = drawn(*shape)
    same(lambda x: rotate(x, cos, sin), lambda x: plain_rotate(x, cos, sin), x)
    assert torch.equal(rotate(x, cos, sin)[:, 0], x[:, 0]), "position 0 is left alone"
    torch.testing.assert_close(rotate(x, cos, sin).norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(rotate(rotate(x, cos, sin), cos, -sin), x)


def test_rotate_sign_is_that_of_transformers() -> None:
    """x cos + (x2, -x1) sin: a unit vector at position 1 turns clockwise."""
    cos, sin = angles(2, 1)
    turned = rotate(torch.tensor([[[[1.0, 0.0]], [[1.0, 0.0]]]]).double(), cos, sin)
    one = torch.tensor(1.0).double()
    torch.testing.assert_close(turned[0, 1, 0], torch.stack([one.cos(), -one.sin()]))


def test_rotate_gradcheck() -> None:
    cos, sin = angles(3, 2)
    x = drawn(2, 3, 2, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: rotate(x, cos, sin), (x,))


# ---- relu_squared


@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 3, 64)])
def test_relu_squared(shape: tuple[int, ...]) -> None:
    same(relu_squared, lambda x: F.relu(x).square(), drawn(*shape))


def test_relu_squared_at_zero() -> None:
    x = torch.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    out = relu_squared(x)
    out.sum().backward()
    assert out.tolist() == [0, 0, 4]
    assert x.grad.tolist() == [0, 0, 4]


def test_relu_squared_gradcheck() -> None:
    assert torch.autograd.gradcheck(relu_squared, (drawn(4, 4, seed=3).requires_grad_(),))


# ---- linear_cross_entropy


def plain_loss(x: Tensor, weight: Tensor, targets: Tensor, softcap: float = CAP) -> Tensor:
    logits = softcap * torch.tanh(x @ weight.T / softcap)
    return F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum")


def problem(rows: int, width: int, vocab: int, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    targets = torch.randint(0, vocab, (rows,), generator=generator)
    return drawn(rows, width, scale=scale, seed=1), drawn(vocab, width, seed=2), targets


@pytest.mark.parametrize("rows_a_chunk", [0, 1, 2, 3, 7, 8, 100])
@pytest.mark.parametrize("ignored", [(), (0,), (2, 3, 6), range(1, 7), range(7)])
def test_loss_and_gradients(monkeypatch, rows_a_chunk: int, ignored) -> None:
    vocab = 11
    monkeypatch.setitem(fused.CHUNK_FLOATS, "cpu", rows_a_chunk * vocab)
    x, weight, targets = problem(7, 5, vocab)
    targets[list(ignored)] = -1
    same(
        lambda x, w: linear_cross_entropy(x, w, targets, CAP),
        lambda x, w: plain_loss(x, w, targets),
        x,
        weight,
    )


@pytest.mark.parametrize("rows_a_chunk", [1, 3, 4, 100])
@pytest.mark.parametrize("compiled", [None, fused.logits_pass])
@pytest.mark.parametrize("ignored", [(), (2, 3, 6), range(8)])
def test_loss_and_gradients_with_a_mask_as_on_a_gpu(
    monkeypatch, rows_a_chunk: int, compiled, ignored
) -> None:
    """There rows are not left out but masked, so that shapes stay the same and nothing waits."""
    monkeypatch.setitem(fused.CHUNK_FLOATS, "cpu", rows_a_chunk * 11)
    x, weight, targets = problem(8, 5, 11)
    targets[list(ignored)] = -1
    same(
        lambda x, w: fused._LinearCrossEntropy.apply(x, w, targets, CAP, True, compiled),
        lambda x, w: plain_loss(x, w, targets),
        x,
        weight,
    )


def test_chunks_of_a_compiled_pass_are_of_one_size(monkeypatch) -> None:
    monkeypatch.setitem(fused.CHUNK_FLOATS, "cpu", 7 * 11)
    seen = []

    def compiled(logits: Tensor, targets: Tensor, softcap: float) -> tuple[Tensor, Tensor]:
        seen.append(len(logits))
        return fused.logits_pass(logits, targets, softcap)

    x, weight, targets = problem(12, 5, 11)
    linear_cross_entropy(x.requires_grad_(), weight, targets, CAP, compiled)
    assert seen == [6, 6]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_evaluation_computes_no_gradients(dtype: torch.dtype) -> None:
    """A parameter wants gradients under no_grad as well, by its own word."""
    x, weight, targets = problem(6, 4, 9)
    parameter = torch.nn.Parameter(weight.float())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        linear_cross_entropy(x.to(dtype), parameter, targets, CAP)
    assert counter.get_total_flops() == 2 * 6 * 4 * 9, "the logits' product and no other"


def test_a_long_sum_is_taken_in_parts() -> None:
    """As on MPS, where longer ones are wrong or slow."""
    a, b = drawn(3, 10), drawn(10, 4, seed=1)
    out = torch.empty(3, 4).double()
    fused._mm_into(out, a, b, most=4)
    torch.testing.assert_close(out, a @ b)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_products_are_added_in_the_wider_type(kind: torch.dtype) -> None:
    a, b = drawn(5, 7, dtype=kind), drawn(7, 3, seed=1, dtype=kind)
    total = torch.full((5, 3), 256.0)
    fused._add_product(total, a, b)
    fused._add_product(total, a, b)
    torch.testing.assert_close(total, 256 + 2 * (a.float() @ b.float()), rtol=1e-4, atol=0.05)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e4])
def test_loss_with_large_and_small_logits(scale: float) -> None:
    x, weight, targets = problem(6, 8, 32, scale)
    same(
        lambda x, w: linear_cross_entropy(x, w, targets, CAP),
        lambda x, w: plain_loss(x, w, targets),
        x,
        weight,
        atol=1e-9,
    )


@pytest.mark.parametrize("frozen", ["x", "weight"])
def test_loss_where_one_side_wants_no_gradient(frozen: str) -> None:
    x, weight, targets = problem(6, 4, 9)
    if frozen == "x":
        one, other = (
            lambda w, f=f: f(x, w, targets, CAP) for f in (linear_cross_entropy, plain_loss)
        )
        same(one, other, weight)
    else:
        one, other = (
            lambda x, f=f: f(x, weight, targets, CAP) for f in (linear_cross_entropy, plain_loss)
        )
        same(one, other, x)


def test_ignored_rows_have_no_gradient_at_all() -> None:
    x, weight, targets = problem(6, 4, 9)
    targets[1] = targets[4] = -1
    x.requires_grad_()
    linear_cross_entropy(x, weight, targets, CAP).backward()
    assert torch.equal(x.grad[[1, 4]], torch.zeros(2, 4).double())
    assert (x.grad[[0, 2, 3, 5]].abs().sum(dim=1) > 0).all()


def test_ignored_rows_are_not_even_read() -> None:
    x, weight, targets = problem(6, 4, 9)
    kept = targets.clone()
    kept[[1, 4]] = -1
    x[[1, 4]] = torch.nan
    loss = linear_cross_entropy(x, weight, kept, CAP)
    others = [0, 2, 3, 5]
    torch.testing.assert_close(loss, plain_loss(x[others], weight, targets[others]))


def test_loss_without_gradients() -> None:
    x, weight, targets = problem(6, 4, 9)
    with torch.no_grad():
        loss = linear_cross_entropy(x, weight, targets, CAP)
    torch.testing.assert_close(loss, plain_loss(x, weight, targets))
    assert not loss.requires_grad


def test_inputs_are_left_alone() -> None:
    x, weight, targets = problem(6, 4, 9)
    before = x.clone(), weight.clone(), targets.clone()
    leaves = x.requires_grad_(), weight.requires_grad_()
    linear_cross_entropy(*leaves, targets, CAP).backward()
    for now, then in zip((x, weight, targets), before, strict=True):
        assert torch.equal(now.detach(), then)


def test_a_second_backward_is_refused_and_not_wrong() -> None:
    x, weight, targets = problem(4, 3, 5)
    loss = linear_cross_entropy(x.requires_grad_(), weight.requires_grad_(), targets, CAP)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# ---- the types that training uses


def test_float32_is_close_to_float64() -> None:
    x, weight, targets = problem(200, 64, 300)
    for_all = [
        (x.to(t).requires_grad_(), weight.to(t).requires_grad_()) for t in (torch.float32, x.dtype)
    ]
    losses = [linear_cross_entropy(a, b, targets, CAP) for a, b in for_all]
    for loss in losses:
        loss.backward()
    assert losses[0].dtype == torch.float32
    torch.testing.assert_close(losses[0].double(), losses[1], rtol=1e-6, atol=0)
    for one, other in zip(*for_all, strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows_a_chunk", [1, 10, 1000])
def test_bfloat16_runs_and_is_near(monkeypatch, rows_a_chunk: int) -> None:
    monkeypatch.setitem(fused.CHUNK_FLOATS, "cpu", rows_a_chunk * 64)
    x, weight, targets = problem(40, 32, 64)
    exact = x.clone().requires_grad_(), weight.clone().requires_grad_()
    rough = x.bfloat16().requires_grad_(), weight.bfloat16().requires_grad_()
    plain_loss(*exact, targets).backward()
    loss = linear_cross_entropy(*rough, targets, CAP)
    loss.backward()
    assert loss.dtype == torch.float32, "the sum is not taken in bfloat16"
    for one, other in zip(rough, exact, strict=True):
        assert one.grad.dtype == torch.bfloat16
        error = (one.grad.double() - other.grad).norm() / other.grad.norm()
        assert error < 0.03


def test_the_others_run_in_bfloat16() -> None:
    cos, sin = (a.bfloat16() for a in angles(5, 4))
    x = drawn(2, 5, 3, 8)
    functions = (
        (lambda x: rms_norm(x, 1e-6), lambda x: plain_rms_norm(x, 1e-6)),
        (lambda x: rotate(x, cos, sin), lambda x: plain_rotate(x, *angles(5, 4))),
        (relu_squared, lambda x: F.relu(x).square()),
    )
    for ours, plain in functions:
        rough, exact = x.bfloat16().requires_grad_(), x.clone().requires_grad_()
        out, right = ours(rough), plain(exact)
        assert out.dtype == torch.bfloat16
        out.sum().backward()
        right.sum().backward()
        torch.testing.assert_close(out.double(), right, rtol=0.03, atol=0.03)
        torch.testing.assert_close(rough.grad.double(), exact.grad, rtol=0.05, atol=0.05)
