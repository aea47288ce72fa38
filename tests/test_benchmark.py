"""The benchmark's bookkeeping, on a model of a few milliseconds; times themselves are not tested."""

import json

import torch
from eventful_vitdet.benchmark import benchmark, format_benchmark, moving_video, peak_memory
from eventful_vitdet.command_line import build_cfg

OPTIONS = {
    "MODEL.DEVICE": "cpu",
    "MODEL.VIT.IMG_SIZE": 96,
    "MODEL.VIT.EMBED_DIM": 24,
    "MODEL.VIT.DEPTH": 2,
    "MODEL.VIT.NUM_HEADS": 2,
    "MODEL.VIT.WINDOW_SIZE": 3,
    "MODEL.VIT.WINDOW_BLOCKS": [0],
    "MODEL.SIMPLE_PYRAMID.OUT_CHANNELS": 16,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 20,
    "MODEL.ROI_BOX_HEAD.CONV_DIM": 16,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
}


def test_rows_and_ratios(repository):
    options = [item for pair in OPTIONS.items() for item in pair]
    cfg = build_cfg(str(repository / "configs" / "Base-ViTDet.yaml"), options)
    result = benchmark(cfg, budgets=[4, 12], rounds=2)
    dense, few, more = result["rows"]
    assert [line["variant"] for line in result["rows"]] == ["dense", "r = 4", "r = 12"]
    assert few["backbone_gmacs"] < more["backbone_gmacs"] < dense["backbone_gmacs"] < dense["total_gmacs"]
    assert dense["backbone_saving"] == dense["backbone_speedup"] == 1
    assert few["backbone_saving"] == dense["backbone_gmacs"] / few["backbone_gmacs"]
    assert all(0 < line["backbone_seconds"] < line["total_seconds"] for line in result["rows"])
    json.dumps(result, allow_nan=False)
    text = format_benchmark(result)
    assert text.count("\n") == 2 + 1 + 3 and "r = 12" in text


def test_moving_video_is_one_sequence_that_changes_in_part():
    video = moving_video(96)
    first, second = next(video), next(video)
    changed = (first["image"] != second["image"]).float().mean()
    assert 0 < changed < 0.2
    assert (first["video_id"], second["frame_id"] - first["frame_id"]) == (second["video_id"], 1)


def test_peak_memory_sees_a_large_tensor():
    with peak_memory(torch.device("cpu")) as peak:
        torch.ones(64, 1024, 1024).add_(1)  # 256 MiB
    assert peak[0] is None or 200 < peak[0] < 400
