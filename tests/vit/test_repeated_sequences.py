"""Frames of a GPU's way against those computed one by one, with random events between them."""

import contextlib
import copy
import pickle
import random

import pytest
import torch
from eventful_vit import EventfulViT, PerGate, Policy, Threshold, TopFraction, TopR, count_operations
from eventful_vit.ops import Operator
from eventful_vit.repetition import Repetition
from torch import nn

from .small_models import make_vit

LARGEST = 3
FRAMES = 60


class Above(Policy):
    """By code of its own: tokens above a stream's median."""

    def choose(self, norms):
        return norms > norms.median(dim=1, keepdim=True).values


POLICIES = [
    TopR(6), TopR(5), TopR(0), TopR(20), TopFraction(0.2), Threshold(0.5), Above(), PerGate({"*": TopR(6)}),
    PerGate({"blocks.0.*": TopR(3), "*": Threshold(0.3)}),
]  # fmt: skip


class Pair:
    """A model, and one that has nothing recorded."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.ours = make_vit(policy=TopR(6))
        self.plain = copy.deepcopy(self.ours)
        self.models = self.ours, self.plain
        self.streams, self.size, self.hooks = 1, (40, 56), []
        self.pixels = torch.randn(LARGEST, 3, 48, 56, generator=self.generator)

    def frame(self) -> torch.Tensor:
        self.pixels[:, :, 8:24, 8:24] += 0.3 * torch.randn(LARGEST, 3, 16, 16, generator=self.generator)
        frame = self.pixels[: self.streams, :, : self.size[0], : self.size[1]]
        layout = self.random.choice(["view", "plain", "channels last", "expanded", "differentiable"])
        if layout == "expanded":
            return frame[:, :1].expand(-1, 3, -1, -1)
        if layout == "view":
            return frame
        memory = torch.channels_last if layout == "channels last" else torch.contiguous_format
        return frame.clone(memory_format=memory).requires_grad_(layout == "differentiable")

    def compare(self) -> None:
        context = self.random.choice([torch.no_grad, torch.inference_mode, torch.enable_grad])
        frame, found = self.frame(), []
        self.plain.state.recorded.clear()
        for vit in self.models:
            with context(), count_operations(vit) if self.random.random() < 0.1 else contextlib.nullcontext():
                output = vit(frame)["last_feat"]
            trace = vit.state.trace
            counts = {name: gate.selection.counts for name, gate in trace.gates.items()}
            found.append((output, trace.flushed, trace.in_full, counts, vit.state.running))
        assert torch.equal(found[0][0], found[1][0]) and found[0][1:] == found[1][1:]

    # Events.

    def another_policy(self):
        policy = self.random.choice(POLICIES)
        for vit in self.models:
            vit.set_policy(policy)

    def reset(self):
        streams = self.random.choice([None, [0], [1], [0, 2]])
        for vit in self.models:
            vit.reset(streams)

    def another_number_of_streams(self):
        self.streams = self.random.randint(1, LARGEST)

    def another_size(self):
        self.size = self.random.choice([(40, 56), (48, 40)])
        for vit in self.models:
            vit.reset()

    def other_weights(self):
        change = self.random.choice([_in_place, _replaced, _loaded, _behind_pytorchs_back, _converted, _of_other_mode])
        name = self.random.choice([name for name, _ in self.ours.named_parameters()])
        for vit in self.models:
            change(vit, name)

    def a_hook(self):
        name = self.random.choice(["patch_embed", "blocks.1.mlp", "blocks.2.attn"])
        for vit in self.models:
            self.hooks.append(vit.get_submodule(name).register_forward_hook(lambda *args: None))

    def no_hooks(self):
        while self.hooks:
            self.hooks.pop().remove()

    def release(self):
        for vit in self.models:
            vit.release()

    def a_copy_of_the_state(self):
        self.ours._own_state = self.random.choice([copy.deepcopy, _through_a_pickle])(self.ours.state)

    def a_frame_that_is_not_finite(self):
        frame = self.frame().detach() * torch.nan
        for vit in self.models:
            with pytest.raises(ValueError, match="NaN or infinity"):
                vit(frame)
        if not any(self.ours.state.running[: self.streams]):  # known only when it was under way
            self.plain.reset(range(self.streams))

    def a_dense_frame(self):
        frame, outputs = self.frame(), []
        self.plain._of_thread = None
        for vit in self.models:
            vit.enabled = False
            with torch.no_grad():
                outputs.append(vit(frame)["last_feat"])
            vit.enabled = True
        assert torch.equal(*outputs)

    def an_interruption(self):
        frame, left, call = self.frame(), self.random.randrange(60), Operator.__call__

        def interrupted(operator, *args):
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return call(operator, *args)

        before = self.ours.state.running
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            patch.setattr(Operator, "__call__", interrupted)
            self.ours(frame)
        if left >= 0:  # it came through
            self.plain.state.recorded.clear()
            self.plain(frame)
        elif self.ours.state.running != before:
            assert not any(self.ours.state.running[: self.streams])
            self.plain.reset(range(self.streams))


def _in_place(vit: EventfulViT, name: str) -> None:
    with torch.no_grad():
        vit.get_parameter(name).mul_(1.1)


def _replaced(vit: EventfulViT, name: str) -> None:
    owner, _, own = name.rpartition(".")
    setattr(vit.get_submodule(owner), own, nn.Parameter(vit.get_parameter(name).detach() * 1.1))


def _loaded(vit: EventfulViT, name: str) -> None:
    vit.load_state_dict({**vit.state_dict(), name: vit.get_parameter(name) * 1.1}, assign=name.startswith("blocks"))


def _behind_pytorchs_back(vit: EventfulViT, name: str) -> None:
    vit.get_parameter(name).data.mul_(1.1)
    vit.weights_changed()


def _converted(vit: EventfulViT, name: str) -> None:
    vit.half().float()


def _of_other_mode(vit: EventfulViT, name: str) -> None:
    vit.train().eval()


def _through_a_pickle(state):
    return pickle.loads(pickle.dumps(state))


EVENTS = [
    Pair.another_policy, Pair.reset, Pair.another_number_of_streams, Pair.another_size, Pair.other_weights,
    Pair.a_hook, Pair.no_hooks, Pair.no_hooks, Pair.release, Pair.a_copy_of_the_state,
    Pair.a_frame_that_is_not_finite, Pair.a_dense_frame, Pair.an_interruption,
]  # fmt: skip


DAILY = 12
"""Random sequences of every run of the suite."""


@pytest.mark.parametrize("seed", [*range(DAILY), *(pytest.param(s, marks=pytest.mark.long) for s in range(DAILY, 25))])
def test_whatever_happens_frames_are_those_computed_one_by_one(seed, as_on_a_gpu, needs_kernels, monkeypatch):
    started, start = [], Repetition.start
    monkeypatch.setattr(Repetition, "start", lambda self, inputs: started.append(1) or start(self, inputs))
    pair = Pair(seed)
    for _ in range(FRAMES):
        if pair.random.random() < 0.2:
            pair.random.choice(EVENTS)(pair)
        pair.compare()
    assert started  # the test would be worthless
