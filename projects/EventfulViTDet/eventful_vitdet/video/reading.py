"""Reading frames: every video is opened once and decoded once, in order.

Images are BGR uint8 arrays (H, W, 3), as OpenCV gives them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np

from ..errors import VideoReadError
from .containers import count_missing_bytes
from .image_files import read_image_file


@dataclass(frozen=True)
class VideoInfo:
    """What the container says: size in pixels, frames per second and number of frames (an estimate in some
    files).
    """

    width: int
    height: int
    fps: float
    num_frames: int


def probe_video(path: str) -> VideoInfo:
    """Open a video and return what its container says. Raises VideoReadError."""
    with _open_video(path) as capture:
        return VideoInfo(
            width=int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            height=int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
            fps=float(capture.get(cv2.CAP_PROP_FPS)),
            num_frames=max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))),
        )


def iterate_frames(frames: Iterable[dict]) -> Iterator[tuple[dict, np.ndarray]]:
    """Yield (frame dict, image) for the given frames of *one* video, which are in ascending order.

    A video file is decoded once, forward only; frames that were not asked for are skipped. Raises
    VideoReadError, with the identity of the frame, when a frame is absent, damaged or of another size than listed.
    """
    frames = list(frames)
    if frames and frames[0]["is_video_file"]:
        images = _decode_forward(frames[0]["file_name"], [frame["frame_id"] for frame in frames])
    else:
        images = (_read_listed_image(frame) for frame in frames)
    for frame in frames:
        with _identified(frame):
            image = next(images)
        check_size(frame, image)
        yield frame, image


def decode_video(path: str, start: int = 0) -> Iterator[np.ndarray]:
    """Yield the frames of a video file from number `start` to its end, in order.

    Raises VideoReadError for a file that is no video, or that has no frame at all. One that ends earlier than its
    container says is no error: that number is often an estimate.
    """
    with _open_video(path) as capture:
        position = start if start and _jump(capture, path, start) else 0
        while capture.grab():
            if position >= start:
                yield _retrieve(capture, path, position)
            position += 1
        if position == 0:
            raise VideoReadError(f"{path}: the video has no frame that can be decoded")


def read_frame(frame: dict) -> np.ndarray:
    """Read a single frame, (H, W, 3), from its image file or from the middle of its video. Raises
    VideoReadError, with the identity of the frame.
    """
    with _identified(frame):
        if frame["is_video_file"]:
            image = _decode_one(frame["file_name"], frame["frame_id"])
        else:
            image = _read_listed_image(frame)
    check_size(frame, image)
    return image


def check_size(frame: dict, image: np.ndarray) -> None:
    """Raise VideoReadError if an image is not of the size that the annotation file lists for it."""
    height, width = image.shape[:2]
    if (height, width) != (frame["height"], frame["width"]):
        raise VideoReadError(
            f"{frame['file_name']}: frame {frame['frame_id']} is {width} x {height} pixels, but the "
            f"annotation file lists {frame['width']} x {frame['height']}",
            file_name=frame["file_name"],
            video_id=frame["video_id"],
            frame_id=frame["frame_id"],
        )


@contextmanager
def _identified(frame: dict) -> Iterator[None]:
    """Tells a VideoReadError which frame was being read."""
    try:
        yield
    except VideoReadError as error:
        error.file_name = frame["file_name"]
        error.video_id, error.frame_id = frame["video_id"], frame["frame_id"]
        raise


def _read_listed_image(frame: dict) -> np.ndarray:
    return read_image_file(frame["file_name"], upright=not frame.get("as_stored", False))


@contextmanager
def _open_video(path: str) -> Iterator[cv2.VideoCapture]:
    if not os.path.isfile(path):
        raise VideoReadError(f"{path}: the file does not exist")
    if os.path.getsize(path) == 0:
        raise VideoReadError(f"{path}: the file is empty")
    if not _is_utf8(path):
        raise VideoReadError(f"{path!r}: the name is not UTF-8, which OpenCV cannot open; rename the file")
    missing = count_missing_bytes(path)
    if missing:
        # Decoders fill what is missing of the last frame with something plausible and report no error.
        raise VideoReadError(f"{path}: the file is cut short, at least {missing} bytes are missing at its end")
    capture = cv2.VideoCapture(path)
    try:
        if not capture.isOpened():
            raise VideoReadError(f"{path}: cannot be opened as a video; it is damaged, cut short or of an unknown type")
        yield capture
    finally:
        capture.release()


def _is_utf8(path: str) -> bool:
    """Whether a name can be written as UTF-8; OpenCV crashes on others, which Linux allows."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _jump(capture: cv2.VideoCapture, path: str, frame_id: int) -> bool:
    """Go to a frame by the file's index; False, and the file opened anew, where it has none."""
    if capture.set(cv2.CAP_PROP_POS_FRAMES, frame_id) and int(capture.get(cv2.CAP_PROP_POS_FRAMES)) == frame_id:
        return True
    capture.open(path)
    return False


def _decode_forward(path: str, frame_ids: list[int]) -> Iterator[np.ndarray]:
    with _open_video(path) as capture:
        position = 0
        for frame_id in frame_ids:
            while position < frame_id:
                _grab(capture, path, position, frame_id)
                position += 1
            _grab(capture, path, position, frame_id)
            position += 1
            yield _retrieve(capture, path, frame_id)


def _decode_one(path: str, frame_id: int) -> np.ndarray:
    with _open_video(path) as capture:
        capture.set(cv2.CAP_PROP_POS_FRAMES, frame_id)
        if int(capture.get(cv2.CAP_PROP_POS_FRAMES)) == frame_id and capture.grab():
            return _retrieve(capture, path, frame_id)
    # Containers without an index cannot seek exactly: count frames from the start instead.
    return next(_decode_forward(path, [frame_id]))


def _grab(capture: cv2.VideoCapture, path: str, position: int, wanted: int) -> None:
    if not capture.grab():
        state = "has no frame that can be decoded" if position == 0 else f"ends or is damaged after {position} frames"
        raise VideoReadError(f"{path}: frame {wanted} cannot be read; the video {state}")


def _retrieve(capture: cv2.VideoCapture, path: str, frame_id: int) -> np.ndarray:
    decoded, image = capture.retrieve()
    if not decoded or image is None:
        raise VideoReadError(f"{path}: frame {frame_id} cannot be decoded; the video is damaged")
    return image
