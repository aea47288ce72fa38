"""Other ways to compute the dense model, which ours is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from eventful_vit.ops import attention, gpu

from ..attribute_swap import swapped


@contextmanager
def pytorch_operations() -> Iterator[None]:
    """Inside, operators run as PyTorch operations: attention by scaled_dot_product_attention, with the relative
    positions as its mask."""
    with swapped(gpu, "load_kernels", lambda device=None: None):
        yield


@contextmanager
def two_products_and_softmax() -> Iterator[None]:
    """Inside, operators run as PyTorch operations, and attention as Detectron2's ViT computes it."""
    with ExitStack() as stack:
        stack.enter_context(pytorch_operations())
        stack.enter_context(swapped(attention, "_attend_fused", attention._attend_by_products))
        yield


YARDSTICKS: dict[str, Callable[[], AbstractContextManager]] = {
    "dense, scaled_dot_product_attention": pytorch_operations,
    "dense, PyTorch operations": two_products_and_softmax,
}
"""They are run on a model of their own, since a model repeats the dense frames that it recorded."""
