"""What frames come from, whatever kind it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

from ..structures import SourceFrame

DEFAULT_FPS = 30.0
"""Of what does not tell."""


class VideoSource:
    """Base class. `frames` may be called again, for another pass."""

    name: str
    """For titles and messages."""
    fps: float
    """Frames per second, on average; a guess where nobody knows."""
    num_frames: int | None
    """None where there is no end, or where it is not known."""
    paths: Sequence[str] = ()
    """The files that it reads, if any."""
    sound_path: str | None = None
    """The file whose sound belongs to the frames."""
    pixel_aspect: Fraction = Fraction(1)
    """Width of a pixel by its height, when it is shown."""
    live: bool = False
    """A stream or camera: frames that come faster than they are used are passed over, and there is no seeking."""

    def frames(self, start: int = 0, every: int = 1) -> Iterator[SourceFrame]:
        """The frames `start`, `start` + `every`, ... in order, in constant memory.

        Close the iterator (contextlib.closing) where it is left early. Raises VideoReadError; after the last frame
        where some in between could not be read.
        """
        raise NotImplementedError


def printable(path: str) -> str:
    """A path for titles: bytes that are no UTF-8, which Linux allows in names, are replaced."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
