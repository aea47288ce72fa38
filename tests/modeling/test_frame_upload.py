"""Frames through memory that is kept; on a CPU it is not pinned."""

import copy
import pickle

import pytest
import torch
from eventful_vitdet.modeling.frame_upload import FrameUpload, Staging

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


def frames(*sizes, dtype=torch.uint8):
    return [torch.randint(0, 255, (3, *size)).to(dtype) for size in sizes]


@pytest.mark.parametrize("name", DEVICES)
def test_frames_arrive_one_after_the_other(name):
    staging = Staging(torch.device(name))
    mixed = frames((5, 7)) + frames((9, 3), dtype=torch.float32) + [torch.rand(8, 9, 3).permute(2, 0, 1)]
    batches = [frames((5, 7), (5, 7)), mixed, frames((4, 4)), frames((50, 70), (50, 70)), frames((5, 7), (5, 7))]
    arrived = [staging(batch) for batch in batches]
    assert [isinstance(batch, torch.Tensor) for batch in arrived] == [True, False, True, True, True]
    for found, expected in zip(arrived, batches):
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected):
            assert ours.dtype is theirs.dtype and ours.device.type == name
            assert torch.equal(ours.cpu(), theirs)


def test_frames_of_inference_mode():
    staging = Staging(torch.device("cpu"))
    with torch.inference_mode():
        staging(frames((3, 4)))
    batch = frames((3, 4))
    assert torch.equal(staging(batch)[0], batch[0])


def test_on_a_cpu_nothing_is_copied():
    (frame,) = frames((3, 4))
    assert FrameUpload()([frame], torch.device("cpu"))[0] is frame


def test_copies_of_a_detector_have_memory_of_their_own():
    upload = FrameUpload()
    assert copy.deepcopy(upload) is not upload
    pickle.loads(pickle.dumps(upload))
