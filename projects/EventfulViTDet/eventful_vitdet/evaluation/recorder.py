"""Collecting the frames of running videos until a video is complete."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from eventful_vit.cost import CATEGORIES

from ..structures import FrameCost
from .detection_table import DetectionTable, tabulate_output
from .store import VideoRecord


@dataclass
class RunningVideo:
    """The frames of one video so far."""

    image_ids: list[int] = field(default_factory=list)
    costs: list[FrameCost] = field(default_factory=list)
    tables: list[DetectionTable] = field(default_factory=list)

    def add(self, image_id: int, table: DetectionTable, cost: FrameCost) -> None:
        self.image_ids.append(image_id)
        self.tables.append(table)
        self.costs.append(cost)

    def finish(self, video_id: int | str) -> VideoRecord:
        macs = [[cost.macs.get(category, 0) for category in CATEGORIES] for cost in self.costs]
        return VideoRecord(
            video_id=video_id,
            image_ids=np.array(self.image_ids, np.int64),
            flushed=np.array([cost.flushed for cost in self.costs], bool),
            macs=np.array(macs, np.int64),
            backbone_seconds=np.array([cost.backbone_seconds for cost in self.costs]),
            total_seconds=np.array([cost.total_seconds for cost in self.costs]),
            detections=DetectionTable.join(self.tables),
        )


class VideoRecorder:
    """Takes in frames of several videos at a time and hands out a record of each that is complete.

    Memory is that of the running videos.
    """

    def __init__(self, lengths: Mapping[int | str, int], num_classes: int, dataset_name: str) -> None:
        """
        Args:
            lengths: number of frames of each video that will come.
            num_classes: of the data set.
            dataset_name: for messages.
        """
        self._lengths = lengths
        self._num_classes = num_classes
        self._dataset_name = dataset_name
        self._running: dict[int | str, RunningVideo] = {}

    def add(self, model_input: dict, output: dict, cost: FrameCost) -> VideoRecord | None:
        """Take in the next frame of a video; returns its record if this was its last one.

        Raises DetectionError for detections that are not finite, EvaluationError for an unknown class.
        """
        video_id = model_input["video_id"]
        table = tabulate_output(model_input, output, self._num_classes, self._dataset_name)
        video = self._running.setdefault(video_id, RunningVideo())
        video.add(model_input["image_id"], table, cost)
        if len(video.image_ids) < self._lengths[video_id]:
            return None
        return self._running.pop(video_id).finish(video_id)

    def discard(self, video_ids: Collection[int | str]) -> None:
        """Forget what came of videos that are not to be finished."""
        for video_id in self._running.keys() & set(video_ids):
            del self._running[video_id]
