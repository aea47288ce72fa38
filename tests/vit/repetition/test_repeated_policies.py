"""Policies, whose numbers a repeated frame reads in memory."""

import copy

import numpy as np
import pytest
import torch
from eventful_vit import PerGate, Policy, SharedBudget, Threshold, TopFraction, TopR
from eventful_vit.policies import fixed_form

from ..small_models import dense, expected_of, flushed, make_video, make_vit, run
from .conftest import BEFORE


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


def test_a_shared_budget(started):
    """Its thresholds are others in every frame."""
    gates = make_vit().gate_names
    budget = SharedBudget(1e-4, 35, dict.fromkeys(gates, 0.1), dict.fromkeys(gates, 0.1))
    vit, video = make_vit(policy=budget), make_video(10)
    expected = expected_of(vit, video)
    started.clear()
    counts = []
    for frame, features in zip(video, expected):
        assert torch.equal(vit(frame[None])["last_feat"][0], features)
        counts.append(chosen(vit)[0])
    assert started.count("start") == 10 - BEFORE and len(set(counts[1:])) > 2


class OwnTopR(TopR):
    pass


@pytest.mark.parametrize(
    "policy", [Alternating(), OwnTopR(3), PerGate({"*": OwnTopR(3)})], ids=["alternating", "own", "own, per gate"]
)
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


@pytest.mark.parametrize("array", [torch.tensor, np.array])
@pytest.mark.parametrize("make", [Threshold, TopFraction, lambda number: Threshold(1.0, number)])
def test_a_policy_keeps_a_share_or_threshold_that_it_was_made_with(make, array):
    number = array(0.5)
    policy = make(number)
    number[...] = 0.25
    assert policy == make(0.5) and hash(policy) == hash(make(0.5))


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
