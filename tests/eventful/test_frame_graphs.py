"""Frames of fixed size, which can be recorded, and CUDA graphs of them: the same as frames that choose their sizes."""

from dataclasses import replace

import pytest
import torch
from eventful_vitdet import EventfulViT, Threshold, TopFraction, TopR, count_operations
from eventful_vitdet.eventful.attention import exact
from torch import nn

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
ATOL = 1e-4  # as for `exact` in general


def make_vit(device="cpu", **options) -> EventfulViT:
    torch.manual_seed(0)
    vit = EventfulViT(
        (64, 80), 8, embed_dim=32, depth=3, num_heads=2, use_rel_pos=True, window_size=3, window_block_indexes=[1],
        pretrain_img_size=32, **{"policy": TopR(12), **options},
    ).eval()  # fmt: skip
    for parameter in vit.parameters():
        nn.init.normal_(parameter, std=0.2)
    return vit.to(device)


def make_video(frames: int, streams: int = 2, device="cpu") -> list:
    generator = torch.Generator().manual_seed(1)
    frame = torch.randn(streams, 3, 64, 80, generator=generator)
    video = []
    for _ in range(frames):
        changed = torch.rand(frame.shape, generator=generator) < 0.05
        frame = frame + 0.3 * changed * torch.randn(frame.shape, generator=generator)
        video.append(frame.to(device))
    return video


def run(vit: EventfulViT, video: list) -> torch.Tensor:
    return torch.stack([vit(frame)["last_feat"] for frame in video])


def fix_sizes(vit: EventfulViT) -> list:
    """Let a model compute its later frames with fixed sizes; returns the list of what these leave over."""
    compute, left_over = vit._compute, []

    def fixed(images, step):
        if any(step.flush):
            return compute(images, step)
        return compute(images, replace(step, fixed_sizes=True, unreliable=left_over))

    vit._compute = fixed
    return left_over


@pytest.mark.parametrize("attention", ["exact", "tokenwise"])
def test_fixed_sizes_change_nothing(attention):
    video = make_video(15)
    expected = run(make_vit(attention="tokenwise"), video)
    vit = make_vit(attention=attention)
    left_over = fix_sizes(vit)
    torch.testing.assert_close(run(vit, video), expected, atol=ATOL, rtol=1e-4)
    assert not any(map(int, left_over))


