"""Streams that begin again, other numbers of them, frames that are refused, and threads."""

import copy
import threading

import pytest
import torch
from eventful_vit import TopR
from eventful_vit.repetition import Repetition

from ..small_models import CLOSE, expected_of, flushed, make_video, make_vit, run, run_in_threads
from .conftest import BEFORE


@pytest.mark.parametrize("ends", ["reset", "release", "move", "weights_changed", "train"])
def test_streams_that_begin_again(ends, started):
    vit, video = make_vit(policy=TopR(6)), make_video(10)
    run(vit, video[:5])
    if ends == "move":
        vit.state.to("cpu")
    elif ends == "train":
        vit.train().eval()
    else:
        getattr(vit, ends)()
    expected = expected_of(vit, video[5:]) if ends != "move" else None
    out = run(vit, video[5:6])
    assert flushed(vit) == (ends != "move",)
    out = torch.cat([out, run(vit, video[6:])])
    assert expected is None or torch.equal(out, expected)


def test_one_of_two_streams_begins_again(started):
    vit, video = make_vit(policy=TopR(6)), make_video(20).unflatten(0, (10, 2))
    twin = copy.deepcopy(vit)
    for number, frames in enumerate(video):
        for each in (vit, twin):
            if number == 6:
                each.reset([1])
        twin.state.recorded.clear()
        assert torch.equal(vit(frames)["last_feat"], twin(frames)["last_feat"])
        assert flushed(vit) == flushed(twin) == (number == 0, number in (0, 6))
    assert started.count("start") == 3 + 2


def test_other_numbers_of_streams(started):
    vit, video = make_vit(policy=TopR(6)), make_video(24).unflatten(0, (12, 2))
    twin = copy.deepcopy(vit)
    for number, frames in enumerate(video):
        frames = frames[: 1 + (number // 5) % 2]
        twin.state.recorded.clear()
        assert torch.equal(vit(frames)["last_feat"], twin(frames)["last_feat"])
        assert flushed(vit) == flushed(twin)
    assert started.count("start") > 2


def test_refused_frames_change_nothing(started):
    vit, video = make_vit(policy=TopR(6)), make_video(8)
    expected = expected_of(vit, video)
    run(vit, video[:5])
    for bad in (torch.zeros(1, 3, 41, 56), torch.zeros(1, 3, 40, 40), torch.zeros(1, 3, 40, 56).double()):
        with pytest.raises(ValueError):
            vit(bad)
    assert torch.equal(run(vit, video[5:]), expected[5:]) and flushed(vit) == (False,)


def test_a_frame_that_is_not_finite(started):
    vit, video, seen = make_vit(policy=TopR(6)), make_video(8), []
    run(vit, video[:5])
    trace = vit.state.trace
    vit.observers.append(seen.append)
    with pytest.raises(ValueError, match="frame of stream 0; all streams begin again"):
        vit(video[5:6] * torch.nan)
    assert started[-2:] == ["start", "look"] and vit.state.running == (False,)
    assert not seen and vit.state.trace is trace
    assert torch.equal(run(vit, video[6:]), expected_of(make_vit(policy=TopR(6)), video[6:]))


def test_threads_with_states_of_their_own(started):
    vit = make_vit(policy=TopR(6))
    videos = [make_video(12, seed) for seed in range(4)]
    for result, video in zip(run_in_threads(vit, videos), videos):
        torch.testing.assert_close(result, expected_of(vit, video), **CLOSE)


def test_a_state_goes_from_thread_to_thread(started):
    vit, video, outputs = make_vit(policy=TopR(6)), make_video(8), []
    expected = expected_of(vit, video)
    for frame in video:
        thread = threading.Thread(target=lambda frame=frame: outputs.append(vit(frame[None])["last_feat"]))
        thread.start()
        thread.join()
    assert torch.equal(torch.cat(outputs), expected) and started.count("start") == 8 - BEFORE


def test_one_state_in_two_threads_is_an_error(started, monkeypatch):
    vit, video = make_vit(policy=TopR(6)), make_video(7)
    run(vit, video[:5])
    inside, go_on, start = threading.Event(), threading.Event(), Repetition.start

    def wait(self, inputs):
        inside.set()
        assert go_on.wait(60)
        return start(self, inputs)

    monkeypatch.setattr(Repetition, "start", wait)
    thread = threading.Thread(target=run, args=(vit, video[5:6]))
    thread.start()
    assert inside.wait(60)
    with pytest.raises(RuntimeError, match="this state is computing another frame"):
        vit(video[6:])
    go_on.set()
    thread.join()
    run(vit, video[6:])
    assert flushed(vit) == (False,)
