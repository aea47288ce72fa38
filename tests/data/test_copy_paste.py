"""Objects carried to other frames: where they come from and go, and what is left of their background."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.structures import BoxMode
from eventful_vitdet.config import add_eventful_vitdet_config
from eventful_vitdet.data import VideoTrainMapper
from eventful_vitdet.data.copy_paste import CopyPaste, blend, cut_out, erase
from eventful_vitdet.data.mapper import check_copy_paste
from eventful_vitdet.errors import ConfigError

HEIGHT, WIDTH = 96, 128
SKY = {0: 60, 1: 180}
"""Grey level of each video's background."""


def frame(video: int, box: tuple | None, label: int = 0, size=(HEIGHT, WIDTH)) -> dict:
    annotations = []
    if box is not None:
        annotations = [{"bbox": list(box), "bbox_mode": BoxMode.XYWH_ABS, "category_id": label, "iscrowd": 0}]
    return {
        **{"file_name": f"{video}.avi", "video_id": video, "frame_id": 0, "image_id": video},
        **{"height": size[0], "width": size[1], "is_video_file": True, "annotations": annotations},
    }


def picture(of: dict) -> np.ndarray:
    """A sky with a white object that fills the middle of its box."""
    image = np.full((of["height"], of["width"], 3), SKY[of["video_id"] % 2], np.uint8)
    for annotation in of["annotations"]:
        x, y, width, height = annotation["bbox"]
        image[y + height // 4 : y + height - height // 4, x + width // 4 : x + width - width // 4] = 255
    return image


def bright(image: np.ndarray) -> np.ndarray:
    return (image[..., 0].astype(int) > 215).nonzero()


def test_an_object_of_another_video_comes_without_its_background():
    target, donor = frame(1, None), frame(0, (40, 30, 24, 20), label=2)
    carry = CopyPaste([[target], [donor]], picture, 1.0)
    np.random.seed(0)
    places = set()
    for _ in range(20):
        before = picture(target)
        image, annotations = carry(target, before)
        assert (before == picture(target)).all() and not target["annotations"]  # what was handed in
        assert 1 <= len(annotations) <= 2
        for annotation in annotations:
            assert annotation["category_id"] == 2 and annotation["bbox_mode"] == BoxMode.XYWH_ABS
            x, y, width, height = annotation["bbox"]
            assert 0 <= x and 0 <= y and x + width <= WIDTH and y + height <= HEIGHT
            assert width / height == pytest.approx(24 / 20, rel=0.15)
            places.add((round(x), round(y)))
        rows, columns = bright(image)
        assert len(rows)
        inside = np.zeros(len(rows), bool)
        for x, y, width, height in (annotation["bbox"] for annotation in annotations):
            inside |= (columns >= x) & (columns <= x + width) & (rows >= y) & (rows <= y + height)
        assert inside.all()
        # The darker sky that the object was in is left in mixed pixels at its edge only.
        near = cv2.dilate((image[..., 0] > 215).astype(np.uint8), np.ones((7, 7))) > 0
        assert image[~near].min() >= SKY[1] - 2
    assert len(places) > 10


def test_an_image_keeps_its_own_object_or_shows_the_other_in_its_place():
    target, donor = frame(1, (8, 8, 20, 20)), frame(0, (40, 30, 24, 20), label=2)
    carry = CopyPaste([[target, donor]], picture, 1.0)
    np.random.seed(1)
    found = [carry(target, picture(target)) for _ in range(60)]
    erased = [(image, labels) for image, labels in found if target["annotations"][0] not in labels]
    kept = [labels for _, labels in found if target["annotations"][0] in labels]
    assert len(erased) > 10 and len(kept) > 10
    for image, labels in erased:
        assert labels
        x, y, width, height = target["annotations"][0]["bbox"]
        others = [label["bbox"] for label in labels]
        if all(not (ox < x + width and oy < y + height) for ox, oy, _, _ in others):
            assert image[y : y + height, x : x + width].max() < 200  # sky


def test_objects_never_cover_each_other():
    target, donor = frame(1, (30, 20, 70, 60)), frame(0, (40, 30, 40, 30), label=2)
    carry = CopyPaste([[target, donor]], picture, 1.0)
    np.random.seed(2)
    for _ in range(30):
        boxes = [annotation["bbox"] for annotation in carry(target, picture(target))[1]]
        for i, (ax, ay, aw, ah) in enumerate(boxes):
            for bx, by, bw, bh in boxes[i + 1 :]:
                assert ax + aw <= bx or bx + bw <= ax or ay + ah <= by or by + bh <= ay


def test_frames_of_another_size_give_nothing():
    target, donor = frame(1, None), frame(0, (40, 30, 24, 20), size=(48, 64))
    image, annotations = CopyPaste([[target, donor]], picture, 1.0)(target, picture(target))
    assert not annotations and (image == picture(target)).all()


def test_uneven_surroundings_stay_where_they_are():
    rng = np.random.default_rng(0)
    forest = rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    patch, _ = cut_out(forest, (40, 30, 24, 20))
    assert blend(np.zeros((HEIGHT, WIDTH, 3), np.uint8), patch, 0, 0) is None
    assert erase(forest, (40, 30, 24, 20)) is None


def test_objects_at_the_edge_and_tiny_ones():
    rng = np.random.default_rng(0)
    for box in ((0, 0, 3, 3), (WIDTH - 4, HEIGHT - 4, 4, 4), (0.5, 90.2, 30.1, 5.8), (5, 5, 0.4, 0.4)):
        donor, target = frame(0, None), frame(1, None)
        donor["annotations"] = [{"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "iscrowd": 0}]
        sky = np.full((HEIGHT, WIDTH, 3), 90, np.uint8) + rng.integers(0, 3, (HEIGHT, WIDTH, 3), np.uint8)
        carry = CopyPaste([[donor, target]], lambda _, sky=sky: sky, 1.0)
        for _ in range(20):
            image, _ = carry(target, sky)
            assert image.shape == sky.shape and image.dtype == np.uint8
        assert erase(sky, box) is not None


def test_the_mapper_augments_what_was_carried():
    cfg = get_cfg()
    add_eventful_vitdet_config(cfg)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = (0,), "none"
    target, donor = frame(1, None), frame(0, (40, 30, 24, 20), label=2)
    mapper = VideoTrainMapper(cfg)
    mapper._read = picture
    mapper.copy_paste = CopyPaste([[target, donor]], picture, 1.0)
    np.random.seed(3)
    result = mapper(target)
    assert result["instances"].gt_classes.tolist() and set(result["instances"].gt_classes.tolist()) == {2}
    x0, y0, x1, y1 = result["instances"].gt_boxes.tensor[0].round().int().tolist()
    assert result["image"][0, y0:y1, x0:x1].max() > 215


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("INPUT.COPY_PASTE", 1.5, "INPUT.COPY_PASTE must be from 0 to 1, found 1.5"),
        ("MODEL.MASK_ON", True, "does not go with MODEL.MASK_ON"),
        ("DATALOADER.EARLIER_FRAMES", 2, "does not go with DATALOADER.EARLIER_FRAMES"),
    ],
)
def test_what_it_does_not_go_with(key, value, message):
    cfg = get_cfg()
    add_eventful_vitdet_config(cfg)
    cfg.merge_from_list(["MODEL.MASK_ON", False, "INPUT.COPY_PASTE", 0.5])
    check_copy_paste(cfg)
    cfg.merge_from_list([key, value])
    with pytest.raises(ConfigError, match=message):
        check_copy_paste(cfg)
