"""The operators that a block consists of, each with a reference implementation in PyTorch and faster ones per device.

They are registered with PyTorch as `torch.ops.eventful_vit.*`, so compilers, exporters and operation counters see them.
"""

from . import cpu, gpu
from .attention import attend, attend_windows, divide, update_sums
from .gating import add, error_norms, finite, gate, normalise, replace, send, store
from .linear import embed, linear, linear_side_by_side, scale_channels
from .operator import Operator

__all__ = [
    "Operator",
    "add",
    "attend",
    "attend_windows",
    "cpu",
    "divide",
    "embed",
    "error_norms",
    "finite",
    "gate",
    "gpu",
    "linear",
    "linear_side_by_side",
    "normalise",
    "replace",
    "scale_channels",
    "send",
    "store",
    "update_sums",
]
