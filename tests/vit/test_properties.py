"""What has to hold for every eventful model, whatever its size."""

import pytest
import torch
from eventful_vit import Threshold, TopFraction, TopR, count_operations

from .small_models import CLOSE, dense, flushed, make_video, make_vit, run, selected

MODES = ("exact", "tokenwise", "query-key", "full")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("options", [{}, {"gate_before_norm": True}, {"gate_reference": "previous-frame"}])
@pytest.mark.parametrize("policy", [TopR(35), TopR(1000), TopFraction(1.0), Threshold(-1.0)])
def test_all_tokens_equals_dense(mode, options, policy):
    vit = make_vit(attention=mode, policy=policy, **options)
    video = make_video(4)
    torch.testing.assert_close(run(vit, video), dense(vit, video), **CLOSE)


def test_all_tokens_equals_dense_with_pooled_keys():
    vit = make_vit((32, 48), kv_pool=2, policy=TopR(24), attention="full")
    video = make_video(3, size=(32, 48))
    torch.testing.assert_close(run(vit, video), dense(vit, video), **CLOSE)


@pytest.mark.parametrize("mode", ["exact", "tokenwise", "query-key"])
@pytest.mark.parametrize("policy", [TopR(5), TopR(1), TopFraction(0.2)])
def test_still_video_converges_to_dense(mode, policy):
    vit = make_vit(attention=mode, policy=policy)
    video = make_video(2)
    still = torch.cat([video, video[-1:].repeat(150, 1, 1, 1)])
    outputs = run(vit, still)
    target = dense(vit, video[-1:])[0]
    assert (outputs[1] - target).abs().max() > 1e-3  # one frame alone does not get there
    torch.testing.assert_close(outputs[-1], target, **CLOSE)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("policy", [TopR(0), Threshold(float("inf"))])
def test_nothing_selected_repeats_the_flush(mode, policy):
    vit = make_vit(attention=mode, policy=policy, use_abs_pos=False, depth=1, window_block_indexes=[])
    video = make_video(3)
    first = run(vit, video[:1])[0]
    later = vit(video[1][None])["last_feat"][0]
    # Block outputs are reused; the residual stream of the embedding is current.
    with torch.no_grad():
        residual = vit.patch_embed(video[1][None]) - vit.patch_embed(video[0][None])
    expected = first + residual[0].t().unflatten(1, (5, 7))
    torch.testing.assert_close(later, expected, **CLOSE)


