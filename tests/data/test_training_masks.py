"""Masks to train on follow the pixels, and a model learns from them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import BoxMode
from detectron2.utils.events import EventStorage
from eventful_vitdet.data import VideoTrainMapper, build_video_train_loader, register_test_json
from eventful_vitdet.data.training_masks import check_masks
from eventful_vitdet.errors import DatasetError
from tiny_detector import make_cfg

from .conftest import HEIGHT, WIDTH, make_document, write_video

BOX = (20, 12, 36, 28)
LEFT_HALF = [20, 12, 28, 12, 28, 28, 20, 28]


def run_lengths() -> dict:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[12:28, 20:28] = 1
    changes = np.flatnonzero(np.diff(np.concatenate([[0], mask.T.ravel(), [2]])))
    return {"size": [HEIGHT, WIDTH], "counts": np.diff([0, *changes]).tolist()}


@pytest.fixture(params=["polygon", "run lengths"])
def frame(tmp_path, request) -> dict:
    """The object is the white left half of a box."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[12:28, 20:28] = 255
    segmentation = [LEFT_HALF] if request.param == "polygon" else run_lengths()
    box = {"bbox": list(BOX), "bbox_mode": BoxMode.XYXY_ABS, "category_id": 1, "segmentation": segmentation}
    crowd = {"bbox": [0, 0, 9, 9], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "iscrowd": 1}
    return {
        "file_name": str(write_video(tmp_path / "v.avi", [image])),
        "is_video_file": True,
        **{"video_id": 1, "frame_id": 0, "image_id": 10, "height": HEIGHT, "width": WIDTH},
        "annotations": [crowd, box],
    }


@pytest.fixture
def cfg(repository):
    cfg = make_cfg(repository, MODEL__ROI_HEADS__NUM_CLASSES=2)
    cfg.MODEL.MASK_ON, cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = True, 8
    cfg.INPUT.MIN_SIZE_TRAIN = (0,)
    cfg.DATALOADER.NUM_WORKERS = 0
    return cfg


@pytest.mark.parametrize("seed", range(6))
def test_masks_follow_the_pixels(cfg, frame, seed):
    np.random.seed(seed)
    cfg.INPUT.SCALE_JITTER = (0.8, 2.0)
    cfg.INPUT.CROP_PIXELS = (40, 56)
    cfg.INPUT.CHANNEL_GAIN = (0.9, 1.0)
    result = VideoTrainMapper(cfg)(frame)
    white = result["image"][0].numpy() > 127
    whole = torch.tensor([[0.0, 0.0, *white.shape[::-1]]])
    instances = result["instances"]
    if not len(instances):
        assert white.sum() < 40
        return
    side = 160
    seen = instances.gt_masks.crop_and_resize(whole, side)[0].numpy()
    rows, columns = np.arange(side) * white.shape[0] // side, np.arange(side) * white.shape[1] // side
    expected = white[np.ix_(rows, columns)]
    assert (seen != expected).mean() < 0.02 and expected.mean() > 0.02


def test_a_model_learns_masks(cfg, frame):
    torch.manual_seed(0)
    cfg.INPUT.RANDOM_FLIP = "none"
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE, cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = 16, 16
    model, batch = build_model(cfg).train(), [VideoTrainMapper(cfg)(frame)]
    optimizer = torch.optim.AdamW(model.roi_heads.mask_head.parameters(), lr=0.05)
    losses, targets = [], [item["instances"] for item in batch]
    with EventStorage():
        assert "loss_mask" in model(batch)
        with torch.no_grad():
            images = model.preprocess_image(batch)
            features = model.backbone(images.tensor)
            proposals, _ = model.proposal_generator(images, features, targets)
        for _ in range(12):
            loss = model.roi_heads(images, features, proposals, targets)[1]["loss_mask"]
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert losses[0] == pytest.approx(np.log(2), rel=0.1) and losses[-1] < 0.8 * losses[0]


def test_objects_without_a_mask_are_refused_before_training(cfg, tmp_path):
    document = make_document({1: [0, 1]})
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / document["videos"][0]["file_name"], [np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 2)
    path = tmp_path / "set.json"
    path.write_text(json.dumps(document))
    cfg.DATASETS.TRAIN = (register_test_json(str(path)),)
    with pytest.raises(DatasetError, match="has objects without a mask .* set MODEL.MASK_ON to False"):
        build_video_train_loader(cfg)


def test_the_data_set_without_masks_is_named():
    masked = [{"annotations": [{"segmentation": [LEFT_HALF]}]}]
    check_masks(["a"], [masked])
    with pytest.raises(DatasetError, match="data set 'b'"):
        check_masks(["a", "b"], [masked, [{"annotations": [{}]}]])
