"""Frames in one call of the kernels: bit by bit what the blocks compute one by one, and only where nobody can tell."""

import copy
from unittest import mock

import pytest
import torch
from eventful_vitdet import EventfulViT, Threshold, TopFraction, TopR, count_operations
from eventful_vitdet.eventful.kernels import native
from eventful_vitdet.eventful.native_frame import NativeFrames
from torch import nn

pytestmark = pytest.mark.skipif(native.load_library() is None, reason="no C++ compiler, or switched off")


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


def one_by_one(vit: EventfulViT) -> EventfulViT:
    vit._native.suits = lambda *args: False
    return vit


def run(vit: EventfulViT, video: list) -> torch.Tensor:
    return torch.stack([vit(frame)["last_feat"] for frame in video])


@pytest.fixture
def calls(monkeypatch) -> list:
    """Grows by one for every frame in one call."""
    made, original = [], NativeFrames.run

    def counted(*args):
        made.append(None)
        return original(*args)

    monkeypatch.setattr(NativeFrames, "run", counted)
    return made


@pytest.mark.parametrize("policy", [TopR(0), TopR(1), TopR(12), TopR(40), TopFraction(0.9)])
@pytest.mark.parametrize("options", [{}, {"use_rel_pos": False}, {"qkv_bias": False}, {"window_block_indexes": []}])
def test_equals_the_blocks_one_by_one(policy, options, calls):
    video = make_video(8)
    whole, parts = make_vit(policy=policy, **options), one_by_one(make_vit(policy=policy, **options))
    for frame in video:
        with count_operations(whole) as whole_counts, count_operations(parts) as parts_counts:
            assert torch.equal(whole(frame)["last_feat"], parts(frame)["last_feat"])
        assert whole_counts.by_stream() == parts_counts.by_stream()
        for ours, theirs in zip(whole.gates().values(), parts.gates().values()):
            assert (ours.selection.counts, ours.selection.tokens) == (theirs.selection.counts, theirs.selection.tokens)
            if ours.selection.index is not None:
                assert torch.equal(ours.selection.index, theirs.selection.index)
                assert torch.equal(ours.norms, theirs.norms)
    assert len(calls) == len(video) - 1  # all but the flush


def test_many_rows_go_through_the_mlp_in_parts():
    video = [frame.repeat(1, 1, 4, 4) for frame in make_video(3, streams=1)]
    policy = TopR(1200)
    whole, parts = make_vit(policy=policy), one_by_one(make_vit(policy=policy))
    assert torch.equal(run(whole, video), run(parts, video))


def test_streams_come_and_go(calls):
    whole, parts = make_vit(), one_by_one(make_vit())
    video = make_video(14, streams=3)

    def both(frames: slice, streams: int) -> None:
        part = [frame[:streams] for frame in video[frames]]
        assert torch.equal(run(whole, part), run(parts, part))

    both(slice(0, 3), 2)
    both(slice(3, 6), 3)
    both(slice(6, 8), 1)
    for vit in (whole, parts):
        vit.reset([1])
    both(slice(8, 11), 3)
    for vit in (whole, parts):
        vit.release()
    both(slice(11, 14), 2)
    assert len(calls) == 2 + 2 + 2 + 2 + 2


@pytest.mark.parametrize("change", ["in place", "behind PyTorch's back", "another parameter", "positions"])
def test_parameters_may_change(change):
    whole, parts = make_vit(), one_by_one(make_vit())
    video = make_video(6)
    for vit in (whole, parts):
        torch.manual_seed(2)
        run(vit, video[:3])
        block = vit.blocks[3]
        with torch.no_grad():
            if change == "in place":
                block.norm2.weight.mul_(1.5)
            elif change == "behind PyTorch's back":
                block.mlp.fc2.weight.data.normal_(std=0.2)
            elif change == "another parameter":
                block.attn.proj.bias = nn.Parameter(torch.randn(32))
            else:
                block.attn.rel_pos_h.add_(0.1)
    assert torch.equal(run(whole, video[3:]), run(parts, video[3:]))


@pytest.mark.parametrize(
    "options",
    [
        {"policy": Threshold(0.5)},
        {"attention": "full"},
        {"kv_pool": 2},
        {"gate_before_norm": True},
        {"gate_reference": "previous-frame"},
        {"state_dtype": torch.bfloat16},
        {"compute_dtype": torch.bfloat16},
        {"policy": TopR(80)},
    ],
)
def test_other_models_go_block_by_block(options, calls):
    run(make_vit(**options), make_video(3))
    assert not calls


def test_whoever_hooks_into_a_block_sees_it_at_work(calls):
    vit, video, seen = make_vit(), make_video(4), []
    run(vit, video[:2])
    hook = vit.blocks[2].attn.proj.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    vit(video[2])
    hook.remove()
    vit(video[3])
    assert seen == [(24, 32)] and len(calls) == 2


def test_layers_that_were_replaced_are_used(calls):
    vit, video = make_vit(), make_video(3)
    run(vit, video[:2])

    class Zero(nn.Linear):
        def forward(self, x):
            return torch.zeros(*x.shape[:-1], self.out_features)

    vit.blocks[1].mlp.fc2 = Zero(128, 32)
    before = len(calls)
    vit(video[2])
    assert len(calls) == before


@pytest.mark.parametrize("change", ["weight", "bias", "padding", "norm", "no norm", "hook"])
def test_parameters_that_lie_otherwise(change, calls):
    """What the kernels cannot read, or a norm that is another module or watched, is computed by PyTorch."""
    vit, expected = make_vit(), make_vit()
    video = make_video(4)
    block, plain, seen = vit.blocks[2], expected.blocks[2], []
    if change == "weight":
        block.mlp.fc1.weight = nn.Parameter(block.mlp.fc1.weight.detach().t().contiguous().t())
    elif change == "bias":
        block.attn.proj.bias = nn.Parameter(block.attn.proj.bias.detach().repeat_interleave(2)[::2])
    elif change == "padding":  # which is the bias of the queries, keys and values
        block.attn.qkv.bias = nn.Parameter(block.attn.qkv.bias.detach().repeat_interleave(2)[::2])
    elif change == "norm":
        block.norm1.weight = nn.Parameter(block.norm1.weight.detach().repeat_interleave(2)[::2])
    elif change == "no norm":
        block.norm2 = nn.Identity()
        plain.norm2 = nn.Identity()
    else:
        block.norm1.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    with mock.patch.object(native, "load_library", return_value=None):
        wanted = run(expected, video)
    before = len(calls)
    torch.testing.assert_close(run(vit, video), wanted, rtol=1e-4, atol=1e-4)
    assert len(calls) == before and len(seen) == (4 if change == "hook" else 0)


def test_a_copy_goes_on_by_itself(calls):
    """Halfway through a video, with the same weights or with its own."""
    vit, video = make_vit(), make_video(6)
    run(vit, video[:3])
    shared = copy.deepcopy(vit, {id(parameter): parameter for parameter in vit.parameters()})
    own = copy.deepcopy(vit)
    with torch.no_grad():
        own.blocks[0].mlp.fc1.weight.mul_(2)
    expected = run(one_by_one(copy.deepcopy(vit)), video[3:])
    assert torch.equal(run(shared, video[3:]), expected)
    assert torch.equal(run(vit, video[3:]), expected)
    assert not torch.equal(run(own, video[3:]), expected)
