"""Operations of a frame, from its trace: the only place that counts.

The unit is the multiply-accumulate (MAC), what the paper reports as "flops". Blocks are counted by the closed forms of
the paper's evaluation: linear layers, their biases, matrix products, relative-position products, additions, gates and
accumulators; layer norms, softmax and activations are free. `exact` attention counts what it executes. Layers around
the blocks (patch embedding, pyramid, proposals, heads) are counted as the products of their convolutions and linear
layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from .frame import AttentionWork, BlockTrace, FrameTrace
from .layers import is_linear, linear_sizes
from .model import Traced
from .ops.fork_safe_lock import ForkSafeLock

BACKBONE_CATEGORIES = ("linear", "bias", "matmul", "position", "add", "gate", "accumulator")
OTHER_CATEGORIES = ("embedding", "pyramid", "proposals", "heads")
CATEGORIES = BACKBONE_CATEGORIES + OTHER_CATEGORIES

Count = tuple[str, Sequence[int]]
"""A category and its MACs in each stream."""


_adding = ForkSafeLock()
"""One for all counts, so that they may be copied. Frames of several threads may be added at once."""
MAX_WAITING = 1024
"""Frames on a GPU whose numbers are kept there until somebody asks: 1 or 2 MB for a large model."""


class OperationCounts:
    """MACs since counting began or was last cleared; exact integers.

    What a frame on a GPU executed stays there until the counts are read, so that counting does not wait for it.
    """

    def __init__(self) -> None:
        self._macs: dict[str, list[int]] = {}
        self._waiting: list[_LateNumbers] = []

    def add(self, category: str, macs: Sequence[int]) -> None:
        """Add operations of one category, one number per stream."""
        if category not in CATEGORIES:
            raise KeyError(f"unknown category {category!r}; known: {', '.join(CATEGORIES)}")
        with _adding.lock:
            sums = self._macs.setdefault(category, [])
            sums.extend([0] * (len(macs) - len(sums)))
            for stream, number in enumerate(macs):
                sums[stream] += int(number)

    def add_frame(self, trace: FrameTrace) -> None:
        """Add the operations of a frame."""
        if any(numbers.is_cuda for numbers in _numbers(trace)):
            self._waiting.append(_LateNumbers(trace))
            if len(self._waiting) > MAX_WAITING:
                self._read_waiting()
            return
        for category, macs in frame_macs(trace):
            self.add(category, macs)

    def _read_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for late in waiting:
            self.add_frame(late.read())

    def clear(self) -> None:
        """Start again from zero."""
        with _adding.lock:
            self._macs.clear()
            self._waiting.clear()

    def by_category(self, stream: int | None = None) -> dict[str, int]:
        """MACs of every category that ran, over all streams or for one stream of the batch."""
        self._read_waiting()
        with _adding.lock:
            return {name: self._pick(sums, stream) for name, sums in self._macs.items()}

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


class _LateNumbers:
    """A trace whose numbers are read later, and copied now: the next frame overwrites them."""

    def __init__(self, trace: FrameTrace) -> None:
        self._trace = replace(trace, gates={}, blocks=[_without_places(block) for block in trace.blocks])
        self._numbers = _numbers(trace)
        self._copy = torch.cat([numbers.flatten() for numbers in self._numbers])

    def read(self) -> FrameTrace:
        """The trace, with its numbers in host memory."""
        parts = self._copy.cpu().split([numbers.numel() for numbers in self._numbers])
        known = {id(numbers): part.view(numbers.shape) for numbers, part in zip(self._numbers, parts)}

        def look_up(numbers: Tensor | None) -> Tensor | None:
            return None if numbers is None else known[id(numbers)]

        def read_block(block: BlockTrace) -> BlockTrace:
            attention = block.attention
            return replace(
                block,
                attention=AttentionWork(attention.kind, look_up(attention.key_offsets), look_up(attention.executed)),
                selections=tuple(replace(chosen, offsets=look_up(chosen.offsets)) for chosen in block.selections),
            )

        return replace(self._trace, blocks=[read_block(block) for block in self._trace.blocks])


def _without_places(block: BlockTrace) -> BlockTrace:
    return replace(block, selections=tuple(replace(chosen, index=None, used=None) for chosen in block.selections))


def _numbers(trace: FrameTrace) -> list[Tensor]:
    """The tensors that a frame's counts depend on, each once."""
    numbers = []
    for block in trace.blocks:
        numbers += [block.attention.key_offsets, block.attention.executed]
        numbers += [selection.offsets for selection in block.selections]
    return list({id(tensor): tensor for tensor in numbers if tensor is not None}.values())


