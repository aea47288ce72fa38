"""Whether PyTorch's settings let a GPU round operands in float32 to TF32.

PyTorch 2.9 added settings by operator (`fp32_precision`). From then on the older ones (`allow_tf32`) say the same, but
raise an error where the newer ones cannot be said in their terms.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def switched_off() -> Iterator[None]:
    """Inside, float32 is computed as such, to compare results. Models keep to the user's settings."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = False
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before
