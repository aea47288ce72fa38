"""Linear layers that can multiply in a shorter type than their parameters have, and in compiled kernels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention.position import parameter_stamp
from .kernels import native


class Linear(nn.Linear):
    """nn.Linear whose inference may run in `compute_dtype`, with sums in float32 inside the product.

    The parameters stay as they are: training and checkpoints do not change. What inference makes of them, rounded
    copies or copies in the order that a kernel reads, is kept while the parameters do not change.
    """

    compute_dtype: torch.dtype | None = None
    """Type of the product and of its result; None is that of the parameters."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        self._packed = native.PackedWeights()
        self._rounded: tuple[tuple, list[Tensor | None]] | None = None

    def forward(self, x: Tensor) -> Tensor:
        return self._product(x, gelu=False)

    def activated(self, x: Tensor) -> Tensor:
        """GELU of the layer's result."""
        return self._product(x, gelu=True)

    def _product(self, x: Tensor, gelu: bool) -> Tensor:
        if self._runs_natively(x):
            return native.linear(x, self.packed_weight(), self.out_features, self.bias, gelu)
        if self.compute_dtype is None or torch.is_grad_enabled():
            result = super().forward(x)
        else:
            result = F.linear(x.to(self.compute_dtype), *self._rounded_parameters(self.compute_dtype))
        return F.gelu(result) if gelu else result

    def packed_weight(self) -> Tensor:
        """The weights in the order that the kernels read."""
        return self._packed.of(self.weight)

    def _runs_natively(self, x: Tensor) -> bool:
        """The kernels multiply in float32; in shorter types, the library has the processor's instructions for it."""
        return (
            self.compute_dtype in (None, torch.float32)
            and x.dtype == torch.float32
            and native.readable(self.weight, self.bias)
            and native.usable(x, self.weight)
        )

    def _rounded_parameters(self, dtype: torch.dtype) -> list[Tensor | None]:
        parameters = (self.weight, self.bias)
        key = (dtype, *(None if p is None else parameter_stamp(p) for p in parameters))
        if self._rounded is None or self._rounded[0] != key:
            self._rounded = key, [None if p is None else p.detach().to(dtype) for p in parameters]
        return self._rounded[1]

    def _apply(self, *args, **kwargs) -> nn.Module:
        self._rounded = None  # moved to another device or type: do not keep the old copies alive
        self._packed.clear()
        return super()._apply(*args, **kwargs)
