"""A checkpoint trained with Detectron2 loads with no renaming and finds the same objects in real frames."""

import json

import cv2
import pytest
import torch
from detectron2.modeling import build_model
from eventful_vitdet.checkpoint import VideoCheckpointer
from eventful_vitdet.config_files import build_cfg

OPTIONS = {
    "MODEL.DEVICE": "cpu",
    "MODEL.VIT.IMG_SIZE": 640,
    "MODEL.VIT.EMBED_DIM": 192,
    "MODEL.VIT.DEPTH": 6,
    "MODEL.VIT.NUM_HEADS": 3,
    "MODEL.VIT.WINDOW_SIZE": 8,
    "MODEL.VIT.WINDOW_BLOCKS": [0, 1, 3, 4],
    "MODEL.SIMPLE_PYRAMID.SCALE_FACTORS": [2.0, 1.0, 0.5],
    "MODEL.SIMPLE_PYRAMID.OUT_CHANNELS": 64,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[24], [64], [128], [256]],
    "MODEL.RPN.IN_FEATURES": ["p3", "p4", "p5", "p6"],
    "MODEL.RPN.CONV_DIMS": [-1],
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 500,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 100,
    "MODEL.ROI_HEADS.IN_FEATURES": ["p3", "p4", "p5"],
    "MODEL.ROI_HEADS.NUM_CLASSES": 4,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.05,
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 0,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 256,
    "MODEL.ROI_BOX_HEAD.NORM": "",
}
SCORE_FLOOR, SCORE_ATOL, BOX_ATOL = 0.05, 1e-3, 0.05


@pytest.fixture(scope="module")
def reference(shared_data):
    folder = shared_data.parent / "golden"
    weights = folder / "detectron2_trained_vitdet.safetensors"
    if not weights.is_file():
        pytest.skip("the trained checkpoint is not beside the repository (../shared/golden)")
    return weights, json.loads((folder / "detectron2_trained_vitdet.json").read_text())["frames"]


def read_frame(path, index: int) -> torch.Tensor:
    video = cv2.VideoCapture(str(path))
    for _ in range(index + 1):
        ok, frame = video.read()
        assert ok
    return torch.from_numpy(frame[:, :, ::-1].copy()).permute(2, 0, 1)


def test_detections_on_real_frames(reference, shared_data, repository):
    weights, frames = reference
    options = [item for pair in OPTIONS.items() for item in pair]
    model = build_model(build_cfg(str(repository / "configs" / "Base-ViTDet.yaml"), options)).eval()
    VideoCheckpointer(model).load(str(weights))
    for frame in frames:
        image = read_frame(shared_data / "airborne_vid" / frame["video"], frame["frame_id"])
        with torch.no_grad():
            found = model([{"image": image, "video_id": frame["video"], "frame_id": frame["frame_id"]}])[0]["instances"]
        # A score within the tolerance of the threshold may fall on either side of it.
        sure = [i for i, score in enumerate(frame["scores"]) if score > SCORE_FLOOR + SCORE_ATOL]
        assert (found.scores > SCORE_FLOOR + SCORE_ATOL).sum() == len(sure), frame["video"]
        compare(found, frame, sure)


def compare(found, frame: dict, indices: list) -> None:
    """Every listed detection has a counterpart; near-equal scores may swap places."""
    boxes, classes = found.pred_boxes.tensor, found.pred_classes
    for i in indices:
        near = (boxes - torch.tensor(frame["boxes"][i])).abs().amax(dim=1) < BOX_ATOL
        near &= classes == frame["classes"][i]
        near &= (found.scores - frame["scores"][i]).abs() < SCORE_ATOL
        assert near.any(), (frame["video"], frame["frame_id"], i)
