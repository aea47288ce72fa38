"""What comes before the blocks on a GPU, recorded as a graph of its own."""

import copy

import pytest
import torch
from eventful_vit import EventfulViT, Streams, TopR
from eventful_vit.finite_frames import FiniteAnswer
from torch import nn

from .small_models import expected_of, make_video, make_vit, run
from .small_vivit import make_views, make_vivit


def replays_of_input(vit: EventfulViT) -> int:
    return vit.state.recorded.input.recorder.replays


def test_frames_are_those_computed_one_by_one(as_on_a_gpu):
    vit, video = make_vit(policy=TopR(6)), make_video(9)
    expected = expected_of(vit, video)
    outputs = [vit(frame[None])["last_feat"] for frame in video]  # all of them kept until the end
    assert torch.equal(torch.cat(outputs), expected)
    assert replays_of_input(vit) == 9 - 2


def test_streams_that_begin_again(as_on_a_gpu):
    vit, video = make_vit(policy=TopR(6)), make_video(14).unflatten(0, (7, 2))
    other = copy.deepcopy(vit)
    for number, frames in enumerate(video):
        for each in (vit, other):
            if number in (2, 4, 5):
                each.reset([1] if number == 4 else None)
        other.state.recorded.clear()
        assert torch.equal(vit(frames)["last_feat"], other(frames)["last_feat"])
        assert vit.state.trace.flushed == other.state.trace.flushed


def test_a_refused_policy_or_other_sizes_in_between(as_on_a_gpu):
    vit, video, other_size = make_vit(policy=TopR(6)), make_video(8), make_video(4, size=(48, 40))
    expected = expected_of(vit, video[4:])
    run(vit, video[:4])
    vit.reset()
    run(vit, other_size)
    vit.reset()
    assert torch.equal(run(vit, video[4:]), expected)


def in_place(vit):
    with torch.no_grad():
        vit.patch_embed.proj.weight.mul_(1.5)


def positions(vit):
    with torch.no_grad():
        vit.pos_embed.add_(0.3)


def of_a_block(vit):
    with torch.no_grad():
        vit.blocks[1].mlp.fc1.weight.mul_(1.5)


def by_replacing(vit):
    vit.patch_embed.proj = nn.Conv2d(3, 24, 8, 8)


@pytest.mark.parametrize("change", [in_place, positions, of_a_block, by_replacing])
def test_an_input_that_started_with_old_weights_is_computed_again(change, as_on_a_gpu):
    vit, video = make_vit(policy=TopR(6)), make_video(10)
    run(vit, video[:5])
    assert replays_of_input(vit) == 3
    change(vit)
    expected = expected_of(vit, video[5:])
    assert torch.equal(run(vit, video[5:]), expected)
    assert replays_of_input(vit) == 3  # of the new recording


def test_a_hook_sees_the_embedding_of_its_frame(as_on_a_gpu):
    vit, video, seen = make_vit(policy=TopR(6)), make_video(8), []
    expected = expected_of(vit, video)
    outputs = [run(vit, video[:5])]
    hook = vit.patch_embed.register_forward_hook(lambda module, args, output: seen.append(output.clone()))
    outputs.append(run(vit, video[5:6]))
    hook.remove()
    outputs.append(run(vit, video[6:]))
    assert len(seen) == 1
    assert torch.equal(torch.cat(outputs), expected)


def test_an_embedding_that_may_run_other_code_is_not_recorded(as_on_a_gpu, needs_kernels, monkeypatch):
    refused = []
    monkeypatch.setattr("eventful_vit.ops.tape.refuse", refused.append)
    vit, video = make_vit(policy=TopR(6)), make_video(2)
    run(vit, video)
    assert not refused

    class Brighter(nn.Conv2d):
        def forward(self, x):
            return super().forward(x + 1)

    vit.patch_embed.proj = Brighter(3, 24, 8, 8)
    run(vit, video)
    assert "the patch embedding may run other code" in refused


def test_a_frame_that_is_not_finite_ends_all_streams(as_on_a_gpu):
    vit, video = make_vit(policy=TopR(6)), make_video(8)
    run(vit, video[:5])
    with pytest.raises(ValueError, match="frame of stream 0; all streams begin again"):
        vit(video[5:6] * torch.nan)
    expected = expected_of(vit, video[6:])
    assert torch.equal(run(vit, video[6:]), expected)


def test_what_the_recording_reads_is_kept(as_on_a_gpu):
    vit = make_vit(policy=TopR(6))
    run(vit, make_video(3))
    held = {tensor.data_ptr() for tensor in vit.state.recorded.input.recorder.held}
    outside = [tensor for name, tensor in vit.named_parameters() if not name.startswith("blocks.")]
    assert held >= {tensor.data_ptr() for tensor in outside} and len(held) < 10
    vit.release()
    assert vit.state.recorded.input is None


def test_an_interruption_while_the_input_is_recorded(as_on_a_gpu, monkeypatch):
    vit, video = make_vit(policy=TopR(6)), make_video(8)
    vit(video[:1])

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(vit), "_embed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            vit(video[1:2])
    assert vit.state.recorded.input is None
    assert torch.equal(run(vit, video[2:]), expected_of(vit, video[2:]))


def test_states_have_recordings_of_their_own(as_on_a_gpu):
    vit, video = make_vit(policy=TopR(6)), make_video(10)
    states = Streams(), Streams()
    expected = [run(copy.deepcopy(vit), video[start::2]) for start in (0, 1)]
    for number, frame in enumerate(video):
        output = vit(frame[None], states[number % 2])["last_feat"][0]
        torch.testing.assert_close(output, expected[number % 2][number // 2], atol=2e-5, rtol=1e-4)


def test_the_dense_model_is_recorded_from_its_images_on(as_on_a_gpu):
    vit, video = make_vit(enabled=False), make_video(5)
    with torch.no_grad():
        with torch.inference_mode():
            first = run(vit, video[:2])
        outputs = torch.cat([first, run(vit, video[2:])])
        (kind,) = vit._of_thread.recorded.kinds.values()
        assert kind.source.shape == (1, 3, 40, 56) and kind.recorder.replays == 3
        assert torch.equal(outputs, run(copy.deepcopy(vit), video))


def test_a_spatial_model_of_steps(as_on_a_gpu):
    vivit, views = make_vivit(), make_views()
    with torch.no_grad():
        expected = vivit.spatial_features(views)
        vivit.spatial_features(views)
        assert torch.equal(vivit.spatial_features(views), expected)
    assert vivit.spatial.state.recorded.input.recorder.replays > 0


def test_the_answer_lies_on_the_host_whatever_the_default_device():
    torch.set_default_device("meta")  # as programs set it to "cuda", whose memory cannot be pinned
    try:
        answer = FiniteAnswer(2, torch.device("cpu"))
    finally:
        torch.set_default_device(None)
    answer.fetch(torch.tensor([True, False]))
    with pytest.raises(ValueError, match="NaN or infinity in the frame of stream 1"):
        answer.refuse_others()
