"""Explicit state: any number of states for one model, kept aside, copied, moved, dropped, and used by threads."""

import contextlib
import copy
import io
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from eventful_vit import Policy, Streams, TopR, weights
from eventful_vit.ops.cpu import library

from .small_models import CLOSE, make_video, make_vit, run, run_in_threads


def test_states_do_not_mix():
    vit = make_vit(policy=TopR(6))
    videos = [make_video(5, seed) for seed in range(2)]
    alone = [run(vit, video, vit.new_state()) for video in videos]
    states = [vit.new_state(), vit.new_state()]
    outputs = [
        [vit(frame[None], state)["last_feat"][0] for frame, state in zip(frames, states)] for frames in zip(*videos)
    ]
    for stream in range(2):
        torch.testing.assert_close(torch.stack([out[stream] for out in outputs]), alone[stream], **CLOSE)
    assert vit.state.nbytes == 0  # the model's own was never used


def test_a_state_may_be_kept_aside_copied_and_pickled():
    vit, video = make_vit(policy=TopR(6)), make_video(6)
    state = vit.new_state()
    run(vit, video[:3], state)
    snapshot, pickled = copy.deepcopy(state), pickle.loads(pickle.dumps(state))
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    saved = torch.load(stream, weights_only=False)
    expected = run(vit, video[3:], state)
    for other in (snapshot, pickled, saved):
        assert torch.equal(run(vit, video[3:], other), expected)
        assert other.trace.flushed == (False,)


def test_a_shallow_copy_of_a_state_shares_no_memory():
    vit, video = make_vit(policy=TopR(6)), make_video(8)
    run(vit, video[:4])
    twin = copy.copy(vit.state)
    assert torch.equal(run(vit, video[4:], twin), run(vit, video[4:]))
    assert twin.running == vit.state.running == (True,)


@pytest.mark.parametrize("places", [(0, -1), (-2, 1)])
def test_places_before_the_first_one_are_refused(places):
    vit, video = make_vit(policy=TopR(6)), make_video(2)
    run(vit, video)
    with pytest.raises(ValueError, match=f"a stream is a position in the batch, got {min(places)}"):
        vit.state.swap(*places)
    assert vit.state.running == (True,)


def test_a_state_may_be_moved():
    vit, video = make_vit(policy=TopR(6)), make_video(4)
    expected = run(vit, video, vit.new_state())
    state = vit.new_state()
    run(vit, video[:2], state)
    assert state.to("cpu") is state
    torch.testing.assert_close(run(vit, video[2:], state), expected[2:], atol=0, rtol=0)
    assert state.trace.flushed == (False,)


def test_reset_and_release():
    vit, video = make_vit(), make_video(2)
    state = vit.new_state()
    run(vit, video, state)
    assert state.running == (True,) and state.nbytes > 0
    state.reset([0])
    assert state.running == (False,) and state.nbytes > 0
    state.release()
    assert state.nbytes == 0
    with pytest.raises(ValueError, match="a stream is a position in the batch, got -1"):
        state.reset([-1])


@pytest.mark.parametrize("streams", [np.array([0]), torch.tensor([0]), (0,), range(1)])
def test_streams_to_reset_come_in_any_sequence(streams):
    vit, video = make_vit(), make_video(2)
    state = vit.new_state()
    run(vit, video, state)
    state.reset([])
    assert state.running == (True,)
    state.reset(streams)
    assert state.running == (False,)
    with pytest.raises(TypeError, match="not iterable"):
        state.reset(0)


class CountingPolicy(Policy):
    """Remembers how many frames it was asked about."""

    def limits(self, tokens):
        return 6, float("-inf")

    def next(self, memory, trace):
        self.memory, self.trace = memory, trace
        return self, (memory or 0) + 1


def test_a_policy_remembers_the_first_frame_and_frames_of_another_size():
    policy = CountingPolicy()
    vit, state = make_vit(policy=policy), Streams()
    found = []
    for video in (make_video(3), make_video(2, size=(32, 24))):
        state.reset()
        for frame in video:
            vit(frame[None], state)
            found.append((policy.memory, policy.trace and policy.trace.flushed))
    assert found == [(None, None), (1, (True,)), (2, (False,)), (3, (False,)), (4, (True,))]
    state.release()
    vit(make_video(1), state)
    assert policy.memory is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_processes_give_versions_of_their_own():
    vit = make_vit()
    before = vit._weights().version()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, str(next(weights._numbers)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(reading, 100)) != next(weights._numbers)
    assert vit._weights().version() == before
    os.close(reading), os.close(writing)


