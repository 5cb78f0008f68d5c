"""The optimizer and the schedules: Muon for the matrices, AdamW for embedding and head.

Muon (Keller Jordan, https://kellerjordan.github.io/posts/muon/) replaces a matrix's momentum by
the nearest orthogonal matrix, so every direction is learned at the same rate. Matrices of one
shape are stacked, so that Newton-Schulz runs as a few batched products. tests/training/test_optim
holds it to torch.optim.Muon, which works in bfloat16 and one matrix at a time.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from nanochat.gpt import GPT
from nanochat.training.stage_config import OptimConfig

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # a, b, c of a x + b x^3 + c x^5; Jordan's blog post
NEWTON_SCHULZ_STEPS = 5


def schedule(progress: float, warmup: float = 0.0, warmdown: float = 0.2) -> float:
    """The learning-rate multiplier in [0, 1] at progress in [0, 1]: up, constant, down to zero.

    >>> [schedule(p, warmup=0.1, warmdown=0.5) for p in (0.05, 0.3, 0.75, 1.0)]
    [0.5, 1.0, 0.5, 0.0]
    """
    multiplier = 1.0
    if progress < warmup:
        multiplier = progress / warmup
    elif progress > 1 - warmdown:
        multiplier = (1 - progress) / warmdown
    return min(1.0, max(0.0, multiplier))


def orthogonalize(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Push the singular values of each matrix of a stack (K, M, N) toward 1.

    Quintic Newton-Schulz in dtype; works on the short side, whichever it is.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.size(1) > matrices.size(2)
    x = matrices.mT if tall else matrices
    # Normalized before the cast: a norm rounded to bfloat16 would be off by up to 0.4 %.
    x = (x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-7)).to(dtype)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT  # (K, M, M)
        poly = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, poly, x, beta=a)
    return x.mT if tall else x


def newton_schulz_dtype(model: GPT) -> torch.dtype:
    """bfloat16 where a CUDA card trains in it, else float32.

    The iteration only has to bring singular values near 1, and forgives rounding (Jordan's post);
    in float32 its products would be a tenth of a small model's step. A CPU only loses by it.
    """
    is_rough = model.dtype == torch.bfloat16 and model.wte.weight.device.type == "cuda"
    return torch.bfloat16 if is_rough else torch.float32


class MuonAdamW:
    """One optimizer of two kinds, with `step(multiplier)` and a flat state of plain tensors."""

    def __init__(self, model: GPT, config: OptimConfig) -> None:
        self.config = config
        self.momentum, self.nesterov = 0.95, True
        self.dtype = newton_schulz_dtype(model)
        self.parameters: dict[str, nn.Parameter] = dict(model.named_parameters())
        stacks: dict[torch.Size, list[str]] = defaultdict(list)
        for name, weight in self.parameters.items():
            if name.startswith("h."):
                stacks[weight.shape].append(name)
        self.stacks = list(stacks.values())
        firsts = [self.parameters[names[0]] for names in self.stacks]
        self.momenta = [
            torch.zeros((len(names), *first.shape), device=first.device)
            for names, first in zip(self.stacks, firsts, strict=True)
        ]
        scale = (self.parameters["wte.weight"].size(1) / 768) ** -0.5  # tuned at width 768
        self.adam_lr = {
            "wte.weight": config.embedding_lr * scale,
            "lm_head.weight": config.unembedding_lr * scale,
        }
        # Made before the first update: memory that can't hold it runs out before anything is
        # updated, and a resumed run fills tensors on the device they belong to.
        self.adam_state = {
            name: {
                "step": torch.zeros((), device=self.parameters[name].device),
                "exp_avg": torch.zeros_like(self.parameters[name], requires_grad=False),
                "exp_avg_sq": torch.zeros_like(self.parameters[name], requires_grad=False),
            }
            for name in self.adam_lr
        }

    def clip(self) -> Tensor:
        """The gradient's global norm before clipping; scales the gradients where it is above."""
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.config.grad_clip > 0:
            torch.nn.utils.clip_grads_with_norm_(
                self.parameters.values(), self.config.grad_clip, norm
            )
        return norm

    @torch.no_grad()
    def step(self, multiplier: float) -> None:
        """Update every weight; multiplier in [0, 1] scales all learning rates."""
        for name, lr in self.adam_lr.items():
            self._adamw(name, lr * multiplier)
        for names, momentum in zip(self.stacks, self.momenta, strict=True):
            self._muon([self.parameters[n] for n in names], momentum, multiplier)

    def _muon(self, weights: list[Tensor], momentum: Tensor, multiplier: float) -> None:
        """Update the matrices of one stack. Calls on lists: on a GPU one kernel for many."""
        gradients = [w.grad for w in weights if w.grad is not None]
        momenta = momentum.unbind()
        torch._foreach_lerp_(momenta, gradients, 1 - self.momentum)
        if self.nesterov:  # in the gradients themselves, which nobody reads after this
            torch._foreach_lerp_(gradients, momenta, self.momentum)
        update = orthogonalize(torch.stack(gradients if self.nesterov else momenta), self.dtype)
        rows, columns = weights[0].shape
        lr = self.config.matrix_lr * multiplier
        if self.config.weight_decay > 0:
            torch._foreach_mul_(weights, 1 - lr * self.config.weight_decay)
        update = update.to(momentum.dtype).unbind()  # lists of two types would be added one by one
        torch._foreach_add_(weights, update, alpha=-lr * max(1.0, rows / columns) ** 0.5)

    def _adamw(self, name: str, lr: float) -> None:
        weight, state = self.parameters[name], self.adam_state[name]
        assert weight.grad is not None
        # As torch.optim.AdamW does it, whose class would import torch's compiler: 2 s a stage.
        adamw(
            [weight], [weight.grad], [state["exp_avg"]], [state["exp_avg_sq"]], [], [state["step"]],
            fused=True, amsgrad=False, maximize=False,
            lr=lr, beta1=0.8, beta2=0.95, eps=1e-10, weight_decay=0.0,
        )  # fmt: skip

    def zero_grad(self) -> None:
        """Forget the gradients: on CUDA the tensors go, elsewhere they become zero in place."""
        for weight in self.parameters.values():
            if weight.device.type == "cuda":
                # The next backward pass brings tensors of its own. Adding those to zeros would
                # move 12 bytes for each weight, and hold both at the peak.
                weight.grad = None
            elif weight.grad is not None:
                weight.grad.zero_()  # a CPU reuses the pages; fresh ones fault one by one

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything a resume needs, by name; the tensors are the live ones."""
        state: dict[str, Tensor] = {}
        for names, momentum in zip(self.stacks, self.momenta, strict=True):
            state |= {f"momentum.{n}": m for n, m in zip(names, momentum.unbind(), strict=True)}
        for name, tensors in self.adam_state.items():
            state |= {f"{key}.{name}": tensor for key, tensor in tensors.items()}
        return state

    @torch.no_grad()
    def load_state_tensors(self, state: dict[str, Tensor]) -> None:
        """Take over what state_tensors gave; what an older version did not save is zero."""
        for name, tensor in self.state_tensors().items():
            tensor.copy_(state[name]) if name in state else tensor.zero_()
