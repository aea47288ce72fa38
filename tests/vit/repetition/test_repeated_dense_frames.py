"""Frames of the dense model, which are repeated as eventful ones are."""

import copy

import pytest
import torch
from eventful_vit import count_operations

from ..small_models import dense_of, make_video, make_vit
from ..test_off_the_road import by_another_module, by_data, ema_swap_behind_pytorchs_back, in_place


@pytest.mark.parametrize("change", [in_place, by_data, by_another_module, ema_swap_behind_pytorchs_back])
def test_a_dense_frame_begins_before_the_host_looks(change, started, needs_kernels):
    vit, video = make_vit(enabled=False), make_video(6)
    outputs = [dense_of(vit, video[:4])]
    assert started == ["look", "look", "start", "look", "start", "look"]
    assert torch.equal(outputs[0], dense_of(copy.deepcopy(vit), video[:4]))
    change(vit)
    assert torch.equal(dense_of(vit, video[4:]), dense_of(copy.deepcopy(vit), video[4:]))


def test_a_hook_sees_a_dense_frame(started):
    vit, video, seen = make_vit(enabled=False), make_video(5), []
    expected = dense_of(vit, video)
    vit.blocks[1].register_forward_hook(lambda *args: seen.append(1))
    started.clear()
    assert torch.equal(dense_of(vit, video[:1]), expected[:1]) and seen == [1] and "start" not in started


def test_dense_frames_of_other_sizes_and_their_operations(started):
    vit, found = make_vit(enabled=False), []
    for number in range(12):
        size = ((40, 56), (48, 40))[number // 4 % 2]
        with torch.inference_mode(), count_operations(vit) as counts:
            output = vit(make_video(1, size=size))["last_feat"]
        assert torch.equal(output, dense_of(copy.deepcopy(vit), make_video(1, size=size)))
        found.append(counts.by_category())
    assert found[:4] == found[8:] == [found[0]] * 4 and found[4:8] == [found[4]] * 4 != found[:4]
    assert started.count("start") > 4


@pytest.mark.filterwarnings("ignore")
def test_a_traced_model_is_no_recorded_frame(started):
    vit, video = make_vit(enabled=False), make_video(6)
    expected = dense_of(vit, video)
    with torch.no_grad():
        traced = torch.jit.trace(vit, video[:1], strict=False, check_trace=False)
        assert torch.equal(traced(video[5:])["last_feat"], expected[5:])
    assert len(vit._of_thread.recorded.kinds) == 1
