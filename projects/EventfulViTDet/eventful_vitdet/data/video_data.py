"""What loading a data set gives: frames, classes, and the videos that cannot be used."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import ConfigError, DatasetError

STOP, SKIP = ON_BAD_VIDEO = ("stop", "skip")
"""Values of TEST.ON_BAD_VIDEO and DATALOADER.ON_BAD_VIDEO."""
MAX_NAMED = 10

logger = logging.getLogger(__name__)


class Defect(NamedTuple):
    """A file that cannot be used; `reason` names it and stands alone."""

    file_name: str
    reason: str


@dataclass(frozen=True)
class BadVideo:
    """A video that cannot be used, and its defects, at least one."""

    video_id: int
    name: str
    defects: tuple[Defect, ...]

    @property
    def file_name(self) -> str:
        """The file of the first defect."""
        return self.defects[0].file_name

    @property
    def reason(self) -> str:
        """The first defect, and how many there are."""
        more = len(self.defects) - 1
        return self.defects[0].reason + (f" (and {more} more defects of this video)" if more else "")


@dataclass(frozen=True)
class VideoData:
    """A validated data set.

    `classes[i]` is the name of contiguous class i, `category_ids[i]` its id in the files. `frames` holds one dict per
    listed frame, ordered by video (as listed), then by frame number; frames of the `bad_videos` are among them.
    `video_names` tells the name of every listed video, one without frames too. `other_classes` counts, by name, objects
    that were left out because the data set does not have their class.
    """

    classes: list[str]
    category_ids: list[int]
    frames: list[dict]
    video_names: dict[int, str]
    bad_videos: list[BadVideo] = field(default_factory=list)
    other_classes: dict[str, int] = field(default_factory=dict)


def check_on_bad_video(value: str, key: str) -> None:
    """Raise ConfigError unless a configuration key has one of the values of ON_BAD_VIDEO."""
    if value not in ON_BAD_VIDEO:
        raise ConfigError(f"{key} must be 'stop' or 'skip', found {value!r}")


def refuse_bad_videos(origin: str, bad_videos: list[BadVideo]) -> None:
    """Raise DatasetError, naming up to ten reasons, if there are bad videos in what `origin` lists."""
    if not bad_videos:
        return
    reasons = "; ".join(bad.reason for bad in bad_videos[:MAX_NAMED])
    more = f"; and {len(bad_videos) - MAX_NAMED} more" if len(bad_videos) > MAX_NAMED else ""
    raise DatasetError(
        f"{origin}: {len(bad_videos)} of its videos cannot be used (tools/check_dataset.py lists them all; TEST."
        f"ON_BAD_VIDEO skip, in training DATALOADER.ON_BAD_VIDEO skip, leaves them out): {reasons}{more}"
    )


def drop_bad_videos(origin: str, frames: list[dict], bad_videos: list[BadVideo]) -> list[dict]:
    """The frames of all other videos; every bad video has a line in the log. Raises DatasetError if none is left."""
    for bad in bad_videos:
        logger.warning("%s: skipping video %s: %s", origin, bad.name, bad.reason)
    unusable = {bad.video_id for bad in bad_videos}
    kept = [frame for frame in frames if frame["video_id"] not in unusable] if unusable else frames
    if not kept:
        named = f", the first because of: {bad_videos[0].reason}" if bad_videos else ""
        raise DatasetError(f"{origin}: not one video can be used{named}")
    return kept
