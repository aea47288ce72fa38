import math

import pytest
import torch
import torch.nn.functional as F
import torchvision.ops
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage

WEIGHTS = (10.0, 10.0, 5.0, 5.0)
CLASSES = 3


def random_boxes(count: int) -> torch.Tensor:
    corner = torch.rand(count, 2) * 80
    return torch.cat((corner, corner + 5 + torch.rand(count, 2) * 60), dim=1)


def decode_by_hand(delta, box, weights):
    dx, dy, dw, dh = (d / w for d, w in zip(delta, weights))
    width, height = box[2] - box[0], box[3] - box[1]
    x, y = box[0] + width / 2 + dx * width, box[1] + height / 2 + dy * height
    limit = math.log(1000 / 16)
    width, height = width * math.exp(min(dw, limit)), height * math.exp(min(dh, limit))
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


class TestBox2BoxTransform:
    def test_coding_is_undone_by_decoding(self):
        transform = Box2BoxTransform(weights=WEIGHTS)
        source, target = random_boxes(50), random_boxes(50)
        decoded = transform.apply_deltas(transform.get_deltas(source, target), source)
        torch.testing.assert_close(decoded, target, atol=1e-3, rtol=1e-4)

    def test_decoding_follows_the_definition(self):
        boxes, deltas = random_boxes(20), torch.randn(20, 4)
        expected = [decode_by_hand(d, b, WEIGHTS) for d, b in zip(deltas.tolist(), boxes.tolist())]
        decoded = Box2BoxTransform(weights=WEIGHTS).apply_deltas(deltas, boxes)
        torch.testing.assert_close(decoded, torch.tensor(expected), atol=1e-3, rtol=1e-5)

    def test_several_predictions_per_box(self):
        transform, boxes, deltas = Box2BoxTransform(weights=WEIGHTS), random_boxes(6), torch.randn(6, 12)
        decoded = transform.apply_deltas(deltas, boxes)
        for k in range(0, 12, 4):
            expected = transform.apply_deltas(deltas[:, k : k + 4], boxes)
            torch.testing.assert_close(decoded[:, k : k + 4], expected)

    def test_growth_is_limited(self):
        wild = torch.tensor([[0.0, 0.0, 1e4, 1e4]])
        decoded = Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)).apply_deltas(wild, torch.tensor([[0.0, 0, 16, 16]]))
        torch.testing.assert_close(decoded[0, 2:] - decoded[0, :2], torch.tensor([1000.0, 1000.0]))

    def test_decodes_low_precision_in_float32(self):
        deltas = torch.zeros(1, 4, dtype=torch.bfloat16)
        boxes = torch.tensor([[1001.0, 1003.0, 1011.0, 1017.0]])
        assert Box2BoxTransform(weights=WEIGHTS).apply_deltas(deltas, boxes).tolist() == boxes.tolist()

    def test_a_source_without_width_is_refused(self):
        with pytest.raises((AssertionError, ValueError)):
            Box2BoxTransform(weights=WEIGHTS).get_deltas(torch.tensor([[5.0, 5, 5, 9]]), random_boxes(1))


def make_predictor(agnostic: bool = False, **box_head) -> FastRCNNOutputLayers:
    cfg = get_cfg()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = CLASSES
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST, cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST = 0.2, 0.4
    cfg.TEST.DETECTIONS_PER_IMAGE = 7
    cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = agnostic
    for name, value in box_head.items():
        cfg.MODEL.ROI_BOX_HEAD[name.upper()] = value
    return FastRCNNOutputLayers(cfg, ShapeSpec(channels=16))


