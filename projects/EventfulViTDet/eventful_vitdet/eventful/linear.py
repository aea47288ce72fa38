"""Linear layers that can multiply in a shorter type than their parameters have."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention.position import parameter_stamp


class Linear(nn.Linear):
    """nn.Linear whose inference may run in `compute_dtype`, with sums in float32 inside the product.

    The parameters stay as they are: training and checkpoints do not change. Their rounded copies are kept while the
    parameters do not change.
    """

    compute_dtype: torch.dtype | None = None
    """Type of the product and of its result; None is that of the parameters."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        self._rounded: tuple[tuple, list[Tensor | None]] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.compute_dtype is None or torch.is_grad_enabled():
            return super().forward(x)
        return F.linear(x.to(self.compute_dtype), *self._rounded_parameters(self.compute_dtype))

    def _rounded_parameters(self, dtype: torch.dtype) -> list[Tensor | None]:
        parameters = (self.weight, self.bias)
        key = (dtype, *(None if p is None else parameter_stamp(p) for p in parameters))
        if self._rounded is None or self._rounded[0] != key:
            self._rounded = key, [None if p is None else p.detach().to(dtype) for p in parameters]
        return self._rounded[1]

    def _apply(self, *args, **kwargs) -> nn.Module:
        self._rounded = None  # moved to another device or type: do not keep the old copy alive
        return super()._apply(*args, **kwargs)
