"""One pass over the records of all videos: costs and agreement of each, timelines of some, the worst frames.

Only one video's records are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import ReportError
from ..evaluation.store import VideoRecord, read_record
from ..structures import MACS_PER_GFLOP
from .disagreement import FrameDifference, compare_frames
from .evaluation_folder import Budget, as_number

VIDEO_MEASURES = ("AP50", "AP25")
"""Columns of the tables of videos that the report shows; the first is what it shows first."""
CANDIDATES_PER_VIDEO = 3
SPACING = 10
"""Frames between two candidates of a video: its neighbours show the same disagreement."""


@dataclass(frozen=True)
class Timeline:
    """Costs of every frame of a video at one budget, (F,) each."""

    gflops: np.ndarray
    milliseconds: np.ndarray
    flushed: np.ndarray


@dataclass(frozen=True)
class Candidate:
    """A frame that the dense and the eventful detector can be compared in."""

    video_id: int | str
    position: int
    """Index of the frame in its video."""
    difference: FrameDifference


@dataclass
class VideoSummary:
    """A video at all budgets; the dicts are by policy and lack what was not recorded."""

    video_id: int | str
    frames: int = 0
    gflops: dict[str, float] = field(default_factory=dict)
    """Mean per frame, everything that it ran."""
    milliseconds: dict[str, float] = field(default_factory=dict)
    quality: dict[str, dict[str, float]] = field(default_factory=dict)
    """By column of the evaluation's table of videos: percent."""
    shared: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Strong detections found in both runs, and all of them; without the dense run itself."""
    timelines: dict[str, Timeline] = field(default_factory=dict)
    candidates: dict[str, list[Candidate]] = field(default_factory=dict)
    middles: dict[str, Candidate] = field(default_factory=dict)
    """The frame in the middle of the video, whatever is seen in it."""

    def agreement(self, policy: str) -> float | None:
        """Percent of the strong detections that both runs have; None without any."""
        shared, strong = self.shared.get(policy, (0, 0))
        return 100 * shared / strong if strong else None


def summarise_videos(budgets: Sequence[Budget], wanted: Sequence[int | str], limit: int) -> list[VideoSummary]:
    """Read every record once.

    Args:
        budgets: evaluations of the same videos.
        wanted: ids of the videos to keep timelines of; if empty, the first ones.
        limit: how many first ones.

    Raises ReportError if a wanted video is not there, EvaluationError if a record is damaged.
    """
    names = list(dict.fromkeys(name for budget in budgets for name in budget.records))
    summaries = []
    for position, name in enumerate(names):
        records = {b.policy: read_record(b.records[name]) for b in budgets if name in b.records}
        summary = _summarise(records, next((b.policy for b in budgets if b.is_dense), None))
        summary.quality = {column: _percent(budgets, summary.video_id, column) for column in VIDEO_MEASURES}
        if str(summary.video_id) in map(str, wanted) if wanted else position < limit:
            summary.timelines = {policy: _timeline(record) for policy, record in records.items()}
        summaries.append(summary)
    missing = [video for video in wanted if str(video) not in {str(summary.video_id) for summary in summaries}]
    if missing:
        raise ReportError(f"no video has the id {missing[0]}; there are {', '.join(_some_ids(summaries))}")
    return summaries


def _percent(budgets: Sequence[Budget], video_id: int | str, column: str) -> dict[str, float]:
    """A column of the tables of videos, by policy."""
    found = {}
    for budget in budgets:
        try:
            value = as_number(float(budget.video_rows[str(video_id)][column]))
        except (KeyError, TypeError, ValueError):  # no such video, no such column, or nothing to measure in it
            continue
        if value is not None:
            found[budget.policy] = value
    return found


def _some_ids(summaries: Sequence[VideoSummary], most: int = 10) -> Iterator[str]:
    yield from (str(summary.video_id) for summary in summaries[:most])
    if len(summaries) > most:
        yield f"... ({len(summaries)} in all)"
    if not summaries:
        yield "no records of videos in this folder"


def _summarise(records: dict[str, VideoRecord], dense_policy: str | None) -> VideoSummary:
    first = next(iter(records.values()))
    summary = VideoSummary(first.video_id, len(first.image_ids))
    dense = records.get(dense_policy) if dense_policy else None
    one_machine = len({record.machine for record in records.values()}) == 1  # times of several are not compared
    for policy, record in records.items():
        timeline = _timeline(record)
        if len(record.image_ids):
            summary.gflops[policy] = float(timeline.gflops.mean())
            if one_machine:
                summary.milliseconds[policy] = float(timeline.milliseconds.mean())
        if dense is not None and record is not dense:
            _compare(summary, policy, dense, record)
    return summary


def _compare(summary: VideoSummary, policy: str, dense: VideoRecord, record: VideoRecord) -> None:
    both = dense.image_ids[np.isin(dense.image_ids, record.image_ids)]
    differences = list(compare_frames(both, dense.detections, record.detections))
    summary.shared[policy] = (sum(d.shared for d in differences), sum(d.strong for d in differences))
    if differences:
        middle = len(differences) // 2
        summary.middles[policy] = Candidate(summary.video_id, middle, differences[middle])
    chosen: list[Candidate] = []
    # The largest first, of equal ones the earlier.
    for position in sorted(range(len(differences)), key=lambda i: (-differences[i].size, i)):
        if differences[position].size == 0 or len(chosen) == CANDIDATES_PER_VIDEO:
            break
        if all(abs(position - other.position) >= SPACING for other in chosen):
            chosen.append(Candidate(summary.video_id, position, differences[position]))
    summary.candidates[policy] = chosen


def _timeline(record: VideoRecord) -> Timeline:
    return Timeline(
        gflops=record.macs.sum(axis=1) / MACS_PER_GFLOP,
        milliseconds=1000 * record.total_seconds,
        flushed=record.flushed,
    )


def largest_disagreements(summaries: Sequence[VideoSummary], policy: str, count: int) -> list[Candidate]:
    """The frames that differ most between the dense run and this one, the largest first."""
    candidates = [candidate for summary in summaries for candidate in summary.candidates.get(policy, [])]
    return sorted(candidates, key=lambda c: (-c.difference.size, str(c.video_id), c.position))[:count]
