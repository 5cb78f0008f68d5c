"""The shape of a model and what follows from it by counting: parameters, FLOPs, bytes.

Apart from gpt.py so that a plan can be printed without loading torch; a test holds both equal.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

# Logits alive at once: larger products run faster, up to about here on two CPU cores. On CUDA the
# head's gradient has to fill 132 processors (8,192 rows at 65,536 tokens give 192 tiles), and is
# read and written once a chunk.
CHUNK_FLOATS = {"cpu": 2**23, "mps": 2**25, "cuda": 2**29}


@dataclass(frozen=True)
class GPTConfig:
    """Everything that gives a model its shape. depth is the one dial: n_embd = 64 x depth."""

    depth: int
    vocab_size: int
    max_seq_len: int
    rope_base: float = 10_000.0
    softcap: float = 15.0
    norm_eps: float = 1e-6

    @property
    def n_embd(self) -> int:
        """C, the width of the residual stream."""
        return 64 * self.depth

    @property
    def head_dim(self) -> int:
        """D: 128 where it divides the width, else 64, so that every depth works."""
        return 128 if self.n_embd % 128 == 0 else 64

    @property
    def n_head(self) -> int:
        """H, for queries, keys and values alike."""
        return self.n_embd // self.head_dim

    def num_matrix_params(self) -> int:
        """Weights of the blocks: attention 4 C^2, MLP 8 C^2 each."""
        return self.depth * 12 * self.n_embd**2

    def num_params(self) -> int:
        """All weights: blocks, token embedding and head (untied).

        >>> [GPTConfig(d, 65_536, 256).num_params() for d in (4, 6, 8)]
        [36700160, 60948480, 92274688]
        """
        return self.num_matrix_params() + 2 * self.vocab_size * self.n_embd

    def flops_per_token(self) -> int:
        """Multiply-adds count two; forward and backward (6 x weights that multiply + attention).

        PaLM, arXiv 2204.02311, appendix B. The embedding is a look-up and multiplies nothing.
        """
        weights = self.num_matrix_params() + self.vocab_size * self.n_embd
        return 6 * weights + 12 * self.depth * self.n_embd * self.max_seq_len

    def training_bytes(
        self, device_batch_size: int, device_type: str = "cpu", bytes_per_float: int = 4
    ) -> int:
        """Estimate of a step's peak on a device, with activations of so many bytes a number.

        Checked by tests/test_gpt.py against the bytes that two real updates allocate, and on a
        card by bench/gpu.py.
        """
        tokens = device_batch_size * self.max_seq_len
        matrices, head = self.num_matrix_params(), self.vocab_size * self.n_embd
        # Weights and two moments of each; Muon's matrices have only one.
        kept = 12 * self.num_params() - 4 * matrices
        gradients = 4 * self.num_params()
        copies = 0 if bytes_per_float == 4 else bytes_per_float * self.num_params()
        logits = min(tokens * self.vocab_size, CHUNK_FLOATS[device_type])
        if device_type == "cuda":
            # The compiler's choice, which keeps more than has to be kept: 18 numbers per token and
            # unit of width in each layer, and 2 more in what the values are a part of.
            activations = tokens * self.n_embd * (20 * self.depth + 8) * bytes_per_float
            # Of gradients only the head's is there at the peak, which is in the loss; but where
            # few tokens meet many weights, it is in the update, with the largest stack of three.
            in_loss = activations + 4 * head + 2 * bytes_per_float * logits + copies
            return kept + max(in_loss, gradients + 16 * matrices // 3)
        # Numbers that a layer keeps for the backward pass, per token and unit of width. On MPS
        # attention is plain products, and the (T, T) weights of each head are kept as well.
        layer = 17 + self.max_seq_len / 128 if device_type == "mps" else 15
        activations = int(tokens * self.n_embd * (layer * self.depth + 10) * bytes_per_float)
        # A chunk of logits with its gradients, and the next chunk: 16 bytes for each.
        return kept + gradients + activations + 16 * logits + copies

    def to_json(self) -> dict[str, Any]:
        """For state.json."""
        return asdict(self)
