"""What the embedded part tells a user who made a mistake; the real Detectron2 has its own words."""

import detectron2
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import FastRCNNOutputLayers, build_roi_heads
from detectron2.structures import BoxMode
from detectron2.utils.events import EventStorage

pytestmark = pytest.mark.skipif("embedded" not in detectron2.__version__, reason="messages of the embedded part alone")


def test_classes_that_the_model_does_not_have(make_detector, training_inputs):
    training_inputs[0]["instances"].gt_classes[0] = 4
    with EventStorage(), pytest.raises(ValueError, match=r"4\].*4 classes.*MODEL.ROI_HEADS.NUM_CLASSES"):
        make_detector().train()(training_inputs)


def test_no_classes_at_all(detector_cfg):
    detector_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 0
    with pytest.raises(ValueError, match="MODEL.ROI_HEADS.NUM_CLASSES must be at least 1, got 0"):
        FastRCNNOutputLayers(detector_cfg, ShapeSpec(channels=8))


def test_diverged_training_says_what_to_do(make_detector, training_inputs):
    detector = make_detector().train()
    torch.nn.init.constant_(detector.proposal_generator.rpn_head.objectness_logits.bias, float("inf"))
    with EventStorage(), pytest.raises(FloatingPointError, match="SOLVER.BASE_LR"):
        detector(training_inputs)


def test_labels_of_another_number_than_intervals():
    with pytest.raises(ValueError, match="IOU_LABELS must be one more than the 2 IOU_THRESHOLDS"):
        Matcher([0.3, 0.7], [0, 1])


@pytest.mark.parametrize(
    ("key", "value"),
    [("ROI_HEADS.NAME", "Res5ROIHeads"), ("ROI_BOX_HEAD.NAME", ""), ("ROI_MASK_HEAD.NAME", "PointRendMaskHead")],
)
def test_heads_that_do_not_exist_here_are_refused_not_ignored(detector_cfg, key, value):
    detector_cfg.merge_from_list(["MODEL.MASK_ON", True, f"MODEL.{key}", value])
    shapes = {
        name: ShapeSpec(channels=8, stride=stride) for name, stride in zip(("p2", "p3", "p4", "p5"), (4, 8, 16, 32))
    }
    with pytest.raises(ValueError, match=f"MODEL.{key} is {value!r}"):
        build_roi_heads(detector_cfg, shapes)


def test_federated_loss_is_refused_in_training_only(detector_cfg):
    detector_cfg.MODEL.ROI_BOX_HEAD.USE_FED_LOSS = True
    predictor = FastRCNNOutputLayers(detector_cfg, ShapeSpec(channels=8))
    predictions = predictor(torch.zeros(0, 8))
    assert list(predictor.inference(predictions, [])[0]) == []
    with EventStorage(), pytest.raises(ValueError, match="MODEL.ROI_BOX_HEAD.USE_FED_LOSS is True"):
        predictor.losses(predictions, [])


def test_boxes_of_modes_that_nothing_converts():
    with pytest.raises(NotImplementedError, match="from XYWHA_ABS to XYXY_ABS"):
        BoxMode.convert([1.0, 2, 3, 4, 5], BoxMode.XYWHA_ABS, BoxMode.XYXY_ABS)
