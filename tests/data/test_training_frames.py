"""The frames that a training draws from: several data sets, stills among them, a few frames of every video."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from eventful_vitdet.data import add_data_config, build_video_train_loader, register_test_json
from eventful_vitdet.data.training_frames import load_train_sets, spread_frames
from eventful_vitdet.errors import DatasetError

from .conftest import HEIGHT, WIDTH, grey_frame, make_document

STILLS = 4


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_data_config(cfg)
    cfg.INPUT.MIN_SIZE_TRAIN = (0,)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.SEED = 0
    return cfg


@pytest.fixture
def stills(tmp_path):
    """The name of a data set of single images, as Detectron2 has them: no `video_id`, no `frame_id`."""
    listed = []
    for number in range(STILLS):
        path = tmp_path / f"still_{number}.png"
        cv2.imwrite(str(path), grey_frame(number))
        box = {"bbox": [2, 3, 20, 10], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1}
        listed.append({"file_name": str(path), "image_id": number, "height": HEIGHT, "width": WIDTH})
        listed[-1]["annotations"] = [box]
    name = f"stills in {tmp_path}"
    DatasetCatalog.register(name, lambda: listed)
    MetadataCatalog.get(name).thing_classes = ["cat", "dog"]
    return name


@pytest.fixture
def videos(write_dataset):
    """The annotation file of two videos, of 12 and 3 frames."""
    return write_dataset(make_document({1: list(range(12)), 2: [0, 1, 2]}))[0]


def numbers(frames: list[dict]) -> list[tuple[int, int]]:
    return [(frame["video_id"], frame["frame_id"]) for frame in frames]


def test_frames_per_video_are_evenly_spaced(cfg, videos):
    cfg.DATASETS.TRAIN = (register_test_json(videos),)
    cfg.DATALOADER.FRAMES_PER_VIDEO = 4
    (frames,) = load_train_sets(cfg)
    # The middles of four parts of three frames; the short video keeps all of its own.
    assert numbers(frames) == [(1, 1), (1, 4), (1, 7), (1, 10), (2, 0), (2, 1), (2, 2)]


def test_stride_then_frames_per_video(cfg, videos):
    cfg.DATASETS.TRAIN = (register_test_json(videos),)
    cfg.DATALOADER.TRAIN_FRAME_STRIDE, cfg.DATALOADER.FRAMES_PER_VIDEO = 3, 2
    (frames,) = load_train_sets(cfg)
    assert numbers(frames) == [(1, 3), (1, 9), (2, 0)]


@pytest.mark.parametrize("length", range(1, 40))
def test_spread_frames_of_any_length(length):
    kept = [f["frame_id"] for f in spread_frames([{"video_id": 0, "frame_id": i} for i in range(length)], 15)]
    assert len(kept) == min(15, length) == len(set(kept))
    assert kept[0] == length - 1 - kept[-1] or length % 2 == 0  # as far from the beginning as from the end
    assert max(np.diff(kept), default=1) - min(np.diff(kept), default=1) <= 1


def test_videos_and_stills_in_one_batch_stream(cfg, videos, stills):
    cfg.DATASETS.TRAIN = (videos, stills)  # a path serves as a name
    cfg.DATALOADER.DATASET_RATIOS, cfg.DATALOADER.FRAMES_PER_VIDEO = (1, 3), 2
    loader = iter(build_video_train_loader(cfg))
    images = [image for _ in range(40) for image in next(loader)]
    of_stills = [image for image in images if image["file_name"].endswith(".png")]
    assert len({image["image_id"] for image in of_stills}) == STILLS
    assert len(of_stills) / len(images) == pytest.approx(0.75, abs=0.2)  # four standard deviations
    for image in of_stills:
        grey = round((float(image["image"].float().mean()) - 10) / 8)
        assert grey == image["image_id"]
        assert image["instances"].gt_classes.tolist() == [1]
    assert {image["frame_id"] for image in images if image["file_name"].endswith(".avi")} == {3, 9, 0, 2}


@pytest.mark.parametrize("balance", [False, True])
def test_two_video_sets_with_the_same_numbers_and_a_frame_cache(cfg, tmp_path, write_dataset, balance):
    for folder, step in (("a", 1), ("b", 2)):
        document = make_document({1: [0, step, 2 * step], 2: [0]}, file_name=f"{folder}/{{}}.avi")
        write_dataset(document)
        (tmp_path / f"{folder}.json").write_text(json.dumps(document))
    cfg.DATASETS.TRAIN = (str(tmp_path / "a.json"), str(tmp_path / "b.json"))
    cfg.DATALOADER.DATASET_RATIOS, cfg.DATALOADER.BALANCE_CLASSES = (1, 1), balance
    cfg.DATALOADER.FRAME_CACHE = str(tmp_path / "cache")
    loader = iter(build_video_train_loader(cfg))
    seen = {}
    for image in (image for _ in range(60) for image in next(loader)):
        grey = round((float(image["image"].float().mean()) - 10) / 8)
        seen.setdefault(image["file_name"].rsplit("/", 2)[-2], set()).add(grey)
        assert grey == image["frame_id"]
    assert seen == {"a": {0, 1, 2}, "b": {0, 2, 4}}


def test_other_class_names(cfg, tmp_path, videos):
    document = json.loads(open(videos).read())
    document["categories"][1]["name"] = "wolf"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(document))
    cfg.DATASETS.TRAIN = (register_test_json(videos), register_test_json(str(other), str(tmp_path)))
    with pytest.raises(DatasetError, match="class 1 is 'wolf' in .*other.json, but 'dog' in "):
        load_train_sets(cfg)


def test_a_data_set_without_objects_is_named(cfg, tmp_path, videos):
    document = json.loads(open(videos).read())
    document["annotations"] = []
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps(document))
    cfg.DATASETS.TRAIN = (register_test_json(videos), register_test_json(str(empty), str(tmp_path)))
    with pytest.raises(DatasetError, match="empty.json: no frame has an annotation to train on"):
        load_train_sets(cfg)


def test_bad_frames_per_video(cfg, videos):
    cfg.DATASETS.TRAIN = (register_test_json(videos),)
    cfg.DATALOADER.FRAMES_PER_VIDEO = -1
    with pytest.raises(ValueError, match="DATALOADER.FRAMES_PER_VIDEO"):
        load_train_sets(cfg)


def test_ratios_merge_from_the_command_line(cfg):
    cfg.merge_from_list(["DATALOADER.DATASET_RATIOS", "[1, 0.5]", "DATALOADER.FRAMES_PER_VIDEO", "15"])
    assert tuple(cfg.DATALOADER.DATASET_RATIOS) == (1, 0.5)
