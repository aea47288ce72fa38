"""Objects carried to other frames: where they come from and go, and what is left of their background."""

from __future__ import annotations

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.structures import BoxMode
from eventful_vitdet.config import add_eventful_vitdet_config
from eventful_vitdet.data import VideoTrainMapper
from eventful_vitdet.data.copy_paste import CopyPaste, Cutout, blend, cut_out, erase, separate
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


def objects_in(image: np.ndarray, sky: int) -> np.ndarray:
    """Where an image (H, W, 3) is far from its sky, lighter or darker: (H, W)."""
    return np.abs(image[..., 0].astype(int) - sky) > 12


def test_an_object_of_another_video_comes_without_its_background():
    target, donor = frame(1, None), frame(0, (40, 30, 24, 20), label=2)
    carry = CopyPaste([[target], [donor]], picture, 1.0)
    np.random.seed(0)
    places, lighter = set(), 0
    for _ in range(20):
        before = picture(target)
        image, annotations = carry(target, before)
        assert (before == picture(target)).all() and not target["annotations"]  # what was handed in
        assert 1 <= len(annotations) <= 2
        for annotation in annotations:
            assert annotation["category_id"] == 2 and annotation["bbox_mode"] == BoxMode.XYWH_ABS
            x, y, width, height = annotation["bbox"]
            assert 0 <= x and 0 <= y and x + width <= WIDTH and y + height <= HEIGHT
            places.add((round(x), round(y)))
        outside = np.ones(image.shape[:2], bool)
        for x, y, width, height in (annotation["bbox"] for annotation in annotations):
            outside[int(y) : int(y + height) + 2, int(x) : int(x + width) + 2] = False
        assert abs(image[outside].astype(int) - SKY[1]).max() <= 2  # the darker sky that the object was in
        found = objects_in(image, SKY[1])
        assert found.any()
        lighter += image[found].mean() > SKY[1]
    assert 0 < lighter < 20
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


def test_objects_of_frames_of_another_size_come_at_the_size_they_would_have():
    target, donor = frame(1, None), frame(0, (20, 15, 12, 10), label=1, size=(HEIGHT // 2, WIDTH // 2))
    carry = CopyPaste([[target], [donor]], picture, 1.0)
    np.random.seed(4)
    areas = [a["bbox"][2] * a["bbox"][3] for _ in range(60) for a in carry(target, picture(target))[1]]
    doubled = np.asarray(areas) ** 0.5 / (2 * (12 * 10) ** 0.5)
    assert 0.55 < doubled.min() and doubled.max() < 1.8  # SCALES, some rounding, and what a turn adds
    assert 0.85 < np.median(doubled) < 1.25


def test_data_sets_give_objects_by_their_ratios_and_by_how_many_of_their_videos_have_some():
    target = frame(1, None)
    sets = [[frame(0, (40, 30, 24, 20))], [frame(2, (40, 30, 24, 20)), frame(4, None)]]
    carry = CopyPaste([[target], *sets], picture, 1.0, ratios=(5, 1, 3))
    read = []
    carry._read = lambda donor: read.append(donor["video_id"]) or picture(donor)
    carry._cutout = lambda donor, annotation: cut_out(carry._read(donor), annotation["bbox"])  # nothing held
    np.random.seed(5)
    for _ in range(200):
        carry(target, picture(target))
    # 400 draws at 1 : 3/2; four standard deviations of a binomial share are 0.098.
    assert np.mean(np.asarray(read) == 2) == pytest.approx(0.6, abs=0.1)


def test_an_object_is_read_from_its_frame_once():
    target, donor = frame(1, None), frame(0, (40, 30, 24, 20), label=2)
    read = []
    carry = CopyPaste([[target], [donor]], lambda of: read.append(of) or picture(of), 1.0)
    for _ in range(5):
        carry(target, picture(target))
    assert len(read) == 1


@pytest.mark.parametrize("angle", [0.0, 30.0, -30.0, 90.0])
def test_a_turned_object_stays_in_the_middle_of_its_box(angle):
    sky = np.full((60, 80, 3), 90, np.uint8)
    sky[26:34, 20:60] = 200  # 40 x 8 in a box of 60 x 20
    layer, (x, y, width, height) = separate(Cutout(sky, (10, 20, 60, 20))).moved(1.0, angle)
    rows, columns = np.nonzero(layer[..., 3] > 0.5)
    assert (columns.min() + columns.max() + 1) / 2 == pytest.approx(x + width / 2, abs=1)
    assert (rows.min() + rows.max() + 1) / 2 == pytest.approx(y + height / 2, abs=1)
    turn = np.deg2rad(angle)
    assert width == pytest.approx(np.hypot(60 * np.cos(turn), 20 * np.sin(turn)), abs=0.01)
    assert height == pytest.approx(np.hypot(60 * np.sin(turn), 20 * np.cos(turn)), abs=0.01)
    assert x <= columns.min() and columns.max() <= x + width and y <= rows.min() and rows.max() <= y + height


def test_what_is_blended_is_the_difference_or_the_colour():
    sky = np.full((20, 20, 3), 90, np.uint8)
    sky[8:12, 8:12] = 130
    separated = separate(Cutout(sky, (5, 5, 10, 10)))
    target = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    np.random.seed(6)
    seen = {int(blend(target, separated.layer, separated.background, 0, 0)[10, 10, 0]) for _ in range(300)}
    added, own = {60 + 40, 60 - 40}, {90 + 40, 90 - 40}
    low, high = min(added | own), max(added | own)
    assert min(seen) <= low + 2 and max(seen) >= high - 2  # lighter and darker, on either background
    assert all(60 - 1.3 * 40 - 1 <= value <= 90 + 1.3 * 40 + 1 for value in seen)


def test_uneven_surroundings_stay_where_they_are():
    rng = np.random.default_rng(0)
    forest = rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    assert separate(cut_out(forest, (40, 30, 24, 20))) is None
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
    assert objects_in(result["image"][:, y0:y1, x0:x1].numpy().transpose(1, 2, 0), SKY[1]).any()


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("INPUT.COPY_PASTE", 1.5, "INPUT.COPY_PASTE must be from 0 to 1, found 1.5"),
        ("MODEL.MASK_ON", True, "cannot be combined with MODEL.MASK_ON"),
        ("DATALOADER.EARLIER_FRAMES", 2, "cannot be combined with DATALOADER.EARLIER_FRAMES"),
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
