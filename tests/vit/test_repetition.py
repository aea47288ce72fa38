"""Frames like the last one, which a GPU starts before the host has looked at the weights."""

import copy
import gc
import threading

import numpy as np
import pytest
import torch
from eventful_vit import PerGate, Policy, Streams, Threshold, TopFraction, TopR, count_operations
from eventful_vit.ops import tf32
from eventful_vit.policies import fixed_form
from eventful_vit.repetition import Repetition
from eventful_vit.weights import WeightWatch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from .small_models import dense, expected_of, flushed, make_video, make_vit, run
from .test_off_the_road import CHANGES, by_another_module, by_data, ema_swap_behind_pytorchs_back, in_place

BEFORE = 3
"""Frames of a kind until one is repeated at once: the first, which is a flush; one as usual; one that is recorded."""


@pytest.fixture
def started(as_on_a_gpu, monkeypatch):
    """What happened, in order: "start" where a frame is repeated, "look" at the weights."""
    events, start, version = [], Repetition.start, WeightWatch.version
    monkeypatch.setattr(Repetition, "start", lambda self, inputs: events.append("start") or start(self, inputs))
    monkeypatch.setattr(WeightWatch, "version", lambda self: events.append("look") or version(self))
    return events


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


# Policies.


class Alternating(Policy):
    """More and less, as it likes."""

    count = 6

    def limits(self, tokens):
        return self.count, float("-inf")


def chosen(vit):
    return vit.state.trace.gates["blocks.1.mlp"].selection.counts


