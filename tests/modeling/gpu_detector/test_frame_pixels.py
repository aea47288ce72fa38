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


def test_which_frames_the_kernel_gets(device, monkeypatch):
    """Those in one piece together, others one by one; grey ones and other types not at all."""
    from eventful_vitdet.modeling import gpu_detector
    from eventful_vitdet.modeling.gpu_detector import frame_pixels

    class Device:
        type = "cuda"

    class Batch(torch.Tensor):
        device = Device()

    seen = []
    monkeypatch.setattr(torch.cuda, "device", lambda _: torch.no_grad())
    monkeypatch.setattr(gpu_detector.gpu, "load_kernels", lambda device: {})
    monkeypatch.setattr(frame_pixels, "normalise", lambda piece, *_: seen.append(tuple(piece.shape)))
    mean = torch.ones(3, 1, 1)

    def write(frames, dtype=torch.float32):
        return gpu_detector.write_normalised(
            frames, mean, mean, torch.empty(2, 3, 8, 8, dtype=dtype).as_subclass(Batch)
        )

    assert write(torch.empty(2, 3, 8, 6)) and write([torch.empty(3, 8, 6), torch.empty(3, 5, 8)])
    assert seen == [(2, 3, 8, 6), (1, 3, 8, 6), (1, 3, 5, 8)]
    assert not write(torch.empty(2, 1, 8, 6)) and not write([torch.empty(3, 8, 6), torch.empty(1, 5, 8)])
    assert not write(torch.empty(2, 3, 8, 6), torch.float64)
    assert len(seen) == 3
