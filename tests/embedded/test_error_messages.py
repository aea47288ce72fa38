"""What the embedded part tells a user who made a mistake; the real Detectron2 has its own words."""

import detectron2
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import FastRCNNOutputLayers, StandardROIHeads
from detectron2.structures import ImageList
from detectron2.utils.events import EventStorage

pytestmark = pytest.mark.skipif("embedded" not in detectron2.__version__, reason="messages of the embedded part alone")


def test_classes_that_the_model_does_not_have(make_detector, training_inputs):
    training_inputs[0]["instances"].gt_classes[0] = 4
    with EventStorage(), pytest.raises(ValueError, match=r"4\].*4 classes.*MODEL.ROI_HEADS.NUM_CLASSES"):
        make_detector().train()(training_inputs)


def test_no_classes_at_all():
    with pytest.raises(ValueError, match="MODEL.ROI_HEADS.NUM_CLASSES must be at least 1, got 0"):
        FastRCNNOutputLayers(8, box2box_transform=None, num_classes=0)


def test_training_without_ground_truth(make_detector, training_inputs):
    del training_inputs[1]["instances"]
    with EventStorage(), pytest.raises(KeyError, match="training input 1 has no 'instances'"):
        make_detector().train()(training_inputs)


def test_image_larger_than_the_square_of_the_backbone():
    with pytest.raises(ValueError, match=r"90 x 150 pixels.*exceed the 128 x 128.*INPUT.MAX_SIZE_TEST"):
        ImageList.from_tensors([torch.zeros(3, 90, 150)], padding_constraints={"square_size": 128})


def test_diverged_training_says_what_to_do(make_detector, training_inputs):
    detector = make_detector().train()
    torch.nn.init.constant_(detector.proposal_generator.rpn_head.objectness_logits.bias, float("inf"))
    with EventStorage(), pytest.raises(FloatingPointError, match="SOLVER.BASE_LR"):
        detector(training_inputs)


def test_labels_of_another_number_than_intervals():
    with pytest.raises(ValueError, match="IOU_LABELS must be one more than the 2 IOU_THRESHOLDS"):
        Matcher([0.3, 0.7], [0, 1])


def test_masks_are_refused_not_ignored():
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = True
    with pytest.raises(ValueError, match="MODEL.MASK_ON.*boxes only"):
        StandardROIHeads(cfg, {})
