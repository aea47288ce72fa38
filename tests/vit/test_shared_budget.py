"""A budget that gates and frames share: what it spends, and what it remembers of which video."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
import re

import pytest
import torch
from eventful_vit import (
    Calibration,
    EventfulViT,
    SharedBudget,
    Threshold,
    TopFraction,
    TopR,
    calibrate,
    count_operations,
    make_eventful,
)
from eventful_vit.selection import Selection
from eventful_vit.streams import FrameForm
from torch import Tensor

LENGTH = 40


def make_vit() -> EventfulViT:
    torch.manual_seed(0)
    vit = EventfulViT(img_size=64, patch_size=8, embed_dim=16, depth=2, num_heads=2, policy=TopR(5)).eval()
    return vit.requires_grad_(False)


def make_video(frames: int, patch: int = 8, speed: int = 3, seed: int = 1) -> list[Tensor]:
    """Noise as a background, over which a patch moves, (1, 3, 64, 64) each."""
    generator = torch.Generator().manual_seed(seed)
    video = torch.rand(3, 64, 64, generator=generator).repeat(frames, 1, 1, 1)
    for number in range(frames):
        left = speed * number % (64 - patch)
        video[number, :, 20 : 20 + patch, left : left + patch] = 2.0
    return list(video[:, None])


@pytest.fixture
def vit() -> EventfulViT:
    return make_vit()


@pytest.fixture(scope="module")
def found() -> Calibration:
    return calibrate(make_vit(), make_video(6), like=6, rounds=1, shared=True)


@pytest.fixture
def budget(found) -> SharedBudget:
    return found.policy()


def costs(vit: EventfulViT, video: list[Tensor], state=None) -> list[float]:
    """GFlops of each frame."""
    with count_operations(vit) as counts:
        spent = []
        for frame in video:
            counts.clear()
            vit(frame, state)
            spent.append(counts.backbone() / len(frame) / 1e9)
    return spent


@pytest.fixture
def another_default_device():
    """As programs set it to "cuda", where there is one."""
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


def test_it_is_learnt_whatever_the_default_device(found, another_default_device):
    with torch.device("cpu"):
        vit, frames = make_vit(), make_video(6)
    assert calibrate(vit, frames, like=6, rounds=1, shared=True) == found


def test_a_selection_of_everything_lies_on_the_host_whatever_the_default_device(another_default_device):
    everything = Selection.everything(2, 3)
    assert everything.stream_index(1).tolist() == [0, 1, 2] and everything.mask().tolist() == [[True] * 3] * 2


@pytest.mark.parametrize("patch", [8, 24])
def test_the_mean_meets_the_budget_in_quiet_and_busy_videos(vit, budget, patch):
    vit.set_policy(budget)
    later = costs(vit, make_video(2 * LENGTH, patch))[1:]
    assert sum(later) / len(later) == pytest.approx(budget.gflops, rel=0.1)
    vit.set_policy(budget.at(1.0))  # thresholds that stay as they are
    vit.reset()
    fixed = costs(vit, make_video(LENGTH, 24))[1:]
    assert sum(fixed) / len(fixed) > 1.3 * budget.gflops


def test_no_gate_updates_more_than_four_times_its_usual_share(vit, budget, found):
    vit.set_policy(budget)
    for number, frame in enumerate(make_video(3)):
        vit(frame if number < 2 else torch.randn_like(frame))  # a picture of which nothing is known
    counts = {name: gate.selection.counts[0] for name, gate in vit.state.trace.gates.items()}
    assert counts == {name: min(4 * r + 2, 64) for name, r in found.gates.items()}


def test_what_one_frame_leaves_over_another_one_has(vit, budget):
    video = make_video(12)
    vit.set_policy(budget)
    still = costs(vit, [*video, *[video[-1]] * 12])
    assert still[-1] < 0.8 * budget.gflops
    after = costs(vit, make_video(3, 24, seed=2))
    vit.reset()
    assert max(after) > 1.2 * budget.gflops


def test_the_same_frames_are_computed_alike(vit, budget):
    video = make_video(8)
    vit.set_policy(budget)
    once = [vit(frame)["last_feat"].clone() for frame in video]
    vit.reset()
    other = vit.new_state()
    for frame in make_video(5, 24, seed=3):
        vit(frame, other)
    for frame, expected in zip(video, once):  # behind a reset, and beside another video
        assert torch.equal(vit(frame)["last_feat"], expected)
        vit(make_video(1, 24, seed=4)[0], other)


@pytest.mark.parametrize(
    "move", [copy.deepcopy, lambda state: pickle.loads(pickle.dumps(state)), lambda state: state.to("cpu")]
)
def test_copies_continue_as_the_original_does(vit, budget, move):
    """What the last frame cost goes with them."""
    video, original = make_video(10, 24), vit.new_state()
    vit.set_policy(budget)
    expected = [vit(frame, original)["last_feat"] for frame in video]
    state = vit.new_state()
    for number, frame in enumerate(video):
        assert torch.equal(vit(frame, state)["last_feat"], expected[number]), number
        state = move(state)


def counts_of(state) -> list:
    return [gate.selection.counts for gate in state.trace.gates.values()]


def test_streams_of_a_batch_have_one_budget(vit, budget):
    vit.set_policy(budget)
    quiet, busy = make_video(LENGTH, 2, 0), make_video(LENGTH, 24)
    with count_operations(vit) as counts:
        spent = []
        for frames in zip(quiet, busy):
            counts.clear()
            vit(torch.cat(frames))
            spent.append([counts.backbone(0) / 1e9, counts.backbone(1) / 1e9])
    spent = torch.tensor(spent[LENGTH // 2 :])
    assert spent.mean() == pytest.approx(budget.gflops, rel=0.15)
    assert spent[:, 0].mean() < 0.7 * spent[:, 1].mean()
    vit.reset([0])
    vit(torch.cat([quiet[0], busy[0]]))
    assert vit.state.trace.flushed == (True, False)  # that a video begins is no frame too dear
    vit(torch.cat([quiet[1], busy[1]]))
    assert sum(vit.state.trace.gates["blocks.0.mlp"].selection.counts) > 0


def test_another_policy_in_between_ends_it(vit, budget):
    video = make_video(9, 24)
    vit.set_policy(budget)
    for frame in video[:6]:
        vit(frame)
    vit.set_policy(TopR(9))
    vit(video[6])
    assert set(counts_of(vit.state)) == {(9,)}
    vit.set_policy(budget)
    assert vit.state.next_policy(budget) == budget.at(1.0)


def test_a_model_that_calls_its_blocks_itself(budget, found):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    sizes = {"img_size": 64, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}
    model = make_eventful(timm.models.VisionTransformer(**sizes).eval(), TopR(5))
    with torch.no_grad():
        own = calibrate(model, make_video(6), like=6, rounds=1, shared=True)
        model.set_policy(own.policy())
        later = costs_of_adapted(model, make_video(LENGTH, 24))[LENGTH // 2 :]
    assert sum(later) / len(later) == pytest.approx(own.gflops, rel=0.15)


def costs_of_adapted(model, video) -> list[float]:
    with count_operations(model) as counts:
        spent = []
        for frame in video:
            counts.clear()
            model(frame)
            spent.append(counts.backbone() / 1e9)
    return spent


def test_it_is_written_and_read(found, budget):
    again = Calibration.from_dict(found.to_dict())
    assert again == found and again.policy() == budget
    assert re.fullmatch(rf"shared {found.gflops:.4g} GFlops \([0-9a-f]{{6}}\)", str(budget))
    other = dataclasses.replace(budget, thresholds={**budget.thresholds, "blocks.0.mlp": 9.0})
    assert str(other) != str(budget)
    assert "thresholds" not in dataclasses.replace(found, thresholds=None).to_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"thresholds": {"blocks.0.mlp": 1.0}}, "thresholds: expected one for each of the gates"),
        ({"thresholds": [1.0]}, "thresholds: expected one for each"),
        ({"gflops": 0}, "gflops is 0; with thresholds, it is the budget"),
    ],
)
def test_what_is_no_shared_budget(found, change, message):
    with pytest.raises(ValueError, match=message):
        Calibration.from_dict({**found.to_dict(), **change})
    with pytest.raises(ValueError, match="thresholds, blocks.0.mlp: nan; expected a number"):
        Calibration.from_dict({**found.to_dict(), "thresholds": {**found.thresholds, "blocks.0.mlp": float("nan")}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gflops": 0.0}, "a number of GFlops above 0, got 0.0"),
        *(({"gflops": value}, f"a number of GFlops above 0, got {value}") for value in (math.nan, math.inf, -1.0)),
        ({"tokens": 0}, "a number of tokens, 1 or more, got 0"),
        ({"tokens": math.nan}, "a number of tokens, 1 or more, got nan"),
        ({"shares": {}}, "a threshold and a share for each gate"),
        ({"thresholds": {}, "shares": {}}, "a threshold and a share for each gate"),
    ],
)
def test_bad_values(budget, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(budget, **change)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.5])
def test_bad_thresholds_and_shares_name_their_gate(budget, value):
    gate = "blocks.1.qkv"
    with pytest.raises(ValueError, match=f"thresholds of 0 or more, got {value} for {gate}"):
        dataclasses.replace(budget, thresholds={**budget.thresholds, gate: value})
    with pytest.raises(ValueError, match=f"shares between 0 and 1, got {value} for {gate}"):
        dataclasses.replace(budget, shares={**budget.shares, gate: value})


def test_gates(vit, budget):
    assert isinstance(budget.for_gate("blocks.1.mlp", 64), Threshold)
    assert budget.for_gate("pyramid", 64) == TopFraction(budget.shares["blocks.1.mlp"])
    gates = {name: value for name, value in budget.thresholds.items() if name != "blocks.0.qkv"}
    odd = dataclasses.replace(budget, thresholds={**gates, "x": 1.0}, shares={**dict.fromkeys(gates, 0.1), "x": 0.1})
    with pytest.raises(ValueError, match="'x' names no gate"):
        vit.set_policy(odd)


def test_what_it_cannot_hold(vit):
    with pytest.raises(ValueError, match="a shared budget needs target_gflops or like"):
        calibrate(vit, make_video(3), max_change=0.1, shared=True)


def test_frames_that_a_gpu_computes_in_full_teach_no_thresholds(vit, monkeypatch):
    monkeypatch.setattr("eventful_vit.model.is_on_gpu", lambda x: isinstance(x, FrameForm))
    monkeypatch.setattr("eventful_vit.encoder.is_on_gpu", lambda x: True)
    with pytest.raises(ValueError, match="so many .* that a GPU computes them all"):
        calibrate(vit, make_video(4), like=32, rounds=0, shared=True)


def test_a_still_video(vit, budget):
    """Nothing to learn from; and what was learnt elsewhere leads back from it."""
    with pytest.raises(ValueError, match="nothing moves at blocks.0.qkv in these frames"):
        calibrate(vit, make_video(1) * 4, like=6, rounds=1, shared=True)
    assert vit.policy == TopR(5) and vit.enabled
    vit.set_policy(budget)
    assert costs(vit, make_video(1) * 30)[-1] < 0.8 * budget.gflops
    moving = costs(vit, make_video(2 * LENGTH, 24))[LENGTH:]
    assert sum(moving) / len(moving) == pytest.approx(budget.gflops, rel=0.15)
