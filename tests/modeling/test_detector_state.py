"""A detector's state: handed in, copied, pickled, kept through refused frames; and policies per gate."""

import copy
import io
import pickle
import threading

import pytest
import torch
from eventful_vit import PerGate, Threshold, TopR

from .test_video_rcnn import assert_same, clip, detect, item

PYRAMID = {"MODEL__EVENTFUL__PYRAMID__ENABLED": True, "MODEL__EVENTFUL__R": 6}


@pytest.fixture(params=["backbone", "pyramid too"])
def detector(request, tiny_model):
    return tiny_model(**PYRAMID if request.param == "pyramid too" else {"MODEL__EVENTFUL__R": 6})


def run(model, frames, state=None, video_id=1) -> list:
    with torch.no_grad():
        return [model([item(f, video_id, t)], state)[0]["instances"] for t, f in enumerate(frames)]


def test_states_that_are_handed_in_do_not_mix(detector):
    videos = [clip(4, seed) for seed in range(2)]
    alone = [run(detector, video, detector.new_state(), number) for number, video in enumerate(videos)]
    states = [detector.new_state(), detector.new_state()]
    for t in range(4):
        for number, state in enumerate(states):
            with torch.no_grad():
                (found,) = detector([item(videos[number][t], number, t)], state)
            assert state.trace.flushed == (t == 0,)
            assert_same(found["instances"], alone[number][t])
    assert detector.state_bytes() == 0 < states[0].nbytes


def test_one_model_serves_threads(detector):
    videos = [clip(6, seed) for seed in range(3)]
    expected = [run(detector, video, detector.new_state()) for video in videos]
    results = {}

    def work(number):
        results[number] = run(detector, videos[number], detector.new_state())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(3):
        for ours, theirs in zip(results[number], expected[number]):
            assert_same(ours, theirs)


def test_copies_are_independent(detector):
    frames = clip(5)
    run(detector, frames[:3])
    twin = copy.deepcopy(detector)
    assert twin.state_bytes() == 0
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(0.9)
    changed = [found.scores for found in run(twin, frames)]
    fresh = copy.deepcopy(twin)
    assert all(torch.equal(ours, found.scores) for ours, found in zip(changed, run(fresh, frames)))
    # The first one neither sees the copy's weights nor its frames.
    detector.reset()
    expected = [found.scores for found in run(detector, frames)]
    assert not any(torch.equal(ours, theirs) for ours, theirs in zip(changed, expected))


def test_a_detector_can_be_saved_after_a_frame(detector):
    frames = clip(3)
    expected = run(detector, frames)
    file = io.BytesIO()
    torch.save(detector, file)
    size = file.tell()
    file.seek(0)
    again = torch.load(file, weights_only=False)
    assert again.state_bytes() == 0
    assert size < 1.2 * sum(p.numel() * p.element_size() for p in detector.parameters()) + 100_000
    for ours, theirs in zip(run(again, frames), expected):
        assert_same(ours, theirs)


def test_a_refused_frame_ends_no_stream(detector):
    """NaN in one stream: the call is refused, and all streams continue with the frame after it."""
    a, b = ([frame.float() for frame in clip(4, seed)] for seed in (1, 2))
    with torch.no_grad():
        detector([item(a[0], 1, 0), item(b[0], 2, 0)])
        with pytest.raises(ValueError, match="NaN or infinity in the frame of stream 1"):
            detector([item(a[1], 1, 1), item(b[1] * torch.nan, 2, 1)])
        detector([item(a[2], 1, 2), item(b[2], 2, 2)])
    assert detector.state.trace.flushed == (False, False)


def test_a_refused_frame_that_begins_a_video(detector):
    a, b = ([frame.float() for frame in clip(4, seed)] for seed in (1, 2))
    with torch.no_grad():
        detector([item(a[0], 1, 0), item(b[0], 2, 0)])
        with pytest.raises(ValueError, match="stream 1"):
            detector([item(a[1], 1, 1), item(b[1] * torch.nan, 3, 0)])
        detector([item(a[2], 1, 2), item(b[2], 3, 1)])
    assert detector.state.trace.flushed == (False, True)


