"""The test loader: frames in order, each video decoded once by a background thread with a bounded queue."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.data import transforms as T
from detectron2.utils import comm

from .coco_vid import group_by_video
from .video_reader import iterate_frames

POLL_SECONDS = 0.1
IDENTITY = ("file_name", "height", "width", "image_id", "video_id", "frame_id", "frame_step")

logger = logging.getLogger(__name__)


class VideoTestLoader:
    """Iterates over the frames of a data set in its order; every item is a list with one model input.

    Each iteration reads the videos anew. Memory is bounded by `prefetch` frames, whatever the videos'
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
    ) -> None:
        """Set the loader up without a configuration.

        Args:
            frames: dicts as DatasetCatalog serves them, ordered by video and frame.
            min_size: length in pixels to which the short edge is resized; 0 keeps the size.
            max_size: limit of the long edge in pixels.
            image_format: "RGB" or "BGR", the channel order that the model expects.
            prefetch: frames decoded ahead.
        """
        if prefetch < 1:
            raise ValueError(f"DATALOADER.PREFETCH_FRAMES must be 1 or larger, found {prefetch}")
        self.frames = frames
        self.image_format = image_format
        self.prefetch = prefetch
        self._prepare = InputPreparation(min_size, max_size, image_format)

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[list[dict]]:
        with BackgroundIterator(self._read_all, self.prefetch) as inputs:
            for model_input in inputs:
                yield [model_input]

    def _read_all(self) -> Iterator[dict]:
        for video in group_by_video(self.frames):
            for frame, image in iterate_frames(video):
                yield self._make_input(frame, image)

    def _make_input(self, frame: dict, image: np.ndarray) -> dict:
        return {**{key: frame[key] for key in IDENTITY}, "image": self._prepare(image)}


class InputPreparation:
    """Makes the model's input of a BGR image (H, W, 3): resized, in the model's channel order, (3, h, w) uint8."""

    def __init__(self, min_size: int, max_size: int, image_format: str) -> None:
        """See `VideoTestLoader`."""
        check_image_format(image_format)
        if min_size < 0 or max_size < 1:
            raise ValueError(
                "INPUT.MIN_SIZE_TEST must be 0 or larger and INPUT.MAX_SIZE_TEST 1 or larger, "
                f"found {min_size} and {max_size}"
            )
        self._flip = image_format == "RGB"
        self._resize = T.ResizeShortestEdge(min_size, max_size) if min_size else None

    def __call__(self, image: np.ndarray) -> torch.Tensor:
        if self._resize is not None:
            image = self._resize.get_transform(image).apply_image(image)
        if self._flip:
            image = image[:, :, ::-1]
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


class BackgroundIterator:
    """Runs an iterable in a thread, at most `size` items ahead, and hands its items, or its exception, to the
    consumer.

    A context manager: leaving it ends the thread, also in the middle of the iteration.
    """

    _END = object()

    def __init__(self, make_iterable: Callable[[], Iterable], size: int) -> None:
        self._make_iterable = make_iterable
        self._queue: queue.Queue = queue.Queue(maxsize=size)
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="frame-reader", daemon=True)

    def __enter__(self) -> Iterator:
        self._thread.start()
        return self._consume()

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            for item in self._make_iterable():
                if not self._put(item):
                    return
        except Exception as error:  # whatever it is, it belongs to the consumer, who raises it
            self._error = error
        self._put(self._END)

    def _put(self, item: object) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False

    def _consume(self) -> Iterator:
        while True:
            item = self._queue.get()
            if item is self._END:
                break
            yield item
        if self._error is not None:
            raise self._error


def build_video_test_loader(cfg: CfgNode, dataset_name: str, frames: list[dict] | None = None) -> VideoTestLoader:
    """The test loader of a registered data set, configured by INPUT.*_TEST, INPUT.FORMAT and
    DATALOADER.PREFETCH_FRAMES.

    `frames` saves reading the annotation file again. With several processes each gets whole videos.
    """
    if frames is None:
        frames = DatasetCatalog.get(dataset_name)
    frames = shard_videos(frames, comm.get_world_size(), comm.get_rank())
    logger.info("%s: %d frames of %d videos", dataset_name, len(frames), len(group_by_video(frames)))
    return VideoTestLoader(
        frames,
        min_size=cfg.INPUT.MIN_SIZE_TEST,
        max_size=cfg.INPUT.MAX_SIZE_TEST,
        image_format=cfg.INPUT.FORMAT,
        prefetch=cfg.DATALOADER.PREFETCH_FRAMES,
    )


def shard_videos(frames: list[dict], shards: int, index: int) -> list[dict]:
    """The share of process `index` among `shards`: whole videos, chosen so that frame counts are about equal.

    Longest videos are dealt first, each to the process with the fewest frames so far.
    """
    videos = group_by_video(frames)
    loads = [0] * shards
    owner = {}
    for video in sorted(videos, key=len, reverse=True):
        lightest = loads.index(min(loads))
        owner[video[0]["video_id"]] = lightest
        loads[lightest] += len(video)
    return [frame for frame in frames if owner[frame["video_id"]] == index]


def check_image_format(image_format: str) -> None:
    """Raise ValueError unless `image_format` (INPUT.FORMAT) is "RGB" or "BGR"."""
    if image_format not in ("RGB", "BGR"):
        raise ValueError(f"INPUT.FORMAT must be 'RGB' or 'BGR', found {image_format!r}")
