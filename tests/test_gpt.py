"""The model: its shape at every depth, and its numbers against plain torch and transformers."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import random_model
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from nanochat import gpt_config
from nanochat.engine import Engine
from nanochat.fused import _LinearCrossEntropy
from nanochat.gpt import GPT
from nanochat.gpt_config import GPTConfig
from nanochat.tokenizer import Tokenizer
from nanochat.training.optim import MuonAdamW
from nanochat.training.stage_config import OptimConfig


def ids_of(*shape: int, vocab: int = 300, seed: int = 0) -> Tensor:
    return torch.randint(0, vocab, shape, generator=torch.Generator().manual_seed(seed))


# ---- shape


@pytest.mark.parametrize("depth", range(1, 33))
def test_every_depth_constructs(depth: int) -> None:
    config = GPTConfig(depth, 265, 256)
    assert config.n_embd == 64 * depth
    assert config.n_head * config.head_dim == config.n_embd
    assert config.head_dim == (128 if depth % 2 == 0 else 64)
    with torch.device("meta"):
        model = GPT(config)
    assert sum(weight.numel() for weight in model.parameters()) == config.num_params()
    assert len(model.h) == depth


@pytest.mark.parametrize(
    ("depth", "parameters"), [(4, 36_700_160), (6, 60_948_480), (8, 92_274_688)]
)
def test_parameter_counts_at_65536(depth: int, parameters: int) -> None:
    with torch.device("meta"):
        model = GPT(GPTConfig(depth, 65_536, 1024))
    assert sum(weight.numel() for weight in model.parameters()) == parameters
    matrices = [w for name, w in model.named_parameters() if name.startswith("h.")]
    assert sum(w.numel() for w in matrices) == model.config.num_matrix_params()
    assert all(w.dim() == 2 for w in model.parameters()), "no biases, no norms' weights"


def test_config_survives_json() -> None:
    config = GPTConfig(3, 300, 64)
    assert GPTConfig(**config.to_json()) == config


# ---- numbers


def plain_hidden(model: GPT, ids: Tensor) -> Tensor:
    """The architecture once more, in plain torch and without a line of nanochat's."""
    config = model.config
    weights = dict(model.named_parameters())
    time, half = ids.size(1), config.head_dim // 2

    def norm(x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], eps=1e-6)

    speed = 10_000.0 ** (-torch.arange(half).double() / half)
    turn = torch.polar(torch.ones(time, half).double(), -torch.outer(torch.arange(time), speed))

    def heads(x: Tensor, rotated: bool) -> Tensor:
        x = x.view(*x.shape[:2], config.n_head, config.head_dim).transpose(1, 2)
        if not rotated:
            return x
        pairs = torch.complex(x[..., :half], x[..., half:]) * turn
        return norm(torch.cat([pairs.real, pairs.imag], dim=-1))

    x = norm(weights["wte.weight"][ids])
    above = torch.ones(time, time, dtype=torch.bool).triu(1)
    for layer in range(config.depth):
        part = {
            name.removeprefix(f"h.{layer}.").removesuffix(".weight"): weight
            for name, weight in weights.items()
        }
        y = norm(x)
        q, k = (heads(y @ part[f"attn.c_{name}"].T, rotated=True) for name in "qk")
        v = heads(y @ part["attn.c_v"].T, rotated=False)
        scores = (q @ k.transpose(2, 3) / math.sqrt(config.head_dim)).masked_fill(above, -math.inf)
        y = (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
        x = x + y @ part["attn.c_proj"].T
        x = x + F.relu(norm(x) @ part["mlp.c_fc"].T).square() @ part["mlp.c_proj"].T
    return norm(x)


def plain_logits(model: GPT, ids: Tensor) -> Tensor:
    return 15 * torch.tanh(plain_hidden(model, ids) @ model.lm_head.weight.T / 15)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_loss_and_gradients_against_plain_torch(depth: int) -> None:
    model = random_model(depth, 300, 32, torch.float64)
    ids, targets = ids_of(3, 20), ids_of(3, 20, seed=1)
    targets[0, :7] = targets[2, 5] = -1
    weights = list(model.parameters())
    loss = model.loss(ids, targets)
    found = torch.autograd.grad(loss, weights)
    plain = F.cross_entropy(
        plain_logits(model, ids).flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum"
    )
    torch.testing.assert_close(loss, plain, rtol=1e-10, atol=1e-10)
    for one, other in zip(found, torch.autograd.grad(plain, weights), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-8)


def test_loss_is_cross_entropy_of_the_models_own_logits() -> None:
    model = random_model(2, 300, 32, torch.float32)
    ids, targets = ids_of(2, 32), ids_of(2, 32, seed=1)
    targets[1, 10:] = -1
    logits = model.logits(model.hidden(ids))
    assert logits.abs().max() <= 15
    assert logits.dtype == torch.float32
    plain = F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum"
    )
    torch.testing.assert_close(model.loss(ids, targets), plain, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(model(ids), logits[:, -1])


def test_a_later_token_changes_nothing_earlier() -> None:
    model = random_model(2, 300, 32, torch.float64)
    ids = ids_of(1, 24)
    before = model.hidden(ids)
    for at in (1, 11, 23):
        other = ids.clone()
        other[0, at] = (other[0, at] + 1) % 300
        after = model.hidden(other)
        torch.testing.assert_close(after[:, :at], before[:, :at], rtol=1e-12, atol=1e-12)
        assert not torch.allclose(after[:, at], before[:, at])
        assert not torch.allclose(after[:, -1], before[:, -1]), "and the last one is reached"


def test_rows_do_not_see_each_other() -> None:
    model = random_model(2, 300, 32, torch.float64)
    ids = ids_of(4, 16)
    whole = model.hidden(ids)
    for row in range(4):
        torch.testing.assert_close(model.hidden(ids[row : row + 1])[0], whole[row])


def test_loss_is_the_sum_of_its_micro_batches() -> None:
    """4 x 1 = 1 x 4, values and gradients."""
    model = random_model(2, 300, 16, torch.float64)
    ids, targets = ids_of(4, 16), ids_of(4, 16, seed=1)
    targets[1, :9] = -1
    weights = list(model.parameters())
    whole = torch.autograd.grad(model.loss(ids, targets), weights)
    for row in range(4):
        model.loss(ids[row : row + 1], targets[row : row + 1]).backward()
    for weight, gradient in zip(weights, whole, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-9, atol=1e-10)


def test_bfloat16_activations_train() -> None:
    model = random_model(1, 300, 16, torch.float32)
    ids, targets = ids_of(2, 16), ids_of(2, 16, seed=1)
    exact = model.loss(ids, targets).item()
    model._rotary, model.dtype = None, torch.bfloat16
    assert model.hidden(ids).dtype == torch.bfloat16
    loss = model.loss(ids, targets)
    loss.backward()
    assert loss.item() == pytest.approx(exact, rel=0.05)
    assert all(weight.grad.dtype == torch.float32 for weight in model.parameters())


def test_one_product_for_queries_keys_and_values_is_three() -> None:
    """As training does it on CUDA, with its gradients."""
    model = random_model(2, 300, 32, torch.float64)
    attention, x = model.h[1].attn, torch.randn(2, 8, 128, dtype=torch.float64)
    found = []
    for joined in (False, True):
        parts = attention.project(x, joined)
        model.zero_grad()
        sum((i + 1) * part.square().sum() for i, part in enumerate(parts)).backward()
        grads = [c.weight.grad.clone() for c in (attention.c_q, attention.c_k, attention.c_v)]
        found.append((*parts, *grads))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_positions_beyond_max_seq_len() -> None:
    """The rotary tables grow; what they held stays the same."""
    model = random_model(1, 300, 16, torch.float64)
    before = [table.clone() for table in model.rotary(slice(16))]
    after = model.rotary(slice(40))
    for one, other in zip(before, after, strict=True):
        assert one.shape == (16, 1, 32)
        assert torch.equal(one, other[:16])
    assert torch.equal(model.rotary(slice(20, 40))[0], after[0][20:])


def test_trains_after_the_engine_has_used_it(tokenizer: Tokenizer, tiny_model: GPT) -> None:
    """What is made in inference mode can't be kept for a backward pass."""
    Engine(tiny_model, tokenizer).prefill([[1, 2, 3]])
    tiny_model.loss(ids_of(1, 8), ids_of(1, 8)).backward()
    assert tiny_model.wte.weight.grad.abs().sum() > 0


# ---- beginning


def initialized(seed: int, depth: int = 2) -> GPT:
    model = GPT(GPTConfig(depth, 300, 32))
    model.init_weights(seed)
    return model


def test_init_is_a_matter_of_the_seed_alone() -> None:
    torch.manual_seed(1)
    one = initialized(7).state_dict()
    torch.manual_seed(2)
    torch.rand(5)
    other, third = initialized(7).state_dict(), initialized(8).state_dict()
    for name, weight in one.items():
        assert torch.equal(weight, other[name])
        assert weight.abs().sum() == 0 or not torch.equal(weight, third[name])


def test_init_leaves_the_global_generator_alone() -> None:
    model = GPT(GPTConfig(1, 300, 32))
    state = torch.get_rng_state()
    model.init_weights(7)
    assert torch.equal(torch.get_rng_state(), state)


def test_blocks_start_as_the_identity_and_the_head_near_zero() -> None:
    model, ids = initialized(0), ids_of(2, 32)
    x = F.rms_norm(model.wte(ids), (128,), eps=1e-6)
    torch.testing.assert_close(model.hidden(ids), F.rms_norm(x, (128,), eps=1e-6))
    assert model.loss(ids, ids_of(2, 32, seed=1)).item() / 64 == pytest.approx(
        math.log(300), rel=1e-3
    )
    for name, weight in model.named_parameters():
        if "c_q" in name or "c_fc" in name:
            assert weight.std().item() == pytest.approx(128**-0.5, rel=0.05)
            assert weight.abs().max() <= math.sqrt(3 / 128)


# ---- transformers


def test_agrees_with_transformers() -> None:
    transformers = pytest.importorskip(
        "transformers",
        reason="NOT TESTED against NanoChatForCausalLM: transformers is not installed",
    )
    model = random_model(3, 300, 32, torch.float32)
    config = transformers.NanoChatConfig(
        vocab_size=300,
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=3,
        num_attention_heads=3,
        max_position_embeddings=32,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
    )
    theirs = transformers.NanoChatForCausalLM(config).eval()
    names = {
        "wte": "model.embed_tokens",
        "attn.c_q": "self_attn.q_proj",
        "attn.c_k": "self_attn.k_proj",
        "attn.c_v": "self_attn.v_proj",
        "attn.c_proj": "self_attn.o_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
        "h.": "model.layers.",
    }
    weights = {}
    for name, weight in model.state_dict().items():
        for ours, other in names.items():
            name = name.replace(ours, other)
        weights[name] = weight
    theirs.load_state_dict(weights)
    ids = ids_of(2, 32)
    with torch.no_grad():
        logits = theirs(ids).logits
        ours = model.logits(model.hidden(ids))
    torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-4)
    assert logits.std() > 0.5, "not all near zero"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "rows", "vocab", "dtype", "device"),
    [
        (4, 16, 8_192, torch.float32, "cpu"),
        (4, 16, 65_536, torch.float32, "cpu"),
        (4, 16, 65_536, torch.bfloat16, "cuda"),
        (8, 16, 4_096, torch.bfloat16, "cuda"),
        (8, 1, 65_536, torch.bfloat16, "cuda"),
    ],
)
def test_the_memory_of_a_step_is_about_what_the_plan_says(
    monkeypatch, depth: int, rows: int, vocab: int, dtype: torch.dtype, device: str
) -> None:
    """Counted over two updates of tensors that hold nothing, in chunks of the device's size."""
    monkeypatch.setitem(gpt_config.CHUNK_FLOATS, "cpu", gpt_config.CHUNK_FLOATS[device])
    config = GPTConfig(depth, vocab, 256)
    cpu = torch.device("cpu")
    compiled = compiled_in_memory if device == "cuda" else None
    with FakeTensorMode():
        with cpu:
            model = GPT(config)
        model.dtype = dtype
        optimizer, ids = MuonAdamW(model, OptimConfig()), torch.zeros(rows, 256, dtype=torch.long)
        if device == "cuda":
            optimizer.dtype = dtype
        from torch.distributed._tools.mem_tracker import MemTracker  # 2 s, and only this needs it

        tracker = MemTracker()
        tracker.track_external(model, *optimizer.state_tensors().values())
        model.rotary(slice(256))
        with tracker:
            for _ in range(2):
                tracker.reset_mod_stats()
                x = model.hidden(ids).flatten(0, 1)
                head = (x, model.lm_head.weight, ids.flatten(), 15.0, True, compiled)
                _LinearCrossEntropy.apply(*head).backward()
                del x, head
                optimizer.clip()
                optimizer.step(1.0)
                model.zero_grad(set_to_none=device == "cuda")  # as the optimizer does there
        counted = tracker.get_tracker_snapshot("peak")[cpu]["Total"]
    if device == "cuda":  # what the compiler keeps and these eager blocks don't, in each layer
        counted += 5 * rows * 256 * config.n_embd * depth * dtype.itemsize
    assert 0.98 < config.training_bytes(rows, device, dtype.itemsize) / counted < 1.3


def compiled_in_memory(logits: Tensor, targets: Tensor, softcap: float) -> tuple[Tensor, Tensor]:
    """logits_pass as it is compiled: nothing between the logits and their gradients is stored."""
    return logits.new_zeros((), dtype=torch.float32), torch.empty_like(logits)
