"""What frames come from, whatever kind it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

from ..errors import ConfigError
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

    def leave(self) -> None:
        """End a pass that waits for its source. For other threads; what waits for nothing ends when it is closed."""


def check_part(source: VideoSource, start: int, end: int | None, every: int) -> None:
    """Raise ConfigError for a part of a stream, which has no numbers, or for one that is empty."""
    if source.live and (start, end, every) != (0, None, 1):
        raise ConfigError(f"{source.name}: is live; a start, an end and a step are for files")
    if start < 0 or every < 1:
        raise ConfigError(f"a start is 0 or larger and a step 1 or larger, found {start} and {every}")
    if end is not None and end <= start:
        raise ConfigError(f"there is nothing from frame {start} to before frame {end}")


def printable(path: str) -> str:
    """A path for titles: bytes that are no UTF-8, which Linux allows in names, are replaced."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
