"""The optimiser and the schedules: Muon for the matrices, AdamW for embedding and head.

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


def orthogonalize(matrices: Tensor, steps: int = NEWTON_SCHULZ_STEPS, eps: float = 1e-7) -> Tensor:
    """Push the singular values of each matrix of a stack (K, M, N) towards 1.

    Quintic Newton-Schulz in the stack's own type; works on the short side, whichever it is.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.size(1) > matrices.size(2)
    x = matrices.mT if tall else matrices
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + eps)
    for _ in range(steps):
        gram = x @ x.mT  # (K, M, M)
        poly = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, poly, x, beta=a)
    return x.mT if tall else x


class MuonAdamW:
    """One optimiser of two kinds, with `step(multiplier)` and a flat state of plain tensors."""

    def __init__(self, model: nn.Module, config: OptimConfig) -> None:
        self.config = config
        self.momentum, self.nesterov = 0.95, True
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
            weights = [self.parameters[name] for name in names]
            gradients = torch.stack([w.grad for w in weights if w.grad is not None])
            momentum.lerp_(gradients, 1 - self.momentum)
            update = gradients.lerp_(momentum, self.momentum) if self.nesterov else momentum
            update = orthogonalize(update)
            rows, columns = weights[0].shape
            lr = self.config.matrix_lr * multiplier
            for weight, direction in zip(weights, update.unbind(), strict=True):
                weight.mul_(1 - lr * self.config.weight_decay)
                weight.add_(direction, alpha=-lr * max(1.0, rows / columns) ** 0.5)

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
        """Set gradients to zero in place: the buffers are kept and reused."""
        for weight in self.parameters.values():
            if weight.grad is not None:
                weight.grad.zero_()

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
