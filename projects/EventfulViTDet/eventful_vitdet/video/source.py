"""What frames come from, whatever kind it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..structures import SourceFrame

DEFAULT_FPS = 30.0
"""Of what does not tell."""


class VideoSource:
    """Base class. `frames` may be called again, for another pass."""

    name: str
    """For titles and messages."""
    fps: float
    """Frames per second; a guess where nobody knows."""
    num_frames: int | None
    """None where there is no end, or where it is not known."""
    paths: Sequence[str] = ()
    """The files that it reads, if any."""
    live: bool = False
    """A stream or camera: frames that come faster than they are used are passed over, and there is no seeking."""

    def frames(self, start: int = 0) -> Iterator[SourceFrame]:
        """Frames in order from number `start`, in constant memory. Close the iterator (contextlib.closing) where it is
        left early. Raises VideoReadError."""
        raise NotImplementedError
