from __future__ import annotations

import numpy as np
from eventful_vitdet.costs import CostSums
from eventful_vitdet.evaluation import DetectionTable, VideoRecord
from eventful_vitdet.evaluation.recorder import RunningVideo
from eventful_vitdet.structures import FrameCost


def record(*costs: FrameCost, video: int = 1) -> VideoRecord:
    running = RunningVideo()
    for image, cost in enumerate(costs):
        running.add(image, DetectionTable.empty(), cost)
    return running.finish(video)


def cost(flushed: bool, **macs: int) -> FrameCost:
    return FrameCost(flushed, macs, 1.0, 3.0)


def add(sums: CostSums, record: VideoRecord) -> None:
    sums.add_video(record.flushed, record.macs, record.backbone_seconds, record.total_seconds)


def test_backbone_is_position_encoding_and_blocks():
    sums = CostSums()
    add(
        sums, record(cost(True, linear=5, gate=0, embedding=100, heads=1000), cost(False, linear=2, gate=1, heads=1101))
    )
    gflops = sums.gflops_per_frame()
    assert (gflops["backbone"]["flush"], gflops["backbone"]["later"]) == (5e-9, 3e-9)
    assert (gflops["total"]["flush"], gflops["total"]["later"]) == (1105e-9, 1104e-9)
    assert gflops["backbone"]["by_category"] == {
        "linear": 3.5e-9,
        "bias": 0,
        "matmul": 0,
        "position": 0,
        "add": 0,
        "gate": 0.5e-9,
        "accumulator": 0,
    }
    assert gflops["total"]["by_category"]["heads"] == 2101 / 2 / 1e9
    assert sums.seconds_per_frame() == {"backbone": 1.0, "total": 3.0}


def test_sums_are_integers_divided_at_the_end():
    sums = CostSums()
    # An addition in floating point would lose the 1, one in 64 bits would wrap.
    large = record(*[cost(False, linear=2**62 + 1)] * 3)
    add(sums, large)
    add(sums, large)
    assert sums.macs[False]["linear"] == 6 * (2**62 + 1)


def test_order_does_not_matter():
    records = [record(*(cost(i == 0, linear=v * 10 + i) for i in range(4)), video=v) for v in (1, 2, 3)]
    forward, backward = CostSums(), CostSums()
    for one, other in zip(records, reversed(records)):
        add(forward, one)
        add(backward, other)
    assert forward == backward and forward.videos == 3 and forward.num_frames == 12


def test_single_frame_has_no_later_frames():
    sums = CostSums()
    add(sums, record(cost(True, linear=5)))
    assert sums.gflops_per_frame()["backbone"]["later"] is None
    assert CostSums().seconds_per_frame() == {"backbone": None, "total": None}


def test_frames_one_by_one_and_a_finished_video_are_summed_alike():
    costs = [cost(True, linear=7, heads=1), cost(False, linear=2)]
    whole, frames = CostSums(), CostSums()
    add(whole, record(*costs))
    for one in costs:
        frames.add_frame(one)
    assert frames.gflops_per_frame() == whole.gflops_per_frame()
    assert frames.seconds_per_frame() == whole.seconds_per_frame()
    assert (costs[0].total_gflops, costs[0].backbone_gflops) == (8e-9, 7e-9)


def test_frames_since_flush():
    flushes = [True, False, False, True, False, True]
    found = record(*(cost(flushed) for flushed in flushes)).frames_since_flush()
    np.testing.assert_array_equal(found, [0, 1, 2, 0, 1, 0])
