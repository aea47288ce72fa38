"""Times of what follows the backbone: the eventful pyramid against the dense one, and the parts of a frame.

Random weights, and tokens that change where a pattern says: no backbone runs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from eventful_vit import Streams, Threshold, count_operations
from torch import Tensor, nn

from ..markdown_table import format_table
from ..structures import MACS_PER_GFLOP
from ..timing import timed_call

MOVED = Threshold(1.0)
"""Selects the tokens of a pattern and no others."""


def median_seconds(call: Callable, rounds: int) -> float:
    """Median over some rounds, after one that does not count."""
    seconds = [timed_call(call, torch.device("cpu"))[1] for _ in range(rounds + 1)]
    return statistics.median(seconds[1:])


def patterns(side: int) -> dict[str, Tensor]:
    """An eighth of side x side tokens, from one patch to single tokens: {name: (side, side)}."""
    tokens = side * side // 8
    patch = torch.zeros(side, side, dtype=torch.bool)
    edge = round(tokens**0.5)
    patch[side // 4 : side // 4 + edge, side // 6 : side // 6 + edge] = True
    patches = torch.zeros(side, side, dtype=torch.bool)
    eighth = round((tokens / 8) ** 0.5)
    for i in range(8):
        top, left = i // 4 * side // 2 + side // 12, i % 4 * side // 4 + (i // 4 + 1) * side // 24
        patches[top : top + eighth, left : left + eighth] = True
    runs = torch.zeros(side * side // 4, dtype=torch.bool)
    runs[torch.randperm(side * side // 4)[: tokens // 4]] = True
    single = torch.zeros(side * side, dtype=torch.bool)
    single[torch.randperm(side * side)[:tokens]] = True
    return {
        "none": torch.zeros(side, side, dtype=torch.bool),
        "one patch": patch,
        "eight patches": patches,
        "runs of 4, scattered": runs.repeat_interleave(4).view(side, side),
        "single tokens, scattered": single.view(side, side),
    }


class MovingTokens:
    """A backbone's output in which the tokens of a pattern differ from frame to frame."""

    def __init__(self, pattern: Tensor, channels: int) -> None:
        self.features = torch.randn(1, *pattern.shape, channels).permute(0, 3, 1, 2)
        self.shift = 2.0 * pattern
        self.frame = 0

    def next(self) -> Tensor:
        self.frame += 1
        return self.features + self.shift * (self.frame % 2)


def dense_maps(model: nn.Module, features: Tensor) -> None:
    backbone, rpn = model.backbone, model.proposal_generator
    maps = [stage(features) for stage in backbone.stages]
    rpn.rpn_head(maps + backbone.top_block(maps[-1]))


def time_patterns(model: nn.Module, side: int, rounds: int) -> str:
    """Pyramid and proposal network by pattern of change."""
    lines = []
    for name, pattern in patterns(side).items():
        moving = MovingTokens(pattern, model.vit.embed_dim)
        if not lines:
            with count_operations(model) as counts:
                dense_maps(model, moving.next())
            dense = median_seconds(lambda tokens=moving: dense_maps(model, tokens.next()), rounds)
            lines.append(["dense", "", f"{counts.total() / MACS_PER_GFLOP:.1f}", f"{dense:.3g}", "1.00"])
        pyramid = partial(model.eventful_pyramid, backbone_policy=MOVED, state=Streams())
        pyramid(moving.next(), (True,))
        seconds = median_seconds(lambda tokens=moving, run=pyramid: run(tokens.next(), (False,)), rounds)
        with count_operations(model) as counts:
            pyramid(moving.next(), (False,))
        share = f"{seconds / dense:.3g}"
        lines.append([name, str(int(pattern.sum())), f"{counts.total() / MACS_PER_GFLOP:.1f}", f"{seconds:.3g}", share])
    return format_table(("changed tokens", "number", "GMACs", "s", "time / dense"), lines)


def time_parts(model: nn.Module, side: int, rounds: int) -> str:
    """A later frame without its Transformer, eight patches changed."""
    pixels = side * model.vit.patch_size
    frame = {"image": torch.randint(0, 256, (3, pixels, pixels), dtype=torch.uint8)}
    moving = MovingTokens(patterns(side)["eight patches"], model.vit.embed_dim)
    pyramid = partial(model.eventful_pyramid, backbone_policy=MOVED, state=Streams())
    rpn, heads = model.proposal_generator, model.roi_heads
    pyramid(moving.next(), (True,))
    images, maps = model.preprocess_image([frame]), pyramid(moving.next(), (False,))
    levels = [maps.features[name] for name in rpn.in_features]
    anchors = rpn.anchor_generator(levels)
    proposals = rpn.predict_proposals(anchors, maps.logits, maps.deltas, images.image_sizes)
    inputs = []
    hook = heads.box_head.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    heads(images, maps.features, proposals, None)
    hook.remove()
    parts = {
        "preprocessing": lambda: model.preprocess_image([frame]),
        "eventful pyramid and proposal convolutions": lambda: pyramid(moving.next(), (False,)),
        "anchors": lambda: rpn.anchor_generator(levels),
        "proposals": lambda: rpn.predict_proposals(anchors, maps.logits, maps.deltas, images.image_sizes),
        "heads": lambda: heads(images, maps.features, proposals, None),
        "heads: layers on pooled boxes alone": lambda: heads.box_head(inputs[0]),
    }
    return format_table(("part", "s"), [(name, f"{median_seconds(call, rounds):.3g}") for name, call in parts.items()])


def time_units(channels: int, rounds: int) -> str:
    """The rate of one 3x3 convolution, by the unit that its outputs are computed in."""
    outputs = 9216
    layer = nn.Conv2d(channels, channels, 3, padding=1)
    weight = layer.weight.contiguous(memory_format=torch.channels_last)
    matrix = weight.permute(0, 2, 3, 1).flatten(1).contiguous()
    rows = torch.randn(outputs, channels)
    neighbours = torch.randint(0, outputs, (outputs * 9,))

    def tiles(height: int, width: int) -> tuple[int, Callable]:
        images = torch.randn(outputs // (height * width), height + 2, width + 2, channels).permute(0, 3, 1, 2)
        return len(images) * height * width, lambda: F.conv2d(images, weight)

    whole = torch.randn(1, 256, 256, channels).permute(0, 3, 1, 2)
    units = {
        "whole map, 256 x 256": (256 * 256, lambda: F.conv2d(whole, weight, padding=1)),
        **{f"tiles of {h} x {w}": tiles(h, w) for h, w in ((1, 32), (16, 16), (8, 8), (4, 4), (2, 2))},
        "single positions, with gathering": (
            outputs,
            lambda: [
                F.linear(rows.index_select(0, part).view(-1, 9 * channels), matrix) for part in neighbours.split(9216)
            ],
        ),
    }
    lines = []
    for name, (count, call) in units.items():
        rate = count * weight.numel() / MACS_PER_GFLOP / median_seconds(call, rounds)
        lines.append([name, f"{rate:.0f}"])
    return format_table(("unit", "GMACs per second"), lines)
