"""Running the layers of a model: by an operator where a layer is what its class says, by calling it where it is not.

User code inside a layer (a subclass, an adapter, a hook, a parametrisation) is therefore always run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import ops
from .ops import derived, tape

MLP_ROWS = 1024
"""Rows of an MLP computed at a time on a CPU: their hidden values are still in cache when they are read again."""
PASSIVE_HOOKS = ("eventful_vit.cost", "transformers.utils.output_capturing")
"""Python modules whose forward hooks only look on, and need no frame to be computed in another way for it."""
READABLE = (*derived.ORDINARY, type(None))
"""Classes of parameters that operators can read. Libraries for quantisation put others in the place of weights."""


# Layers as data: what a model keeps in modules of other kinds.


@dataclass(frozen=True)
class Weights:
    """A linear layer whose weight and bias lie in a module of another kind."""

    weight: Tensor
    """(outputs, inputs)."""
    bias: Tensor | None


@dataclass(frozen=True)
class SideBySide:
    """Linear layers on the same rows, with their results side by side, such as [queries | keys | values]."""

    layers: tuple[nn.Module | Weights, ...]


Linear = Union[nn.Module, Weights, SideBySide]
"""What stands in the place of a linear layer: it, or any module on rows."""


@dataclass(frozen=True)
class NormWeights:
    """A layer norm over the channels by its parameters."""

    weight: Tensor | None
    bias: Tensor | None
    eps: float


Norm = Union[nn.Module, NormWeights]


@dataclass(frozen=True)
class MlpParts:
    """An MLP by its layers."""

    fc1: Linear
    act: nn.Module
    fc2: Linear
    gate: int | None = None
    """Which half of the first layer's outputs goes through the activation and multiplies the other; None: no gate."""
    norm: Norm | None = None
    """Norm of the hidden values."""


# Which layers are what they seem.


def is_plain(module: object, *kinds: type[nn.Module]) -> bool:
    """Whether something is a module of one of these very classes, and the `forward` of that class is all that runs, on
    parameters that an operator can read."""
    if type(module) not in kinds or runs_other_code(module):
        return False
    return all([type(each) in READABLE for each in module._parameters.values()])  # a list: PyTorch 2.4 compiles it


def runs_other_code(module: nn.Module) -> bool:
    """Whether calling a module runs anything but the `forward` that its class was written with."""
    return is_observed(module) or is_replaced(type(module))


def is_observed(module: nn.Module) -> bool:
    """Whether somebody hooked into a module or gave it another `forward` (hooks for all modules do not count)."""
    if module._forward_hooks and any(hook.__module__ not in PASSIVE_HOOKS for hook in module._forward_hooks.values()):
        return True
    return bool(
        module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )


def is_replaced(kind: type[nn.Module]) -> bool:
    """Whether somebody gave a class another `forward`: a function of a Python module that none of its classes is of."""
    return getattr(kind.forward, "__module__", None) not in _python_modules(kind)


@lru_cache(maxsize=1024)
def _python_modules(kind: type[nn.Module]) -> tuple[str, ...]:
    return tuple([each.__module__ for each in kind.__mro__])  # of a list, or PyTorch 2.4 cannot compile it


def call(module: nn.Module, x: Tensor) -> Tensor:
    """Call a module whose code is not known."""
    tape.refuse(f"{type(module).__name__} may run other code")
    return module(x)


