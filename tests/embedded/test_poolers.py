import math

import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes

SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32]


def constant_maps(images: int = 1) -> list[torch.Tensor]:
    """Every level holds its own index (0, 1, 2, 3), plus 10 times the index of the image."""
    offsets = 10.0 * torch.arange(images)[:, None, None, None]
    return [torch.full((images, 1, 256 >> level, 256 >> level), float(level)) + offsets for level in range(4)]


def test_against_the_reference(reference):
    pooler = ROIPooler(7, SCALES, 0, "ROIAlignV2")
    maps = [reference.outputs[f"fpn0.{level}"][None] for level in ("p2", "p3", "p4", "p5")]
    pooled = pooler(maps, [Boxes(reference.outputs["pooler_boxes"])])
    torch.testing.assert_close(pooled, reference.outputs["pooler_output"], atol=1e-5, rtol=1e-5)


def test_levels_of_the_reference(reference):
    boxes = reference.outputs["pooler_boxes"]
    shifted = Boxes(boxes - boxes[:, :2].repeat(1, 2))  # into the constant maps; the size alone chooses the level
    pooled = ROIPooler(1, SCALES, 0, "ROIAlignV2")(constant_maps(), [shifted])
    stored = reference.outputs["pooler_levels"]
    assert pooled.flatten().tolist() == (stored - stored.min()).tolist()


def test_the_size_of_a_box_chooses_its_level():
    sides = torch.tensor([3.0, 111, 113, 223, 225, 447, 449, 900])
    boxes = Boxes(torch.stack((0 * sides, 0 * sides, sides, sides), dim=1))
    expected = [min(max(math.floor(4 + math.log2(side / 224)), 2), 5) - 2 for side in sides.tolist()]
    assert set(expected) == {0, 1, 2, 3}
    pooled = ROIPooler(2, SCALES, 0, "ROIAlignV2")(constant_maps(), [boxes])
    assert pooled[:, 0, 0, 0].tolist() == expected


def test_bilinear_sampling_of_a_ramp_gives_cell_centres():
    # Averages of a linear function over a cell equal its value at the centre, whatever the number of samples.
    ramp = torch.arange(64.0).expand(64, 64)
    features = torch.stack((ramp, ramp.T))[None]
    box = torch.tensor([[40.0, 52.0, 96.0, 80.0]])
    pooled = ROIPooler(4, [1 / 4], 2, "ROIAlignV2")([features], [Boxes(box)])
    x = (40 + (torch.arange(4) + 0.5) * 56 / 4) / 4 - 0.5
    y = (52 + (torch.arange(4) + 0.5) * 28 / 4) / 4 - 0.5
    torch.testing.assert_close(pooled[0, 0], x.expand(4, 4), atol=1e-4, rtol=0)
    torch.testing.assert_close(pooled[0, 1], y[:, None].expand(4, 4), atol=1e-4, rtol=0)


def test_order_of_images_and_boxes_is_kept():
    small, large = [0.0, 0, 20, 20], [0.0, 0, 500, 500]
    boxes = [Boxes(torch.tensor([large, small])), Boxes([]), Boxes(torch.tensor([small, large, small]))]
    pooled = ROIPooler(2, SCALES, 0, "ROIAlignV2")(constant_maps(3), boxes)
    assert pooled.shape == (5, 1, 2, 2)
    assert pooled[:, 0, 0, 0].tolist() == [3, 0, 20, 23, 20]


def test_no_boxes_at_all():
    pooled = ROIPooler(7, SCALES, 0, "ROIAlignV2")(constant_maps(2), [Boxes([]), Boxes([])])
    assert pooled.shape == (0, 1, 7, 7)


def test_gradient_reaches_exactly_the_levels_in_use():
    maps = [level.clone().requires_grad_() for level in constant_maps()]
    boxes = Boxes(torch.tensor([[0.0, 0, 20, 20], [0.0, 0, 300, 300]]))
    ROIPooler(1, SCALES, 0, "ROIAlignV2")(maps, [boxes]).sum().backward()
    sums = [level.grad.sum().item() for level in maps]
    assert sums == pytest.approx([1, 0, 1, 0], abs=1e-5)


def test_an_unknown_type_is_refused():
    with pytest.raises(ValueError, match="ROISquash"):
        ROIPooler(7, SCALES, 0, "ROISquash")


@pytest.mark.parametrize("scales", [[1 / 4, 1 / 16], [1 / 3], [1 / 8, 1 / 4]])
def test_scales_that_are_no_pyramid_are_refused(scales):
    with pytest.raises((AssertionError, ValueError)):
        ROIPooler(7, scales, 0, "ROIAlignV2")


def test_no_images():
    assert ROIPooler((3, 5), [1.0], 0, "ROIAlignV2")([torch.zeros(0, 8, 4, 4)], []).shape == (0, 8, 3, 5)


def test_without_half_pixel_offsets():
    features = torch.arange(64.0).view(1, 1, 8, 8)
    boxes = [Boxes(torch.tensor([[8.0, 8, 24, 24]]))]
    shifted = [Boxes(torch.tensor([[10.0, 10, 26, 26]]))]
    # At stride 4, half a pixel of the map is two of the image.
    old = ROIPooler(2, [1 / 4], 2, "ROIAlign")([features], boxes)
    assert torch.allclose(old, ROIPooler(2, [1 / 4], 2, "ROIAlignV2")([features], shifted))


def test_the_level_of_a_box_follows_the_canonical_one():
    boxes = [Boxes(torch.tensor([[0.0, 0, 100, 100]]))]
    for size, level in ((100, 4), (200, 3), (50, 5)):
        pooler = ROIPooler(1, SCALES, 0, "ROIAlignV2", canonical_box_size=size, canonical_level=4)
        usual = [Boxes(torch.tensor([[0.0, 0, 1, 1]]) * 224 * 2.0 ** (level - 4))]
        expected = ROIPooler(1, SCALES, 0, "ROIAlignV2")(constant_maps(), usual)
        assert torch.allclose(pooler(constant_maps(), boxes), expected)