def test_another_policy(started):
    vit, video = make_vit(policy=TopR(6)), make_video(16)
    for number, frame in enumerate(video):
        vit.set_policy((TopR(6), TopR(7), PerGate({"*": TopR(5)}), Threshold(0.0))[number // 4])
        state = copy.deepcopy(vit.state)  # without its recordings
        assert torch.equal(vit(frame[None])["last_feat"], vit(frame[None], state)["last_feat"])
        assert chosen(vit) == state.trace.gates["blocks.1.mlp"].selection.counts
    assert started.count("start") == 16 - BEFORE - 2  # other kinds of frames: thresholds


def test_an_equal_policy_changes_nothing(started):
    vit, video = make_vit(policy=TopR(6)), make_video(8)
    for frame in video:
        vit.set_policy(TopR(6))
        vit(frame[None])
    assert started.count("start") == 8 - BEFORE


def test_a_policy_that_was_changed_in_place(started):
    policy = PerGate({"*": TopR(6)})
    vit, video = make_vit(policy=policy), make_video(8)
    run(vit, video[:6])
    assert started.count("start") == 3 and chosen(vit) == (6,)
    policy.gates["*"] = TopR(5)
    run(vit, video[6:7])
    assert started.count("start") == 4 and chosen(vit) == (5,)
    policy.gates["*"] = TopR(12)
    run(vit, video[7:])
    assert started.count("start") == 4 and chosen(vit) == (12,)


def test_a_policy_of_unknown_code_is_asked_in_every_frame(started):
    vit, video = make_vit(policy=Alternating()), make_video(8)
    run(vit, video[:4])
    for number, frame in enumerate(video[4:]):
        vit.policy.count = (9, 6)[number % 2]
        vit(frame[None])
        assert chosen(vit) == (vit.policy.count,)
    assert started.count("start") == 1  # 6 and 9 tokens are of different kinds
    for vit.policy.count in range(5, 9):
        vit(video[:1])
        assert chosen(vit) == (vit.policy.count,)
    assert started.count("start") == 1 + 4


class OwnTopR(TopR):
    pass


@pytest.mark.parametrize("policy", [Alternating(), OwnTopR(3), PerGate({"*": OwnTopR(3)})], ids=str)
def test_forms_of_unknown_policies(policy):
    assert fixed_form(policy) is None


def test_forms_of_policies():
    policies = [TopR(3), TopR(4), TopFraction(0.5), Threshold(0.5), PerGate({"*": TopR(3)}), PerGate({"*": TopR(4)})]
    for number, policy in enumerate(policies):
        equal = [fixed_form(policy) == fixed_form(copy.deepcopy(other)) for other in policies]
        assert equal == [other == number for other in range(len(policies))]


def test_frames_in_full_are_repeated(started):
    vit, video = make_vit(policy=TopR(20)), make_video(6)
    outputs = run(vit, video)
    assert "start" in started and vit.state.trace.in_full == (True,) and flushed(vit) == (False,)
    torch.testing.assert_close(outputs, dense(vit, video), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("number", [torch.tensor(6), np.array(6), np.int64(6)], ids=["tensor", "array", "number"])
def test_a_policy_keeps_the_number_that_it_was_made_with(number, started):
    policy = TopR(number)
    assert type(policy.r) is int and policy == TopR(6)
    if not isinstance(number, np.int64):
        number[...] = 3
    vit = make_vit(policy=policy)
    run(vit, make_video(6))
    assert chosen(vit) == (6,)


def test_an_interruption_while_numbers_of_a_policy_are_written(started, monkeypatch):
    vit, video = make_vit(policy=TopR(6)), make_video(8)
    run(vit, video[:5])
    vit.set_policy(TopR(7))

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch, "frombuffer", interrupted)
        vit(video[5:6])
    run(vit, video[6:])
    assert chosen(vit) == (7,) and flushed(vit) == (False,)


# Streams.


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


@pytest.mark.parametrize("enabled", [True, False])
def test_settings_that_decide_how_products_are_rounded(enabled, started, monkeypatch):
    vit, video, seen = make_vit(policy=TopR(6)), make_video(4), []
    monkeypatch.setattr(type(vit.patch_embed), "forward", _noting(seen, type(vit.patch_embed).forward))
    dense_of(vit, video, enabled=enabled)
    assert len(seen) == 2  # the others are repeated
    monkeypatch.setattr(tf32, "settings", lambda: (True, True))
    dense_of(vit, video, enabled=enabled)
    assert len(seen) == 4


def _noting(seen, forward):
    return lambda *args: seen.append(1) or forward(*args)


# Who watches.


def test_observers_may_compute_frames_with_the_same_state(started):
    vit, video, inner = make_vit(policy=TopR(6)), make_video(16), []

    def compute(trace):
        vit.observers.clear()
        inner.append(vit(video[15:])["last_feat"])
        vit.observers.append(compute)

    vit.observers.append(compute)
    run(vit, video[:8])
    assert len(inner) == 8 and started.count("start") == 16 - BEFORE


@pytest.mark.parametrize("frame", range(1, 6))
def test_an_observer_that_fails_ends_nothing(frame, started):
    vit, video = make_vit(policy=TopR(6)), make_video(9)
    expected = expected_of(vit, video)
    run(vit, video[:frame])

    def fail(trace):
        raise ZeroDivisionError

    vit.observers.append(fail)
    with pytest.raises(ZeroDivisionError):
        vit(video[frame : frame + 1])
    vit.observers.clear()
    assert torch.equal(run(vit, video[frame + 1 :]), expected[frame + 1 :]) and started.count("start") == 9 - BEFORE


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize("enabled", [True, False])
def test_a_module_of_another_class(enabled, started):
    vit, video = make_vit(policy=TopR(6)), make_video(8)
    before = dense_of(vit, video, enabled=enabled)
    vit.reset()
    vit.blocks[1].mlp.fc2.__class__ = Doubled
    out = dense_of(vit, video, enabled=enabled)
    assert torch.equal(out, dense_of(copy.deepcopy(vit), video, enabled=enabled)) and not torch.equal(out, before)


def test_a_module_of_another_mode(started):
    """As with dropout in inference."""
    vit, video = make_vit(drop_path_rate=0.9), make_video(4)
    dense_of(vit, video, enabled=False)
    vit.blocks.train()
    outputs = [dense_of(vit, video[:1], enabled=False) for _ in range(8)]
    assert any(not torch.equal(outputs[0], other) for other in outputs)
    vit.blocks.eval()
    started.clear()
    dense_of(vit, video[:1], enabled=False)
    assert "start" in started


@pytest.mark.filterwarnings("ignore")
def test_a_traced_model_is_no_recorded_frame(started):
    vit, video = make_vit(enabled=False), make_video(6)
    expected = dense_of(vit, video)
    with torch.no_grad():
        traced = torch.jit.trace(vit, video[:1], strict=False, check_trace=False)
        assert torch.equal(traced(video[5:])["last_feat"], expected[5:])
    assert len(vit._of_thread.recorded.kinds) == 1


def test_a_hook_sees_its_frame_and_ends_nothing(started):
    vit, video, seen = make_vit(policy=TopR(6)), make_video(10), []
    expected = expected_of(vit, video)
    outputs = [run(vit, video[:5])]
    started.clear()
    hook = vit.blocks[1].mlp.register_forward_hook(lambda module, args, output: seen.append(1))
    outputs.append(run(vit, video[5:6]))
    assert seen == [1] and flushed(vit) == (False,) and "start" not in started
    hook.remove()
    outputs.append(run(vit, video[6:]))
    assert seen == [1] and "start" in started
    assert torch.equal(torch.cat(outputs), expected)


def test_another_forward_is_called(started):
    vit, video, seen = make_vit(policy=TopR(6)), make_video(6), []
    run(vit, video[:5])
    block = vit.blocks[1]
    block.forward = lambda *args: seen.append(1) or type(block).forward(block, *args)
    started.clear()
    run(vit, video[5:])
    assert seen == [1] and "start" not in started and flushed(vit) == (False,)


def test_a_new_module_with_a_hook(started):
    vit, video, seen = make_vit(policy=TopR(6)), make_video(6), []
    run(vit, video[:5])
    new = nn.Linear(24, 24)
    new.register_forward_hook(lambda *args: seen.append(1))
    vit.blocks[0].attn.proj = new
    run(vit, video[5:])
    assert seen and flushed(vit) == (True,)


class Names(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.add(func._schema.name)
        return func(*args, **(kwargs or {}))


def test_a_dispatch_mode_sees_the_operators(started):
    vit, video = make_vit(policy=TopR(6)), make_video(7)
    expected = expected_of(vit, video)
    outputs = [run(vit, video[:5])]
    with Names() as names:
        outputs.append(run(vit, video[5:6]))
    assert "eventful_vit::gate" in names.seen and "eventful_vit::attend_windows" in names.seen
    outputs.append(run(vit, video[6:]))
    assert torch.equal(torch.cat(outputs), expected)


def test_operations_and_traces_are_those_of_other_frames(started):
    vit, video = make_vit(policy=TopR(6)), make_video(8)
    twin = copy.deepcopy(vit)
    for frame in video:
        twin.state.recorded.clear()
        found = []
        for each in (vit, twin):
            with count_operations(each) as counts:
                each(frame[None])
            trace = each.state.trace
            choices = {name: gate.selection.counts for name, gate in trace.gates.items()}
            found.append((counts.by_category(), choices, trace.flushed, trace.in_full, trace.grid, trace.layers))
        assert found[0] == found[1]
    assert started.count("start") == 8 - BEFORE


def test_gradients_and_inference_mode_make_no_difference(started):
    vit, video = make_vit(policy=TopR(6)), make_video(12)
    expected, outputs = expected_of(vit, video), []
    contexts = [torch.inference_mode, torch.no_grad, torch.enable_grad]
    for number, frame in enumerate(video):
        with contexts[number % 3]():
            outputs.append(vit(frame[None])["last_feat"])
    assert not any(output.is_inference() or output.requires_grad for output in outputs)
    assert torch.equal(torch.cat(outputs), expected) and started.count("start") == 12 - BEFORE


def test_results_belong_to_the_caller(started):
    vit, video = make_vit(policy=TopR(6)), make_video(8)
    outputs = [vit(frame[None])["last_feat"] for frame in video]
    copies = [output.clone() for output in outputs]
    outputs[-1].zero_()
    run(vit, video[:2])
    assert all(torch.equal(*pair) for pair in zip(outputs[:-1], copies[:-1]))


# Threads.


def test_threads_with_states_of_their_own(started):
    vit, results = make_vit(policy=TopR(6)), {}
    videos = [make_video(12, seed) for seed in range(4)]
    expected = [expected_of(vit, video) for video in videos]

    def work(number):
        results[number] = run(vit, videos[number], Streams())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        torch.testing.assert_close(results[number], expected[number], atol=2e-5, rtol=1e-4)


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


# The dense model.


def dense_of(vit, frames, enabled=None):
    vit.enabled = vit.enabled if enabled is None else enabled
    with torch.no_grad():
        return run(vit, frames)


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