def labelled_proposals() -> list[Instances]:
    """Two images: one with objects of all classes and background, one without any object."""
    first = Instances((200, 200), proposal_boxes=Boxes(random_boxes(6)), gt_boxes=Boxes(random_boxes(6)))
    first.gt_classes = torch.tensor([0, 1, 2, CLASSES, 1, CLASSES])
    second = Instances((200, 200), proposal_boxes=Boxes(random_boxes(4)))
    second.gt_classes = torch.full((4,), CLASSES)
    return [first, second]


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("loss_type", ["smooth_l1", "giou"])
def test_second_stage_losses(agnostic, loss_type):
    beta = 0.3
    predictor = make_predictor(agnostic, bbox_reg_loss_type=loss_type, smooth_l1_beta=beta, bbox_reg_loss_weight=2.0)
    proposals = labelled_proposals()
    logits, deltas = torch.randn(10, CLASSES + 1), torch.randn(10, 4 if agnostic else 4 * CLASSES)
    with EventStorage():
        losses = predictor.losses((logits, deltas), proposals)

    classes = torch.cat([p.gt_classes for p in proposals])
    expected_cls = -logits.log_softmax(1)[torch.arange(10), classes].mean()
    assert losses["loss_cls"].item() == pytest.approx(expected_cls.item(), rel=1e-5)

    transform, expected_box = Box2BoxTransform(weights=WEIGHTS), 0.0
    for i in range(6):
        label = classes[i].item()
        if label == CLASSES:
            continue
        box, truth = proposals[0].proposal_boxes.tensor[i : i + 1], proposals[0].gt_boxes.tensor[i : i + 1]
        delta = deltas[i : i + 1] if agnostic else deltas[i : i + 1, 4 * label : 4 * label + 4]
        if loss_type == "giou":
            decoded = transform.apply_deltas(delta, box)
            expected_box += torchvision.ops.generalized_box_iou_loss(decoded, truth, reduction="sum").item()
        else:
            target = transform.get_deltas(box, truth)
            expected_box += F.smooth_l1_loss(delta, target, beta=beta, reduction="sum").item()
    # All ten regions divide the loss, not the four in the foreground.
    assert losses["loss_box_reg"].item() == pytest.approx(2 * expected_box / 10, rel=1e-4)


@pytest.mark.parametrize("loss_type", ["smooth_l1", "giou"])
def test_batch_without_foreground_trains_the_classifier_alone(loss_type):
    predictor = make_predictor(bbox_reg_loss_type=loss_type)
    with EventStorage():
        losses = predictor.losses(predictor(torch.randn(4, 16)), labelled_proposals()[1:])
    assert losses["loss_box_reg"].item() == 0 and losses["loss_cls"].item() > 0
    sum(losses.values()).backward()
    assert predictor.bbox_pred.weight.grad.abs().sum() == 0 and predictor.cls_score.weight.grad.abs().sum() > 0


def test_unknown_box_loss_is_refused():
    with EventStorage(), pytest.raises(ValueError, match="l7"):  # when it is built, or used
        predictor = make_predictor(bbox_reg_loss_type="l7")
        predictor.losses(predictor(torch.randn(10, 16)), labelled_proposals())


@pytest.mark.parametrize("agnostic", [False, True])
def test_detections_against_loops(agnostic):
    predictor = make_predictor(agnostic)
    proposals = [Instances((90, 100), proposal_boxes=Boxes(random_boxes(n))) for n in (25, 30)]
    logits, deltas = 2 * torch.randn(55, CLASSES + 1), torch.randn(55, 4 if agnostic else 4 * CLASSES)
    found, _ = predictor.inference((logits, deltas), proposals)

    probabilities = logits.softmax(1).split([25, 30])
    for image in range(2):
        first = 25 * image
        rows = []
        for label in range(CLASSES):
            picked = deltas[first : first + len(proposals[image])]
            picked = picked if agnostic else picked[:, 4 * label : 4 * label + 4]
            boxes = proposals[image].proposal_boxes.tensor
            boxes = Box2BoxTransform(weights=WEIGHTS).apply_deltas(picked, boxes)
            boxes = torchvision.ops.clip_boxes_to_image(boxes, (90, 100))
            scores = probabilities[image][:, label]
            keep = torchvision.ops.nms(boxes[scores > 0.2], scores[scores > 0.2], 0.4)
            for box, score in zip(boxes[scores > 0.2][keep], scores[scores > 0.2][keep]):
                rows.append((score.item(), label, box))
        rows = sorted(rows, key=lambda row: -row[0])[:7]
        assert len(rows) == 7
        assert found[image].pred_classes.tolist() == [label for _, label, _ in rows]
        torch.testing.assert_close(found[image].scores, torch.tensor([score for score, _, _ in rows]))
        torch.testing.assert_close(found[image].pred_boxes.tensor, torch.stack([box for _, _, box in rows]))


def make_rpn() -> RPN:
    cfg = get_cfg()
    cfg.MODEL.ANCHOR_GENERATOR.SIZES, cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[32.0], [64.0]], [[0.5, 2.0]]
    cfg.MODEL.RPN.IN_FEATURES = ["p4", "p5"]
    cfg.MODEL.RPN.PRE_NMS_TOPK_TEST, cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 20, 10
    cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE = 64
    cfg.MODEL.RPN.LOSS_WEIGHT = 3.0
    return RPN(cfg, {"p4": ShapeSpec(channels=8, stride=16), "p5": ShapeSpec(channels=8, stride=32)})


def rpn_inputs():
    features = {"p4": torch.randn(2, 8, 8, 8), "p5": torch.randn(2, 8, 4, 4)}
    return ImageList(torch.zeros(2, 3, 128, 128), [(128, 128), (100, 90)]), features


