import pytest
import torch


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("size", [(9, 13), (16, 20)])
def test_frames_are_normalised_and_padded(device, dtype, size):
    from eventful_vitdet.modeling.gpu_detector.frame_pixels import normalise

    frames = torch.randint(0, 255, (2, 3, *size)).to(device, dtype)
    mean, deviation = torch.rand(3, 1, 1, device=device) * 200, torch.rand(3, 1, 1, device=device) * 60 + 1
    out = torch.full((2, 3, 16, 20), torch.nan, device=device)
    normalise(frames, mean, deviation, out)
    expected = torch.zeros(2, 3, 16, 20, device=device)
    expected[..., : size[0], : size[1]] = (frames - mean) / deviation
    assert torch.equal(out, expected)