def test_interrupted_streams_start_over(detector):
    frames = clip(3)
    detect(detector, item(frames[0], 1, 0))

    def interrupt(*_):
        raise KeyboardInterrupt

    hook = detector.vit.blocks[0].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        detect(detector, item(frames[1], 1, 1))
    hook.remove()
    detect(detector, item(frames[2], 1, 2))
    assert detector.state.trace.flushed == (True,)


def test_weights_of_the_pyramid_that_change_are_used(tiny_model):
    model, frames = tiny_model(**PYRAMID), clip(4)
    run(model, frames[:3])
    with torch.no_grad():
        model.backbone.stages[0][-1].weight.mul_(1.5)
        detect(model, item(frames[3], 1, 3))
    assert not model.state.vit.trace.flushed[0] and model.state.pyramid.trace.flushed == (True,)


GATES = [["blocks.0.*", "top-r", 3], ["*.mlp", "threshold", 0.5], ["*", "top-r", 9]]


def test_policies_per_gate_from_the_configuration(tiny_model):
    model = tiny_model(MODEL__EVENTFUL__POLICY="per-gate", MODEL__EVENTFUL__GATES=GATES)
    assert model.vit.policy == PerGate({"blocks.0.*": TopR(3), "*.mlp": Threshold(0.5), "*": TopR(9)})
    run(model, clip(3))
    counts = {name: gate.selection.counts[0] for name, gate in model.state.trace.vit.gates.items()}
    assert counts["blocks.0.qkv"] == counts["blocks.0.mlp"] == 3 and counts["blocks.1.qkv"] == 9


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        ([["*", "best", 3]], r"MODEL.EVENTFUL.GATES has \['\*', 'best', 3\]; expected \[NAME, POLICY, VALUE\]"),
        ([["*", "top-r"]], "MODEL.EVENTFUL.GATES has"),
        ([5], "MODEL.EVENTFUL.GATES has 5; expected"),
        ([[1, "top-r", 2]], r"MODEL.EVENTFUL.GATES has \[1, 'top-r', 2\]; expected"),
        ([["*", ["top-r"], 2]], "MODEL.EVENTFUL.GATES has"),
        ([["*", "top-r", -1]], r"MODEL.EVENTFUL.GATES, \*: TopR needs r >= 0"),
        ([["*", "top-r", 2.5]], "whole number"),
        ([["blocks.0.*", "top-r", 3]], "no policy for gate 'blocks.1.qkv'"),
        ([["blocks.7.*", "top-r", 3], ["*", "top-r", 9]], r"'blocks.7.\*' names no gate"),
        ([], "no policy for gate 'blocks.0.qkv'"),
    ],
)
def test_bad_policies_per_gate(tiny_model, gates, message):
    with pytest.raises(ValueError, match=message):
        tiny_model(MODEL__EVENTFUL__POLICY="per-gate", MODEL__EVENTFUL__GATES=gates)


def test_a_pyramid_needs_a_policy_too(tiny_model):
    gates = [["blocks.*", "top-r", 3]]
    with pytest.raises(ValueError, match="no policy for gate 'pyramid'"):
        tiny_model(MODEL__EVENTFUL__POLICY="per-gate", MODEL__EVENTFUL__GATES=gates, **PYRAMID)
    model = tiny_model(**PYRAMID)
    with pytest.raises(ValueError, match="no policy for gate 'pyramid'"):
        model.set_policy(PerGate({"blocks.*": TopR(3)}))
    model.set_pyramid_policy(TopR(5))
    model.set_policy(PerGate({"blocks.*": TopR(3)}))
    run(model, clip(3))
    assert model.state.trace.pyramid.gates["pyramid"].selection.counts == (5,)


def test_copies_of_a_state_contain_no_weights(detector):
    state, frames = detector.new_state(), clip(4)
    run(detector, frames[:3], state)
    other = pickle.loads(pickle.dumps(state))
    assert len(pickle.dumps(state)) < state.nbytes + 20_000
    assert copy.deepcopy(state).trace is other.trace is None
    for each in (state, other):
        with torch.no_grad():
            detector([item(frames[3], 1, 3)], each)
        assert each.trace.flushed == (False,)
