"""A clip: what a line of a data set's CSV file names, and where its frames are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Clip:
    """A part of a video, or a folder of frames, with its classes."""

    clip_id: str
    place: str
    """The line that names it, for messages: "validation.csv, line 12"."""
    path: str
    """A video file, or a folder of frames, of which all belong to the clip; "" where there is none."""
    labels: Mapping[str, int] = field(default_factory=dict)
    """{head: class}; empty where nobody knows."""
    start: float = 0.0
    """Second of the video file that the clip begins at ..."""
    stop: float | None = None
    """... and ends before; None: the end of the file."""


@dataclass(frozen=True)
class BadClip:
    """A clip that cannot be used, and why."""

    clip_id: str
    reason: str
