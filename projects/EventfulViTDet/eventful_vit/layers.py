"""Running the layers of a model: by an operator where a layer is what its class says, by calling it where it is not.

User code inside a layer (a subclass, an adapter, a hook, a parametrisation) is therefore always run.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import ops
from .ops import tape

MLP_ROWS = 1024
"""Rows of an MLP computed at a time on a CPU: their hidden values are still in cache when they are read again."""


def is_plain(module: nn.Module, kind: type) -> bool:
    """Whether a module is of this very class and nothing is hooked into it (hooks for all modules do not count)."""
    return (
        type(module) is kind
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and not module._backward_hooks
        and not module._backward_pre_hooks
        and "forward" not in module.__dict__
    )


def call(module: nn.Module, x: Tensor) -> Tensor:
    """Call a module whose code is not known."""
    tape.refuse(f"{type(module).__name__} may run other code")
    return module(x)


def run_linear(
    layer: nn.Module,
    x: Tensor,
    dtype: torch.dtype | None = None,
    gelu: bool = False,
    added: Tensor | None = None,
    used: Tensor | None = None,
) -> Tensor:
    """A linear layer, or whatever module stands in its place, on (..., inputs); then GELU and a sum where asked for.

    Args:
        dtype: type of operands and product; None keeps that of the weights.
        added: (..., outputs), what is added to the result.
        used: how many of the rows count (ops/gating.py); None: all.
    """
    if is_plain(layer, nn.Linear):
        return ops.linear(x, layer.weight, layer.bias, gelu, added, used, dtype or autocast_dtype(x))
    result = call(layer, x)
    result = F.gelu(result) if gelu else result
    return result if added is None else added + result


def run_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """A norm, or whatever module stands in its place."""
    affine = norm_arguments(norm)
    if affine is None or affine[2] is None:
        return call(norm, x)
    return ops.normalise(x, *affine)


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The type of linear layers under `torch.autocast`; None outside."""
    device = x.device.type
    if torch.is_grad_enabled() or device not in ("cpu", "cuda") or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def norm_arguments(norm: nn.Module | None) -> tuple[Tensor | None, Tensor | None, float | None] | None:
    """Weight, bias and eps for the operators that normalise; (None, None, None) for no norm.

    None for a module that has to be called.
    """
    if norm is None or is_plain(norm, nn.Identity):
        return None, None, None
    if is_plain(norm, nn.LayerNorm) and len(norm.normalized_shape) == 1:
        return norm.weight, norm.bias, norm.eps
    return None


class Mlp(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, dim: int, hidden: int, act_layer: type[nn.Module] = nn.GELU) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = act_layer()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return run_mlp(self, x)


def run_mlp(
    mlp: Mlp, x: Tensor, dtype: torch.dtype | None = None, added: Tensor | None = None, used: Tensor | None = None
) -> Tensor:
    """An MLP on (..., D), plus `added`; some rows at a time where that keeps the hidden ones in cache."""
    rows = x.flatten(0, -2)
    if len(rows) <= MLP_ROWS or torch.is_grad_enabled() or x.is_cuda or used is not None:
        return _run_mlp(mlp, x, dtype, added, used)
    parts = rows.split(MLP_ROWS)
    sums = [None] * len(parts) if added is None else added.flatten(0, -2).split(MLP_ROWS)
    return torch.cat([_run_mlp(mlp, part, dtype, also, None) for part, also in zip(parts, sums)]).view(x.shape)


def _run_mlp(mlp: Mlp, x: Tensor, dtype: torch.dtype | None, added: Tensor | None, used: Tensor | None) -> Tensor:
    gelu = is_plain(mlp.act, nn.GELU) and mlp.act.approximate == "none"
    hidden = run_linear(mlp.fc1, x, dtype, gelu, used=used)
    return run_linear(mlp.fc2, hidden if gelu else call(mlp.act, hidden), dtype, added=added, used=used)
