"""From a decoded frame to an image: colours as the file defines them, 8 bits, the right way up."""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

PIXEL_FORMATS = {"RGB": "rgb24", "BGR": "bgr24"}


class ImageMaker:
    """Makes images (H, W, 3) uint8 of decoded frames, in one channel order; alpha is left out."""

    def __init__(self, channels: str) -> None:
        """
        Args:
            channels: "RGB" or "BGR".
        """
        self._format = PIXEL_FORMATS[channels]
        self._reformatter = VideoReformatter()  # one for all frames: it keeps its tables

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        # Ranges and a target are named because PyAV before 17 otherwise takes every file for BT.601.
        converted = self._reformatter.reformat(
            frame,
            format=self._format,
            dst_colorspace=Colorspace.DEFAULT,
            src_color_range=ColorRange.JPEG if _is_full_range(frame) else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
        )
        return np.ascontiguousarray(turn_upright(converted.to_ndarray(), frame))


def _is_full_range(frame: av.VideoFrame) -> bool:
    name = frame.format.name
    return frame.color_range == ColorRange.JPEG or name.startswith("yuvj") or frame.format.is_rgb


def turn_upright(image: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """An image (H, W, ...) of a frame, turned and mirrored as the file's display matrix says."""
    matrix = display_matrix(frame)
    if matrix is None:
        return image
    a, b, c, d = matrix
    if abs(a) + abs(d) < abs(b) + abs(c):  # x and y change places
        image, flip_x, flip_y = image.swapaxes(0, 1), c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    return image[:: -1 if flip_y else 1, :: -1 if flip_x else 1]


def upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    """(width, height) of a frame's image in pixels."""
    matrix = display_matrix(frame)
    if matrix is not None and abs(matrix[0]) + abs(matrix[3]) < abs(matrix[1]) + abs(matrix[2]):
        return frame.height, frame.width
    return frame.width, frame.height


def display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int] | None:
    """(a, b, c, d) of x' = a x + c y, y' = b x + d y, in 1/65536; None where the frame is shown as it is stored."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), np.int32).tolist()
    return None if a > 0 and d > 0 and b == c == 0 else (a, b, c, d)
