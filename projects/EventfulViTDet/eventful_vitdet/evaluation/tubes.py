"""Tubes: objects over whole videos, as they are annotated and as the tracker links them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from detectron2.structures import BoxMode

from ..data.coco_vid import NO_TRACK, Video, identity_of
from ..data.segmentations import as_run_lengths
from ..errors import EvaluationError
from .coco_metrics import BOXES, MASKS, keep_best, rectangle
from .detection_table import DetectionTable
from .ground_truth import corners
from .tube_linking import link_frames


@dataclass(frozen=True)
class Tube:
    """An object in F frames of one video."""

    video: int
    """Position of its video among the evaluated ones."""
    label: int
    """Contiguous class."""
    frames: np.ndarray
    """(F,) int64: positions in the video, ascending."""
    boxes: np.ndarray
    """(F, 4) float64: x0, y0, x1, y1 in pixels."""
    masks: list[dict] | None = None
    """F compressed run lengths as COCO has them; None where masks are not compared."""
    score: float = 1.0
    areas: np.ndarray | None = None
    """(F,) square pixels as annotated; None for those of its regions."""
    crowd: bool = False

    def select(self, rows: Sequence[int]) -> Tube:
        """Some of its frames."""
        columns = {"frames": self.frames[rows], "boxes": self.boxes[rows]}
        columns["masks"] = None if self.masks is None else [self.masks[row] for row in rows]
        return replace(self, **columns, areas=None if self.areas is None else self.areas[rows])

    def regions(self, kind: str) -> np.ndarray | list[dict]:
        """What is compared: boxes (F, 4) as x, y, width, height, or masks."""
        if kind == MASKS:
            return self.masks
        return np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1)


def check_identities(name: str, frames: Iterable[dict]) -> None:
    """Raise EvaluationError where an object of a data set, no crowd, has no identity, so that it cannot be a tube."""
    for frame in frames:
        for annotation in frame["annotations"]:
            if not annotation.get("iscrowd", 0) and identity_of(annotation) == NO_TRACK:
                raise EvaluationError(
                    f"data set '{name}' has objects without an identity (instance_id), the first in frame "
                    f"{frame['frame_id']} of video {frame['video_id']}: TEST.TUBE_AP must be False for it"
                )


def annotated_tubes(videos: Sequence[Video], kind: str = BOXES) -> list[Tube]:
    """The objects of the annotations: boxes of one video with the same `instance_id` and class."""
    return [tube for number, video in enumerate(videos) for tube in _tubes_of_video(number, video, kind)]


def _tubes_of_video(number: int, video: Video, kind: str) -> Iterator[Tube]:
    parts: dict[tuple, list[tuple[int, dict]]] = defaultdict(list)
    for position, frame in enumerate(video):
        again: Counter = Counter()  # an identity that a frame has twice is two objects
        for annotation in frame["annotations"]:
            name = (identity_of(annotation), annotation["category_id"])
            parts[(*name, again[name])].append((position, annotation))
            again[name] += 1
    for (_, label, _), shown in parts.items():
        boxes = np.array([corners(annotation) for _, annotation in shown], np.float64)
        yield Tube(
            number,
            label,
            np.array([position for position, _ in shown], np.int64),
            boxes,
            [_mask(annotation, video[position]) for position, annotation in shown] if kind == MASKS else None,
            areas=np.array([annotation["area"] for _, annotation in shown], np.float64)
            if all("area" in annotation for _, annotation in shown)
            else None,
            crowd=any(annotation.get("iscrowd", 0) for _, annotation in shown),
        )


def _mask(annotation: dict, frame: dict) -> dict:
    """Run lengths; those of the box for a crowd without a mask."""
    box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYWH_ABS)
    return as_run_lengths(annotation.get("segmentation", rectangle(box)), frame["height"], frame["width"])


def linked_tubes(
    videos: Sequence[Video],
    detections: DetectionTable,
    min_score: float,
    *,
    score_threshold: float,
    max_detections: int,
) -> list[Tube]:
    """The tubes that the tracker makes of those detections that COCO's figures are made from, by falling score.

    The score of a tube is the mean of its detections', its class the one with the largest sum of scores. `min_score` is
    that of `link_frames`.
    Raises MissingPackageError without the tracker.
    """
    table = keep_best(detections, score_threshold, max_detections)
    tubes = [tube for number, video in enumerate(videos) for tube in _linked(number, video, table, min_score)]
    return sorted(tubes, key=lambda tube: -tube.score)


def _linked(number: int, video: Video, table: DetectionTable, min_score: float) -> Iterator[Tube]:
    image_ids = [frame["image_id"] for frame in video]
    starts = np.searchsorted(table.image_ids, image_ids, "left")
    ends = np.searchsorted(table.image_ids, image_ids, "right")
    frames = [np.arange(start, end) for start, end in zip(starts, ends)]
    for members in link_frames(table, frames, min_score):
        positions, rows = (np.array(column, np.int64) for column in zip(*members))
        part = table.select(rows)
        scores = part.scores.astype(np.float64)
        yield Tube(
            number,
            int(np.bincount(part.classes, weights=scores).argmax()),
            positions,
            part.boxes.astype(np.float64),
            None if part.masks is None else [mask and mask.as_coco() for mask in part.masks],
            float(scores.mean()),
        )