def test_using_a_state_where_it_cannot_be_handed_in():
    vit, video = make_vit(policy=TopR(6)), make_video(3)
    expected, state = run(vit, video, vit.new_state()), vit.new_state()
    with vit.using(state):
        outputs = run(vit, video)
    assert torch.equal(outputs, expected) and state.running == (True,)
    assert vit.state.nbytes == 0


def test_threads_with_states_of_their_own():
    vit = make_vit(policy=TopR(6))
    videos = [make_video(12, seed) for seed in range(4)]
    for result, video in zip(run_in_threads(vit, videos), videos):
        torch.testing.assert_close(result, run(vit, video, vit.new_state()), **CLOSE)


def test_threads_find_the_same_change_of_weights(monkeypatch):
    """However long one of them takes to look: no stream begins a second time."""
    vit, frame = make_vit(policy=TopR(6)), make_video(1)
    states, make_sampler = [vit.new_state(), vit.new_state()], weights._make_sampler
    together = threading.Barrier(2)

    def take_a_while(tensors):
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(0.2)
        return make_sampler(tensors)

    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as threads:
        patch.setattr(weights, "_make_sampler", take_a_while)
        list(threads.map(lambda state: vit(frame, state), states))
    for state in states:
        vit(frame, state)
        assert state.trace.flushed == (False,)


def test_threads_that_begin_together_share_a_watch(monkeypatch):
    """With one each, of which the model keeps one, the streams of the other would begin a second time."""
    vit, frame = make_vit(policy=TopR(6)), make_video(1)
    states, make_watch = [vit.new_state(), vit.new_state()], weights.WeightWatch.__init__
    together = threading.Barrier(2)

    def take_a_while(watch, model):
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(0.2)
        make_watch(watch, model)

    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as threads:
        patch.setattr(weights.WeightWatch, "__init__", take_a_while)
        list(threads.map(lambda state: vit(frame, state), states))
    for state in states:
        vit(frame, state)
        assert state.trace.flushed == (False,)


def test_threads_that_look_at_weights_at_once(needs_kernels, monkeypatch):
    """Each gets the number of what it saw itself."""
    tensor, sample, calls = torch.zeros(10), library.kernel("sample"), []
    sampler = library.Sampler([tensor])
    before = sampler.value()

    def interrupted(address, threads):
        status = sample(address, threads)
        calls.append(status)
        if len(calls) == 1:
            tensor.add_(1)
            assert sampler.value() != before  # another thread's
        return status

    monkeypatch.setattr(library, "kernel", lambda name: interrupted)
    assert sampler.value() == before


def test_one_state_in_two_threads_is_an_error():
    vit, video = make_vit(policy=TopR(6)), make_video(3)
    run(vit, video[:1])
    inside, go_on = threading.Event(), threading.Event()

    def wait(*_):
        inside.set()
        assert go_on.wait(60)

    hook = vit.blocks[1].register_forward_hook(wait)
    thread = threading.Thread(target=run, args=(vit, video[1:2]))
    thread.start()
    assert inside.wait(60)
    with pytest.raises(RuntimeError, match=r"another frame in another thread; .*model\.new_state\(\)"):
        vit(video[2][None])
    go_on.set()
    thread.join()
    hook.remove()
    assert vit.state.running == (True,)  # the first thread's frame came through
    run(vit, video[2:])
    assert vit.state.trace.flushed == (False,)


def within_a_frame(vit, frame, action):
    """Compute a frame and do something when a part of its blocks have run, as another thread may."""
    hook = vit.blocks[1].register_forward_hook(lambda *_: action())
    try:
        vit(frame[None])
    finally:
        hook.remove()


@pytest.mark.parametrize("streams, flushed", [(None, True), ([0], True), ([1], False)])
def test_a_reset_within_a_frame_concerns_the_next_one(streams, flushed):
    vit, video = make_vit(policy=TopR(6)), make_video(4)
    run(vit, video[:2])
    within_a_frame(vit, video[2], lambda: vit.reset(streams))
    assert vit.state.running == (not flushed,)
    vit(video[3][None])
    assert vit.state.trace.flushed == (flushed,)


