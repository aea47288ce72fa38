"""A clip as several views: spans of it in time, at several places of the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class ClipViews:
    """How views are cut from a clip. Views are ordered by place, then by time."""

    frames: int
    """Frames of a view."""
    stride: int
    """Distance of its frames in the clip."""
    size: tuple[int, int]
    """(H, W) of a view in pixels."""
    spans: int
    """Spans of time, evenly spread over the clip; a single one is centred."""
    crops: int
    """Places, evenly spread from the top left to the bottom right corner; a single one is centred."""
    mean: Sequence[float] = (0.45, 0.45, 0.45)
    """Of each channel, for values from 0 to 1."""
    std: Sequence[float] = (0.225, 0.225, 0.225)

    def __post_init__(self) -> None:
        for name in ("frames", "stride", "spans", "crops"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} of views must be 1 or larger, found {getattr(self, name)}")

    @property
    def count(self) -> int:
        """Number of views."""
        return self.spans * self.crops

    def frame_numbers(self, length: int) -> list[list[int]]:
        """For each span, the numbers of its frames in a clip of `length` frames.

        The last frame of a clip that is too short is repeated.
        """
        if length < 1:
            raise ValueError("a clip without frames has no views")
        covered = self.frames * self.stride
        slack = max(length - covered, 0)
        if self.spans == 1:
            starts = [slack // 2]
        else:
            starts = [int(k * (slack / (self.spans - 1))) for k in range(self.spans)]
        return [[min(start + self.stride * i, length - 1) for i in range(self.frames)] for start in starts]

    def cut(self, clip: Tensor) -> Tensor:
        """(T, C, H, W) of uint8, 0 to 255, to normalised views (V, frames, C, *size)."""
        needed, spans = places(self.frame_numbers(len(clip)))
        return self.assemble(self.prepare(clip[needed]), spans)

    def assemble(self, frames: Tensor, spans: Sequence[Sequence[int]]) -> Tensor:
        """Views (V, frames, C, *size) of prepared frames (n, C, h, w).

        Args:
            spans: for each span, the places of its frames among `frames`.
        """
        height, width = self.size
        parts = [frames[list(span)] for span in spans]
        corners = self._corners(frames.shape[-2:])
        return torch.stack([part[..., y : y + height, x : x + width] for y, x in corners for part in parts])

    def prepare(self, frames: Tensor) -> Tensor:
        """Frames (T, C, H, W) of uint8, normalised and resized to cover a view."""
        mean, std = (frames.new_tensor(values, dtype=torch.float32)[:, None, None] for values in (self.mean, self.std))
        frames = (frames.float() / 255 - mean) / std
        height, width = frames.shape[-2:]
        scale = max(self.size[0] / height, self.size[1] / width)
        if scale == 1:
            return frames
        size = (round(scale * height), round(scale * width))
        return F.interpolate(frames, size=size, mode="bilinear", antialias=True, align_corners=False)

    def centre(self, frames: Tensor) -> Tensor:
        """The middle of prepared frames, (T, C, *size)."""
        y, x = ((have - need) // 2 for have, need in zip(frames.shape[-2:], self.size))
        return frames[..., y : y + self.size[0], x : x + self.size[1]]

    def _corners(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Top left corners (y, x) of the crops of a frame."""
        slack = [have - need for have, need in zip(size, self.size)]
        if self.crops == 1:
            return [(slack[0] // 2, slack[1] // 2)]
        steps = [room / (self.crops - 1) for room in slack]
        return [(int(k * steps[0]), int(k * steps[1])) for k in range(self.crops)]


def places(spans: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """The numbers that occur in some lists, each once and rising, and the lists with places among these instead."""
    needed = sorted({number for span in spans for number in span})
    place = {number: i for i, number in enumerate(needed)}
    return needed, [[place[number] for number in span] for span in spans]
