"""Reading the frames that a data set lists: of video files, each decoded once and in order, or of image files.

Images are BGR uint8, (H, W, 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager

import numpy as np

from ..errors import VideoReadError
from ..video import VideoFile, read_image_file
from ..video.frame_images import ImageMaker


def iterate_listed_frames(frames: Iterable[dict]) -> Iterator[tuple[dict, np.ndarray]]:
    """Yield (frame dict, image) for the given frames of *one* video, which are in ascending order.

    A video file is decoded once, forward only; frames that were not asked for are skipped. Raises
    VideoReadError, with the identity of the frame, when a frame is absent, damaged or of another size than listed.
    """
    frames = list(frames)
    if frames and frames[0]["is_video_file"]:
        images = _decode(frames[0]["file_name"], [frame["frame_id"] for frame in frames])
    else:
        images = (_read_image(frame) for frame in frames)
    with closing(images):
        for frame in frames:
            with _identified(frame):
                image = next(images)
            check_size(frame, image.shape[:2])
            yield frame, image


def read_listed_frame(frame: dict) -> np.ndarray:
    """Read a single frame from its image file or from the middle of its video. Raises VideoReadError, with the identity
    of the frame.
    """
    with _identified(frame):
        if frame["is_video_file"]:
            file = VideoFile(frame["file_name"])
            file.check_complete()
            image = ImageMaker("BGR")(file.read(frame["frame_id"]).frame)
        else:
            image = _read_image(frame)
    check_size(frame, image.shape[:2])
    return image


def check_size(frame: dict, size: tuple[int, int]) -> None:
    """Raise VideoReadError if a frame's height and width are not those that the annotation file lists for it."""
    height, width = size
    if (height, width) != (frame["height"], frame["width"]):
        raise VideoReadError(
            f"{frame['file_name']}: frame {frame['frame_id']} is {width} x {height} pixels, but the "
            f"annotation file lists {frame['width']} x {frame['height']}",
            file_name=frame["file_name"],
            video_id=frame["video_id"],
            frame_id=frame["frame_id"],
        )


def _decode(path: str, numbers: list[int]) -> Iterator[np.ndarray]:
    make_image = ImageMaker("BGR")
    with closing(VideoFile(path).pictures_at(numbers)) as pictures:
        for picture in pictures:
            yield make_image(picture.frame)


def _read_image(frame: dict) -> np.ndarray:
    return read_image_file(frame["file_name"], upright=not frame.get("as_stored", False))


@contextmanager
def _identified(frame: dict) -> Iterator[None]:
    """Tells a VideoReadError which frame was being read."""
    try:
        yield
    except VideoReadError as error:
        error.file_name = frame["file_name"]
        error.video_id, error.frame_id = frame["video_id"], frame["frame_id"]
        raise
