"""Pooling and anchor outputs against Detectron2's layers."""

import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from eventful_vitdet.errors import ConfigError
from torch import nn


def regions(device) -> torch.Tensor:
    """Boxes (2, 6, 4) of all sizes, also empty ones, those of the whole image, and beyond it."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, 6, 2, generator=generator) * 150 - 10
    boxes = torch.cat([corner, corner + torch.rand(2, 6, 2, generator=generator) ** 2 * 120], dim=2)
    boxes[0, 3], boxes[1, 4] = 0, torch.tensor([0, 0, 172.0, 160])
    sides = (boxes[..., 2:] - boxes[..., :2]).prod(dim=2).sqrt()
    for least, most in ((0, 40), (40, 80), (80, 200)):  # pixels; a level each
        assert ((sides > least) & (sides < most)).any()
    return boxes.to(device)


def pyramid(device, channels=24) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    maps = [torch.randn(2, channels, side, side + 3, generator=generator) for side in (40, 20, 10)]
    return [level.to(device, memory_format=torch.channels_last) for level in maps]


@pytest.mark.parametrize(
    ("kind", "sampling", "size", "levels", "channels"),
    # Detectron2 pools oblong pieces from a single level only.
    [("ROIAlignV2", 0, 7, 3, 256), ("ROIAlign", 2, 4, 3, 256), ("ROIAlign", 2, (3, 5), 1, 16)],
)
def test_pooling(device, kind, sampling, size, levels, channels, monkeypatch):
    """Also of maps with more channels than a program takes."""
    from eventful_vitdet.modeling.gpu_detector import region_pooling
    from eventful_vitdet.modeling.gpu_detector.region_pooling import Pooling

    monkeypatch.setattr(region_pooling, "CHANNELS", channels)
    scales = [1 / 4, 1 / 8, 1 / 16][:levels]
    pooler = ROIPooler(size, scales, sampling, kind, canonical_box_size=40, canonical_level=3)
    maps, boxes = pyramid(device)[:levels], regions(device)
    expected = pooler(maps, [Boxes(image) for image in boxes])
    torch.testing.assert_close(Pooling.of(pooler)(maps, boxes), expected, atol=1e-5, rtol=1e-5)
    if kind == "ROIAlign" and device.type == "cpu":
        return  # types are read alike, and the interpreter is slow
    short = Pooling.of(pooler)([level.half() for level in maps], boxes)
    assert short.dtype is torch.float16
    torch.testing.assert_close(short.float(), expected, atol=4e-3, rtol=4e-3)


def test_no_regions(device):
    from eventful_vitdet.modeling.gpu_detector.region_pooling import Pooling

    pooling = Pooling.of(ROIPooler(7, [1 / 4, 1 / 8, 1 / 16], 0, "ROIAlignV2"))
    assert pooling(pyramid(device), torch.zeros(2, 0, 4, device=device)).shape == (0, 24, 7, 7)


def test_another_pooler_is_refused(device):
    from eventful_vitdet.modeling.gpu_detector.region_pooling import Pooling

    with pytest.raises(ConfigError, match="Identity is no ROIPooler"):
        Pooling.of(nn.Identity())


@pytest.mark.parametrize(("channels", "anchors"), [(24, 3), (100, 1), (40, 5)])
def test_anchor_outputs(device, channels, anchors):
    from eventful_vitdet.modeling.gpu_detector.anchor_outputs import AnchorOutputs

    to_logits, to_deltas = nn.Conv2d(channels, anchors, 1).to(device), nn.Conv2d(channels, 4 * anchors, 1).to(device)
    level = torch.randn(2, channels, 11, 13, device=device).contiguous(memory_format=torch.channels_last)
    size = 11 * 13 * anchors
    logits, deltas = torch.zeros(2, size + 30, device=device), torch.zeros(2, size + 30, 4, device=device)
    AnchorOutputs(to_logits, to_deltas)(level, logits[:, 20 : 20 + size], deltas[:, 20 : 20 + size])
    expected = to_logits(level).permute(0, 2, 3, 1).flatten(1)
    of_deltas = to_deltas(level).unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3)
    torch.testing.assert_close(logits[:, 20 : 20 + size], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(deltas[:, 20 : 20 + size], of_deltas, atol=1e-5, rtol=1e-5)
    for written in (logits, deltas):
        assert not written[:, :20].any() and not written[:, 20 + size :].any()
