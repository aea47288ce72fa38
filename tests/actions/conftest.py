"""A small data set of clips and a model for it."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from eventful_vitdet.config_files import build_cfg
from eventful_vitdet.video import VideoWriter

EPIC = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"
).split(",")
TINY = {
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHTS": "",
    "MODEL.VIT.IMG_SIZE": 32,
    "MODEL.VIT.EMBED_DIM": 24,
    "MODEL.VIT.DEPTH": 2,
    "MODEL.VIT.NUM_HEADS": 2,
    "MODEL.VIVIT.CLASSES": [["verb", 4], ["noun", 3]],
    "MODEL.VIVIT.FRAMES": 8,
    "MODEL.VIVIT.TUBELET": [2, 8, 8],
    "MODEL.VIVIT.VIEWS": 2,
    "MODEL.VIVIT.CROPS": 3,
    "MODEL.VIVIT.DEPTH_TEMPORAL": 1,
    "MODEL.EVENTFUL.R": 5,
    "DATALOADER.NUM_WORKERS": 0,
}


def write_video(path: Path, frames: int = 60, fps: float = 30.0, size=(48, 64)) -> None:
    """A video whose frame n is grey n * 4, with a square that moves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(str(path), fps) as writer:
        for number in range(frames):
            image = np.full((*size, 3), min(4 * number, 255), np.uint8)
            image[8:24, number % 40 : number % 40 + 16] = 255 - image[0, 0]
            writer.write(image)


def row(**values) -> dict:
    defaults = dict.fromkeys(EPIC, "")
    defaults.update(
        participant_id="P01", video_id="P01_01", start_timestamp="00:00:00.50", stop_timestamp="00:00:01.50"
    )
    return {**defaults, "verb_class": "1", "noun_class": "2", **values}


def write_csv(path: Path, rows, columns=EPIC) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def clips_csv(tmp_path) -> Path:
    """Three clips of two videos."""
    write_video(tmp_path / "videos" / "P01_01.mp4")
    write_video(tmp_path / "P02" / "videos" / "P02_01.MP4.mp4")
    (tmp_path / "P02" / "videos" / "P02_01.MP4.mp4").rename(tmp_path / "P02" / "videos" / "P02_01.MP4")
    rows = [
        row(narration_id="a"),
        row(narration_id="b", participant_id="P02", video_id="P02_01", verb_class="0", noun_class="1"),
        row(narration_id="c", start_timestamp="0:01", stop_timestamp="00:00:01.9", verb_class="3", noun_class="0"),
    ]
    return write_csv(tmp_path / "validation.csv", rows)


@pytest.fixture
def tiny_classifier_cfg(repository, tmp_path):
    def make(**overrides):
        settings = {**TINY, "OUTPUT_DIR": str(tmp_path / "output")}
        settings.update({key.replace("__", "."): value for key, value in overrides.items()})
        options = [item for pair in settings.items() for item in pair]
        return build_cfg(str(repository / "configs" / "Base-ViViT.yaml"), options)

    return make


@pytest.fixture
def tiny_classifier(tiny_classifier_cfg):
    def make(**overrides):
        torch.manual_seed(3)
        model = build_model(tiny_classifier_cfg(**overrides)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(5)
        return model

    return make
