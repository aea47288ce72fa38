import pytest
import torch
from detectron2.layers import Conv2d, get_norm
from torch import nn


@pytest.mark.parametrize("channels", [5, 64])
def test_the_same_as_its_layer(device, channels):
    from eventful_vitdet.modeling.gpu_detector.bias_and_relu import ConvolutionReLU, has_bias_and_relu

    layer = Conv2d(7, channels, 3, padding=1, activation=nn.ReLU()).to(device)
    assert has_bias_and_relu(layer)
    x = torch.randn(2, 7, 9, 70, device=device)
    torch.testing.assert_close(ConvolutionReLU(layer, layer.weight)(x), layer(x), atol=1e-5, rtol=1e-5)


def test_without_cudnns_kernel(device, monkeypatch):
    """It is asked once only; and where it is not used, NaN stays."""
    from eventful_vitdet.modeling.gpu_detector.bias_and_relu import ConvolutionReLU

    asked = []

    def refuse(*_):
        asked.append(1)
        raise RuntimeError("unable to find an engine")

    monkeypatch.setattr(torch, "cudnn_convolution_relu", refuse)
    layer = Conv2d(7, 8, 3, padding=1, activation=nn.ReLU()).to(device)
    ours = ConvolutionReLU(layer, layer.weight)
    x = torch.randn(2, 7, 9, 70, device=device)
    x[0, 0, 4, 4] = float("nan")
    for _ in range(2):
        assert ours(x)[0, 0, 4, 4].isnan()
    assert len(asked) == int(device.type == "cuda")


def test_other_layers_are_left_alone(device):
    from eventful_vitdet.modeling.gpu_detector.bias_and_relu import has_bias_and_relu

    others = [
        nn.Conv2d(3, 3, 1),
        Conv2d(3, 3, 1),
        Conv2d(3, 3, 1, activation=nn.GELU()),
        Conv2d(3, 3, 1, bias=False, activation=nn.ReLU()),
        Conv2d(3, 3, 1, norm=get_norm("LN", 3), activation=nn.ReLU()),
    ]
    assert not any(map(has_bias_and_relu, others))
