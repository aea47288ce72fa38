"""Stable identities of objects over the frames of a video: ByteTrack, by the library `trackers` (the extra "track")."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version

import numpy as np

from .errors import MissingPackageError
from .structures import Detections

HOW_TO_INSTALL = "pip install 'eventful-vitdet[track]', then pip install --no-deps trackers"
"""Without its dependencies, as these would bring opencv-python beside opencv-python-headless, in the same folder."""
UNKNOWN = -1
"""Of a detection that belongs to no object yet: one that is weak, or was not seen before."""


def check_tracking() -> None:
    """Raise MissingPackageError where objects cannot be tracked."""
    try:
        import supervision  # noqa: F401
        import trackers  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            f"{error.name or 'trackers'} is not installed, which tracking needs: {HOW_TO_INSTALL}"
        ) from error


def describe_tracker() -> str:
    """What tracks, and in which version."""
    return f"ByteTrack, trackers {version('trackers')}"


class ObjectTracker:
    """Gives the detections of a video's frames, one frame after the other, the numbers of their objects.

    Objects are told by where they are only: neither classes nor looks are compared.
    """

    def __init__(self, fps: float, min_score: float | None = None) -> None:
        """
        Args:
            fps: frames per second that it is given. An object is remembered for a second.
            min_score: from which score on a detection can begin an object, and is matched before weaker ones; None:
                the library's defaults, which leave out weak objects.

        Raises:
            MissingPackageError: `trackers` is not installed.
        """
        check_tracking()
        self._options = {"frame_rate": fps}
        if min_score is not None:
            self._options.update(track_activation_threshold=min_score, high_conf_det_threshold=min_score)
        self._sequence: int | None = None
        self._numbers: dict[tuple[int, int], int] = {}  # by sequence and the library's own number

    def identify(self, found: Detections, sequence: int) -> Detections:
        """The detections with `tracks`: numbers from 1, or UNKNOWN. Another sequence has other objects."""
        from supervision import Detections as Tracked
        from trackers import ByteTrackTracker

        if sequence != self._sequence:
            self._sequence, self._tracker = sequence, ByteTrackTracker(**self._options)
        rows = np.arange(len(found.scores))
        # Its results come in another order, and not all of them.
        given = Tracked(xyxy=found.boxes, confidence=found.scores, data={"row": rows})
        result = self._tracker.update(given)
        tracks = np.full(len(rows), UNKNOWN, np.int64)
        if len(result):
            tracks[result.data["row"]] = [self._number(int(track)) for track in result.tracker_id]
        return replace(found, tracks=tracks)

    def _number(self, track: int) -> int:
        if track == UNKNOWN:
            return UNKNOWN
        return self._numbers.setdefault((self._sequence, track), len(self._numbers) + 1)
