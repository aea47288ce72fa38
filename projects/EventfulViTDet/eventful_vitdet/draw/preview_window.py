"""A window that shows pictures while they are made, where there is a display."""

from __future__ import annotations

import os
import sys

import cv2
import numpy as np

from ..video.video_writer import say_once

KEYS_TO_CLOSE = (27, ord("q"))
LARGEST = (1280, 800)
"""Width and height in pixels that a window has at most when it appears."""


class PreviewWindow:
    """A context manager; without a display, or with an OpenCV that has no windows, it shows nothing."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._open = has_display()
        self._shown = False

    def __enter__(self) -> PreviewWindow:
        if self._open:
            try:
                cv2.namedWindow(self.title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
            except cv2.error:
                say_once("this OpenCV has no windows (opencv-python has, opencv-python-headless has not)")
                self._open = False
        return self

    def show(self, picture: np.ndarray) -> bool:
        """Show a picture, BGR; returns False when the user pressed q or Escape, which ends the show.

        A window that was closed stays closed.
        """
        if self._shown and self._open:
            self._open = cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) >= 1
        if not self._open:
            return True
        if not self._shown:
            height, width = picture.shape[:2]
            scale = min(1.0, LARGEST[0] / width, LARGEST[1] / height)
            cv2.resizeWindow(self.title, max(1, round(scale * width)), max(1, round(scale * height)))
            self._shown = True
        cv2.imshow(self.title, picture)
        return cv2.waitKey(1) & 0xFF not in KEYS_TO_CLOSE

    def __exit__(self, *exc_info: object) -> None:
        if self._open:
            cv2.destroyWindow(self.title)


def has_display() -> bool:
    """Whether windows can be expected to open."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
