"""JPEG copies of video frames for training, which visits frames in random order.

The copies lie in `<folder>/<video name>-<fingerprint>/<frame>.jpg`; the fingerprint is of the video's
content, so a changed video never meets stale frames and a moved data set keeps its copies.
"""

from __future__ import annotations

import logging
import os

import cv2
import numpy as np
from tqdm import tqdm

from ..errors import ConfigError, VideoReadError
from ..files import digest_ends, write_atomically
from ..video import encode_jpeg
from .coco_vid import group_by_video
from .listed_frames import check_size, iterate_listed_frames, read_listed_frame

JPEG_QUALITY = 95

logger = logging.getLogger(__name__)


class FrameCache:
    """Serves single frames from a folder of JPEG copies; a frame that is not there is decoded and added."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._video_folders: dict[str, str] = {}

    def path(self, frame: dict) -> str:
        """Where the copy of a video's frame is or would be. Raises VideoReadError if the video is absent."""
        video = frame["file_name"]
        if video not in self._video_folders:
            stem = os.path.splitext(os.path.basename(video))[0]
            self._video_folders[video] = os.path.join(self.folder, f"{stem}-{_fingerprint(video)}")
        return os.path.join(self._video_folders[video], f"{frame['frame_id']:06d}.jpg")

    def read(self, frame: dict) -> np.ndarray:
        """Return the frame as BGR (H, W, 3). Frames that are image files already are read as they are."""
        if not frame["is_video_file"]:
            return read_listed_frame(frame)
        image = cv2.imread(self.path(frame)) if os.path.isfile(self.path(frame)) else None
        if image is None:
            image = read_listed_frame(frame)
            self.store(frame, image)
        check_size(frame, image.shape[:2])
        return image

    def store(self, frame: dict, image: np.ndarray) -> None:
        """Write the copy of one frame. Raises OSError if the folder cannot be written."""
        write_atomically(self.path(frame), encode_jpeg(image, JPEG_QUALITY))


def extract_frames(frames: list[dict], folder: str, every_n: int = 1) -> int:
    """Fill a frame cache with every n-th of the given frames of each video; returns the number of copies
    written.

    Copies that exist are kept, so an interrupted extraction resumes. Frame folders need no
    copies.
    """
    cache = FrameCache(folder)
    wanted = [frame for frame in thin_frames(frames, every_n) if frame["is_video_file"]]
    missing = [frame for frame in wanted if not os.path.isfile(cache.path(frame))]
    if not missing:
        return 0
    logger.info("Extracting %d of %d training frames to %s", len(missing), len(wanted), folder)
    with tqdm(total=len(missing), desc="extracting frames", unit="frame", mininterval=1.0) as progress:
        for video in group_by_video(missing):
            for frame, image in iterate_listed_frames(video):
                cache.store(frame, image)
                progress.update()
    return len(missing)


def thin_frames(frames: list[dict], every_n: int) -> list[dict]:
    """Keep the first, the n-th, the 2n-th ... listed frame of every video."""
    if every_n < 1:
        raise ConfigError(f"every_n (DATALOADER.TRAIN_FRAME_STRIDE) must be 1 or larger, found {every_n}")
    return [frame for video in group_by_video(frames) for frame in video[::every_n]]


def _fingerprint(path: str) -> str:
    try:
        return digest_ends(path)[:12]
    except OSError as error:
        raise VideoReadError(f"{path}: cannot be read ({error.strerror})") from error