# Frames of eventful models.


def frame_macs(trace: FrameTrace) -> Iterator[Count]:
    """The operations of a frame."""
    for block in trace.blocks:
        yield from _token_functions(block)
        yield from _ATTENTION[block.attention.kind](block, trace.in_full)
        tokens, dim = block.layout.tokens, block.spec.dim
        yield "gate", [0 if is_full else tokens * (2 * dim + _width(block)) for is_full in trace.in_full]
        yield "add", [2 * tokens * dim] * len(trace.in_full)
    for layers in trace.layers:
        yield layers.category, [layers.macs * number for number in layers.units]


def _width(block: BlockTrace) -> int:
    """Channels of the queries of all heads."""
    return block.spec.heads * block.spec.head_dim


def _token_functions(block: BlockTrace) -> Iterator[Count]:
    spec = block.spec
    for module, selection in zip((spec.qkv, spec.projection, spec.mlp), block.selections):
        counts = selection.counts
        for inputs, outputs, has_bias in linear_sizes(module):
            yield "linear", [n * inputs * outputs for n in counts]
            if has_bias:
                yield "bias", [n * outputs for n in counts]
    if spec.after is not None:
        positions = block.layout.tokens
        macs = sum(m.weight.numel() for m in spec.after.modules() if isinstance(m, nn.Conv2d))
        yield "linear", [positions * macs] * block.selections[0].streams


InFull = tuple[bool, ...]


def _dense(block: BlockTrace, in_full: InFull) -> Iterator[Count]:
    """Every token attends."""
    yield "matmul", [_product_macs(block)] * len(in_full)
    yield from _positions(block, in_full)


def _positions(block: BlockTrace, in_full: InFull) -> Iterator[Count]:
    """Positions, their additions, and windows' padding, which the paper's modes never reduce."""
    yield "position", [_position_macs(block)] * len(in_full)
    yield "add", [_position_additions(block)] * len(in_full)
    yield "bias", [_padding_additions(block)] * len(in_full)


def _query_key(block: BlockTrace, in_full: InFull) -> Iterator[Count]:
    values = block.layout.tokens * block.layout.keys * _width(block)
    scores = _score_macs(block)
    yield "matmul", [2 * values if is_full else scores[b] + values for b, is_full in enumerate(in_full)]
    yield from _positions(block, in_full)


def _full(block: BlockTrace, in_full: InFull) -> Iterator[Count]:
    tokens, keys, width = block.layout.tokens, block.layout.keys, _width(block)
    scores, changed = _score_macs(block), _changed_keys(block)
    products = [scores[b] + 2 * tokens * changed[b] * width for b in range(len(in_full))]
    gate, sums = keys * width + block.spec.heads * tokens * keys, [kk * width + 2 * tokens * width for kk in changed]
    yield "matmul", [_product_macs(block) if is_full else products[b] for b, is_full in enumerate(in_full)]
    yield "gate", [0 if is_full else gate for is_full in in_full]
    yield "accumulator", [0 if is_full else sums[b] for b, is_full in enumerate(in_full)]
    yield from _positions(block, in_full)


def _score_macs(block: BlockTrace) -> list[int]:
    """Rows of changed queries and columns of changed keys, for each stream."""
    tokens, keys, width = block.layout.tokens, block.layout.keys, _width(block)
    return [(r * keys + tokens * kk) * width for r, kk in zip(block.selections[0].counts, _changed_keys(block))]


def _changed_keys(block: BlockTrace) -> list[int]:
    offsets = block.attention.key_offsets
    return [block.layout.keys] * block.selections[0].streams if offsets is None else offsets.diff().tolist()


def _exact(block: BlockTrace, in_full: InFull) -> Iterator[Count]:
    channels = block.spec.head_dim
    for stream, ((exchanged, recomputed), keys) in enumerate(
        zip(block.attention.executed.tolist(), _changed_keys(block))
    ):
        if not exchanged + recomputed:
            continue
        before = [0] * stream
        scores = recomputed * block.layout.keys + 2 * exchanged * keys
        yield "matmul", [*before, 2 * scores * channels]
        yield "position", [*before, _position_macs(block)]
        yield "add", [*before, 2 * scores if _has_positions(block) else 0]
        yield "accumulator", [*before, exchanged * (channels + 1) if exchanged else 0]