@pytest.mark.parametrize("action", ["release", "to", "swap"])
def test_memory_of_a_state_stays_while_a_frame_is_computed(action):
    vit, video = make_vit(policy=TopR(6)), make_video(4)
    expected = run(make_vit(policy=TopR(6)), video[3:])
    run(vit, video[:2])
    arguments = {"release": (), "to": ("cpu",), "swap": (0, 1)}[action]
    with pytest.raises(RuntimeError, match="called within it, as by a hook; call it when the frame is done"):
        within_a_frame(vit, video[2], lambda: getattr(vit.state, action)(*arguments))
    torch.testing.assert_close(run(vit, video[3:]), expected, **CLOSE)  # the interrupted stream begins again
    getattr(vit.state, action)(*arguments)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_process_forked_within_another_threads_frame():
    """It can use the state, whose streams begin again."""
    vit, video = make_vit(policy=TopR(6)), make_video(3)
    run(vit, video[:1])
    states = vit.state, copy.deepcopy(vit.state), pickle.loads(pickle.dumps(vit.state))
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(1) as thread:

        def begin():
            for state in states:
                stack.enter_context(state.exclusive())
                state.begin(1)

        thread.submit(begin).result()
        child = os.fork()
        if not child:
            running = []
            with contextlib.suppress(RuntimeError):
                for state in states:  # no frames: PyTorch's threads may hang in a forked process
                    with state.exclusive():
                        running.append(state.running)
            os._exit(running != [(False,)] * 3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        with pytest.raises(RuntimeError, match="another frame in another thread"):
            vit(video[1:2])  # in the parent it is in use


def test_a_frame_within_a_frame_needs_another_state():
    vit, video, inner = make_vit(policy=TopR(6)), make_video(4), []
    run(vit, video[:2])
    with pytest.raises(RuntimeError, match=r"called within it, as by a hook.*model\.new_state\(\)"):
        within_a_frame(vit, video[2], lambda: vit(video[3][None]))

    def compute_in_another_state():
        if not inner:
            inner.append(vit.new_state())
            vit(video[3][None], inner[0])

    within_a_frame(vit, video[2], compute_in_another_state)
    assert inner[0].running == vit.state.running == (True,)


def test_frames_are_refused_before_anything_changes():
    vit, video = make_vit(policy=TopR(6)), make_video(3)
    expected = run(vit, video, vit.new_state())
    run(vit, video[:2])
    bad = [
        (torch.zeros(0, 3, 40, 56), r"frames \(B, 3, H, W\) with B of 1 or more are needed, got \(0, 3, 40, 56\)"),
        (torch.zeros(1, 4, 40, 56), r"frames \(B, 3, H, W\) .* got \(1, 4, 40, 56\)"),
        (torch.zeros(1, 1, 3, 40, 56), r"got \(1, 1, 3, 40, 56\)"),
        (torch.zeros(1, 3, 40, 56, dtype=torch.uint8), "frames of torch.float32 are needed.*got torch.uint8"),
        (torch.zeros(1, 3, 40, 56, dtype=torch.float64), "got torch.float64"),
        (torch.zeros(1, 3, 41, 56), "41 x 56 pixels is not a multiple of patch_size = 8"),
        (torch.zeros(1, 3, 0, 56), "not a multiple"),
        (torch.zeros(1, 3, 40, 40), "5 x 7 tokens and this frame 5 x 5; call reset"),
        (torch.full((2, 3, 40, 56), torch.inf), "stream 0, 1"),
    ]
    for frame, message in bad:
        with pytest.raises(ValueError, match=message):
            vit(frame)
        vit.enabled = False
        if "stream" not in message and "reset" not in message:
            with pytest.raises(ValueError, match=message):
                vit(frame)
        vit.enabled = True
    torch.testing.assert_close(run(vit, video[2:])[0], expected[2], atol=0, rtol=0)


def test_an_empty_state_is_a_state():
    """It is used although it holds nothing yet."""
    vit, state = make_vit(), Streams()
    vit(make_video(1), state)
    assert state.running == (True,) and vit.state.running == ()


def test_too_little_memory_tells_how_much_is_needed(monkeypatch):
    vit = make_vit(policy=TopR(6))
    vit(make_video(1))
    held = vit.state.nbytes

    def no_memory(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "cat", no_memory)
    with pytest.raises(torch.OutOfMemoryError, match=rf"{held:,} bytes of state of 2 streams; fewer streams"):
        vit(make_video(2))
    monkeypatch.undo()
    vit(make_video(2))
    assert vit.state.trace.flushed == (True, True)


@pytest.mark.parametrize("clip", [False, True])
def test_replicas_that_would_share_one_state_are_refused(clip):
    """As `nn.DataParallel` makes them on several GPUs."""
    vit = make_vit(policy=TopR(6))
    with vit.train(clip).training_clip() if clip else contextlib.nullcontext():
        with pytest.raises(RuntimeError, match=r"DataParallel copies a model for each call.*give each device a model"):
            vit._replicate_for_data_parallel()


@pytest.mark.parametrize("training", [True, False])
def test_replicas_of_the_dense_model_share_nothing_but_what_they_read(training):
    vit = make_vit(enabled=training)
    vit.reset()
    vit.weights_changed()
    replica = vit.train(training)._replicate_for_data_parallel()
    assert replica.state is not vit.state and replica._weights() is not vit._weights()