def test_queries_beyond_the_fixed_number_are_reported(monkeypatch):
    """With a limit that nothing keeps, all queries ask for being computed anew; some get it, the rest are counted."""
    monkeypatch.setattr(exact, "DRIFT_LIMIT", 0.0)
    vit = make_vit()
    left_over = fix_sizes(vit)
    run(vit, make_video(2, streams=1))
    tokens = 8 * 10
    assert [int(number) for number in left_over] == [tokens - 12 - (tokens // exact.SPARE_QUERIES + 1)] * 2


def test_graphs_and_pooled_keys_are_refused_together():
    with pytest.raises(ValueError, match="cuda_graphs do not go with kv_pool"):
        EventfulViT(64, 8, embed_dim=16, depth=1, num_heads=1, kv_pool=2, cuda_graphs=True)


def test_graphs_are_for_gpus_and_fixed_budgets():
    """On a CPU the option changes nothing."""
    video = make_video(4)
    assert torch.equal(run(make_vit(cuda_graphs=True), video), run(make_vit(), video))


@needs_gpu
class TestOnAGpu:
    def test_exact_equals_tokenwise(self):
        video = make_video(15, device="cuda")
        ours, theirs = (run(make_vit("cuda", attention=mode), video) for mode in ("exact", "tokenwise"))
        torch.testing.assert_close(ours, theirs, atol=ATOL, rtol=1e-3)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("cuda_graphs", [False, True])
    def test_shorter_types(self, dtype, cuda_graphs):
        video = make_video(4, device="cuda")
        precise = run(make_vit("cuda"), video)
        short = run(make_vit("cuda", state_dtype=dtype, compute_dtype=dtype, cuda_graphs=cuda_graphs), video)
        # bfloat16 has 8 significant bits: some tenths of a percent in each of a dozen products.
        assert 0 < (short - precise).abs().max() < 0.1 * precise.abs().max()

    @pytest.mark.parametrize("attention", ["exact", "tokenwise", "full"])
    @pytest.mark.parametrize("policy", [TopR(12), TopFraction(0.2), TopR(0), TopR(1000)])
    def test_replayed_frames_equal_others(self, attention, policy):
        video = make_video(10, device="cuda")
        expected = run(make_vit("cuda", attention=attention, policy=policy), video)
        vit = make_vit("cuda", attention=attention, policy=policy, cuda_graphs=True)
        torch.testing.assert_close(run(vit, video), expected, atol=ATOL, rtol=1e-3)
        assert len(vit._graphs._graphs) == 1

    def test_budgets_streams_and_parameters_may_change(self):
        vit, plain = make_vit("cuda", cuda_graphs=True), make_vit("cuda")
        three = make_video(20, streams=3, device="cuda")

        def both(frames: slice, streams: int) -> None:
            video = [frame[:streams] for frame in three[frames]]
            torch.testing.assert_close(run(vit, video), run(plain, video), atol=ATOL, rtol=1e-3)

        both(slice(0, 4), 2)
        for model in (vit, plain):
            model.set_policy(TopR(5))
        both(slice(4, 7), 2)
        both(slice(7, 10), 3)  # a third stream begins
        for model in (vit, plain):
            model.reset([1])
            model.set_policy(Threshold(0.5))
        both(slice(10, 13), 3)
        for model in (vit, plain):
            model.set_policy(TopR(12))
            with torch.no_grad():
                model.blocks[0].mlp.fc1.weight.mul_(1.5)
        both(slice(13, 17), 3)
        for model in (vit, plain):
            model.release()
        both(slice(17, 20), 1)

    def test_replayed_frames_are_counted_and_show_their_choice(self):
        vit, video = make_vit("cuda", cuda_graphs=True), make_video(6, device="cuda")
        seen = []
        for frame in video:
            with count_operations(vit) as counts:
                vit(frame)
            gate = vit.gates()["blocks.0.qkv"]
            seen.append((counts.by_stream(), gate.selection.index.tolist() if gate.selection.index is not None else []))
        assert seen[2][0] == seen[3][0] == seen[5][0]
        assert len(seen[3][1]) == 24 and seen[3][1] != seen[4][1]

    def test_a_frame_that_asks_for_too_much_is_computed_in_full(self, monkeypatch):
        vit, video = make_vit("cuda", cuda_graphs=True), make_video(8, device="cuda")
        run(vit, video[:4])
        assert not any(vit.flushed)
        scene_cut = [frame * 30 for frame in video[4:5]]
        monkeypatch.setattr(exact, "DRIFT_LIMIT", 0.0)  # as recorded anew: nothing is reliable
        vit._graphs.clear()
        out = run(vit, scene_cut)
        assert all(vit.flushed)
        vit.enabled = False
        torch.testing.assert_close(out, run(vit, scene_cut), atol=ATOL, rtol=1e-3)
        vit.enabled = True
        monkeypatch.undo()
        run(vit, video[5:])
        assert not any(vit.flushed)

    def test_bad_frames_leave_a_recorded_stream_as_it_was(self):
        vit, plain = make_vit("cuda", cuda_graphs=True), make_vit("cuda")
        video = make_video(8, device="cuda")
        for model in (vit, plain):
            run(model, video[:4])
        bad = video[4].clone()
        bad[1, 0, 3, 3] = torch.nan
        with pytest.raises(ValueError, match="NaN or infinity in the frame of stream 1"):
            vit(bad)
        torch.testing.assert_close(run(vit, video[5:]), run(plain, video[5:]), atol=ATOL, rtol=1e-3)
