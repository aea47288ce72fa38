"""Recorded frames: bit by bit what operators compute one by one, for any budget, and only where nobody can tell."""

import pytest
import torch
from eventful_vit import (
    EventfulViT,
    PerGate,
    Policy,
    Threshold,
    TopFraction,
    TopR,
    block,
    count_operations,
    encoder,
    recorded,
)
from eventful_vit.ops.tape import Tape
from torch import nn

pytestmark = pytest.mark.usefixtures("needs_kernels")


def make_vit(**options) -> EventfulViT:
    torch.manual_seed(0)
    usual = {"use_rel_pos": True, "window_block_indexes": [1, 2], "policy": TopR(12)}
    vit = EventfulViT(
        (64, 80), 8, embed_dim=32, depth=4, num_heads=2, window_size=3, pretrain_img_size=32, **{**usual, **options}
    ).eval()
    for parameter in vit.parameters():
        nn.init.normal_(parameter, std=0.2)
    return vit


def make_video(frames: int, streams: int = 2) -> list:
    generator = torch.Generator().manual_seed(1)
    frame = torch.randn(streams, 3, 64, 80, generator=generator)
    video = []
    for _ in range(frames):
        frame = frame + 0.3 * (torch.rand(frame.shape, generator=generator) < 0.05)
        video.append(frame)
    return video


@pytest.fixture
def one_by_one(monkeypatch):
    """Runs a model's frame without tapes."""

    def run(vit, frame):
        with monkeypatch.context() as patch:
            patch.setattr(encoder, "TAPED_VALUES", -1)
            return vit(frame)["last_feat"]

    return run


@pytest.fixture
def replays(monkeypatch) -> list:
    """Grows by one for every frame from a tape."""
    made, original = [], Tape.replay
    monkeypatch.setattr(Tape, "replay", lambda tape: (made.append(None), original(tape)))
    return made


POLICIES = [
    TopR(0), TopR(1), TopR(12), TopR(79), TopR(80), TopFraction(0.9), Threshold(0.5), Threshold(float("inf")),
    PerGate({"blocks.0.*": TopR(40), "*.mlp": Threshold(0.4), "*": TopR(7)}),
]  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("options", [{}, {"use_rel_pos": False}, {"qkv_bias": False}, {"window_block_indexes": []}])
def test_equals_operators_one_by_one(policy, options, replays, one_by_one):
    video = make_video(8)
    taped, parts = make_vit(policy=policy, **options), make_vit(policy=policy, **options)
    for frame in video:
        with count_operations(taped) as taped_counts, count_operations(parts) as parts_counts:
            assert torch.equal(taped(frame)["last_feat"], one_by_one(parts, frame))
        for stream in range(2):
            assert without_zeros(taped_counts, stream) == without_zeros(parts_counts, stream)
        ours, theirs = taped.state.trace, parts.state.trace
        assert ours.flushed == theirs.flushed and list(ours.gates) == list(theirs.gates)
        for name, gate in ours.gates.items():
            assert torch.equal(gate.selection.mask(), theirs.gates[name].selection.mask())
            if theirs.gates[name].norms is not None:
                assert torch.equal(gate.norms, theirs.gates[name].norms)
    assert len(replays) >= len(video) - 3  # all but a flush, a frame one by one, and the one that is recorded


def without_zeros(counts, stream) -> dict:
    return {name: macs for name, macs in counts.by_category(stream).items() if macs}


def test_a_tape_serves_other_budgets(replays, one_by_one):
    taped, parts = make_vit(), make_vit()
    budgets = [9, 16, 10, 16, 11, 12, 9, 13]
    for r, frame in zip(budgets, make_video(8)):
        for vit in (taped, parts):
            vit.set_policy(TopR(r))
        assert torch.equal(taped(frame)["last_feat"], one_by_one(parts, frame))
    assert len(replays) == 5


