"""The frames before a training frame: which they are, and that they are augmented as it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from eventful_vitdet import add_eventful_vitdet_config
from eventful_vitdet.data import VideoTrainMapper, add_data_config, build_video_train_loader, register_test_json
from eventful_vitdet.data.earlier_frames import EARLIER, all_frames, attach_earlier
from eventful_vitdet.data.training_frames import load_train_sets
from eventful_vitdet.errors import ConfigError
from eventful_vitdet.training import check_earlier_frames

from .conftest import HEIGHT, WIDTH, frame_number, make_document


@pytest.fixture
def cfg(write_dataset):
    cfg = get_cfg()
    add_data_config(cfg)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = (0,), "none"
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.EARLIER_FRAMES = 2
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    cfg.SOLVER.IMS_PER_BATCH = 4
    cfg.SEED = 0
    # Video 1 has a gap behind frame 3.
    path = write_dataset(make_document({1: [0, 1, 2, 3, 8, 9, 10], 2: [0, 1, 2]}))[0]
    cfg.DATASETS.TRAIN = (register_test_json(path),)
    return cfg


def numbers(frames: list[dict]) -> list[int]:
    return [frame["frame_id"] for frame in frames]


def test_they_are_the_neighbours_of_the_same_sequence(cfg):
    (frames,) = load_train_sets(cfg)
    found = {(frame["video_id"], frame["frame_id"]): numbers(frame[EARLIER]) for frame in frames}
    assert found[1, 2] == [0, 1] and found[1, 3] == [1, 2] and found[1, 10] == [8, 9]
    # Before its first frame, a sequence stands still.
    assert found[1, 0] == found[2, 0] == [0, 0] and found[1, 1] == [0, 0] and found[1, 8] == [8, 8]
    assert not any("annotations" in before for frame in frames for before in frame[EARLIER])


def test_thinning_leaves_out_training_frames_and_no_earlier_ones(cfg):
    cfg.DATALOADER.TRAIN_FRAME_STRIDE = 2
    (frames,) = load_train_sets(cfg)
    assert [(f["frame_id"], numbers(f[EARLIER])) for f in frames if f["video_id"] == 1] == [
        (0, [0, 0]),
        (2, [0, 1]),
        (8, [8, 8]),
        (10, [8, 9]),
    ]
    assert numbers(f for f in all_frames(frames) if f["video_id"] == 1) == [0, 1, 2, 8, 9, 10]


def test_stills_stand_still():
    still = {"video_id": "a", "frame_id": 0, "frame_step": 1, "file_name": "a.png", "annotations": []}
    (attached,) = attach_earlier([still], 3)
    assert [before["file_name"] for before in attached[EARLIER]] == ["a.png"] * 3


def test_they_are_augmented_alike(cfg):
    cfg.INPUT.RANDOM_FLIP = "horizontal"
    cfg.INPUT.CROP_PIXELS, cfg.INPUT.SCALE_JITTER = (32, 40), (0.5, 1.5)
    cfg.INPUT.CHANNEL_GAIN, cfg.INPUT.BRIGHTNESS = (0.6, 1.4), (0.5, 1.5)
    mapper, (frames,) = VideoTrainMapper(cfg), load_train_sets(cfg)
    mapper._read = lambda _: np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)  # a still scene
    results = [mapper(frame) for frame in frames]
    for result in results:
        assert len(result[EARLIER]) == 2 and result["image"].shape == (3, 32, 40)
        assert all(torch.equal(before, result["image"]) for before in result[EARLIER])
    assert not torch.equal(results[0]["image"], results[1]["image"])


def test_copies_of_frames_serve_them_too(cfg, tmp_path):
    cfg.DATALOADER.FRAME_CACHE = str(tmp_path / "cache")
    cfg.DATALOADER.TRAIN_FRAME_STRIDE = 3
    batch = next(iter(build_video_train_loader(cfg)))
    assert all(image.shape == (3, HEIGHT, WIDTH) for item in batch for image in item[EARLIER])
    # Frames 0, 3 and 10 of the first video with those before them, and frame 0 of the second one.
    names = sorted(path.stem.lstrip("0") or "0" for path in (tmp_path / "cache").rglob("*.jpg"))
    assert names == sorted(["0", "1", "2", "3", "8", "9", "10", "0"])


def test_without_augmentation_they_are_the_frames(cfg):
    for item in next(iter(build_video_train_loader(cfg))):
        own = frame_number(item["image"].numpy())
        assert own == item["frame_id"]
        assert [frame_number(before.numpy()) for before in item[EARLIER]] == numbers(
            next(f for f in load_train_sets(cfg)[0] if f["image_id"] == item["image_id"])[EARLIER]
        )


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODEL.VIT.DROP_PATH_RATE", 0.1, "EARLIER_FRAMES = 2: .* set MODEL.VIT.DROP_PATH_RATE 0.0, found 0.1"),
        ("MODEL.EVENTFUL.ENABLED", False, "EARLIER_FRAMES = 2 trains with gates on, but MODEL.EVENTFUL.ENABLED"),
        ("MODEL.EVENTFUL.ATTENTION", "full", "EARLIER_FRAMES = 2: .* MODEL.EVENTFUL.ATTENTION exact or tokenwise"),
        ("DATALOADER.EARLIER_FRAMES", -1, "must be 0 or larger, found -1"),
    ],
)
def test_settings_that_gates_cannot_be_trained_with(key, value, message):
    cfg = get_cfg()
    add_eventful_vitdet_config(cfg)
    cfg.DATALOADER.EARLIER_FRAMES, cfg.MODEL.VIT.DROP_PATH_RATE = 2, 0.0
    check_earlier_frames(cfg)
    cfg.merge_from_list([key, value])
    with pytest.raises(ConfigError, match=message):
        check_earlier_frames(cfg)
