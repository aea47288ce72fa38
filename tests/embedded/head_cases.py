"""Second stages of tiny size, and what they are run on. tests/golden/make_heads.py runs the same with the real one."""

from __future__ import annotations

import numpy as np
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.modeling.roi_heads import CascadeROIHeads, StandardROIHeads
from detectron2.structures import BitMasks, Boxes, ImageList, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

CHANNELS = 8
STRIDES = {"p2": 4, "p3": 8, "p4": 16, "p5": 32}
CANVAS = 128
SIZES = ((128, 128), (96, 120))
"""Height and width of the two images, in pixels ..."""
REPORTED = ((200, 160), (96, 120))
"""... and of the images that detections are reported for."""
CASES = {
    "standard": [],
    "agnostic": [
        *("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True, "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", True),
        *("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True, "MODEL.ROI_MASK_HEAD.NORM", "", "MODEL.ROI_MASK_HEAD.NUM_CONV", 1),
    ],
    "cascade": ["MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True],
    "cascade_sigmoid": [
        *("MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True),
        *("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True, "TEST.DETECTIONS_PER_IMAGE", 7),
    ],
}


def head_cfg(case: str) -> CfgNode:
    """The configuration of a case."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.MASK_ON = True
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.MODEL.ROI_HEADS.IN_FEATURES = list(STRIDES)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 4096  # more than there are, so that nothing is left to chance
    cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION = 1.0
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.3
    box_head, mask_head = cfg.MODEL.ROI_BOX_HEAD, cfg.MODEL.ROI_MASK_HEAD
    box_head.NAME, box_head.POOLER_RESOLUTION, box_head.NORM = "FastRCNNConvFCHead", 7, "LN"
    box_head.NUM_CONV, box_head.CONV_DIM, box_head.NUM_FC, box_head.FC_DIM = 1, 8, 1, 16
    mask_head.NUM_CONV, mask_head.CONV_DIM, mask_head.NORM = 2, 8, "LN"
    cfg.merge_from_list(CASES[case])
    return cfg


def build_heads(case: str) -> StandardROIHeads:
    """The second stage of a case, as it is initialised."""
    shapes = {name: ShapeSpec(channels=CHANNELS, stride=stride) for name, stride in STRIDES.items()}
    cfg = head_cfg(case)
    return (CascadeROIHeads if "cascade" in case else StandardROIHeads)(cfg, shapes)


def draw_inputs(generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Feature maps, proposals and ground truth of both images, by name."""
    data = {}
    for name, stride in STRIDES.items():
        side = CANVAS // stride
        data[f"map.{name}"] = generator.normal(size=(2, CHANNELS, side, side)).astype(np.float16)
    for image, (height, width) in enumerate(SIZES):
        centers = generator.uniform(0, 1, (30, 2)) * (width, height)
        halves = np.exp(generator.uniform(np.log(2), np.log(50), (30, 2)))
        boxes = np.concatenate([centers - halves, centers + halves], axis=1)
        boxes = np.clip(boxes, 0, (width, height, width, height)).astype(np.float32)
        data[f"proposals{image}"] = boxes
        data[f"gt_boxes{image}"] = (boxes[:3] + generator.uniform(-2, 2, (3, 4))).astype(np.float32)
        data[f"gt_classes{image}"] = np.array([2, 0, 1])
    return data


def features(data: dict) -> dict[str, torch.Tensor]:
    """The feature maps by level."""
    return {name: torch.from_numpy(data[f"map.{name}"]).float() for name in STRIDES}


def proposals(data: dict) -> list[Instances]:
    """What the first stage would have given."""
    boxes = [torch.from_numpy(data[f"proposals{image}"]) for image in range(2)]
    return [
        Instances(size, proposal_boxes=Boxes(found), objectness_logits=torch.zeros(len(found)))
        for size, found in zip(SIZES, boxes)
    ]


def targets(data: dict, kind: str) -> list[Instances]:
    """Ground truth with masks, as "polygon" or "bitmask": a diamond in each box; the second image's have two parts."""
    found = []
    for image, size in enumerate(SIZES):
        boxes = data[f"gt_boxes{image}"]
        polygons = [[_diamond(box)] + ([_diamond(box, 0.3)] if image else []) for box in boxes.astype(np.float64)]
        masks = PolygonMasks(polygons)
        if kind == "bitmask":
            masks = BitMasks.from_polygon_masks(masks, *size)
        classes = torch.from_numpy(data[f"gt_classes{image}"])
        found.append(Instances(size, gt_boxes=Boxes(torch.from_numpy(boxes)), gt_classes=classes, gt_masks=masks))
    return found


def _diamond(box: np.ndarray, size: float = 1.0) -> np.ndarray:
    x0, y0, x1, y1 = box
    x, y, half_width, half_height = (x0 + x1) / 2, (y0 + y1) / 2, size * (x1 - x0) / 2, size * (y1 - y0) / 2
    shift = (1 - size) * half_width
    points = [(x - half_width, y), (x, y - half_height), (x + half_width, y), (x, y + half_height)]
    return np.array([(px + shift, py) for px, py in points]).reshape(-1)


def no_images() -> ImageList:
    """Heads do not look at images."""
    return ImageList(torch.zeros(2, 3, CANVAS, CANVAS), list(SIZES))


@torch.no_grad()
def detect(heads: StandardROIHeads, data: dict) -> dict[str, np.ndarray]:
    """Detections of both images, with masks of boxes and, packed into bits, of images."""
    found, _ = heads.eval()(no_images(), features(data), proposals(data), None)
    outputs = {}
    for image, instances in enumerate(found):
        outputs[f"masks{image}"] = instances.pred_masks[:, 0].numpy()
        outputs[f"boxes{image}"] = instances.pred_boxes.tensor.numpy().copy()
        outputs[f"scores{image}"] = instances.scores.numpy()
        outputs[f"classes{image}"] = instances.pred_classes.numpy()
        reported = detector_postprocess(instances, *REPORTED[image])
        outputs[f"pasted{image}"] = np.packbits(reported.pred_masks.numpy())
    return outputs


def train(heads: StandardROIHeads, data: dict, kind: str) -> dict[str, dict[str, float]]:
    """Losses, what training logs, and the norms of all gradients."""
    heads.train().zero_grad()
    maps = {name: value.requires_grad_() for name, value in features(data).items()}
    with EventStorage() as storage:
        _, losses = heads(no_images(), maps, proposals(data), targets(data, kind))
        sum(losses.values()).backward()
        statistics = {name: float(value) for name, (value, _) in storage.latest().items()}
    gradients = {name: p.grad.norm().item() for name, p in heads.named_parameters()}
    gradients.update({name: value.grad.norm().item() for name, value in maps.items()})
    return {
        "losses": {name: loss.item() for name, loss in losses.items()},
        "statistics": statistics,
        "gradients": gradients,
    }
