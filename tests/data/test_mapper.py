from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.structures import BoxMode
from eventful_vitdet.data import VideoTrainMapper, add_data_config, build_video_train_loader, register_test_json
from eventful_vitdet.data.mapper import build_train_augmentations
from eventful_vitdet.data.training_frames import load_train_sets
from eventful_vitdet.data.training_transforms import (
    AutoGain,
    AutoGainTransform,
    ChannelGain,
    RandomSaturation,
    RandomWindow,
    WindowTransform,
)
from eventful_vitdet.errors import DatasetError

from .conftest import HEIGHT, WIDTH, make_document, write_video


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_data_config(cfg)
    cfg.INPUT.MIN_SIZE_TRAIN = (0,)
    cfg.INPUT.RANDOM_FLIP = "none"
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    np.random.seed(0)
    return cfg


def scene(box: tuple[int, int, int, int], width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A black image with a white box x0, y0, x1, y1."""
    image = np.zeros((height, width, 3), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    return image


def white_box(image: torch.Tensor) -> list[int]:
    """x0, y0, x1, y1 of the bright pixels of a (3, H, W) image: where the object really went."""
    ys, xs = np.nonzero(image[0].numpy() > 127)
    return [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]


@pytest.fixture
def frame(tmp_path) -> dict:
    box = (20, 12, 36, 28)
    path = write_video(tmp_path / "v.avi", [scene(box)])
    return {
        "file_name": str(path),
        "is_video_file": True,
        "video_id": 1,
        "frame_id": 0,
        "image_id": 10,
        "height": HEIGHT,
        "width": WIDTH,
        "annotations": [
            {"bbox": [20, 12, 16, 16], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1, "iscrowd": 0},
            {"bbox": [0, 0, 60, 40], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "iscrowd": 1},
        ],
    }


def test_unchanged_frame(cfg, frame):
    result = VideoTrainMapper(cfg)(frame)
    assert result["image"].shape == (3, HEIGHT, WIDTH) and result["image"].dtype == torch.uint8
    assert result["image"].is_contiguous()
    assert result["instances"].gt_boxes.tensor.tolist() == [[20, 12, 36, 28]]  # the crowd region is left out
    assert result["instances"].gt_classes.tolist() == [1]
    assert (result["image_id"], result["height"], result["width"]) == (10, HEIGHT, WIDTH)
    assert "annotations" in frame and frame["annotations"][0]["bbox"] == [20, 12, 16, 16]


@pytest.mark.parametrize("direction", ["horizontal", "vertical"])
def test_flipped_box_follows_the_pixels(cfg, frame, direction):
    cfg.INPUT.RANDOM_FLIP = direction
    mapper = VideoTrainMapper(cfg)
    flipped = {
        "horizontal": [WIDTH - 36, 12, WIDTH - 20, 28],
        "vertical": [20, HEIGHT - 28, 36, HEIGHT - 12],
    }[direction]
    seen = set()
    for _ in range(20):
        result = mapper(frame)
        (box,) = result["instances"].gt_boxes.tensor.tolist()
        assert box == white_box(result["image"])
        seen.add(tuple(box))
    assert seen == {(20, 12, 36, 28), tuple(flipped)}


@pytest.mark.parametrize("direction", ["horizontal", "vertical"])
def test_padding_is_at_the_bottom_and_on_the_right_also_when_flipped(cfg, frame, direction):
    cfg.INPUT.RANDOM_FLIP, cfg.INPUT.CROP_PIXELS = direction, (HEIGHT + 8, WIDTH + 8)
    mapper = VideoTrainMapper(cfg)
    boxes = set()
    for _ in range(20):
        result = mapper(frame)
        padding = result["image"][:, -1, -1]
        assert (result["image"][:, :, WIDTH:] == padding[:, None, None]).all()
        assert (result["image"][:, HEIGHT:] == padding[:, None, None]).all()
        assert (result["image"][:, 0, 0] == 0).all()  # the scene is black there
        boxes.add(tuple(result["instances"].gt_boxes.tensor[0].tolist()))
    assert len(boxes) == 2


def test_resized_box(cfg, frame):
    cfg.INPUT.MIN_SIZE_TRAIN = (96,)
    result = VideoTrainMapper(cfg)(frame)
    assert result["image"].shape == (3, 96, 128)
    assert result["instances"].gt_boxes.tensor.tolist() == [[40, 24, 72, 56]]
    assert result["instances"].image_size == (96, 128)


def test_long_edge_limit(cfg, frame):
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (96,), 32
    assert VideoTrainMapper(cfg)(frame)["image"].shape == (3, 24, 32)


def test_everything_together_follows_the_pixels(cfg, frame):
    cfg.INPUT.MIN_SIZE_TRAIN = (96, 144)
    cfg.INPUT.SCALE_JITTER = (0.8, 1.3)
    cfg.INPUT.CROP_PIXELS = (100, 90)
    cfg.INPUT.CROP_AROUND_OBJECT = 1.0
    cfg.INPUT.RANDOM_FLIP = "horizontal"
    mapper = VideoTrainMapper(cfg)
    for _ in range(40):
        result = mapper(frame)
        assert result["image"].shape == (3, 100, 90)
        (box,) = result["instances"].gt_boxes.tensor.numpy()
        # The threshold at half brightness finds a blurred edge to about half a pixel, plus rounding to whole
        # ones.
        np.testing.assert_allclose(box, white_box(result["image"]), atol=1.1)


def test_crop_around_object_holds_all_of_it(cfg, frame):
    cfg.INPUT.CROP_PIXELS, cfg.INPUT.CROP_AROUND_OBJECT = (20, 20), 1.0
    mapper, corners = VideoTrainMapper(cfg), set()
    for _ in range(40):
        (box,) = mapper(frame)["instances"].gt_boxes.tensor.numpy()
        np.testing.assert_allclose(box[2:] - box[:2], 16, atol=1e-3)
        corners.add(round(float(box[0]), 1))
    assert len(corners) > 10 and min(corners) < 1 and max(corners) > 3  # anywhere between the window's edges


def test_crop_smaller_than_the_object_lies_inside_it(cfg, frame):
    cfg.INPUT.CROP_PIXELS, cfg.INPUT.CROP_AROUND_OBJECT, cfg.INPUT.MIN_BOX_VISIBILITY = (8, 8), 1.0, 0.2
    for _ in range(10):
        result = VideoTrainMapper(cfg)(frame)
        assert result["instances"].gt_boxes.tensor.tolist() == [[0, 0, 8, 8]]
        assert int(result["image"].min()) > 200


def test_crop_anywhere_covers_the_frame(cfg, frame):
    augmentation = RandomWindow((0,), 1000, crop_size=(20, 20), around_object=0.0)
    image = scene((20, 12, 36, 28))
    windows = np.array([augmentation.get_transform(image, np.zeros((0, 4))).window for _ in range(300)])
    assert windows[:, :2].min() >= 0 and (windows[:, 2] <= WIDTH).all() and (windows[:, 3] <= HEIGHT).all()
    assert windows[:, 0].max() > WIDTH - 24 and windows[:, 1].max() > HEIGHT - 24
    assert windows[:, 0].min() < 4 and windows[:, 1].min() < 4


def test_small_frame_is_padded_at_the_bottom_and_right(cfg, frame):
    cfg.MODEL.PIXEL_MEAN = [90.0, 100.0, 110.0]
    cfg.INPUT.CROP_PIXELS = (60, 80)
    result = VideoTrainMapper(cfg)(frame)
    assert result["image"].shape == (3, 60, 80)
    assert (result["image"][:, HEIGHT:] == 100).all() and (result["image"][:, :, WIDTH:] == 100).all()
    assert result["instances"].gt_boxes.tensor.tolist() == [[20, 12, 36, 28]]


@pytest.mark.parametrize("visible, kept", [(0.25, 1), (0.75, 0)])
def test_boxes_cut_beyond_the_visible_share_are_dropped(cfg, frame, visible, kept, monkeypatch):
    # The window takes the right half of the object, x 28 to 36.
    window = WindowTransform((28, 0, WIDTH, HEIGHT), (HEIGHT, WIDTH - 28), (HEIGHT, WIDTH - 28), 0)
    monkeypatch.setattr(RandomWindow, "get_transform", lambda self, image, boxes: window)
    cfg.INPUT.MIN_BOX_VISIBILITY = visible
    instances = VideoTrainMapper(cfg)(frame)["instances"]
    assert len(instances) == kept
    if kept:
        assert instances.gt_boxes.tensor.tolist() == [[0, 12, 8, 28]]


def test_frame_without_objects(cfg, frame):
    cfg.INPUT.CROP_PIXELS = (20, 20)
    frame["annotations"] = []
    instances = VideoTrainMapper(cfg)(frame)["instances"]
    assert instances.gt_boxes.tensor.shape == (0, 4) and instances.gt_classes.shape == (0,)


def test_window_transform_maps_fractional_windows():
    transform = WindowTransform((10.5, 4.25, 30.5, 14.25), (40, 80), (40, 80), 0)
    points = np.array([[10.5, 4.25], [30.5, 14.25], [20.5, 9.25]])
    np.testing.assert_allclose(transform.apply_coords(points), [[0, 0], [80, 40], [40, 20]])


def test_brightness_and_contrast_change_pixels_only(cfg, frame):
    cfg.INPUT.BRIGHTNESS, cfg.INPUT.CONTRAST = (0.5, 0.6), (0.9, 1.1)
    result = VideoTrainMapper(cfg)(frame)
    assert 90 < int(result["image"].max()) < 190
    assert result["instances"].gt_boxes.tensor.tolist() == [[20, 12, 36, 28]]


@pytest.mark.parametrize("image_format, channel", [("BGR", 0), ("RGB", 2)])
def test_channel_order(cfg, frame, tmp_path, image_format, channel):
    blue = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    blue[..., 0] = 200
    write_video(tmp_path / "v.avi", [blue])
    cfg.INPUT.FORMAT = image_format
    assert int(VideoTrainMapper(cfg)(frame)["image"].float().mean((1, 2)).argmax()) == channel


@pytest.mark.parametrize(
    "key, value",
    [
        ("FORMAT", "L"),
        ("RANDOM_FLIP", "both"),
        ("SCALE_JITTER", (1.2, 0.8)),
        ("CROP_PIXELS", (0, 64)),
        ("MIN_SIZE_TRAIN_SAMPLING", "any"),
    ],
)
def test_bad_option_names_its_key(cfg, key, value):
    setattr(cfg.INPUT, key, value)
    with pytest.raises(ValueError, match=f"INPUT.{key}"):
        VideoTrainMapper(cfg)


def test_range_sampling_draws_between_the_limits(cfg):
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = (24, 48), "range"
    augmentation = build_train_augmentations(cfg)[0]
    image = scene((0, 0, 5, 5))
    heights = {augmentation.get_transform(image, np.zeros((0, 4))).out_size[0] for _ in range(200)}
    assert min(heights) >= 24 and max(heights) <= 48 and len(heights) > 15


def test_train_loader(cfg, write_dataset, tmp_path):
    document = make_document({1: list(range(12)), 2: list(range(6))})
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] != 103]
    cfg.DATASETS.TRAIN = (register_test_json(*write_dataset(document)),)
    cfg.DATALOADER.TRAIN_FRAME_STRIDE = 3
    cfg.DATALOADER.FRAME_CACHE = str(tmp_path / "cache")
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.INPUT.CROP_PIXELS = (32, 32)
    loader = iter(build_video_train_loader(cfg))
    batches = [next(loader) for _ in range(20)]
    assert all(len(batch) == 2 and all(x["image"].shape == (3, 32, 32) for x in batch) for batch in batches)
    # Frame 3 of video 1 has no object and is left out, as DATALOADER.FILTER_EMPTY_ANNOTATIONS asks.
    assert {x["image_id"] for batch in batches for x in batch} == {100, 106, 109, 200, 203}
    assert len(list((tmp_path / "cache").rglob("*.jpg"))) == 5


def test_train_loader_without_frames(cfg, write_dataset):
    document = make_document({1: [0]})
    document["annotations"] = []
    cfg.DATASETS.TRAIN = (register_test_json(*write_dataset(document)),)
    with pytest.raises(DatasetError, match="no frame has an annotation"):
        build_video_train_loader(cfg)
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS, cfg.DATALOADER.BALANCE_CLASSES = False, True
    with pytest.raises(DatasetError, match="BALANCE_CLASSES is on, but no training frame has an annotation"):
        build_video_train_loader(cfg)
    cfg.DATASETS.TRAIN = ()
    with pytest.raises(DatasetError, match="DATASETS.TRAIN is empty"):
        build_video_train_loader(cfg)


@pytest.mark.parametrize("classes", [1, 3])
def test_train_loader_for_another_number_of_classes(cfg, write_dataset, classes):
    # Labels beyond the model's would be read as background.
    cfg.DATASETS.TRAIN = (register_test_json(*write_dataset(make_document({1: [0], 2: [0]}))),)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = classes
    with pytest.raises(DatasetError, match=f"has 2 classes, but the model {classes}: set MODEL.ROI_HEADS.NUM_CLASSES"):
        build_video_train_loader(cfg)


def test_the_config_keys_merge_from_a_list(cfg):
    cfg.merge_from_list(["INPUT.CROP_PIXELS", "(384, 320)", "INPUT.SCALE_JITTER", "[0.5, 2.0]"])
    assert tuple(cfg.INPUT.CROP_PIXELS) == (384, 320)
    VideoTrainMapper(cfg)


def test_channel_gain_multiplies_each_channel_by_its_own_factor():
    image = np.full((4, 5, 3), 100, dtype=np.uint8)
    transform = ChannelGain(0.5, 3.0).get_transform(image)
    assert len(set(transform.factors.tolist())) == 3
    expected = np.clip(100 * transform.factors, 0, 255).astype(np.uint8)
    assert (transform.apply_image(image) == expected).all()
    assert (transform.apply_coords(np.array([[1.0, 2.0]])) == [[1.0, 2.0]]).all()


@pytest.mark.parametrize("factors", [(1.2, 0.8), (0.0, 1.0)])
def test_bad_channel_gain(factors):
    with pytest.raises(ValueError, match="INPUT.CHANNEL_GAIN"):
        ChannelGain(*factors)


def test_auto_gain_raises_contrast_and_noise_together():
    image = np.full((200, 300, 3), 60, np.uint8)
    image[90:94, 140:144] = 70  # a faint warm spot
    transform = AutoGainTransform(gain=6.0, noise=8.0, level=60.0, shift=40.0, seed=0)
    first, second = transform.apply_image(image), transform.apply_image(image)
    assert first.dtype == np.uint8 and (first == first[..., :1]).all()  # noise is grey
    sky = first[:80].astype(float)
    # Of 24,000 pixels, the mean's standard error is 0.05 grey levels and the deviation's 0.04; whole levels cost 0.5.
    assert sky.mean() == pytest.approx(99.5, abs=0.3) and sky[..., 0].std() == pytest.approx(8, abs=0.2)
    assert first[90:94, 140:144].mean() == pytest.approx(159.5, abs=8)  # of 16 pixels: 2
    assert (first != second).any()  # frames of a video do not share their noise
    again = AutoGainTransform(gain=6.0, noise=8.0, level=60.0, shift=40.0, seed=0)
    assert (again.apply_image(image) == first).all()
    assert (transform.apply_coords(np.array([[1.0, 2.0]])) == [[1.0, 2.0]]).all()


def test_auto_gain_leaves_the_other_frames_alone():
    image = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)
    np.random.seed(0)
    changed = [(AutoGain(0.3).get_transform(image).apply_image(image) != image).any() for _ in range(400)]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.1)  # four standard deviations
    assert not any((AutoGain(0.0).get_transform(image).apply_image(image) != image).any() for _ in range(20))


@pytest.mark.parametrize("probability", [-0.1, 1.5])
def test_bad_auto_gain(probability):
    cfg = get_cfg()
    add_data_config(cfg)
    cfg.INPUT.AUTO_GAIN = probability
    with pytest.raises(ValueError, match="INPUT.AUTO_GAIN"):
        build_train_augmentations(cfg)


@pytest.mark.parametrize("image_format, red", [("RGB", (0.299, 0)), ("BGR", (0.299, 2))])
def test_saturation_zero_is_grey_and_one_changes_nothing(image_format, red):
    image = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)
    unchanged = RandomSaturation(1.0, 1.0, image_format).get_transform(image).apply_image(image)
    assert abs(unchanged.astype(int) - image).max() <= 1  # conversion to uint8 truncates
    grey = RandomSaturation(0.0, 0.0, image_format).get_transform(image)
    seen = grey.apply_image(image)
    assert (seen == seen[..., :1]).all() and seen.dtype == np.uint8
    only_red = np.zeros((2, 2, 3), np.uint8)
    only_red[..., red[1]] = 200
    assert grey.apply_image(only_red)[0, 0, 0] == int(red[0] * 200)
    assert (grey.apply_coords(np.array([[1.0, 2.0]])) == [[1.0, 2.0]]).all()
    assert RandomSaturation(3.0, 3.0, image_format).get_transform(image).apply_image(only_red).max() == 255


@pytest.mark.parametrize("factors", [(1.2, 0.8), (-0.1, 1.0)])
def test_bad_saturation(factors):
    with pytest.raises(ValueError, match="INPUT.SATURATION"):
        RandomSaturation(*factors, "RGB")


def test_a_large_object_limits_the_scale_of_its_crop():
    window = RandomWindow((0,), 1000, jitter=(2.0, 2.0), crop_size=(64, 64), around_object=1.0, max_object_fill=0.5)
    box = np.array([[40.0, 30.0, 120.0, 90.0]])  # 80 x 60 pixels: at most 32 of the crop's 64
    transform = window.get_transform(np.zeros((200, 200, 3), np.uint8), box)
    width, height = transform.apply_box(box)[0, 2:] - transform.apply_box(box)[0, :2]
    assert width == pytest.approx(32, rel=0.02) and height == pytest.approx(24, rel=0.02)


def test_training_leaves_out_bad_videos_if_asked(cfg, write_dataset, tmp_path):
    name = register_test_json(write_dataset(make_document({1: [0, 1], 2: [0]}))[0])
    cfg.DATASETS.TRAIN = (name,)
    (tmp_path / "videos" / "2.avi").unlink()
    with pytest.raises(DatasetError, match="2.avi"):
        load_train_sets(cfg)
    cfg.DATALOADER.ON_BAD_VIDEO = "skip"
    assert [frame["video_id"] for frame in load_train_sets(cfg)[0]] == [1, 1]


def test_large_scale_jitter_as_vitdet_does_it(cfg):
    """0.1 to 2.0 of the size that fits the square, then a crop of the square anywhere, padded where it is smaller."""
    side, height, width = 640, 900, 1600
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (side,), side
    cfg.INPUT.SCALE_JITTER, cfg.INPUT.CROP_PIXELS, cfg.INPUT.CROP_AROUND_OBJECT = (0.1, 2.0), (side, side), 0.0
    augmentation = build_train_augmentations(cfg)[0]
    image, box = np.zeros((height, width, 3), np.uint8), np.array([[400.0, 300.0, 1200.0, 600.0]])
    scales, offsets = [], []
    for _ in range(500):
        transform = augmentation.get_transform(image, box)
        assert transform.canvas_size == (side, side)
        x0, y0, x1, y1 = transform.apply_box(box)[0]
        scale = (x1 - x0) / 800  # of the picture
        # The crop takes what there is of the resized picture, whose sides are rounded to whole pixels.
        full = np.round((height * scale, width * scale))
        np.testing.assert_allclose(transform.out_size, np.minimum(full, side), atol=1)
        assert (y1 - y0) / 300 == pytest.approx(scale, rel=0.03)  # rounding of a short edge of 36 pixels
        scales.append(scale * width / side)
        if scales[-1] > 1.5:
            offsets.append(transform.window[0] / (width - side / scale))
    # Uniform on 0.1 to 2.0: the mean of 500 lies within 0.1 (four standard deviations of 0.0245) of 1.05.
    assert min(scales) == pytest.approx(0.1, abs=0.05) and max(scales) == pytest.approx(2.0, abs=0.05)
    assert np.mean(scales) == pytest.approx(1.05, abs=0.1)
    assert min(offsets) < 0.1 and max(offsets) > 0.9 and np.mean(offsets) == pytest.approx(0.5, abs=0.12)