def _windows(block: BlockTrace, in_full: InFull) -> Iterator[Count]:
    """The computed windows' shares of all, and the padding where there is some."""
    computed, every = block.attention.executed.tolist(), block.layout.windows
    yield "matmul", [n * _product_macs(block) // every for n in computed]
    yield "position", [n * _position_macs(block) // every for n in computed]
    yield "add", [n * _position_additions(block) // every for n in computed]
    yield "bias", [_padding_additions(block) if n else 0 for n in computed]


_ATTENTION: dict[str, Callable[[BlockTrace, InFull], Iterator[Count]]] = {
    "dense": _dense,
    "query-key": _query_key,
    "full": _full,
    "exact": _exact,
    "windows": _windows,
    "other": _dense,  # code that is not known is taken for dense attention
}


def _has_positions(block: BlockTrace) -> bool:
    return bool(block.spec.rel_pos)


def _product_macs(block: BlockTrace) -> int:
    """Both matrix products of dense attention."""
    return 2 * block.layout.padded_tokens * block.layout.keys * _width(block)


def _position_macs(block: BlockTrace) -> int:
    """Products of all queries with the position tables."""
    return block.layout.padded_tokens * sum(block.layout.key_grid) * _width(block) if _has_positions(block) else 0


def _position_additions(block: BlockTrace) -> int:
    """Additions of the two position terms to the scores."""
    return 2 * block.spec.heads * block.layout.padded_tokens * block.layout.keys if _has_positions(block) else 0


def _padding_additions(block: BlockTrace) -> int:
    """Turning the windows' zero padding into the QKV bias."""
    if not any(block.layout.padding):
        return 0
    return sum(outputs for _, outputs, has_bias in linear_sizes(block.spec.qkv) if has_bias)


# Whole models.


@contextmanager
def count_operations(model: nn.Module) -> Iterator[OperationCounts]:
    """Count the operations of a model while the context is open.

    Args:
        model: an eventful model, or any model that holds one (a detector, a pyramid).

    Yields:
        The counts, filled by every forward pass within the context.
    """
    counts = OperationCounts()
    traced = [module for module in model.modules() if isinstance(module, Traced)]
    hooks = _hook_layers(model, traced, counts)
    for module in traced:
        module.observers.append(counts.add_frame)
    try:
        yield counts
    finally:
        for module in traced:
            module.observers.remove(counts.add_frame)
        for hook in hooks:
            hook.remove()


def _hook_layers(model: nn.Module, traced: Sequence[Traced], counts: OperationCounts) -> list:
    """Count the layers that are in no trace, through forward hooks."""
    hooks = []
    skip = {child for module in traced for child in module.counted()}
    categories = {child: category for module in traced for child, category in module.categories().items()}
    behind = traced[0].category_behind if traced else Traced.category_behind
    boxes = _BoxesPerImage()
    for name, module in model.named_modules():
        if module in skip:
            continue
        if "roi_heads" in name.split(".") and name.endswith(("roi_heads", "pooler")):
            hooks.append(module.register_forward_pre_hook(boxes.remember))
        macs = _layer_macs(module)
        if macs is not None:
            category = categories.get(module) or _category(name, behind)
            hooks.append(module.register_forward_hook(_counting_hook(counts, category, macs, boxes)))
    return hooks


class _BoxesPerImage:
    """Heads see the boxes of all images in one batch; this remembers how many of them belong to each image."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def remember(self, module: nn.Module, args: tuple) -> None:
        """Forward pre-hook of the heads, called with (images, features, proposals, ...), and of their poolers, called
        with (maps, boxes). What follows a pooler has its boxes as rows: proposals, or detections that get a mask."""
        self.sizes = [len(boxes) for boxes in args[2 if len(args) > 2 else 1]]

    def split(self, rows: int, category: str) -> list[int]:
        """How many of a layer's input rows belong to each image."""
        images = len(self.sizes)
        if category != "heads" or not images:
            return [1] * rows
        if rows == sum(self.sizes):
            return self.sizes
        # Rows are images, or nobody can say whose they are: all images share them.
        return [rows // images + (image < rows % images) for image in range(images)]


def _category(name: str, other: str) -> str:
    parts = name.split(".")
    if "proposal_generator" in parts:
        return "proposals"
    if "roi_heads" in parts:
        return "heads"
    return other


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
    if is_linear(module):
        return lambda x, y: y.numel() * module.in_features
    if isinstance(module, nn.ConvTranspose2d):
        fan_out = module.out_channels // module.groups * math.prod(module.kernel_size)
        return lambda x, y: x.numel() * fan_out
    if isinstance(module, nn.Conv2d):
        fan_in = module.in_channels // module.groups * math.prod(module.kernel_size)
        return lambda x, y: y.numel() * fan_in
    return None
