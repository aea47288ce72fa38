"""videos.csv: one row for each evaluated video."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields

from eventful_vit.cost import BACKBONE_CATEGORIES, CATEGORIES

from ..files import write_atomically
from ..structures import MACS_PER_GFLOP
from .coco_metrics import compute_table_metrics
from .metrics import VID_AP50, compute_vid_ap50
from .store import VideoRecord
from .targets import has_objects

BACKBONE_COLUMNS = [CATEGORIES.index(category) for category in BACKBONE_CATEGORIES]


@dataclass(frozen=True)
class VideoRow:
    """A finished video in numbers; percent, 10^9 MACs and milliseconds are means over its frames."""

    video: str
    video_id: int | str
    frames: int
    flushes: int
    AP25: float | None
    AP50: float | None
    VID_AP50: float | None
    backbone_gflops: float
    total_gflops: float
    backbone_ms: float
    total_ms: float
    detections: int
    machine: str
    """What the milliseconds were measured on."""


def make_row(
    record: VideoRecord,
    name: str,
    frames: Sequence[dict],
    classes: Sequence[str],
    category_ids: Sequence[int],
    *,
    score_threshold: float,
    max_detections: int,
) -> VideoRow:
    """Evaluate one video by itself. AP25 and AP50 are COCO's; all APs are None without an object that counts."""
    ap25 = ap50 = vid_ap50 = None
    if has_objects(frames):
        thresholds = {"score_threshold": score_threshold, "max_detections": max_detections}
        found = compute_table_metrics(frames, classes, category_ids, record.detections, **thresholds)
        ap25, ap50 = found["AP25"], found["AP50"]
        vid_ap50 = compute_vid_ap50(frames, classes, record.detections)[VID_AP50]
    return VideoRow(
        video=name,
        video_id=record.video_id,
        frames=len(record),
        flushes=int(record.flushed.sum()),
        AP25=ap25,
        AP50=ap50,
        VID_AP50=vid_ap50,
        backbone_gflops=int(record.macs[:, BACKBONE_COLUMNS].sum()) / len(record) / MACS_PER_GFLOP,
        total_gflops=int(record.macs.sum()) / len(record) / MACS_PER_GFLOP,
        backbone_ms=1000 * float(record.backbone_seconds.mean()),
        total_ms=1000 * float(record.total_seconds.mean()),
        detections=len(record.detections),
        machine=record.machine,
    )


def write_rows(path: str, rows: Iterable[VideoRow]) -> None:
    """Write rows as CSV, with a header; an undefined value is an empty field."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(column.name.replace("VID_", "VID-") for column in fields(VideoRow))
    writer.writerows(astuple(row) for row in rows)
    write_atomically(path, text.getvalue())
