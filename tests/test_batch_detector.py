"""A batch of streams whose frames do not come together."""

from __future__ import annotations

import numpy as np
import pytest
from eventful_vitdet.batch_detector import BatchDetector
from eventful_vitdet.control import build_runtime_control
from eventful_vitdet.predictor import VideoDetector, share_weights
from eventful_vitdet.structures import SourceFrame


def frame(stream: int, index: int) -> SourceFrame:
    """A frame of a stream of its own colour, with a patch that moves."""
    image = np.full((64, 96, 3), 60 + 40 * stream, np.uint8)
    image[10:30, 5 * index : 5 * index + 20] = (220, 40 * index, 90)
    return SourceFrame(index, 0, 0.0, image, f"camera {stream}")


@pytest.mark.parametrize(
    "rounds",
    [
        [[1], [0], [0, 1], [2], [1], [0, 1, 2], [2, 0]],  # each new one alone: the others had to make place for it
        [[0, 1, 2], [2], [1, 2], [0], [0, 1, 2]],
    ],
)
def test_each_stream_begins_once(tiny_cfg, tiny_model, rounds):
    cfg, model = tiny_cfg(), tiny_model()
    count = {0: 0, 1: 0, 2: 0}
    found: dict[int, list] = {0: [], 1: [], 2: []}
    own = share_weights(model)
    with BatchDetector(cfg, own, build_runtime_control(cfg, own)) as detector:
        for streams in rounds:
            results = detector.detect({stream: frame(stream, count[stream]) for stream in streams})
            for stream, result in results.items():
                count[stream] += 1
                found[stream].append((result.cost.flushed, result.cost.total_macs, result.detections.scores[:5]))
    for stream, results in found.items():
        own = share_weights(model)
        with VideoDetector(cfg, own, build_runtime_control(cfg, own)) as detector:
            for index, (flushed, macs, scores) in enumerate(results):
                expected = detector.detect(frame(stream, index))
                assert flushed == (index == 0)
                assert macs == expected.cost.total_macs
                np.testing.assert_allclose(scores, expected.detections.scores[:5], atol=1e-4)
