"""Counting operations, by category and by stream.

The unit is the multiply-accumulate (MAC), what the paper reports as "flops". Inside an `EventfulViT` the closed forms
of the paper's evaluation are used: linear layers, their biases, matrix products, relative-position products,
additions, gates and accumulators; layer norms, softmax and activations are free. Everything around it (patch
embedding, pyramid, proposals, heads) is counted as the products of its convolutions and linear layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

BACKBONE_CATEGORIES = ("linear", "bias", "matmul", "position", "add", "gate", "accumulator")
OTHER_CATEGORIES = ("embedding", "pyramid", "proposals", "heads")
CATEGORIES = BACKBONE_CATEGORIES + OTHER_CATEGORIES


class OperationCounts:
    """MACs since counting began or was last cleared; exact integers."""

    def __init__(self) -> None:
        self._macs: dict[str, list[int]] = {}

    def add(self, category: str, macs: Sequence[int]) -> None:
        """Add operations of one category, one number per stream."""
        if category not in CATEGORIES:
            raise KeyError(f"unknown category {category!r}; known: {', '.join(CATEGORIES)}")
        sums = self._macs.setdefault(category, [])
        sums.extend([0] * (len(macs) - len(sums)))
        for stream, number in enumerate(macs):
            sums[stream] += int(number)

    def clear(self) -> None:
        """Start again from zero."""
        self._macs.clear()

    def by_category(self, stream: int | None = None) -> dict[str, int]:
        """MACs of every category that ran, over all streams or for one stream of the batch."""
        return {name: self._pick(sums, stream) for name, sums in self._macs.items()}

    def by_stream(self) -> dict[str, list[int]]:
        """MACs of every category that ran, for each stream."""
        return {name: list(sums) for name, sums in self._macs.items()}

    def total(self, stream: int | None = None) -> int:
        """Everything counted."""
        return sum(self.by_category(stream).values())

    def backbone(self, stream: int | None = None) -> int:
        """Position encoding and Transformer blocks: the figure that the paper reports."""
        counts = self.by_category(stream)
        return sum(counts.get(name, 0) for name in BACKBONE_CATEGORIES)

    @staticmethod
    def _pick(sums: list[int], stream: int | None) -> int:
        if stream is None:
            return sum(sums)
        return sums[stream] if stream < len(sums) else 0


class CountsOperations(nn.Module):
    """A module that counts for itself: it adds to `counts` whenever that is set."""

    counts: OperationCounts | None = None


@contextmanager
def count_operations(model: nn.Module) -> Iterator[OperationCounts]:
    """Count the operations of a model while the context is open.

    Args:
        model: an `EventfulViT`, or any model that holds one (a detector, a pyramid).

    Yields:
        The counts, filled by every forward pass within the context.
    """
    counts = OperationCounts()
    counting = [module for module in model.modules() if isinstance(module, CountsOperations)]
    inside = {child for module in counting for child in module.modules()}
    before = [module.counts for module in counting]
    hooks = _hook_layers(model, inside, counts)
    for module in counting:
        module.counts = counts
    try:
        yield counts
    finally:
        for module, previous in zip(counting, before):
            module.counts = previous
        for hook in hooks:
            hook.remove()


def _hook_layers(model: nn.Module, skip: set[nn.Module], counts: OperationCounts) -> list:
    """Count the layers outside the modules that count for themselves, through forward hooks."""
    hooks = []
    boxes = _BoxesPerImage()
    for name, module in model.named_modules():
        if module in skip:
            continue
        if name.split(".")[-1] == "roi_heads":
            hooks.append(module.register_forward_pre_hook(boxes.remember))
        macs = _layer_macs(module)
        if macs is not None:
            hooks.append(module.register_forward_hook(_counting_hook(counts, _category(name), macs, boxes)))
    return hooks


class _BoxesPerImage:
    """Box heads see the boxes of all images in one batch; this remembers how many belong to each image."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def remember(self, module: nn.Module, args: tuple) -> None:
        """Forward pre-hook of the heads, called with (images, features, proposals, ...)."""
        self.sizes = [len(proposals) for proposals in args[2]]

    def split(self, rows: int, category: str) -> list[int]:
        """How many of a layer's input rows belong to each image."""
        if category == "heads" and rows == sum(self.sizes):
            return self.sizes
        return [1] * rows


def _category(name: str) -> str:
    parts = name.split(".")
    if "proposal_generator" in parts:
        return "proposals"
    if "roi_heads" in parts:
        return "heads"
    return "pyramid"


def _counting_hook(
    counts: OperationCounts, category: str, macs: Callable[[Tensor, Tensor], int], boxes: _BoxesPerImage
) -> Callable:
    def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
        rows = args[0].shape[0]
        if rows == 0:
            return
        per_row = macs(args[0], output) // rows
        counts.add(category, [per_row * number for number in boxes.split(rows, category)])

    return hook


def _layer_macs(module: nn.Module) -> Callable[[Tensor, Tensor], int] | None:
    """How to count a layer from its input and output; None for modules that are not counted."""
    if isinstance(module, nn.Linear):
        return lambda x, y: y.numel() * module.in_features
    if isinstance(module, nn.ConvTranspose2d):
        fan_out = module.out_channels // module.groups * math.prod(module.kernel_size)
        return lambda x, y: x.numel() * fan_out
    if isinstance(module, nn.Conv2d):
        fan_in = module.in_channels // module.groups * math.prod(module.kernel_size)
        return lambda x, y: y.numel() * fan_in
    return None


def each(streams: int, macs: int) -> list[int]:
    """The same number of operations for every stream."""
    return [macs] * streams
