"""The last layers of a proposal network on a GPU: logits and deltas of every anchor in one product, summed and written
in float32 and in the order of the anchors. Rounded to a short type, most logits would be tied."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from eventful_vit.ops import tf32
from eventful_vit.ops.gpu.launch import power_of_two, product
from torch import Tensor, nn

from .row_norms import as_rows

POSITIONS = 128
"""Positions of a map that a program takes."""


@triton.jit
def _predict(
    rows, weight, bias, logits, deltas, positions, per_image, anchors, channels, logits_step, deltas_step,
    POSITIONS: tl.constexpr, OUTPUTS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Some positions (positions, channels) of one level."""
    position = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    output = tl.arange(0, OUTPUTS)
    inside = position < positions
    total = tl.zeros((POSITIONS, OUTPUTS), tl.float32)
    for start in range(0, channels, DEPTH):
        channel = start + tl.arange(0, DEPTH)
        place = position.to(tl.int64)[:, None] * channels + channel[None, :]
        a = tl.load(rows + place, mask=inside[:, None] & (channel < channels)[None, :], other=0.0)
        known = (output < 5 * anchors)[None, :] & (channel < channels)[:, None]
        b = tl.load(weight + output[None, :] * channels + channel[:, None], mask=known, other=0.0)
        total = product(a, b, total, PRECISION)
    total += tl.load(bias + output, mask=output < 5 * anchors, other=0.0)[None, :]
    image, within = position // per_image, position % per_image
    is_logit, is_delta = output < anchors, (output >= anchors) & (output < 5 * anchors)
    logit = (image.to(tl.int64) * logits_step + within * anchors)[:, None] + output[None, :]
    tl.store(logits + logit, total, mask=inside[:, None] & is_logit[None, :])
    delta = (image.to(tl.int64) * deltas_step + within * anchors * 4)[:, None] + (output - anchors)[None, :]
    tl.store(deltas + delta, total, mask=inside[:, None] & is_delta[None, :])


class AnchorOutputs:
    """The 1x1 convolutions of a StandardRPNHead."""

    def __init__(self, logits: nn.Conv2d, deltas: nn.Conv2d) -> None:
        self._anchors = logits.out_channels
        weights, biases = (logits.weight, deltas.weight), (logits.bias, deltas.bias)
        self._weight = torch.cat([weight.detach().flatten(1) for weight in weights])
        self._bias = torch.cat([bias.detach().float() for bias in biases])

    def __call__(self, level_map: Tensor, logits: Tensor, deltas: Tensor) -> None:
        """Write what belongs to a level.

        Args:
            level_map: (B, C, H, W), whose memory is (B, H, W, C).
            logits, deltas: where it belongs, (B, H * W * A) and (B, H * W * A, 4), float32. Parts of larger tensors, in
                which an image's values lie side by side.
        """
        rows = as_rows(level_map)
        positions, channels = rows[..., 0].numel(), rows.shape[-1]
        allows_tf32 = rows.dtype is torch.float32 and tf32.in_convolutions()
        _predict[(triton.cdiv(positions, POSITIONS),)](
            rows, self._weight, self._bias, logits, deltas, positions, positions // len(rows), self._anchors, channels,
            logits.stride(0), deltas.stride(0), POSITIONS=POSITIONS, OUTPUTS=power_of_two(5 * self._anchors),
            DEPTH=min(128 // rows.itemsize, power_of_two(channels)), PRECISION="tf32" if allows_tf32 else "ieee",
        )  # fmt: skip
