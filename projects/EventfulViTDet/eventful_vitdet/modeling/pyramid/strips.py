"""Strips: the marked outputs of a 3x3 convolution, gathered into small images of equal size.

Maps are kept as rows, (B, H * W, C): one row of channels per position. Marked positions and their neighbours left and
right, of all lines and streams one after the other, are cut into strips of equal width, one line high; a strip with
the lines above and below is one image of a batched convolution. A strip may run across the end of a marked run into
the next one, so what lies between them is computed too, but never used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Outputs of one strip, and strips of one convolution. Narrower strips gather more halo, wider ones leave more of the
# last one empty; what is gathered for one convolution should stay below what malloc gives back to the system (32 MB).
STRIP_WIDTH = 32
STRIPS_AT_ONCE = 256


def spread(mask: Tensor) -> Tensor:
    """Mark the 3x3 neighbourhoods of the marked positions: (B, H, W) -> (B, H, W)."""
    wide = _spread_along(mask, 2)
    return _spread_along(wide, 1)


def cover(mask: Tensor) -> Tensor:
    """Mark the columns of the strips for the marked outputs: (B, H, W) -> (B, H, W + 2), the map's border included."""
    return _spread_along(F.pad(mask, (1, 1)), 2)


def _spread_along(mask: Tensor, dim: int) -> Tensor:
    out, length = mask.clone(), mask.shape[dim]
    if length > 1:
        out.narrow(dim, 1, length - 1).logical_or_(mask.narrow(dim, 0, length - 1))
        out.narrow(dim, 0, length - 1).logical_or_(mask.narrow(dim, 1, length - 1))
    return out


class Strips:
    """Where the strips that cover the marked positions of B maps take their inputs and put their outputs."""

    def __init__(self, mask: Tensor, covered: Tensor) -> None:
        """
        Args:
            mask: outputs to compute, (B, H, W).
            covered: `cover` of the mask.
        """
        self._map = tuple(mask.shape)
        self._marked = F.pad(mask, (1, 1))
        self._columns = covered.flatten().nonzero().squeeze(1)
        self.number = max(-(-(self._columns.numel() - 2) // STRIP_WIDTH), 0)
        self.used = mask.flatten(1).sum(1).tolist()
        """Marked outputs of each stream."""
        self.outputs = self._outputs_of_streams(covered)
        """Outputs computed for each stream: those that nobody uses, where marked runs and strips end, too."""

    def _outputs_of_streams(self, covered: Tensor) -> list[int]:
        columns = covered.flatten(1).sum(1).tolist()
        if self.number:
            # What fills up the last strip is computed for the last stream that has any.
            last = max(stream for stream, count in enumerate(columns) if count)
            columns[last] += self.number * STRIP_WIDTH - sum(columns)
        return columns

    def pieces(self) -> Iterator[Piece]:
        """The strips, so many at a time that what is gathered for them stays small."""
        if not self.number:
            return
        length = self.number * STRIP_WIDTH + 2
        columns = self._columns
        if length > columns.numel():
            columns = torch.cat([columns, columns[-1:].expand(length - columns.numel())])
        for first in range(0, self.number, STRIPS_AT_ONCE):
            strips = min(STRIPS_AT_ONCE, self.number - first)
            yield self._piece(columns[first * STRIP_WIDTH : (first + strips) * STRIP_WIDTH + 2], strips)

    def _piece(self, columns: Tensor, strips: int) -> Piece:
        streams, height, width = self._map
        line, x = columns // (width + 2), columns % (width + 2) - 1
        y, position = line % height, line * width + x
        beside = (x < 0) | (x >= width)
        outside = torch.stack([beside | (y == 0), beside, beside | (y == height - 1)])
        inputs = torch.stack([position - width, position, position + width])
        inputs = inputs.clamp_(0, streams * height * width - 1)
        used = self._marked.flatten()[columns[1:-1]].nonzero().squeeze(1)
        return Piece(
            inputs=_windows(inputs, strips),
            outside=_windows(outside, strips).nonzero().squeeze(1),
            used=used,
            targets=position[1:-1].index_select(0, used),
            strips=strips,
        )


def _windows(columns: Tensor, strips: int) -> Tensor:
    """Cut (3, strips * STRIP_WIDTH + 2) into overlapping strips with a halo, flattened from (strips, 3, width)."""
    return columns.unfold(1, STRIP_WIDTH + 2, STRIP_WIDTH).transpose(0, 1).reshape(-1)


@dataclass(frozen=True)
class Piece:
    """Some strips: indices into the B * H * W rows of a map, or into the rows of the strips."""

    inputs: Tensor
    """The row to gather for each of the strips * 3 * (STRIP_WIDTH + 2) inputs."""
    outside: Tensor
    """Which of these inputs lie outside the map, and are zero."""
    used: Tensor
    """Which of the strips * STRIP_WIDTH outputs were marked."""
    targets: Tensor
    """The map's row for each of the used outputs."""
    strips: int

    def gather(self, rows: Tensor) -> Tensor:
        """The strips' images (strips, C, 3, STRIP_WIDTH + 2), channels last, from all rows (B * H * W, C)."""
        gathered = rows.index_select(0, self.inputs)
        if self.outside.numel():
            gathered.index_fill_(0, self.outside, 0)
        return gathered.view(self.strips, 3, STRIP_WIDTH + 2, -1).permute(0, 3, 1, 2)
