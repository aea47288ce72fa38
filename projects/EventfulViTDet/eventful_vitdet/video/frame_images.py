"""From a decoded frame to an image: colours as the file defines them, 8 bits, the right way up."""

from __future__ import annotations

import math

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

Matrix = tuple[int, int, int, int]
"""(a, b, c, d) of x' = a x + c y, y' = b x + d y, in 1/65536: from where a pixel is stored to where it is shown."""
PIXEL_FORMATS = {"RGB": "rgb24", "BGR": "bgr24"}


class ImageMaker:
    """Makes images (H, W, 3) uint8 of the decoded frames of one video, in one channel order; alpha is left out."""

    def __init__(self, channels: str) -> None:
        """
        Args:
            channels: "RGB" or "BGR".
        """
        self._format = PIXEL_FORMATS[channels]
        self._reformatter = VideoReformatter()  # one for all frames: it keeps its tables
        self._rotation: int | None = None
        self._matrix: Matrix | None = None

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        if frame.rotation != self._rotation:
            self._rotation, self._matrix = frame.rotation, display_matrix(frame)
        # Ranges and a target are named because PyAV before 17 otherwise takes every file for BT.601.
        converted = self._reformatter.reformat(
            frame,
            format=self._format,
            dst_colorspace=Colorspace.DEFAULT,
            src_color_range=ColorRange.JPEG if _is_full_range(frame) else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
        )
        return np.ascontiguousarray(turn_upright(converted.to_ndarray(), self._matrix))


def _is_full_range(frame: av.VideoFrame) -> bool:
    name = frame.format.name
    return frame.color_range == ColorRange.JPEG or name.startswith("yuvj") or frame.format.is_rgb


def turn_upright(image: np.ndarray, matrix: Matrix | None) -> np.ndarray:
    """An image (H, W, ...), turned and mirrored as a display matrix says."""
    if matrix is None:
        return image
    a, b, c, d = matrix
    if swaps_sides(matrix):
        image, flip_x, flip_y = image.swapaxes(0, 1), c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    return image[:: -1 if flip_y else 1, :: -1 if flip_x else 1]


def swaps_sides(matrix: Matrix | None) -> bool:
    """Whether x and y change places."""
    return matrix is not None and abs(matrix[0]) + abs(matrix[3]) < abs(matrix[1]) + abs(matrix[2])


def display_matrix(frame: av.VideoFrame) -> Matrix | None:
    """How a frame is turned to be shown; None where it is shown as it is stored.

    Not for every frame: PyAV ties those that are asked for their side data into a cycle, which only the garbage
    collector frees.
    """
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # another piece of side data is of a type that this PyAV does not know, such as EXIF
        return matrix_of_rotation(frame.rotation)
    if data is None:
        return None
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), np.int32).tolist()
    return None if a > 0 and d > 0 and b == c == 0 else (a, b, c, d)


def matrix_of_rotation(degrees: int) -> Matrix | None:
    """The display matrix that turns a frame so far, counterclockwise, without mirroring it."""
    radians = math.radians(degrees)
    cosine, sine = (round(65536 * value) for value in (math.cos(radians), math.sin(radians)))
    return (cosine, -sine, sine, cosine) if degrees else None
