"""Running the layers of a model: by an operator where a layer is what its class says, by calling it where it is not.

User code inside a layer (a subclass, an adapter, a hook, a parametrisation) is therefore always run.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as global_hooks

from . import ops
from .ops import tape

MLP_ROWS = 1024
"""Rows of an MLP computed at a time on a CPU: their hidden values are still in cache when they are read again."""


def is_plain(module: nn.Module, kind: type) -> bool:
    """Whether a module is of this very class and nothing is hooked into it."""
    return (
        type(module) is kind
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and not module._backward_hooks
        and not module._backward_pre_hooks
        and "forward" not in module.__dict__
        and not global_hooks._global_forward_hooks
        and not global_hooks._global_forward_pre_hooks
    )


def call(module: nn.Module, x: Tensor) -> Tensor:
    """Call a module whose code is not known."""
    tape.refuse(f"{type(module).__name__} may run other code")
    return module(x)


def run_linear(layer: nn.Module, x: Tensor, dtype: torch.dtype | None = None, gelu: bool = False) -> Tensor:
    """A linear layer, or whatever module stands in its place, on (..., inputs); then GELU where asked for.

    Args:
        dtype: type of operands and result; None keeps that of the weights.
    """
    if is_plain(layer, nn.Linear):
        return ops.linear(x, layer.weight, layer.bias, gelu, dtype or autocast_dtype(x))
    result = call(layer, x)
    return F.gelu(result) if gelu else result


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


def run_mlp(mlp: Mlp, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An MLP on (..., D), some rows at a time where that keeps the hidden ones in cache."""
    rows = x.flatten(0, -2)
    if len(rows) <= MLP_ROWS or torch.is_grad_enabled() or x.is_cuda:
        return _run_mlp(mlp, x, dtype)
    return torch.cat([_run_mlp(mlp, part, dtype) for part in rows.split(MLP_ROWS)]).view(x.shape)


def _run_mlp(mlp: Mlp, x: Tensor, dtype: torch.dtype | None) -> Tensor:
    gelu = is_plain(mlp.act, nn.GELU) and mlp.act.approximate == "none"
    hidden = run_linear(mlp.fc1, x, dtype, gelu=gelu)
    return run_linear(mlp.fc2, hidden if gelu else call(mlp.act, hidden), dtype)
