"""A 3x3 convolution that recomputes only the outputs that changed inputs reach, and keeps the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from eventful_vit.frame import Frame
from eventful_vit.ops.derived import derive
from torch import Tensor, nn

from .rows import check_convolution, pointwise, row_layer
from .strips import Strips, cover, spread

# A map is recomputed densely where that takes less time. Measured on two cores, with 64 and 256 channels: gathering a
# strip's inputs takes as long as this many products per output and channel, and finding the strips as long as these.
GATHER_MACS = 450
STRIPS_MACS = 40_000_000


class IncrementalConvolution:
    """A 3x3 convolution with its norm and activation, over the state of every stream.

    The layer's parameters are used where they are; the layer itself is not called, and knows nothing of this.
    """

    def __init__(self, name: str, layer: nn.Conv2d, category: str, heads: Sequence[nn.Conv2d] = ()) -> None:
        """
        Args:
            name: what it is, in messages and for its state.
            layer: Detectron2's Conv2d, 3x3 with padding 1, with an optional norm and activation.
            category: what its operations count as.
            heads: 1x1 convolutions that follow it; their results are then kept in place of its own.

        Raises:
            ValueError: a layer of another kind, which would give wrong results.
        """
        check_convolution(name, layer, 3)
        for head in heads:
            check_convolution(name, head, 1)
        self._name = name
        self._layer = layer
        self._norm = row_layer(name, layer.norm)
        self._heads = tuple(heads)
        self._category = category

    def __call__(self, source: Tensor, changed: Tensor, frame: Frame) -> tuple[list[Tensor], Tensor]:
        """Bring the outputs up to date.

        Args:
            source: all inputs of all streams, (B, H * W, C).
            changed: which of them may have changed since the last frame, (B, H, W); all of them where a stream flushes.

        Returns:
            The outputs, one (B, H * W, C') per head, and which of them may have changed, (B, H, W). The outputs are
            state: read them, never write to them.
        """
        reached = spread(changed)
        covered = cover(reached)
        dense = self._dense_streams(covered)
        partly = ~covered.new_tensor(dense)[:, None, None]
        strips = Strips(reached & partly, covered & partly)
        kept = [
            frame.slots(f"{self._name}.output{i}", (source.shape[1], layer.out_channels), source)
            for i, layer in enumerate(self._heads or (self._layer,))
        ]
        self._update(source, kept, strips)
        for stream, full in enumerate(dense):
            if full:
                self._recompute(source[stream], [outputs[stream] for outputs in kept], reached.shape[1:])
        self._count(dense, strips, source.shape[1], frame)
        return kept, reached

    def _dense_streams(self, covered: Tensor) -> list[bool]:
        """For each stream, whether recomputing everything takes less time."""
        products, gathered = self._layer.weight.numel(), GATHER_MACS * self._layer.in_channels
        positions = covered.shape[1] * (covered.shape[2] - 2)
        return [
            0 < outputs and outputs * (products + gathered) + STRIPS_MACS > positions * products
            for outputs in covered.flatten(1).sum(1).tolist()
        ]

    def _update(self, source: Tensor, kept: list[Tensor], strips: Strips) -> None:
        weight = self._weight()
        rows, targets = source.flatten(0, 1), [outputs.flatten(0, 1) for outputs in kept]
        for piece in strips.pieces():
            outputs = F.conv2d(piece.gather(rows), weight, self._layer.bias)
            used = outputs.permute(0, 2, 3, 1).flatten(0, 2).index_select(0, piece.used)
            for target, values in zip(targets, self._finish(used)):
                target.index_copy_(0, piece.targets, values.to(target.dtype))

    def _recompute(self, source: Tensor, kept: list[Tensor], size: tuple[int, int]) -> None:
        image = source.unflatten(0, size).permute(2, 0, 1)[None]
        outputs = F.conv2d(image, self._weight(), self._layer.bias, padding=1)
        for target, values in zip(kept, self._finish(outputs[0].permute(1, 2, 0).flatten(0, 1))):
            target.copy_(values)

    def _weight(self) -> Tensor:
        weight = self._layer.weight
        return derive(weight, "channels last", lambda: weight.detach().contiguous(memory_format=torch.channels_last))

    def _finish(self, rows: Tensor) -> list[Tensor]:
        """Everything that follows the products, (R, C') -> (R, ...) per head."""
        rows = self._norm(rows)
        if self._layer.activation is not None:
            rows = self._layer.activation(rows)
        return [pointwise(rows, head) for head in self._heads] or [rows]

    def _count(self, dense: list[bool], strips: Strips, positions: int, frame: Frame) -> None:
        products = self._layer.weight.numel()
        after = sum(head.weight.numel() for head in self._heads)
        macs = [
            positions * (products + after) if full else outputs * products + used * after
            for full, outputs, used in zip(dense, strips.outputs, strips.used)
        ]
        frame.trace.add_layer(self._category, 1, macs)
