"""Where an evaluation's records go, which videos are finished, and which of the others this process runs.

All processes call these functions together and come to the same result, or raise the same error.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from detectron2.utils import comm

from ..data.coco_vid import Video
from ..data.video_shards import shard_videos
from ..errors import EvaluationError, VideoReadError
from .fingerprint import name_differences, read_fingerprint, write_fingerprint
from .provenance import digest_video
from .replacement import (
    begin_replacement,
    drop_replacement,
    has_evaluation,
    has_replacement,
    move_into_place,
    replacement_folder,
)
from .store import is_record_of, record_path, record_paths, remove_unfinished

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """One evaluation, as one of its processes sees it."""

    folder: str
    finished: frozenset
    """Ids of the videos that are done, here or on another machine."""
    share: list[dict]
    """Frames of the videos that this process runs."""


def plan_replacement(folder: str) -> None:
    """Let the next evaluation in a folder run all videos, beside what is there."""
    in_turns(lambda: move_into_place(folder))
    anything = any(comm.all_gather(has_evaluation(folder)))
    drop_replacement(folder)
    comm.synchronize()
    if anything:
        begin_replacement(folder)
    comm.synchronize()


def count_videos(folder: str) -> int:
    """The number of videos that have a record in a folder."""
    return len(record_paths(folder))


def choose_folder(
    folder: str, fingerprint: Mapping, count: Callable[[str], int] = count_videos, unit: str = "videos"
) -> str:
    """Where the records of an evaluation go: the folder itself, or its replacement if one has been begun.

    Args:
        fingerprint: what the numbers depend on.
        count: tells how many records a folder has.
        unit: what has a record.

    Raises EvaluationError, saying what differs, where the records that are there were made under another fingerprint.
    """
    in_turns(lambda: move_into_place(folder))
    places = [replacement_folder(folder), folder] if has_replacement(folder) else [folder]
    refusals: list[str] = []
    for place in places:
        refusals.append(_refuse(place, fingerprint, count(place), unit))
        if not refusals[-1]:
            break
    views = comm.all_gather((None if refusals[-1] else place, refusals[0]))
    for found, reason in views:
        if found is None:
            raise EvaluationError(reason)
    return views[0][0]


def make_plan(folder: str, videos: Sequence[Video], fingerprint: Mapping) -> Plan:
    """Find the videos that have a record in a folder and share out the rest.

    Args:
        folder: of `choose_folder`; machines may have one each.
        videos: all videos of the data set.
        fingerprint: what the numbers depend on.
    """
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


def in_turns(work: Callable[[], None]) -> None:
    """Do something in the first process, then in the first one of each other machine, which may have a disk of its own
    or see that it has been done."""
    if comm.is_main_process():
        work()
    comm.synchronize()
    if comm.get_local_rank() == 0 and not comm.is_main_process():
        work()
    comm.synchronize()


def _refuse(place: str, fingerprint: Mapping, finished: int, unit: str) -> str:
    """Why an evaluation cannot continue what is in a folder, so many finished units; "" if it can."""
    if not finished:
        return ""
    try:
        found = read_fingerprint(place)
    except EvaluationError as error:
        return str(error)
    differences = name_differences(found["fingerprint"], fingerprint)
    if not differences:
        return ""
    if found["complete"]:
        what = f"{place} holds the results of another evaluation ({finished} {unit})"
    else:
        what = f"{place} holds {finished} finished {unit} of an incomplete evaluation that this one does not continue"
    return f"{what}: {differences}. Start over with --restart, or choose another OUTPUT_DIR"


def _is_finished(folder: str, video: Video) -> bool:
    video_id = video[0]["video_id"]
    path = record_path(folder, video_id)
    if not os.path.exists(path):
        return False
    try:
        source = digest_video(video)
    except VideoReadError:  # said when the video is run
        return False
    return is_record_of(path, video_id, [frame["image_id"] for frame in video], source)
