"""Frames that a GPU starts before the host has looked at the weights: these may have changed, or change later."""

import copy
import gc

import pytest
import torch
from eventful_vit import Streams, TopR
from eventful_vit.ops import tf32
from eventful_vit.repetition import Repetition
from torch.multiprocessing.reductions import StorageWeakRef

from ..small_models import dense_of, expected_of, flushed, make_video, make_vit, run
from ..test_off_the_road import CHANGES, by_another_module, by_data, in_place
from .conftest import BEFORE


def test_the_gpu_begins_before_the_host_looks(started):
    vit, video = make_vit(policy=TopR(6)), make_video(8)
    expected = expected_of(vit, video)
    started.clear()
    outputs = []
    for number, frame in enumerate(video):
        started.clear()
        outputs.append(vit(frame[None])["last_feat"])
        assert started == (["look"] if number < BEFORE else ["start", "look"])
    assert torch.equal(torch.cat(outputs), expected)


@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_change(change, started, needs_kernels):
    vit, video = make_vit(policy=TopR(6)), make_video(12)
    run(vit, video[:5])
    assert started.count("start") == 2
    change(vit)
    expected = expected_of(vit, video[5:])
    out = run(vit, video[5:6])
    assert flushed(vit) == (True,) and started.count("start") == 3
    assert torch.equal(torch.cat([out, run(vit, video[6:])]), expected)
    assert flushed(vit) == (False,) and started.count("start") == 3 + 7 - BEFORE


@pytest.mark.parametrize("frames", range(1, 5))
def test_weights_that_change_while_frames_are_recorded(frames, started):
    vit, video = make_vit(policy=TopR(6)), make_video(10)
    run(vit, video[:frames])
    in_place(vit)
    expected = expected_of(vit, video[frames:])
    assert torch.equal(run(vit, video[frames:]), expected)


def test_weights_that_change_in_all_states(started):
    vit, video = make_vit(policy=TopR(6)), make_video(12)
    states = vit.new_state(), vit.new_state()
    for state in states:
        run(vit, video[:5], state)
    in_place(vit)
    expected = expected_of(vit, video[5:])
    for state in states:
        started.clear()
        assert torch.equal(run(vit, video[5:], state), expected)
        assert started[0] == ("start" if state is states[0] else "look")  # that they changed is known by then


def test_what_is_read_stays_in_memory(started):
    vit = make_vit(policy=TopR(6))
    run(vit, make_video(5))
    known = {parameter.data_ptr() for parameter in vit.parameters()}
    by_data(vit)
    by_another_module(vit)
    assert {weight.data_ptr() for weight in vit.state.recorded.repetition.weights} >= known
    vit.release()
    assert vit.state.recorded.repetition is None and vit.state.recorded.weights is None


def test_what_is_derived_from_weights_stays_in_memory(started):
    vit = make_vit(policy=TopR(6), compute_dtype=torch.bfloat16)
    run(vit, make_video(5))
    assert vit.state.recorded.repetition.kind.recorder.held


def test_a_state_that_is_handed_to_another_model(started):
    vit, video, state = make_vit(policy=TopR(6)), make_video(12), Streams()
    other = copy.deepcopy(vit)
    in_place(other)
    run(vit, video[:6], state)
    assert torch.equal(run(other, video[6:], state), expected_of(other, video[6:]))
    assert torch.equal(run(vit, video[6:], state), expected_of(vit, video[6:]))


def test_models_that_share_parameters(started):
    vit, video, outputs = make_vit(policy=TopR(6)), make_video(12), []
    other = copy.deepcopy(vit, {id(p): p for p in vit.parameters()})
    expected = expected_of(vit, video)
    for number, frame in enumerate(video):
        outputs.append(vit(frame[None])["last_feat"])
        other(frame[None])
        if number in (1, 5):
            other.train().eval()  # which forgets what was derived from the parameters
    assert torch.equal(torch.cat(outputs), expected)


def test_moved_weights_are_freed(started):
    vit, video = make_vit(policy=TopR(6)), make_video(4)
    run(vit, video)
    dense_of(vit, video, enabled=False)
    memory = StorageWeakRef(vit.blocks[0].mlp.fc1.weight.untyped_storage())
    assert vit.state.recorded.repetition is not None and not memory.expired()
    vit.double()
    gc.collect()
    assert memory.expired()


@pytest.mark.parametrize("place", ["start", "new_trace"])
def test_an_interruption(place, started, monkeypatch):
    vit, video = make_vit(policy=TopR(6)), make_video(10)
    run(vit, video[:5])

    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Repetition, place, interrupted)
        vit(video[5:6])
    expected = expected_of(vit, video[6:]) if place == "start" else None
    run_again = run(vit, video[6:])
    assert expected is None or torch.equal(run_again, expected)
    assert not vit.state._in_use.locked()


def test_results_belong_to_the_caller(started):
    vit, video = make_vit(policy=TopR(6)), make_video(8)
    outputs = [vit(frame[None])["last_feat"] for frame in video]
    copies = [output.clone() for output in outputs]
    outputs[-1].zero_()
    run(vit, video[:2])
    assert all(torch.equal(*pair) for pair in zip(outputs[:-1], copies[:-1]))


def test_gradients_and_inference_mode_make_no_difference(started):
    vit, video = make_vit(policy=TopR(6)), make_video(12)
    expected, outputs = expected_of(vit, video), []
    contexts = [torch.inference_mode, torch.no_grad, torch.enable_grad]
    for number, frame in enumerate(video):
        with contexts[number % 3]():
            outputs.append(vit(frame[None])["last_feat"])
    assert not any(output.is_inference() or output.requires_grad for output in outputs)
    assert torch.equal(torch.cat(outputs), expected) and started.count("start") == 12 - BEFORE


@pytest.mark.parametrize("enabled", [True, False])
def test_settings_that_decide_how_products_are_rounded(enabled, started, monkeypatch):
    vit, video, seen = make_vit(policy=TopR(6)), make_video(4), []
    embed = type(vit)._embed
    monkeypatch.setattr(type(vit), "_embed", lambda *args, **grid: seen.append(1) or embed(*args, **grid))
    dense_of(vit, video, enabled=enabled)
    assert len(seen) == 2  # the others are repeated
    monkeypatch.setattr(tf32, "settings", lambda: (True, True))
    dense_of(vit, video, enabled=enabled)
    assert len(seen) == 4
