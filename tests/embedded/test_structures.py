import copy

import numpy as np
import pytest
import torch
import torchvision.ops
from detectron2.structures import Boxes, BoxMode, ImageList, Instances, pairwise_iou

# Detectron2 reports wrong use by assertions, the embedded part by ValueError.
WRONG_USE = (AssertionError, ValueError)


def random_boxes(count: int, size: float = 100.0) -> torch.Tensor:
    corners = torch.rand(count, 2, 2) * size
    return torch.cat((corners.amin(1), corners.amax(1)), dim=1)


class TestBoxMode:
    @pytest.mark.parametrize("make", [list, tuple, np.array, torch.tensor])
    def test_there_and_back_keeps_type_and_values(self, make):
        corners = make([10.0, 20.0, 40.0, 60.0])
        if not isinstance(corners, (list, tuple)):
            corners = corners[None]
        sizes = BoxMode.convert(corners, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
        assert type(sizes) is type(corners)
        assert np.asarray(sizes).ravel().tolist() == [10, 20, 30, 40]
        back = BoxMode.convert(sizes, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
        assert np.asarray(back).ravel().tolist() == [10, 20, 40, 60]
        assert np.asarray(corners).ravel().tolist() == [10, 20, 40, 60], "the input must stay as it was"

    def test_same_mode_returns_the_box(self):
        assert BoxMode.convert([1, 2, 3, 4], BoxMode.XYWH_ABS, BoxMode.XYWH_ABS) == [1, 2, 3, 4]

    def test_a_box_of_three_numbers_is_refused(self):
        with pytest.raises(WRONG_USE):
            BoxMode.convert([1.0, 2.0, 3.0], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)

    def test_values_are_those_of_annotation_files(self):
        assert (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS) == (0, 1)


class TestBoxes:
    def test_area(self):
        assert Boxes(torch.tensor([[0, 0, 3, 4], [1, 1, 1, 9]])).area().tolist() == [12, 0]

    def test_clip_moves_corners_into_the_image(self):
        boxes = Boxes(torch.tensor([[-5.0, 2.0, 50.0, 90.0]]))
        boxes.clip((60, 40))  # height, width
        assert boxes.tensor.tolist() == [[0, 2, 40, 60]]

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_clip_refuses_numbers_that_are_not_finite(self, value):
        with pytest.raises(WRONG_USE):
            Boxes(torch.tensor([[0.0, 0.0, value, 1.0]])).clip((10, 10))

    def test_nonempty_needs_both_sides_above_the_threshold(self):
        boxes = Boxes(torch.tensor([[0, 0, 5, 5], [0, 0, 5, 2], [0, 0, 2, 5], [5, 5, 0, 0]]))
        assert boxes.nonempty().tolist() == [True, True, True, False]
        assert boxes.nonempty(threshold=2).tolist() == [True, False, False, False]

    def test_inside_box(self):
        boxes = Boxes(torch.tensor([[0, 0, 5, 5], [-1, 0, 5, 5], [0, 0, 12, 5], [0, 0, 5, 12]]))
        assert boxes.inside_box((10, 10)).tolist() == [True, False, False, False]
        assert boxes.inside_box((10, 10), boundary_threshold=1.5).tolist() == [True, True, False, False]

    def test_scale(self):
        boxes = Boxes(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        boxes.scale(10, 100)
        assert boxes.tensor.tolist() == [[10, 200, 30, 400]]

    def test_indexing_iteration_and_cat(self):
        boxes = Boxes(random_boxes(5))
        assert boxes[2].tensor.shape == (1, 4)
        assert torch.equal(boxes[1:3].tensor, boxes.tensor[1:3])
        mask = torch.tensor([True, False, False, True, False])
        assert torch.equal(boxes[mask].tensor, boxes.tensor[[0, 3]])
        assert torch.equal(torch.stack(list(boxes)), boxes.tensor)
        assert torch.equal(Boxes.cat([boxes, boxes[:1]]).tensor, boxes.tensor[[0, 1, 2, 3, 4, 0]])

    def test_no_boxes(self):
        for empty in (Boxes(torch.empty(0)), Boxes([]), Boxes.cat([])):
            assert len(empty) == 0 and empty.tensor.shape == (0, 4) and empty.area().shape == (0,)

    def test_a_clone_shares_nothing(self):
        boxes = Boxes(random_boxes(2))
        before = boxes.tensor.clone()
        boxes.clone().scale(2, 2)
        assert torch.equal(boxes.tensor, before)

    def test_wrong_shape_is_refused(self):
        with pytest.raises(WRONG_USE):
            Boxes(torch.zeros(3, 5))


class TestPairwiseIou:
    def test_against_torchvision(self):
        first, second = random_boxes(30), random_boxes(20)
        expected = torchvision.ops.box_iou(first, second)
        torch.testing.assert_close(pairwise_iou(Boxes(first), Boxes(second)), expected, atol=1e-6, rtol=1e-5)

    def test_boxes_without_area_have_overlap_zero(self):
        empty = Boxes(torch.tensor([[5.0, 5.0, 5.0, 5.0]]))
        assert pairwise_iou(empty, empty).tolist() == [[0]]

    def test_no_boxes(self):
        assert pairwise_iou(Boxes([]), Boxes(random_boxes(3))).shape == (0, 3)
        assert pairwise_iou(Boxes(random_boxes(3)), Boxes([])).shape == (3, 0)


class TestInstances:
    @pytest.fixture
    def found(self) -> Instances:
        scores = torch.tensor([0.9, 0.5, 0.1])
        return Instances((20, 30), pred_boxes=Boxes(random_boxes(3)), scores=scores, names=["a", "b", "c"])

    def test_fields_are_attributes(self, found):
        found.extra = torch.arange(3)
        assert found.has("extra") and torch.equal(found.get("extra"), found.extra)
        assert set(found.get_fields()) == {"pred_boxes", "scores", "names", "extra"}
        found.remove("extra")
        assert not found.has("extra")
        with pytest.raises(AttributeError, match="extra"):
            _ = found.extra

    def test_a_field_of_another_length_is_refused(self, found):
        with pytest.raises(WRONG_USE):
            found.extra = torch.arange(4)

    def test_indexing_applies_to_all_fields(self, found):
        found.remove("names")  # a list takes no mask
        some = found[found.scores > 0.3]
        assert len(some) == 2 and some.image_size == (20, 30)
        assert torch.equal(some.pred_boxes.tensor, found.pred_boxes.tensor[:2])
        assert found[-1].scores.tolist() == found.scores[-1:].tolist()
        with pytest.raises(IndexError):
            found[3]

    def test_cat(self, found):
        both = Instances.cat([found, found])
        assert len(both) == 6 and both.names == ["a", "b", "c"] * 2
        assert torch.equal(both.pred_boxes.tensor, found.pred_boxes.tensor.repeat(2, 1))
        with pytest.raises(WRONG_USE):
            Instances.cat([found, Instances((1, 1), **found.get_fields())])

    def test_to_leaves_fields_without_a_device_alone(self, found):
        moved = found.to("cpu")
        assert moved.names == found.names and torch.equal(moved.scores, found.scores)

    def test_can_be_copied(self, found):
        assert torch.equal(copy.deepcopy(found).scores, found.scores)

    def test_has_no_iterator_and_without_fields_no_length(self, found):
        with pytest.raises(NotImplementedError):
            iter(found)
        with pytest.raises(NotImplementedError):
            len(Instances((1, 1)))


class TestImageList:
    def test_pads_at_the_bottom_and_right(self):
        images = [torch.full((3, 4, 9), 1.0), torch.full((3, 7, 5), 2.0)]
        batch = ImageList.from_tensors(images, size_divisibility=8, pad_value=-1.0)
        assert batch.tensor.shape == (2, 3, 8, 16)
        assert batch.image_sizes == [(4, 9), (7, 5)] and len(batch) == 2
        for padded, image, (height, width) in zip(batch.tensor, images, batch.image_sizes):
            assert torch.equal(padded[:, :height, :width], image)
            assert (padded == -1).sum() == padded.numel() - image.numel()

    @pytest.mark.parametrize("count", [1, 2])
    def test_square_size(self, count):
        images = [torch.ones(3, 4, 9)] * count
        batch = ImageList.from_tensors(images, padding_constraints={"square_size": 12})
        assert batch.tensor.shape == (count, 3, 12, 12)
        assert batch.tensor.sum() == count * 3 * 4 * 9

    def test_divisibility_among_the_constraints_goes_first(self):
        constraints = {"size_divisibility": 5, "square_size": 12}
        batch = ImageList.from_tensors([torch.ones(3, 4, 9)], 4, padding_constraints=constraints)
        assert batch.tensor.shape == (1, 3, 15, 15)

    def test_no_images_are_refused(self):
        with pytest.raises(WRONG_USE):
            ImageList.from_tensors([])
