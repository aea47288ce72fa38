"""Muon: steps of matrices along their orthogonalised momentum (K. Jordan et al., 2024).

PyTorch has one since 2.9, which multiplies in bfloat16 on all processors. On a core without instructions for it, a step
for the 32 matrices of a small ViTDet takes 5.6 seconds there, and 0.2 here (AMD EPYC with AVX2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from eventful_vit.ops.gpu.device_facts import multiplies_bfloat16
from torch import Tensor, nn

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of s, s^3 and s^5: the polynomial that takes singular values between 0 and 1 towards 1 fastest, and near it."""
ITERATIONS = 5
SMALLEST_NORM = 1e-7
RMS_OF_ADAMW = 0.2
"""Of a usual AdamW step's entries, per learning rate; steps are scaled to it (J. Liu et al., 2025)."""


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum, decoupled weight decay, and steps of the size of AdamW's."""

    def __init__(self, matrices: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._update(matrix, group["lr"], group["weight_decay"])
        return loss

    def _update(self, matrix: nn.Parameter, rate: float, decay: float) -> None:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix.grad)
        momentum = state["momentum_buffer"].lerp_(matrix.grad, 1 - MOMENTUM)
        direction = orthogonalised(matrix.grad.lerp(momentum, MOMENTUM), _product_type(matrix.device))
        matrix.mul_(1 - rate * decay)
        matrix.add_(direction, alpha=-rate * RMS_OF_ADAMW * math.sqrt(max(matrix.shape)))


def orthogonalised(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """A matrix with the same singular vectors and singular values near 1, by Newton's and Schulz's iteration.

    They end between 0.68 and 1.14 where they were at least a hundredth of the matrix's norm; smaller ones grow 485-fold
    at most. Products are computed in `dtype`, which is that of the result.
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    result = (matrix.T if is_tall else matrix).to(dtype, copy=True)
    result /= result.norm().clamp(min=SMALLEST_NORM)  # so that no singular value is above 1
    first, third, fifth = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = result @ result.T
        result = torch.addmm(result, torch.addmm(square, square, square, beta=third, alpha=fifth), result, beta=first)
    return result.T if is_tall else result


def _product_type(device: torch.device) -> torch.dtype:
    """bfloat16 where the processor multiplies it, float32 elsewhere."""
    multiplies = multiplies_bfloat16(device) if device.type == "cuda" else has_bfloat16_instructions()
    return torch.bfloat16 if multiplies else torch.float32


def has_bfloat16_instructions() -> bool:
    """Whether this CPU multiplies bfloat16 numbers itself (AVX-512 BF16 or AMX)."""
    found = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(ask is not None and ask() for ask in found)