def test_proposals_are_sorted_clipped_and_few():
    rpn = make_rpn().eval()
    torch.nn.init.normal_(rpn.rpn_head.anchor_deltas.weight, std=0.1)
    images, features = rpn_inputs()
    proposals, losses = rpn(images, features)
    assert losses == {}
    for found, (height, width) in zip(proposals, images.image_sizes):
        boxes = found.proposal_boxes.tensor
        assert 0 < len(found) <= 10 and found.image_size == (height, width)
        assert (found.objectness_logits.diff() <= 0).all()
        assert (boxes >= 0).all() and boxes[:, 2].max() <= width and boxes[:, 3].max() <= height
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_first_stage_losses_count_what_was_sampled():
    rpn = make_rpn().train()
    torch.nn.init.zeros_(rpn.rpn_head.objectness_logits.weight)
    images, features = rpn_inputs()
    truth = [
        Instances((128, 128), gt_boxes=Boxes(random_boxes(3))),
        Instances((100, 90), gt_boxes=Boxes(torch.empty(0, 4))),
    ]
    with EventStorage() as storage:
        proposals, losses = rpn(images, features, truth)
    assert len(proposals) == 2 and not any(p.proposal_boxes.tensor.requires_grad for p in proposals)
    count = storage.latest()["rpn/num_pos_anchors"][0] + storage.latest()["rpn/num_neg_anchors"][0]
    # A logit of 0 costs log 2 for either label; the sum over both images is divided by 64 anchors each.
    assert losses["loss_rpn_cls"].item() == pytest.approx(3 * count * 2 * math.log(2) / 128, rel=1e-5)
    assert losses["loss_rpn_loc"].item() > 0


def test_arguments_in_place_of_a_configuration():
    torch.manual_seed(0)
    transform = Box2BoxTransform(weights=WEIGHTS)
    predictor = FastRCNNOutputLayers(8, box2box_transform=transform, num_classes=5, cls_agnostic_bbox_reg=True)
    logits, deltas = predictor(torch.randn(2, 8))
    assert logits.shape == (2, 6) and deltas.shape == (2, 4)
    with EventStorage():
        losses = predictor.losses([torch.randn(0, 6, requires_grad=True), torch.randn(0, 4, requires_grad=True)], [])
    assert [value.item() for value in losses.values()] == [0, 0]
    sum(losses.values()).backward()
    assert list(predictor.inference([torch.randn(0, 6), torch.randn(0, 4)], [])[0]) == []


class TestSigmoid:
    """LVIS models: every class is scored by itself."""

    def test_scores(self):
        predictor = make_predictor(use_sigmoid_ce=True)
        proposals = labelled_proposals()
        logits, deltas = torch.randn(10, CLASSES + 1), torch.zeros(10, 4 * CLASSES)
        probabilities = torch.cat(list(predictor.predict_probs((logits, deltas), proposals)))
        assert torch.allclose(probabilities[:, :-1], 1 / (1 + (-logits[:, :-1]).exp()))
        found, regions = predictor.inference((logits, deltas), proposals)
        for instances, rows, offset in zip(found, regions, (0, 6)):
            assert len(instances)
            expected = logits[rows + offset, instances.pred_classes].sigmoid()
            assert torch.allclose(instances.scores, expected) and (instances.scores > 0.2).all()

    def test_the_background_is_no_rival(self):
        predictor = make_predictor(use_sigmoid_ce=True)
        proposal = Instances((200, 200), proposal_boxes=Boxes(torch.tensor([[5.0, 5, 50, 60]])))
        logits = torch.tensor([[3.0] + [-9.0] * (CLASSES - 1) + [50.0]])
        (found,), _ = predictor.inference((logits, torch.zeros(1, 4 * CLASSES)), [proposal])
        assert found.pred_classes.tolist() == [0] and found.scores[0].item() == pytest.approx(0.9526, abs=1e-4)

    def test_loss(self):
        predictor = make_predictor(use_sigmoid_ce=True)
        proposals = labelled_proposals()
        logits = torch.randn(10, CLASSES + 1)
        with EventStorage():
            losses = predictor.losses((logits, torch.zeros(10, 4 * CLASSES)), proposals)
        expected = 0.0
        for row, label in zip(logits, torch.cat([p.gt_classes for p in proposals]).tolist()):
            for i in range(CLASSES):
                probability = row[i].sigmoid()
                expected -= (probability if i == label else 1 - probability).log().item()
        assert losses["loss_cls"].item() == pytest.approx(expected / 10, rel=1e-5)
