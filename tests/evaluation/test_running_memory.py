"""While an evaluation runs, memory holds the running videos and no finished ones."""

from __future__ import annotations

import tracemalloc

import pytest
import torch
from detectron2.structures import Boxes, Instances
from eventful_vitdet.evaluation import evaluate_once, run

from .conftest import OracleDetector, make_document

VIDEOS, FRAMES, DETECTIONS = 40, 8, 300
BYTES = 32
"""Of a detection in a table."""


class Eager(OracleDetector):
    """As many detections in every frame as an evaluation keeps."""

    def detect(self, frame):
        found = Instances((frame["height"], frame["width"]))
        corners = torch.rand(DETECTIONS, 2) * 20
        found.pred_boxes = Boxes(torch.cat([corners, corners + 10], 1))
        found.scores = torch.rand(DETECTIONS)
        found.pred_classes = torch.randint(0, 2, (DETECTIONS,))
        return found


def test_finished_videos_are_on_the_disk_alone(cfg, write_dataset, monkeypatch):
    document = make_document(dict.fromkeys(range(1, VIDEOS + 1), FRAMES))
    document["annotations"] = document["annotations"][:FRAMES]  # those of later videos would leave the picture
    cfg.DATASETS.TEST = (write_dataset(document, "many")[0],)
    used = []

    def write_and_look(folder, record):
        assert len(record.detections) == FRAMES * DETECTIONS
        used.append(tracemalloc.get_traced_memory()[0])
        if len(used) == VIDEOS:
            raise KeyboardInterrupt  # results are another matter
        return write_record(folder, record)

    write_record = run.write_record
    monkeypatch.setattr(run, "write_record", write_and_look)
    tracemalloc.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            evaluate_once(cfg, Eager())
    finally:
        tracemalloc.stop()
    assert len(used) == VIDEOS
    grown, written = used[-1] - used[9], (VIDEOS - 10) * FRAMES * DETECTIONS * BYTES
    assert grown < 0.1 * written