def test_a_tape_serves_flushes_too(replays, one_by_one):
    taped, parts = make_vit(), make_vit()
    for number, frame in enumerate(make_video(16)):
        for vit in (taped, parts):
            if number % 4 == 2:
                vit.reset([number % 8 // 4])
        assert torch.equal(taped(frame)["last_feat"], one_by_one(parts, frame))
        assert taped.state.trace.flushed == parts.state.trace.flushed
    assert len(replays) == 16 - 4  # two kinds of frames, each once one by one and once recorded


def test_streams_come_and_go(one_by_one):
    taped, parts = make_vit(), make_vit()
    video = make_video(18, streams=3)

    def both(frames: slice, streams: int) -> None:
        for frame in video[frames]:
            assert torch.equal(taped(frame[:streams])["last_feat"], one_by_one(parts, frame[:streams]))

    both(slice(0, 4), 2)
    both(slice(4, 8), 3)
    both(slice(8, 11), 1)
    for vit in (taped, parts):
        vit.reset([1])
    both(slice(11, 14), 3)
    for vit in (taped, parts):
        vit.release()
    both(slice(14, 18), 2)


@pytest.mark.parametrize(
    "options",
    [
        {"attention": "full"},
        {"kv_pool": 2},
        {"gate_reference": "previous-frame"},
        {"compute_dtype": torch.bfloat16},
        {"state_dtype": torch.bfloat16},
    ],
)
def test_other_models_go_one_by_one(options, replays):
    vit = make_vit(**options)
    for frame in make_video(6):
        vit(frame)
    assert not replays


@pytest.mark.parametrize("options", [{"attention": "tokenwise"}, {"gate_before_norm": True}])
def test_some_other_models_are_taped(options, replays, one_by_one):
    taped, parts = make_vit(**options), make_vit(**options)
    for frame in make_video(6):
        assert torch.equal(taped(frame)["last_feat"], one_by_one(parts, frame))
    assert replays


def test_policies_that_are_no_numbers_go_one_by_one(replays):
    class Every(Policy):
        def choose(self, norms):
            return torch.arange(norms.shape[1]).expand(norms.shape) % 3 == 0

    vit = make_vit(policy=Every())
    for frame in make_video(5):
        vit(frame)
    assert not replays


@pytest.mark.parametrize("policy", [Threshold(1e9), TopR(20)], ids=str)
def test_a_frame_that_cannot_be_recorded_calls_modules_with_the_chosen_rows(policy):
    rows = []

    class Called(nn.Module):
        def forward(self, x):
            rows.append(len(x))
            return x.relu()

    vit = make_vit(policy=policy, act_layer=Called)
    for frame in make_video(6):
        rows.clear()
        vit(frame)
    blocks = vit.state.trace.blocks
    assert rows == [sum(block.selections[2].counts) for block in blocks] and max(rows) < 2 * 80


def test_an_interruption_while_a_frame_is_recorded(monkeypatch, replays, one_by_one):
    taped, parts, video = make_vit(), make_vit(), make_video(9)
    for frame in video[:2]:
        taped(frame)
    mlp, calls = block.EventfulBlock._mlp, []

    def interrupted(*args, **kwargs):
        calls.append(None)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return mlp(*args, **kwargs)

    monkeypatch.setattr(block.EventfulBlock, "_mlp", interrupted)
    with pytest.raises(KeyboardInterrupt):
        taped(video[2])
    monkeypatch.setattr(block.EventfulBlock, "_mlp", mlp)
    for frame in video[3:]:  # it begins again, and frames are recorded again
        assert torch.equal(taped(frame)["last_feat"], one_by_one(parts, frame))
    assert replays


def test_results_do_not_change_afterwards():
    vit, kept = make_vit(), []
    for frame in make_video(8):
        out = vit(frame)["last_feat"]
        kept.append((out, out.clone()))
    assert all(torch.equal(out, copy) for out, copy in kept)


def test_memory_is_used_again_and_goes_with_the_state():
    vit = make_vit()
    for frame in make_video(5):
        vit(frame)
    (tape,) = [taped.recorder for taped in vit.state.recorded.kinds.values() if taped.frames > 1]
    results = sum(gate.norms.numel() for gate in vit.state.trace.gates.values())
    # All blocks' attention outputs, rows, queries, keys, values and hidden rows would be several times as much.
    assert tape.nbytes < 4 * (results + 3 * 2 * 80 * 32 + 2 * 16 * (3 + 2 + 4 + 4) * 32 * 2)
    vit.release()
    assert not vit.state.recorded.kinds


def test_few_tapes_are_kept():
    vit = make_vit()
    for r in (1, 2, 4, 8, 16, 32, 64):
        vit.set_policy(TopR(r))
        for frame in make_video(3):
            vit(frame)
    assert len(vit.state.recorded.kinds) == recorded.MAX_KINDS
