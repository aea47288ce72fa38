"""Masks in an annotated video and in its JSON lines."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from eventful_vitdet.draw.annotated_video import AnnotateOptions, annotate_video
from eventful_vitdet.draw.painter import FramePainter
from eventful_vitdet.masks import MaskRequest
from eventful_vitdet.predictor import VideoDetector
from pycocotools import mask as coco_mask


@pytest.fixture
def masked(demo_cfg):
    cfg = demo_cfg.clone()
    cfg.MODEL.MASK_ON, cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = True, 8
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    # Masks of a box's middle.
    model.roi_heads.mask_head.register_forward_hook(_middle)
    return cfg, model


def _middle(_module, _inputs, instances):
    for image in instances:
        image.pred_masks = torch.zeros_like(image.pred_masks)
        image.pred_masks[:, :, 7:21, 7:21] = 1
    return instances


def test_json_lines_have_the_masks_of_all_detections(masked, source, tmp_path):
    cfg, model = masked
    path = tmp_path / "out.jsonl"
    options = AnnotateOptions(save_json=str(path), max_frames=2, window=False, min_score=0.9)
    annotate_video(cfg, model, source, str(tmp_path / "out.mp4"), options)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 2 and all(line["detections"] for line in lines)
    for entry in (entry for line in lines for entry in line["detections"]):
        covered = coco_mask.decode(entry["mask"])
        assert covered.shape == (64, 96)
        x0, y0, x1, y1 = entry["box"]
        assert covered.sum() == pytest.approx((x1 - x0) * (y1 - y0) / 4, abs=(x1 - x0) + (y1 - y0) + 1)
    assert model.mask_request is None


@pytest.mark.parametrize("mask_on", [True, False])
def test_without_json_only_what_is_drawn_gets_a_mask(masked, source, tmp_path, monkeypatch, mask_on):
    cfg, model = masked
    model.roi_heads.mask_on = mask_on
    requests, infer = set(), model.inference
    monkeypatch.setattr(model, "inference", lambda *a, **k: (requests.add(model.mask_request), infer(*a, **k))[1])
    options = AnnotateOptions(max_frames=1, window=False, min_score=0.05, save_frames=(0,))
    annotate_video(cfg, model, source, str(tmp_path / "out.mp4"), options)
    assert requests == {MaskRequest(0.05)}
    assert model.roi_heads.mask_on == mask_on


def test_the_dense_model_beside_it_has_masks_too(masked, source, tmp_path):
    cfg, model = masked
    pictures = []
    for min_score in (0.0, 1.1):
        output = tmp_path / f"{min_score}.mp4"
        options = AnnotateOptions(
            side_by_side_dense=True, max_frames=1, window=False, min_score=min_score, save_frames=(0,)
        )
        annotate_video(cfg, model, source, str(output), options)
        pictures.append(cv2.imread(str(tmp_path / f"{min_score}_0.png")).astype(int))
    drawn = np.abs(pictures[0] - pictures[1]).max(axis=2) > 8
    assert drawn[:64, :96].mean() > 0.2 and drawn[:64, 100:].mean() > 0.2


def test_masks_are_drawn_on_enlarged_frames_too(masked, source):
    cfg, model = masked
    frame = next(iter(source.frames()))
    with VideoDetector(cfg, model, masks=MaskRequest()) as detector:
        result = detector.detect(frame)
    painters = [FramePainter(["x"] * 6, model.vit.gate_names, min_score=0.0, enlarge=2.0) for _ in range(2)]
    bare = replace(result, detections=replace(result.detections, masks=None))
    with_masks, without = painters[0].draw_frame(frame, result), painters[1].draw_frame(frame, bare)
    assert with_masks.shape == (128, 192, 3) and (with_masks != without).any()
