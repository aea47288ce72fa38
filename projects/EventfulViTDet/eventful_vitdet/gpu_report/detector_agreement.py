"""Whether a trained detector finds the same objects on the GPU as on the CPU."""

from __future__ import annotations

import time
import traceback

import torch

from ..errors import DatasetError
from ..known_models import CHECKOUT
from .machine import NO_GPU, has_gpu, missing_packages

DETECTRON2_NEEDS = ("fvcore", "iopath", "pycocotools", "av", "cv2", "torchvision", "safetensors", "yaml")
"""What a detector imports beside PyTorch."""
DETECTORS = {
    "demo": ("configs/demo/vitdet_tiny.yaml", "weights/demo_vitdet_tiny.safetensors", 64),
    "airborne": ("configs/airborne_vid/vitdet_small.yaml", "weights/airborne_vitdet_small.safetensors", 256),
}
FRAMES = 8
SURE = 0.5
"""Score above which a detection is expected on both."""
LEAST_AGREEMENT = 0.95
"""Least share of the CPU's sure detections that the GPU has too: same class, IoU of 0.9."""


def check_detections() -> list[dict]:
    """A row for each detector; those that cannot run here have a reason."""
    rows = []
    for name, files in DETECTORS.items():
        started = time.monotonic()
        rows.append({"detector": name, **_check(*files)})
        print(f"  model: detections of {name}: {time.monotonic() - started:.0f} s", flush=True)
    return rows


def _check(config: str, weights: str, r: int) -> dict:
    reason = None if has_gpu() else NO_GPU
    reason = reason or missing_packages(*DETECTRON2_NEEDS)
    for file in (config, weights):
        if reason is None and not (CHECKOUT / file).is_file():
            reason = f"{file} is not here"
    if reason is not None:
        return {"ok": None, "reason": reason}
    try:
        return _compare(str(CHECKOUT / config), str(CHECKOUT / weights), r)
    except DatasetError as error:
        return {"ok": None, "reason": str(error)}
    except Exception as error:
        return {"ok": False, "reason": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}


def _compare(config: str, weights: str, r: int) -> dict:
    from detectron2.structures import pairwise_iou
    from eventful_vit import TopR

    from ..config_files import build_cfg
    from ..data import build_video_test_loader

    loader = build_video_test_loader(build_cfg(config), *_frames_of(build_cfg(config)))
    frames = [frame for batch, _ in zip(loader, range(FRAMES)) for frame in batch]
    found = {}
    for place in ("cpu", "cuda"):
        model = _load(config, weights, place)
        model.set_policy(TopR(r))
        with torch.no_grad():
            found[place] = [model([frame])[0]["instances"].to("cpu") for frame in frames]
    sure = matched = 0
    for ours, theirs in zip(found["cuda"], found["cpu"]):
        theirs = theirs[theirs.scores > SURE]
        alike = pairwise_iou(theirs.pred_boxes, ours.pred_boxes) > 0.9
        alike &= theirs.pred_classes[:, None] == ours.pred_classes[None]
        sure += len(theirs)
        matched += int(alike.any(dim=1).sum())
    if not sure:
        return {"ok": None, "reason": f"the CPU's path is sure of nothing in {len(frames)} frames"}
    share = matched / sure
    return {"ok": share >= LEAST_AGREEMENT, "reason": None, "agreement": share, "detections": sure}


def _frames_of(cfg) -> tuple[str, list[dict]]:
    """The first test data set's name, and the frames of its first video. The demo's videos are rendered if need be."""
    from detectron2.data import DatasetCatalog

    from ..cli.checkout import render_demo_videos
    from ..data.coco_vid import group_by_video

    (name, *_) = cfg.DATASETS.TEST
    if name.startswith("demo"):
        render_demo_videos()
    return name, group_by_video(DatasetCatalog.get(name))[0]


def _load(config: str, weights: str, place: str):
    from detectron2.modeling import build_model

    from .. import modeling  # noqa: F401  (registers the detector)
    from ..checkpoint import VideoCheckpointer
    from ..config_files import build_cfg

    cfg = build_cfg(config, ["MODEL.DEVICE", place])
    model = build_model(cfg).eval()
    VideoCheckpointer(model, weights_set=cfg.MODEL.WEIGHTS_SET).load(weights)
    return model
