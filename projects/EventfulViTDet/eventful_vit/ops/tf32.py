"""Whether PyTorch's settings let a GPU round operands in float32 to TF32.

PyTorch 2.9 added settings by operator (`fp32_precision`). From then on the older ones (`allow_tf32`) say the same, but
raise an error where the newer ones cannot be said in their terms.
"""

from __future__ import annotations

import torch


def settings() -> tuple[bool, bool]:
    """Both, which decide what a recorded frame computes."""
    return in_products(), in_convolutions()


def in_products() -> bool:
    """In matrix products."""
    products = torch.backends.cuda.matmul
    return products.fp32_precision == "tf32" if hasattr(products, "fp32_precision") else products.allow_tf32


def in_convolutions() -> bool:
    """In convolutions."""
    cudnn = torch.backends.cudnn
    return cudnn.conv.fp32_precision == "tf32" if hasattr(cudnn, "conv") else cudnn.allow_tf32
