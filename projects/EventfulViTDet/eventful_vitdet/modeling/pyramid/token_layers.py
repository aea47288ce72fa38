"""The layers of a pyramid stage before its 3x3 convolution, recomputed for changed tokens only.

Transposed convolutions of 2x2 with stride 2, norms, activations and 1x1 convolutions turn each token into positions of
its own, and a 2x2 max-pool joins four tokens in one position: nothing reaches beyond.
"""

from __future__ import annotations

from collections.abc import Sequence

from eventful_vit.frame import Frame
from torch import Tensor, nn

from .rows import check_convolution, pointwise, row_layer

# Tokens computed at once: what lies between the layers stays below the size that malloc gives back to the system.
TOKENS_AT_ONCE = 1024


def make_token_layers(name: str, layers: Sequence[nn.Module]) -> TokenLayers:
    """The layers of a stage up to its 1x1 convolution, as Detectron2's SimpleFeaturePyramid builds them.

    Raises:
        ValueError: layers of another kind, which would give wrong results; the message begins with `name`.
    """
    *resampling, convolution = layers
    check_convolution(name, convolution, 1)
    if len(resampling) == 1 and isinstance(resampling[0], nn.MaxPool2d):
        _check_pool(name, resampling[0])
        return PooledTokens(name, convolution)
    return UpsampledTokens(name, resampling, convolution)


class TokenLayers:
    """What a stage makes of each token before its 3x3 convolution, with the result of every stream in state.

    The layers' parameters are used where they are; the layers themselves are not called, and know nothing of this.
    """

    def __init__(self, name: str, convolution: nn.Conv2d) -> None:
        self._name = name
        self._convolution = convolution
        self._norm = row_layer(name, convolution.norm)

    def size(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the map for a token grid (h, w)."""
        raise NotImplementedError

    def mark(self, changed: Tensor) -> Tensor:
        """The positions (B, H, W) that the marked tokens (B, h, w) reach."""
        raise NotImplementedError

    def __call__(self, tokens: Tensor, changed: Tensor, frame: Frame) -> Tensor:
        """Bring the map up to date.

        Args:
            tokens: all tokens of all streams, (B, h * w, D).
            changed: those that changed since the last frame, (B, h, w); all of them where a stream flushes.

        Returns:
            The map (B, H * W, C). It is state: read it, never write to it.
        """
        height, width = self.size(changed.shape[1:])
        kept = frame.slots(f"{self._name}.input", (height * width, self._convolution.out_channels), tokens)
        target, rows = kept.flatten(0, 1), tokens.flatten(0, 1)
        units = self._units(changed)
        for part in units.flatten().nonzero().squeeze(1).split(TOKENS_AT_ONCE):
            values = self._norm(pointwise(self._resample(rows, part, changed.shape[1:]), self._convolution))
            target.index_copy_(0, self._positions(part, changed.shape[2]), values.to(target.dtype))
        frame.trace.add_layer("pyramid", self._macs_per_unit(), units.flatten(1).sum(1).tolist())
        return kept

    def _units(self, changed: Tensor) -> Tensor:
        """Which tokens, or cells of tokens, to compute for the marked tokens (B, h, w)."""
        raise NotImplementedError

    def _resample(self, rows: Tensor, units: Tensor, grid: tuple[int, int]) -> Tensor:
        """The inputs (U * s, C) of the 1x1 convolution for some units (U,), s positions each, from all tokens' rows."""
        raise NotImplementedError

    def _positions(self, units: Tensor, grid_width: int) -> Tensor:
        """The positions (U * s,) of these among the B * H * W of the map."""
        raise NotImplementedError

    def _macs_per_unit(self) -> int:
        raise NotImplementedError


class PooledTokens(TokenLayers):
    """A 2x2 max-pool before the 1x1 convolution; its unit is the cell of four tokens."""

    def size(self, grid: tuple[int, int]) -> tuple[int, int]:
        return grid[0] // 2, grid[1] // 2

    def mark(self, changed: Tensor) -> Tensor:
        height, width = self.size(changed.shape[1:])
        whole = changed[:, : 2 * height, : 2 * width]  # the pool leaves out an odd last line and column
        return whole.unflatten(2, (width, 2)).unflatten(1, (height, 2)).any(4).any(2)

    def _units(self, changed: Tensor) -> Tensor:
        return self.mark(changed)

    def _resample(self, rows: Tensor, units: Tensor, grid: tuple[int, int]) -> Tensor:
        height, width = self.size(grid)
        line, column = units // width, units % width
        first = (line // height * grid[0] + line % height * 2) * grid[1] + column * 2
        members = first[:, None] + first.new_tensor([0, 1, grid[1], grid[1] + 1])
        return rows.index_select(0, members.flatten()).unflatten(0, (-1, 4)).amax(1)

    def _positions(self, units: Tensor, grid_width: int) -> Tensor:
        return units

    def _macs_per_unit(self) -> int:
        return self._convolution.weight.numel()


class UpsampledTokens(TokenLayers):
    """Any number of transposed convolutions, with norms and activations, before the 1x1 convolution."""

    def __init__(self, name: str, resampling: Sequence[nn.Module], convolution: nn.Conv2d) -> None:
        super().__init__(name, convolution)
        self._layers = [row_layer(name, layer) for layer in resampling]
        self._transposed = [layer for layer in resampling if isinstance(layer, nn.ConvTranspose2d)]

    @property
    def scale(self) -> int:
        """Positions per token along each axis."""
        return 2 ** len(self._transposed)

    def size(self, grid: tuple[int, int]) -> tuple[int, int]:
        return grid[0] * self.scale, grid[1] * self.scale

    def mark(self, changed: Tensor) -> Tensor:
        return changed.repeat_interleave(self.scale, 1).repeat_interleave(self.scale, 2)

    def _units(self, changed: Tensor) -> Tensor:
        return changed

    def _resample(self, rows: Tensor, units: Tensor, grid: tuple[int, int]) -> Tensor:
        rows = rows.index_select(0, units)
        for layer in self._layers:
            rows = layer(rows)
        return rows

    def _positions(self, units: Tensor, grid_width: int) -> Tensor:
        # The order in which the transposed convolutions leave them: the four parts of the four parts of a token.
        line, column = units // grid_width, units % grid_width
        for _ in self._transposed:
            line = (2 * line[:, None] + line.new_tensor([0, 0, 1, 1])).flatten()
            column = (2 * column[:, None] + column.new_tensor([0, 1, 0, 1])).flatten()
        return line * (grid_width * self.scale) + column

    def _macs_per_unit(self) -> int:
        macs = sum(layer.weight.numel() * 4**depth for depth, layer in enumerate(self._transposed))
        return macs + self._convolution.weight.numel() * self.scale**2


def _check_pool(name: str, pool: nn.MaxPool2d) -> None:
    plain = pool.padding in (0, (0, 0)) and pool.dilation in (1, (1, 1)) and not pool.ceil_mode
    if not plain or pool.kernel_size not in (2, (2, 2)) or pool.stride not in (2, (2, 2)):
        raise ValueError(f"{name}: expected a max-pool of 2x2 with stride 2, found {pool}")
