"""The test loader: frames in order, each video decoded once by a background thread with a bounded queue."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.utils import comm

from ..errors import ConfigError, DataError
from ..video.background import BackgroundIterator
from .coco_vid import group_by_video
from .input_preparation import InputPreparation
from .listed_frames import iterate_listed_frames
from .read_rules import ReadRules
from .registration import load_frames
from .video_shards import schedule_streams, shard_videos

FILLER = "filler"
IDENTITY = ("file_name", "height", "width", "image_id", "video_id", "frame_id", "frame_step")

logger = logging.getLogger(__name__)


class VideoTestLoader:
    """Iterates over the frames of a data set in order; every item is a list with a model input for each stream.

    With one stream, that is one frame after the other, in the data set's order. With several, as many videos run side
    by side, each at a position of the list of its own; the next video of a position begins where the one before ended.
    The list becomes shorter towards the end, from its end, so a video never changes its position. Frames of several
    sizes meet in one item only if `mix_sizes`.

    Each iteration reads the videos again. Memory is bounded by `prefetch` frames per stream, whatever the videos'
    lengths.
    """

    def __init__(
        self,
        frames: list[dict],
        *,
        min_size: int,
        max_size: int,
        image_format: str,
        prefetch: int = 4,
        streams: int = 1,
        mix_sizes: bool = False,
        skip_bad_videos: bool = False,
    ) -> None:
        """Set the loader up without a configuration.

        Args:
            frames: dicts as DatasetCatalog serves them, ordered by video and frame.
            min_size: length in pixels to which the short edge is resized; 0 keeps the size.
            max_size: limit of the long edge in pixels.
            image_format: "RGB" or "BGR", the channel order that the model expects.
            prefetch: frames decoded ahead, per stream.
            streams: videos that run side by side.
            mix_sizes: the model pads all frames to one size, so any videos can run side by side.
            skip_bad_videos: a video with a frame that cannot be read ends there and is listed in `skipped`; otherwise
                that is an error.
        """
        check_loader(prefetch, streams)
        self.frames = frames
        self.prefetch = prefetch
        self.skip_bad_videos = skip_bad_videos
        self.skipped: dict[int | str, str] = {}
        """Videos that could not be read to their end in the last iteration, and why. Known as soon as the frame before
        has been delivered, perhaps earlier."""
        self._prepare = InputPreparation(min_size, max_size, image_format)
        self._schedule = schedule_streams(group_by_video(frames), streams, mix_sizes)

    def __len__(self) -> int:
        return sum(sum(map(len, group[0])) for group in self._schedule)

    def __iter__(self) -> Iterator[list[dict]]:
        self.skipped = {}
        for positions in self._schedule:
            yield from self._side_by_side(positions)

    def _side_by_side(self, positions: list[list[list[dict]]]) -> Iterator[list[dict]]:
        with ExitStack() as stack:
            readers = [
                stack.enter_context(BackgroundIterator(partial(self._read, videos), self.prefetch))
                for videos in positions
            ]
            while True:
                inputs = [next(reader, None) for reader in readers]
                while inputs and inputs[-1] is None:
                    inputs.pop()
                    readers.pop()
                if not inputs:
                    return
                # Only where a video was skipped can a position run dry before the one behind it.
                yield [make_filler(inputs[-1]) if found is None else found for found in inputs]

    def _read(self, videos: list[list[dict]]) -> Iterator[dict]:
        for video in videos:
            try:
                for frame, image in iterate_listed_frames(video):
                    yield self._make_input(frame, image)
            except DataError as error:
                if not self.skip_bad_videos:
                    raise
                video_id = video[0]["video_id"]
                self.skipped[video_id] = str(error)
                logger.warning("video %s is skipped: %s", video_id, error)

    def _make_input(self, frame: dict, image: np.ndarray) -> dict:
        return {**{key: frame[key] for key in IDENTITY}, "image": self._prepare(image)}


def make_filler(other: dict) -> dict:
    """An input that keeps a position of the batch occupied: an image of no video, as large as another input's."""
    return {"image": other["image"], "height": other["height"], "width": other["width"], FILLER: True}


def is_filler(model_input: dict) -> bool:
    """Whether nobody waits for the result of an input."""
    return FILLER in model_input


def build_video_test_loader(cfg: CfgNode, dataset_name: str, frames: list[dict] | None = None) -> VideoTestLoader:
    """The test loader of a registered data set, configured by INPUT.*_TEST, INPUT.FORMAT and
    DATALOADER.PREFETCH_FRAMES: one frame at a time.

    `frames` saves reading the annotation file again. With several processes each gets whole videos.
    """
    if frames is None:
        frames, _ = load_frames(dataset_name, rules=ReadRules.from_config(cfg))
    frames = shard_videos(frames, comm.get_world_size(), comm.get_rank())
    logger.debug("%s: %d frames of %d videos", dataset_name, len(frames), len(group_by_video(frames)))
    return make_test_loader(cfg, frames)


def make_test_loader(cfg: CfgNode, frames: list[dict], **options: Any) -> VideoTestLoader:
    """The test loader for frames of one's choice; `options` are those of VideoTestLoader that concern streams."""
    return VideoTestLoader(
        frames,
        min_size=cfg.INPUT.MIN_SIZE_TEST,
        max_size=cfg.INPUT.MAX_SIZE_TEST,
        image_format=cfg.INPUT.FORMAT,
        prefetch=cfg.DATALOADER.PREFETCH_FRAMES,
        **options,
    )


def check_loader(prefetch: int, streams: int) -> None:
    """Raise ConfigError, naming the key, for numbers that no loader can have."""
    for key, number in (("DATALOADER.PREFETCH_FRAMES", prefetch), ("TEST.STREAMS_PER_BATCH", streams)):
        if number < 1:
            raise ConfigError(f"{key} must be 1 or larger, found {number}")
