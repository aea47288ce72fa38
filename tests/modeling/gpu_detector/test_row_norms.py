"""Norms with what is joined to them, and doubling layers as products, against PyTorch's layers."""

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, get_norm
from torch import nn


def norm_of(channels):
    norm = get_norm("LN", channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


@pytest.mark.parametrize(("activation", "apply"), [("", lambda x: x), ("relu", F.relu), ("gelu", F.gelu)])
@pytest.mark.parametrize("channels", [5, 32, 1300])
def test_norm(device, activation, apply, channels):
    from eventful_vitdet.modeling.gpu_detector.row_norms import norm_rows

    norm, bias = norm_of(channels).to(device), torch.randn(channels, device=device)
    rows = torch.randn(2, 3, 5, channels, device=device)
    expected = apply(F.layer_norm(rows + bias, (channels,), norm.weight, norm.bias, norm.eps))
    found = norm_rows(rows, bias, norm.weight, norm.bias, norm.eps, activation)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    short = norm_rows(rows.bfloat16(), bias, norm.weight, norm.bias, norm.eps, activation)
    assert short.dtype is torch.bfloat16
    torch.testing.assert_close(short.float(), expected, atol=0.1, rtol=0.1)
    rows[1, 2, 4, 0] = torch.nan
    is_nan = norm_rows(rows, None, norm.weight, norm.bias, norm.eps, activation).isnan().all(3)
    assert is_nan.sum() == 1 and is_nan[1, 2, 4]
    assert norm_rows(rows[:0], None, norm.weight, norm.bias, norm.eps, activation).shape == (0, 3, 5, channels)


def stage_of(kind: str) -> nn.Sequential:
    """Stages as pyramids have them, and others; small ones."""
    first, second = nn.ConvTranspose2d(12, 10, 2, stride=2), nn.ConvTranspose2d(10, 6, 2, stride=2, bias=False)
    pointwise = Conv2d(10 if kind == "twice" else 6, 8, 1, bias=kind == "with bias", norm=norm_of(8))
    last = Conv2d(8, 8, 3, padding=1, bias=False, norm=norm_of(8))
    if kind == "twice":
        return nn.Sequential(first, pointwise, last)
    return nn.Sequential(first, norm_of(10), nn.GELU(), second, pointwise, last)


@pytest.mark.parametrize("kind", ["twice", "four times", "with bias"])
def test_doubling(device, kind):
    from eventful_vitdet.modeling.gpu_detector.doubling import take_doubling

    stage = stage_of(kind).to(device)
    source = torch.randn(2, 12, 3, 5, device=device).contiguous(memory_format=torch.channels_last)
    doubling, others = take_doubling(stage, None)
    assert list(others) == [stage[-1]]
    expected = stage(source)
    torch.testing.assert_close(others(doubling(source)), expected, atol=1e-4, rtol=1e-4)
    doubling, others = take_doubling(stage, torch.bfloat16)
    found = others(doubling(source.bfloat16()).float())
    assert (found - expected).abs().mean() < 0.02 * expected.abs().mean()


def test_other_stages_are_left_alone(device):
    from eventful_vitdet.modeling.gpu_detector.doubling import take_doubling

    last = Conv2d(8, 8, 3, padding=1, norm=norm_of(8))
    others = [
        nn.Sequential(last),
        nn.Sequential(nn.ConvTranspose2d(8, 8, 2, stride=2), last),
        nn.Sequential(nn.ConvTranspose2d(8, 8, 2, stride=2), nn.Identity(), nn.GELU(), last),
        nn.Sequential(nn.ConvTranspose2d(8, 8, 4, stride=2, padding=1), norm_of(8)),
        last,
    ]
    assert [take_doubling(stage, None) for stage in others] == [(None, stage) for stage in others]


def test_convolutions_with_a_norm(device):
    from eventful_vitdet.modeling.gpu_detector.inference_copies import NormedConvolution, copy_for_inference

    x = torch.randn(2, 7, 9, 6, device=device)
    for more in ({}, {"activation": nn.ReLU()}, {"activation": F.gelu, "bias": False}):
        layer = Conv2d(7, 12, 3, padding=1, stride=2, norm=norm_of(12), **more).to(device)
        copied = copy_for_inference(layer, None)
        assert type(copied) is NormedConvolution
        torch.testing.assert_close(copied(x), layer(x), atol=1e-4, rtol=1e-4)
    assert type(copy_for_inference(Conv2d(7, 8, 3, norm=norm_of(8), activation=torch.tanh), None)) is Conv2d
