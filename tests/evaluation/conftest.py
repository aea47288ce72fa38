"""A small video data set and a model that needs no weights."""

from __future__ import annotations

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.structures import Boxes, Instances
from eventful_vit import FrameTrace
from eventful_vit.model import Traced
from eventful_vitdet.config import add_eventful_vitdet_config
from eventful_vitdet.data import register_test_json
from tiny_detector import make_cfg, make_model
from torch import nn

WIDTH, HEIGHT = 64, 48


def true_box(video: int, frame: int) -> list[float]:
    """x0, y0, x1, y1 of the only object of a frame."""
    return [2.0 + frame, 4.0 + video, 22.0 + frame, 20.0 + video]


def make_document(lengths: dict[int, int]) -> dict:
    """Videos 1, 2, ... with an object each per frame: class id 3 in odd videos, 7 in even ones."""
    document = {
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "images": [],
        "annotations": [],
    }
    document["videos"] = [{"id": v, "file_name": f"videos/{v}.avi", "width": WIDTH, "height": HEIGHT} for v in lengths]
    for video, length in lengths.items():
        for frame in range(length):
            image = 100 * video + frame
            x0, y0, x1, y1 = true_box(video, frame)
            document["images"].append({"id": image, "video_id": video, "frame_id": frame})
            document["annotations"].append(
                {
                    "id": image,
                    "image_id": image,
                    "category_id": 3 if video % 2 else 7,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                }
            )
    return document


def read_strict(path) -> object:
    """Parse JSON that has to be free of NaN and infinity."""

    def refuse(constant):
        raise AssertionError(f"{path} holds {constant}")

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.fixture
def write_dataset(tmp_path):
    """Write a document and its videos and registers it; returns (name, json file)."""

    def write(document: dict, name: str = "set", moving: bool = False) -> tuple[str, str]:
        (tmp_path / "videos").mkdir(exist_ok=True)
        for video in document["videos"]:
            path, size = str(tmp_path / video["file_name"]), (video["width"], video["height"])
            writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 30, size)
            rng = np.random.default_rng(video["id"])
            texture = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), size)
            for frame in range(8):
                even = np.full((*size[::-1], 3), 20 * frame, np.uint8)
                writer.write(np.roll(texture, 3 * frame, axis=1) if moving else even)
            writer.release()
        json_file = tmp_path / f"{name}.json"
        json_file.write_text(json.dumps(document))
        return register_test_json(str(json_file)), str(json_file)

    return write


@pytest.fixture
def dataset(write_dataset):
    """Two videos of 5 and 3 frames."""
    return write_dataset(make_document({1: 5, 2: 3}))


@pytest.fixture
def cfg(tmp_path, dataset):
    cfg = get_cfg()
    add_eventful_vitdet_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    cfg.INPUT.MIN_SIZE_TEST = 0
    cfg.OUTPUT_DIR = str(tmp_path / "out")
    cfg.DATASETS.TEST = (dataset[0],)
    return cfg


@pytest.fixture
def make_real(repository, tmp_path):
    """Makes a configuration and a VideoRCNN that takes milliseconds, always of the same weights, for a data set."""

    def make(dataset_name: str, **overrides) -> tuple[CfgNode, nn.Module]:
        settings = {"MODEL__ROI_HEADS__NUM_CLASSES": 2, "TEST__THREADS_PER_PROCESS": 1}
        cfg = make_cfg(repository, **{**settings, **overrides})
        cfg.OUTPUT_DIR, cfg.DATASETS.TEST = str(tmp_path / "out"), (dataset_name,)
        return cfg, make_model(cfg)

    return make


class Work(Traced):
    """Operations without anything computed."""

    def forward(self, macs: list[int]) -> None:
        trace = FrameTrace((False,) * len(macs), (1, 1))
        trace.add_layer("linear", 1, macs)
        self.report(trace)


class OracleDetector(nn.Module):
    """
    Answers like a VideoRCNN, from the frame's number alone: the true box moved by `shift` pixels, and a false
    one.

    A flush costs 100 operations; a later frame 10, plus r where it runs eventfully.
    """

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), shift))  # tells detectors apart, as weights do
        self.work = Work()
        self.shift, self.scale = shift, 1
        self.enabled, self.policy = True, None
        self.seen: list[tuple[int, int]] = []
        self.modes: set[tuple[bool, bool]] = set()
        self.vit = nn.Identity()  # whose time is that of the backbone
        self.state = SimpleNamespace(trace=None)
        self.resets = 0
        self._last: dict[int, int] = {}

    def set_policy(self, policy) -> None:
        self.policy = policy

    def reset(self, streams=None) -> None:
        self.resets += 1
        self._last = {}

    def forward(self, inputs: list[dict]) -> list[dict]:
        self.modes.add((self.training, torch.is_grad_enabled()))
        videos = {i: frame.get("video_id") for i, frame in enumerate(inputs)}
        flushed = tuple(self._last.get(i) != video for i, video in videos.items())
        self.state.trace = SimpleNamespace(flushed=flushed)
        self.vit(self.weight)
        self._last.update(videos)
        self.seen += [(frame["video_id"], frame["frame_id"]) for frame in inputs if "video_id" in frame]
        later = 10 + (self.policy.r if self.enabled and self.policy else 0)
        self.work([self.scale * (100 if flush else later) for flush in flushed])
        return [{"instances": self.detect(frame)} for frame in inputs]

    def detect(self, frame: dict) -> Instances:
        if "video_id" not in frame:  # a filler
            return Instances((frame["height"], frame["width"]))
        box = [value + self.shift for value in true_box(frame["video_id"], frame["frame_id"])]
        found = Instances((frame["height"], frame["width"]))
        found.pred_boxes = Boxes(torch.tensor([box, [40.0, 30.0, 60.0, 44.0]]))
        found.scores = torch.tensor([0.9, 0.3 + 0.01 * frame["frame_id"]])
        found.pred_classes = torch.tensor([0 if frame["video_id"] % 2 else 1, 0])
        return found


@pytest.fixture
def model() -> OracleDetector:
    return OracleDetector()
