import copy

import numpy as np
import pytest
import torch
from detectron2.structures import (
    Boxes,
    BoxMode,
    ImageList,
    Instances,
    pairwise_ioa,
    pairwise_iou,
)
from detectron2.structures.boxes import pairwise_intersection

# Detectron2 reports wrong use by assertions, the embedded part by ValueError.
WRONG_USE = (AssertionError, ValueError)


def random_boxes(count: int, size: float = 100.0) -> torch.Tensor:
    corners = torch.rand(count, 2, 2) * size
    return torch.cat((corners.amin(1), corners.amax(1)), dim=1)


class TestBoxMode:
    def test_there_and_back(self):
        corners = [10.0, 20.0, 40.0, 60.0]
        sizes = BoxMode.convert(corners, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
        assert sizes == [10, 20, 30, 40]
        assert BoxMode.convert(sizes, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS) == [10, 20, 40, 60]
        assert corners == [10, 20, 40, 60], "the input must stay as it was"

    @pytest.mark.parametrize(
        "make", [tuple, list, lambda box: np.array([box, box]), lambda box: torch.tensor([box, box])]
    )
    def test_the_kind_of_box_is_kept(self, make):
        corners = make([10.0, 20.0, 40.0, 60.0])
        before = copy.deepcopy(corners)
        sizes = BoxMode.convert(corners, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
        assert type(sizes) is type(corners) and np.array_equal(sizes, make([10.0, 20.0, 30.0, 40.0]))
        assert np.array_equal(BoxMode.convert(sizes, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS), before)
        assert np.array_equal(corners, before), "the input must stay as it was"

    def test_same_mode_returns_the_box(self):
        assert BoxMode.convert([1, 2, 3, 4], BoxMode.XYWH_ABS, BoxMode.XYWH_ABS) == [1, 2, 3, 4]

    def test_a_box_of_three_numbers_is_refused(self):
        with pytest.raises(WRONG_USE):
            BoxMode.convert([1.0, 2.0, 3.0], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)

    def test_values_are_those_of_annotation_files(self):
        assert (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS) == (0, 1, 4)


class TestBoxes:
    def test_clip_moves_corners_into_the_image(self):
        boxes = Boxes(torch.tensor([[-5.0, 2.0, 50.0, 90.0]]))
        boxes.clip((60, 40))  # height, width
        assert boxes.tensor.tolist() == [[0, 2, 40, 60]]

    def test_nonempty_needs_both_sides(self):
        boxes = Boxes(torch.tensor([[0, 0, 5, 5], [0, 3, 5, 3], [2, 0, 2, 5], [5, 5, 0, 0]]))
        assert boxes.nonempty().tolist() == [True, False, False, False]

    def test_scale(self):
        boxes = Boxes(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        boxes.scale(10, 100)
        assert boxes.tensor.tolist() == [[10, 200, 30, 400]]

    def test_indexing_and_cat(self):
        boxes = Boxes(random_boxes(5))
        assert torch.equal(boxes[1:3].tensor, boxes.tensor[1:3])
        mask = torch.tensor([True, False, False, True, False])
        assert torch.equal(boxes[mask].tensor, boxes.tensor[[0, 3]])
        assert torch.equal(Boxes.cat([boxes, boxes[:1]]).tensor, boxes.tensor[[0, 1, 2, 3, 4, 0]])

    def test_a_single_one_and_iteration(self):
        boxes = Boxes(random_boxes(3))
        assert torch.equal(boxes[1].tensor, boxes.tensor[1:2]) and torch.equal(boxes[-1].tensor, boxes.tensor[2:])
        assert [box.tolist() for box in boxes] == boxes.tensor.tolist()
        with pytest.raises(IndexError):
            boxes[3]

    def test_areas_centres_and_limits(self):
        boxes = Boxes(torch.tensor([[0.0, 0, 4, 5], [-2, 0, 2, 3], [5, 5, 12, 6]]))
        assert boxes.area().tolist() == [20, 12, 7]
        assert boxes.get_centers().tolist() == [[2, 2.5], [0, 1.5], [8.5, 5.5]]
        assert boxes.inside_box((10, 10)).tolist() == [True, False, False]
        assert boxes.inside_box((10, 10), boundary_threshold=3).tolist() == [True, True, True]
        assert boxes.nonempty(3.5).tolist() == [True, False, False] and boxes.device == torch.device("cpu")

    def test_pairs(self):
        first, second = Boxes(torch.tensor([[0.0, 0, 4, 4]])), Boxes(torch.tensor([[2.0, 0, 6, 4], [9, 9, 9, 9]]))
        assert pairwise_intersection(first, second).tolist() == [[8, 0]]
        assert pairwise_iou(first, second)[0, 0].item() == pytest.approx(8 / 24)
        assert pairwise_ioa(first, second).tolist() == [[0.5, 0]]

    def test_no_boxes(self):
        for empty in (Boxes(torch.empty(0)), Boxes([]), Boxes.cat([])):
            assert len(empty) == 0 and empty.tensor.shape == (0, 4)

    def test_a_clone_shares_nothing(self):
        boxes = Boxes(random_boxes(2))
        before = boxes.tensor.clone()
        boxes.clone().scale(2, 2)
        assert torch.equal(boxes.tensor, before)

    def test_wrong_shape_is_refused(self):
        with pytest.raises(WRONG_USE):
            Boxes(torch.zeros(3, 5))


class TestInstances:
    @pytest.fixture
    def found(self) -> Instances:
        scores = torch.tensor([0.9, 0.5, 0.1])
        return Instances((20, 30), pred_boxes=Boxes(random_boxes(3)), scores=scores, labels=torch.arange(3))

    def test_fields_are_attributes(self, found):
        found.extra = torch.arange(3)
        assert found.has("extra") and not found.has("other") and torch.equal(found.get_fields()["extra"], found.extra)
        assert set(found.get_fields()) == {"pred_boxes", "scores", "labels", "extra"}
        with pytest.raises(AttributeError, match="other"):
            _ = found.other

    def test_a_field_of_another_length_is_refused(self, found):
        with pytest.raises(WRONG_USE):
            found.extra = torch.arange(4)

    def test_indexing_applies_to_all_fields(self, found):
        some = found[found.scores > 0.3]
        assert len(some) == 2 and some.image_size == (20, 30)
        assert torch.equal(some.pred_boxes.tensor, found.pred_boxes.tensor[:2])

    def test_a_single_one(self, found):
        assert [found[i].labels.tolist() for i in (0, 2, -1, -3)] == [[0], [2], [2], [0]]
        assert len(found[1].pred_boxes) == 1
        for index in (3, -4):
            with pytest.raises(IndexError):
                found[index]
        with pytest.raises(NotImplementedError):
            iter(found)

    def test_fields_can_be_taken_out(self, found):
        assert found.get("labels") is found.labels
        found.remove("labels")
        assert not found.has("labels") and len(found) == 3
        with pytest.raises(KeyError):
            found.remove("labels")

    def test_lists_are_joined_too(self, found):
        found.names = ["a", "b", "c"]
        assert Instances.cat([found, found[:1]]).names == ["a", "b", "c", "a"]

    def test_other_image_sizes_are_not_joined(self, found):
        with pytest.raises(WRONG_USE):
            Instances.cat([found, Instances((1, 1), **found.get_fields())])

    def test_cat(self, found):
        both = Instances.cat([found, found])
        assert len(both) == 6 and both.labels.tolist() == [0, 1, 2] * 2
        assert torch.equal(both.pred_boxes.tensor, found.pred_boxes.tensor.repeat(2, 1))

    def test_to_leaves_fields_without_a_device_alone(self, found):
        found.names = ["a", "b", "c"]
        moved = found.to("cpu")
        assert moved.names == found.names and torch.equal(moved.scores, found.scores)

    def test_can_be_copied(self, found):
        assert torch.equal(copy.deepcopy(found).scores, found.scores)

    def test_without_fields_there_is_no_length(self):
        with pytest.raises(NotImplementedError):
            len(Instances((1, 1)))


class TestImageList:
    def test_pads_at_the_bottom_and_right(self):
        images = [torch.full((3, 4, 9), 1.0), torch.full((3, 7, 5), 2.0)]
        batch = ImageList.from_tensors(images, size_divisibility=8)
        assert batch.tensor.shape == (2, 3, 8, 16)
        assert batch.image_sizes == [(4, 9), (7, 5)]
        for padded, image, (height, width) in zip(batch.tensor, images, batch.image_sizes):
            assert torch.equal(padded[:, :height, :width], image)
            assert (padded == 0).sum() == padded.numel() - image.numel()

    @pytest.mark.parametrize("count", [1, 2])
    def test_square_size(self, count):
        images = [torch.ones(3, 4, 9)] * count
        batch = ImageList.from_tensors(images, padding_constraints={"square_size": 12})
        assert batch.tensor.shape == (count, 3, 12, 12)
        assert batch.tensor.sum() == count * 3 * 4 * 9

    def test_images_without_their_padding(self):
        images = [torch.rand(3, 10, 6), torch.rand(3, 7, 12)]
        batch = ImageList.from_tensors(images, 0, pad_value=9.0)
        assert len(batch) == 2 and batch.device == torch.device("cpu")
        assert all(torch.equal(found, image) for found, image in zip(batch, images))
        assert (batch.tensor[0, :, :, 6:] == 9).all() and torch.equal(batch.to(torch.float64)[1], images[1].double())
