"""Frames to calibrate a detector with: some of each video, side by side as streams."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from itertools import islice

import torch
from torch import Tensor

from .data.input_preparation import InputPreparation
from .errors import ConfigError
from .modeling.video_rcnn import VideoRCNN
from .video import VideoSource


def read_calibration_frames(
    model: VideoRCNN, prepare: InputPreparation, sources: Sequence[VideoSource], frames: int, start: int = 0
) -> list[Tensor]:
    """Frames of each source, from the position `start` on, as the model's Transformer gets them: `frames` of (sources,
    3, H, W).

    Raises ConfigError, naming it, for a source that has fewer frames, or frames of another size.
    """
    clips: list[Tensor] = []
    for source in sources:
        with closing(source.frames()) as found:
            images = [{"image": prepare(frame.image)} for frame in islice(found, start, start + frames)]
        if len(images) < frames:
            found = f"{len(images)} frames from --start {start} on"
            raise ConfigError(f"{source.name} has {found}, --frames {frames} are needed")
        clip = torch.cat([model.preprocess_image([image]).tensor for image in images])
        if clips and clip.shape != clips[0].shape:
            sizes = " and ".join(f"{c.shape[-1]} x {c.shape[-2]}" for c in (clips[0], clip))
            raise ConfigError(f"{source.name} has another size ({sizes}): calibrate with videos of one size")
        clips.append(clip)
    return list(torch.stack(clips, 1))