def run_linear(
    layer: Linear,
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
    if isinstance(layer, Weights) or is_plain(layer, nn.Linear):
        return ops.linear(x, layer.weight, layer.bias, gelu, added, used, dtype or autocast_dtype(x))
    result = _run_side_by_side(layer.layers, x, dtype, used) if isinstance(layer, SideBySide) else call(layer, x)
    result = F.gelu(result) if gelu else result
    return result if added is None else added + result.to(added.dtype)


def type_of_rows(layer: Linear | MlpParts, dtype: torch.dtype | None) -> torch.dtype | None:
    """The type in which a layer may be given its rows, because it rounds them to that of its products before all else.

    None for a module that has to be given them as they are.
    """
    layer = layer.fc1 if isinstance(layer, MlpParts) else layer
    parts = layer.layers if isinstance(layer, SideBySide) else (layer,)
    return dtype if all(isinstance(part, Weights) or is_plain(part, nn.Linear) for part in parts) else None


def _run_side_by_side(layers: Sequence[Linear], x: Tensor, dtype: torch.dtype | None, used: Tensor | None) -> Tensor:
    if all(isinstance(layer, Weights) or is_plain(layer, nn.Linear) for layer in layers):
        weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
        return ops.linear_side_by_side(x, weights, biases, used, dtype or autocast_dtype(x))
    tape.refuse("layers side by side may run other code")
    return torch.cat([run_linear(layer, x, dtype, used=used) for layer in layers], dim=-1)


def run_norm(norm: Norm, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A norm, or whatever module stands in its place.

    Args:
        dtype: type of the result, where the norm is known; None: that of x.
    """
    affine = norm_arguments(norm)
    if affine is None or affine[2] is None:
        return call(norm, x)
    return ops.normalise(x, *affine, dtype)


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The type of linear layers under `torch.autocast`; None outside."""
    device = x.device.type
    if torch.is_grad_enabled() or device not in ("cpu", "cuda") or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def norm_arguments(norm: Norm | None) -> tuple[Tensor | None, Tensor | None, float | None] | None:
    """Weight, bias and eps for the operators that normalise; (None, None, None) for no norm.

    None for a module that has to be called.
    """
    if isinstance(norm, NormWeights):
        return norm.weight, norm.bias, norm.eps
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
        return run_mlp(self.parts, x)

    @property
    def parts(self) -> MlpParts:
        """The MLP by its layers."""
        return MlpParts(self.fc1, self.act, self.fc2)


def run_mlp(
    mlp: MlpParts, x: Tensor, dtype: torch.dtype | None = None, added: Tensor | None = None, used: Tensor | None = None
) -> Tensor:
    """An MLP on (..., D), plus `added`; some rows at a time where that keeps the hidden ones in cache."""
    rows = x.flatten(0, -2)
    if len(rows) <= MLP_ROWS or torch.is_grad_enabled() or x.is_cuda or used is not None:
        return _run_mlp(mlp, x, dtype, added, used)
    parts = rows.split(MLP_ROWS)
    sums = [None] * len(parts) if added is None else added.flatten(0, -2).split(MLP_ROWS)
    return torch.cat([_run_mlp(mlp, part, dtype, also, None) for part, also in zip(parts, sums)]).view(x.shape)


def _run_mlp(mlp: MlpParts, x: Tensor, dtype: torch.dtype | None, added: Tensor | None, used: Tensor | None) -> Tensor:
    gelu = mlp.gate is None and is_plain(mlp.act, nn.GELU) and mlp.act.approximate == "none"
    hidden = run_linear(mlp.fc1, x, dtype, gelu, used=used)
    if mlp.gate is not None:
        halves = hidden.chunk(2, dim=-1)
        hidden = call(mlp.act, halves[mlp.gate]) * halves[1 - mlp.gate]
    elif not gelu:
        hidden = call(mlp.act, hidden)
    hidden = hidden if mlp.norm is None else run_norm(mlp.norm, hidden)
    return run_linear(mlp.fc2, hidden, dtype, added=added, used=used)


# What counting needs to know.


def linear_sizes(part: Linear | MlpParts) -> Iterator[tuple[int, int, bool]]:
    """Inputs, outputs, and whether there is a bias, of the linear layers that a token-wise function consists of."""
    if isinstance(part, Weights):
        yield part.weight.shape[1], part.weight.shape[0], part.bias is not None
    elif isinstance(part, SideBySide):
        for layer in part.layers:
            yield from linear_sizes(layer)
    elif isinstance(part, MlpParts):
        yield from linear_sizes(part.fc1)
        yield from linear_sizes(part.fc2)
    else:
        for layer in part.modules():
            if is_linear(layer):
                yield layer.in_features, layer.out_features, _has_bias(layer)


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer: of PyTorch, or of a class that stands in for one.

    Classes for quantisation need not be those of `nn.Linear`, but say how many features they take and return. So do
    wrappers, such as that of a low-rank adapter, whose linear layers are inside.
    """
    if isinstance(module, nn.Linear):
        return True
    return _has_features(module) and not any(map(_has_features, islice(module.modules(), 1, None)))


def _has_features(module: nn.Module) -> bool:
    return all(type(getattr(module, name, None)) is int for name in ("in_features", "out_features"))


def _has_bias(layer: nn.Module) -> bool:
    bias = getattr(layer, "bias", None)
    return (bias() if callable(bias) else bias) is not None  # PyTorch's dynamically quantised layers have a method
