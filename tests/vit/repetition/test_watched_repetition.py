"""Whoever watches a model sees its frames, repeated or not, and every module at work that is hooked or replaced."""

import copy

import pytest
import torch
from eventful_vit import TopR, count_operations
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..small_models import dense_of, expected_of, flushed, make_video, make_vit, run
from .conftest import BEFORE


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


def test_stochastic_depth_is_refused_before_a_frame_is_repeated(started):
    vit, video = make_vit(policy=TopR(6), drop_path_rate=0.9), make_video(6)
    run(vit, video[:5])
    started.clear()
    vit.blocks[1].drop_path.train()
    with pytest.raises(ValueError, match=r"stochastic depth of blocks\.1"):
        run(vit, video[5:])
    assert "start" not in started
    vit.blocks[1].drop_path.eval()
    run(vit, video[5:])
    assert flushed(vit) == (False,)


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
