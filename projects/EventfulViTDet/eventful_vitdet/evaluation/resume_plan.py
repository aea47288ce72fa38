"""Which videos are finished, and which of the others this process runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from detectron2.utils import comm

from ..data.coco_vid import Video
from ..data.video_shards import shard_videos
from .fingerprint import is_outdated, remove_fingerprint, write_fingerprint
from .store import is_record_of, record_path, record_paths, remove_records, remove_unfinished

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """One evaluation, as one of its processes sees it."""

    folder: str
    finished: frozenset
    """Ids of the videos that are done, here or on another machine."""
    share: list[dict]
    """Frames of the videos that this process runs."""


def make_plan(folder: str, videos: list[Video], fingerprint: Mapping, *, restart: bool) -> Plan:
    """Find what earlier runs have finished and share out the rest; all processes call this together.

    Args:
        folder: where the results lie; machines may have one each.
        videos: all videos of the data set.
        fingerprint: what the numbers depend on.
        restart: forget what is there.

    A complete evaluation under another fingerprint is replaced. Raises EvaluationError if there is an incomplete one.
    """
    outdated = not restart and is_outdated(folder, fingerprint, len(record_paths(folder)))
    # All look before anybody removes something, and nobody goes on before it is gone.
    if restart or any(comm.all_gather(outdated)):
        remove_records(folder)
        remove_fingerprint(folder)
    remove_unfinished(folder)
    comm.synchronize()
    here = [video[0]["video_id"] for video in videos if _is_finished(folder, video)]
    finished = frozenset().union(*comm.all_gather(here))
    write_fingerprint(folder, fingerprint, complete=False)
    missing = [frame for video in videos if video[0]["video_id"] not in finished for frame in video]
    if finished and comm.is_main_process():
        left = len(videos) - len(finished)
        logger.info("%s: %d of %d videos are finished; %d to go", folder, len(finished), len(videos), left)
    return Plan(folder, finished, shard_videos(missing, comm.get_world_size(), comm.get_rank()))


def _is_finished(folder: str, video: Video) -> bool:
    video_id = video[0]["video_id"]
    return is_record_of(record_path(folder, video_id), video_id, [frame["image_id"] for frame in video])
