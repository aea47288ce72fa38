"""Budgets learnt from frames without labels."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import pytest
import torch
from eventful_vit import Calibration, EventfulViT, TopFraction, TopR, calibrate, make_eventful
from torch import Tensor

FRAMES = 4


def make_vit(depth: int = 2, embed_dim: int = 16, **options) -> EventfulViT:
    torch.manual_seed(0)
    sizes = {"img_size": 64, "patch_size": 8, "embed_dim": embed_dim, "depth": depth, "num_heads": 2}
    return EventfulViT(**sizes, policy=TopR(5), **options).eval()


@pytest.fixture
def vit() -> EventfulViT:
    return make_vit()


@pytest.fixture
def frames() -> list[Tensor]:
    """Two videos side by side."""
    torch.manual_seed(1)
    first = torch.rand(2, 3, 64, 64)
    return [first + 0.2 * number * torch.rand(2, 3, 64, 64) for number in range(FRAMES)]


@pytest.fixture
def useless_mlp(vit) -> EventfulViT:
    """A model in which the tokens of one gate change nothing, at the price of any MLP."""
    with torch.no_grad():
        for parameter in vit.blocks[0].mlp.fc2.parameters():
            parameter.zero_()
    return vit


def test_no_tokens_for_a_gate_that_brings_nothing(useless_mlp, frames):
    found = calibrate(useless_mlp, frames, like=16, rounds=2)
    assert found.uniform in (15, 16)  # which cost no more
    assert found.gates["blocks.0.mlp"] < 8 < found.gates["blocks.1.mlp"]
    assert found.change < 0.9 * found.uniform_change


def test_what_it_promises_is_what_the_policy_does(vit, frames):
    found = calibrate(vit, frames, target_gflops=0.0002, rounds=1)
    assert 0.9 * 0.0002 < found.gflops <= 0.0002
    assert found.change <= found.uniform_change
    vit.requires_grad_(False).enabled = False
    dense = [vit(frame)["last_feat"] for frame in frames[1:]]
    vit.enabled = True
    vit.set_policy(found.policy())
    eventful = [vit(frame)["last_feat"] for frame in frames][1:]
    distance = sum((x - y).square().sum() for x, y in zip(eventful, dense)) / sum(y.square().sum() for y in dense)
    assert float(distance) == pytest.approx(found.change, rel=1e-3)
    counts = {name: gate.selection.counts for name, gate in vit.state.trace.gates.items()}
    assert counts == {name: (r, r) for name, r in found.gates.items()}


def test_the_least_operations_for_a_change(vit, frames):
    found = calibrate(vit, frames, max_change=1e-5, rounds=1)
    assert 0 < found.change <= 1e-5
    assert found.uniform_change > found.change
    assert found.gflops < calibrate(vit, frames, max_change=1e-6, rounds=1).gflops


def test_the_same_frames_give_the_same_budgets(vit, frames):
    vit(frames[0])
    once = calibrate(vit, frames, like=8, rounds=1)
    assert vit.policy == TopR(5) and vit.enabled
    vit(frames[1])
    assert not any(vit.state.trace.flushed)  # the model's own stream runs on
    assert calibrate(make_vit(), frames, like=8, rounds=1) == once


def test_written_and_read(vit, frames):
    found = calibrate(vit, frames, like=8, rounds=1)
    again = Calibration.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again == found and str(again.policy()) == str(found.policy()) == f"calibrated {found.gflops:.4g} " + (
        f"({found.digest()})"
    )
    other = dataclasses.replace(found, gates={**found.gates, "blocks.0.mlp": 1 + found.gates["blocks.0.mlp"]})
    assert str(other.policy()) != str(found.policy())


def test_budgets_are_shares_of_frames_of_other_sizes(vit, frames):
    found = calibrate(vit, frames, like=8, rounds=1)
    r = found.gates["blocks.1.mlp"]
    policy = found.policy().for_gate("blocks.1.mlp", 4 * found.tokens)
    assert isinstance(policy, TopFraction) and 4 * r <= policy.limits(4 * found.tokens)[0] <= 4 * r + 2


def test_another_model_is_refused(vit, frames):
    found = calibrate(vit, frames, like=8, rounds=1)
    found.check(make_vit())
    with pytest.raises(ValueError, match=r"budgets for 6 gates, this model has 9 \(blocks.2.mlp is in one of them"):
        found.check(make_vit(depth=3))
    with pytest.raises(ValueError, match="made for a model of .* parameters, this one has"):
        found.check(make_vit(embed_dim=32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, 'expected an entry "format": 1'),
        ({"tokens": 0}, "tokens of 1 or more"),
        ({"tokens": True}, "tokens is True; expected a whole number"),
        ({"gflops": float("nan")}, "gflops is nan; expected a number"),
        ({"gates": []}, "it needs gates"),
        ({"gates": {"blocks.0.mlp": 65}}, "blocks.0.mlp: 65; expected a whole number from 0 to 64"),
        ({"gates": {"blocks.0.mlp": 1.5}}, "blocks.0.mlp: 1.5"),
    ],
)
def test_what_is_no_calibration(change, message):
    good = Calibration({"blocks.0.mlp": 3}, 64, 1000, 0.5, 0.1, 4, 0.2).to_dict()
    with pytest.raises(ValueError, match=message):
        Calibration.from_dict({**good, **change})


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({}, "needs one of target_gflops, like and max_change"),
        ({"like": 8, "max_change": 0.1}, "needs one of"),
        ({"target_gflops": 1e-9}, "1e-09 GFlops are out of reach: a token per gate takes"),
        *(
            ({name: value}, f"calibrate needs a number above 0 as {name}, got {re.escape(repr(value))}")
            for name in ("target_gflops", "max_change")
            for value in (math.nan, math.inf, -math.inf, 0.0, -1.0, "5", True)
        ),
        *(
            ({"like": like}, f"calibrate needs a whole number, 1 or larger, as like, got {re.escape(repr(like))}")
            for like in (0, -3, 2.5, math.nan, "8", True)
        ),
        ({"like": 8, "rounds": -1}, "calibrate needs a whole number, 0 or larger, as rounds, got -1"),
        ({"like": 8, "rounds": None}, "as rounds, got None"),
    ],
)
def test_targets_that_cannot_be(vit, frames, target, message):
    with pytest.raises(ValueError, match=message):
        calibrate(vit, frames, **target)
    assert vit.policy == TopR(5) and vit.enabled


def test_a_change_that_rounded_state_exceeds(frames):
    with pytest.raises(ValueError, match="a change of 1e-09 is out of reach: all tokens: "):
        calibrate(make_vit(state_dtype=torch.bfloat16), frames, max_change=1e-9)


def test_one_frame_is_not_enough(vit, frames):
    with pytest.raises(ValueError, match="two frames or more, got 1"):
        calibrate(vit, frames[:1], like=8)
    with pytest.raises(ValueError, match="eval mode"):
        calibrate(vit.train(), frames, like=8)


def test_a_vit_of_another_library(frames):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    sizes = {"img_size": 64, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}
    model = make_eventful(timm.models.VisionTransformer(**sizes).eval(), TopR(5))
    found = calibrate(model, frames, like=8, rounds=1)
    assert found.tokens == 65 and set(found.gates) == set(model.gate_names)  # a class token too
    model.set_policy(found.policy())
    assert model(frames[0]).shape == (2, 5)


def test_a_still_video_teaches_nothing(vit, frames):
    found = calibrate(vit, frames[:1] * 3, like=8, rounds=1)
    assert found.change < 1e-12 and set(found.gates.values()) == {found.uniform}


@pytest.mark.parametrize("target", [{"like": 16}, {"max_change": 0.05}])
def test_progress_runs_from_nothing_to_all_of_it(vit, frames, target):
    told = []
    calibrate(vit, frames, **target, rounds=2, progress=lambda *words: told.append(words))
    done, totals, found = zip(*told)
    assert done[0] == 0 and done[-1] == totals[0] and len(set(totals)) == 1
    assert all(0 <= later - earlier <= 1 for earlier, later in zip(done, done[1:-1]))
    assert "like" not in target or done[-2] > totals[0] // 2  # what was expected was not far off
    texts = list(dict.fromkeys(text.split(":")[0] for text in found))
    assert texts == ["dense model", "all gates alike", "round 1", "round 2"]