def test_policy_changes_between_frames_without_a_flush():
    vit = make_vit(policy=TopR(3))
    video = make_video(3)
    run(vit, video[:2])
    vit.set_policy(TopR(7))
    vit(video[2][None])
    assert flushed(vit) == (False,)
    assert selected(vit) == 9 * [(7,)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("policy", [TopR(6), Threshold(1.5)])
def test_batch_equals_separate_streams(mode, policy):
    vit = make_vit(attention=mode, policy=policy)
    videos = [make_video(5, seed) for seed in range(3)]
    separate = []
    for video in videos:
        vit.reset()
        separate.append(run(vit, video))
    vit.reset()
    batched = torch.stack([vit(torch.stack(frames))["last_feat"] for frames in zip(*videos)], dim=1)
    torch.testing.assert_close(batched, torch.stack(separate), **CLOSE)


@pytest.mark.parametrize("mode", MODES)
def test_one_stream_ends_and_another_begins(mode):
    vit = make_vit(attention=mode, policy=TopR(6))
    first, second, third = make_video(6, 1), make_video(3, 2), make_video(3, 3)
    alone = {}
    for name, video in (("first", first), ("second", second), ("third", third)):
        vit.reset()
        alone[name] = run(vit, video)
    vit.reset()
    neighbour = torch.cat([second, third])
    out = []
    for t in range(6):
        if t == 3:
            vit.reset([1])
        out.append(vit(torch.stack([first[t], neighbour[t]]))["last_feat"])
        assert flushed(vit) == (t == 0, t in (0, 3))
    torch.testing.assert_close(torch.stack([o[0] for o in out]), alone["first"], **CLOSE)
    torch.testing.assert_close(torch.stack([o[1] for o in out]), torch.cat([alone["second"], alone["third"]]), **CLOSE)


def test_streams_may_join_and_leave():
    vit = make_vit(policy=TopR(6))
    a, b = make_video(4, 1), make_video(4, 2)
    alone = run(vit, a)
    vit.reset()
    sizes = (1, 2, 1, 2)  # the second stream joins at frame 1, pauses at 2, goes on at 3
    out = [vit(torch.stack([a[t], b[t]])[:size])["last_feat"] for t, size in enumerate(sizes)]
    torch.testing.assert_close(torch.stack([o[0] for o in out]), alone, **CLOSE)
    vit.reset()
    skipping = run(vit, b[[1, 3]])
    torch.testing.assert_close(torch.stack([out[1][1], out[3][1]]), skipping, **CLOSE)


def test_counts_per_stream_of_a_mixed_batch():
    vit = make_vit(policy=Threshold(1.0))
    a, b = make_video(3, 1), make_video(3, 2)

    def counted(frames):
        with count_operations(vit) as counts:
            vit(frames)
        return counts

    alone = [counted(frame[None]).by_category() for frame in a]
    vit.reset()
    flush = counted(b[:1]).by_category()
    vit.reset()
    counted(torch.stack([a[0], b[2]]))
    vit.reset([1])
    mixed = counted(torch.stack([a[1], b[0]]))
    assert mixed.by_category(stream=0) == alone[1]
    assert {k: v for k, v in mixed.by_category(stream=1).items() if v} == {k: v for k, v in flush.items() if v}
    assert mixed.total() == mixed.total(stream=0) + mixed.total(stream=1)


def test_counts_clear():
    vit = make_vit()
    with count_operations(vit) as counts:
        vit(make_video(1))
        assert counts.total() > 0
        counts.clear()
        assert counts.total() == 0
    vit(make_video(1))
    assert counts.total() == 0 and not vit.observers


def test_dense_frames_in_between_leave_the_state_alone():
    vit = make_vit(policy=TopR(6))
    video = make_video(4)
    expected = run(vit, video)
    vit.reset()
    run(vit, video[:2])
    dense(vit, make_video(2, seed=9))
    torch.testing.assert_close(run(vit, video[2:]), expected[2:], atol=0, rtol=0)


def test_output_and_input_share_no_memory_with_the_state():
    vit = make_vit(policy=TopR(6))
    video = make_video(3)
    expected = run(vit, video)
    vit.reset()
    for frame, target in zip(video, expected):
        mine = frame.clone()[None]
        out = vit(mine)["last_feat"]
        torch.testing.assert_close(out[0], target, atol=0, rtol=0)
        out.fill_(float("nan"))
        mine.fill_(float("nan"))


def test_grad_modes_may_alternate():
    vit = make_vit(policy=TopR(6))
    video = make_video(4)
    expected = run(vit, video)
    vit.reset()
    with torch.inference_mode():
        first = vit(video[0][None])["last_feat"][0].clone()
    with torch.no_grad():
        second = vit(video[1][None])["last_feat"][0]
    third = vit(video[2][None])["last_feat"][0]
    with torch.inference_mode():
        fourth = vit(video[3][None])["last_feat"][0].clone()
    torch.testing.assert_close(torch.stack([first, second, third, fourth]), expected, **CLOSE)


def test_weight_changes_are_seen():
    vit = make_vit(policy=TopR(35))
    video = make_video(1)
    run(vit, video)
    with torch.no_grad():
        vit.pos_embed.mul_(2)
        vit.blocks[1].attn.rel_pos_h.mul_(2)
    vit.reset()
    changed = run(vit, video)
    fresh = make_vit(policy=TopR(35))
    fresh.load_state_dict(vit.state_dict())
    torch.testing.assert_close(changed, run(fresh, video), **CLOSE)


def test_training_mode_is_the_dense_model_with_gradients():
    vit = make_vit(policy=TopR(0))
    video = make_video(2)
    run(vit, video)
    before = vit.state_bytes()
    vit.train()
    out = vit(video)["last_feat"]
    out.square().mean().backward()
    assert all(parameter.grad is not None for parameter in vit.parameters())
    assert vit.state_bytes() == before
    vit.eval()
    torch.testing.assert_close(out.detach(), dense(vit, video), **CLOSE)


def test_state_is_not_in_the_state_dict():
    vit = make_vit()
    names = set(vit.state_dict())
    run(vit, make_video(2))
    assert set(vit.state_dict()) == names
    held = vit.state_bytes()
    vit.reset()
    assert vit.state_bytes() == held > 0
    vit.release()
    assert vit.state_bytes() == 0


def test_state_dtype():
    video = make_video(4)
    exact = run(make_vit(policy=TopR(12)), video)
    vit = make_vit(policy=TopR(12), state_dtype=torch.bfloat16)
    close = run(vit, video)
    # bfloat16 keeps 8 bits: 0.4 % per stored value, a few of them per output.
    assert 0 < (close - exact).abs().max() < 0.05 * exact.abs().max()
    smaller, full = vit.state_bytes(), make_vit(policy=TopR(12))
    run(full, video)
    assert smaller < 0.75 * full.state_bytes()


def test_bad_frames_are_refused_and_change_nothing():
    vit = make_vit(policy=TopR(6))
    video = make_video(3)
    expected = run(vit, video)
    vit.reset()
    run(vit, video[:2])
    with pytest.raises(ValueError, match="stream 1"):
        bad = video[:2].clone()
        bad[1, 0, 0, 0] = float("nan")
        vit(bad)
    with pytest.raises(ValueError, match="patch_size"):
        vit(torch.zeros(1, 3, 41, 56))
    with pytest.raises(ValueError, match="5 x 7 tokens and this frame 5 x 5; call reset"):
        vit(torch.zeros(1, 3, 40, 40))
    torch.testing.assert_close(run(vit, video[2:])[0], expected[2], atol=0, rtol=0)


def test_another_size_after_reset():
    vit = make_vit(policy=TopR(6))
    run(vit, make_video(2))
    vit.reset()
    small = make_video(2, size=(40, 40))
    out = run(vit, small)
    torch.testing.assert_close(out[0], dense(vit, small)[0], **CLOSE)


def test_an_interrupted_frame_starts_over():
    vit = make_vit(policy=TopR(6))
    video = make_video(3)
    run(vit, video[:2])

    def interrupt(*args):
        raise KeyboardInterrupt

    hook = vit.blocks[1].mlp.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        vit(video[2][None])
    hook.remove()
    out = run(vit, video[2:])
    assert flushed(vit) == (True,)
    torch.testing.assert_close(out, dense(vit, video[2:]), **CLOSE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "nonsense"}, "attention = 'nonsense' is unknown"),
        ({"gate_reference": "first"}, "gate_reference = 'first' is unknown"),
        ({"gpu_crossover": -0.1}, "gpu_crossover needs a share of a frame's tokens, 0 or more, got -0.1"),
        ({"gpu_crossover": float("nan")}, "gpu_crossover needs .* got nan"),
        ({"num_heads": 5}, "not divisible by num_heads = 5"),
        ({"img_size": 41}, "not a multiple of patch_size"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make_vit(**options)


def test_pool_must_divide_the_grid():
    with pytest.raises(ValueError, match="kv_pool = 2 does not divide the token grid 5 x 7"):
        run(make_vit(kv_pool=2), make_video(1))


def test_policy_must_be_a_policy():
    with pytest.raises(TypeError, match="TopR"):
        make_vit().set_policy(256)


@pytest.mark.parametrize("attention", ["exact", "full", "tokenwise"])
def test_bfloat16_products(attention):
    video = make_video(4)
    precise = run(make_vit(attention=attention), video)
    vit = make_vit(attention=attention, compute_dtype=torch.bfloat16)
    short = run(vit, video)
    assert {parameter.dtype for parameter in vit.parameters()} == {torch.float32}
    # bfloat16 has 8 significant bits: some tenths of a percent in each of a dozen products.
    assert 0 < (short - precise).abs().max() < 0.05 * precise.abs().max()


def test_rounded_weights_follow_the_parameters():
    vit = make_vit(compute_dtype=torch.bfloat16)
    frame = make_video(1)[0]
    for weight in (vit.blocks[0].mlp.fc1.weight, vit.patch_embed.proj.weight):
        before = dense(vit, [frame])
        with torch.no_grad():
            weight.mul_(2)
        assert not torch.equal(dense(vit, [frame]), before)


@torch.no_grad()
def test_bfloat16_products_of_the_embedding():
    vit, frame = make_vit(compute_dtype=torch.bfloat16), make_video(1)[0]
    precise, result = vit.patch_embed.proj(frame).flatten(2).transpose(1, 2), vit.patch_embed(frame)
    assert result.dtype == torch.float32 and torch.equal(result, result.bfloat16().float())
    assert 0 < (result - precise).abs().max() < 0.02 * precise.abs().max()
