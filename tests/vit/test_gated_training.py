"""Training with gates on: the outputs of the eventful model, with gradients."""

import pytest
import torch
from eventful_vit import PerGate, Threshold, TopR

from .small_models import CLOSE, make_video, make_vit, run
from .small_vivit import make_views, make_vivit


def both(**options):
    """Features of a model in training with gates, and of the same model in inference."""
    vivit = make_vivit(train_with_gates=True, **options)
    views = make_views() + 0.1 * torch.randn(1, 3, 8, 3, 32, 40)
    with torch.no_grad():
        eventful = vivit.spatial_features(views)
    return vivit.train().spatial_features(views), eventful


@pytest.mark.parametrize(
    "options",
    [
        {"policy": TopR(6)},
        {"policy": TopR(0)},
        {"policy": Threshold(1.0)},
        {"policy": PerGate({"*.mlp": TopR(3), "*": TopR(9)})},
        {"policy": TopR(6), "gate_before_norm": True},
        {"policy": TopR(6), "gate_reference": "previous-frame"},
    ],
    ids=str,
)
def test_outputs_are_those_of_inference(options):
    trained, eventful = both(**options)
    torch.testing.assert_close(trained.detach(), eventful, **CLOSE)
    assert trained.requires_grad


def test_all_tokens_are_the_dense_model():
    views = make_views()
    gated = make_vivit(train_with_gates=True, policy=TopR(100)).train().spatial_features(views)
    torch.testing.assert_close(gated, make_vivit().train().spatial_features(views), **CLOSE)


def test_gradients_go_where_values_came_from():
    views = make_views().requires_grad_()
    vivit = make_vivit(train_with_gates=True, policy=TopR(0)).train()
    vivit.spatial_features(views)[:, :, 1:].square().sum().backward()
    norms = views.grad.abs().flatten(3).sum(-1)
    assert (norms[..., :2] > 0).all()  # what later steps reuse is of the first one
    # The residual stream is not gated, but the class token, the only output, sees others through gates alone.
    assert (norms[..., 2:] == 0).all()


def test_parameters_learn_at_any_budget():
    vivit = make_vivit(train_with_gates=True, policy=TopR(4)).train()
    sum(logits.square().sum() for logits in vivit(make_views()).values()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in vivit.parameters())


def test_clips_have_gates_of_their_own():
    vivit = make_vivit(train_with_gates=True, policy=TopR(2)).train()
    first = vivit.spatial_features(make_views(seed=1))
    vivit.spatial_features(make_views(seed=2))
    torch.testing.assert_close(vivit.spatial_features(make_views(seed=1)), first)


VIT_OPTIONS = [
    {"policy": TopR(6)},
    {"policy": TopR(6), "attention": "tokenwise"},
    {"policy": Threshold(0.5), "gate_before_norm": True},
    {"policy": TopR(4), "gate_reference": "previous-frame"},
    {"policy": TopR(6), "img_size": (48, 64), "kv_pool": 2, "residual_block_indexes": [1]},
]


@pytest.mark.parametrize("options", VIT_OPTIONS, ids=str)
def test_a_detectors_backbone_in_windows_too(options):
    vit, video = make_vit(**options), make_video(4, size=options.get("img_size", (40, 56)))
    eventful = run(vit, video)
    vit.train()
    with vit.training_clip():
        trained = torch.cat([vit(frame[None])["last_feat"] for frame in video])
    torch.testing.assert_close(trained.detach(), eventful, **CLOSE)
    trained[-1].square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in vit.parameters())
    dense = vit(video[-1:])["last_feat"]  # the gates are gone
    assert not torch.allclose(dense, trained[-1:], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(dense, make_vit(**options).train()(video[-1:])["last_feat"])


def test_activations_are_kept_within_a_clip():
    vit = make_vit(policy=TopR(3), use_act_checkpoint=True).train()
    video = make_video(3)
    with vit.training_clip():
        last = [vit(frame[None])["last_feat"] for frame in video][-1]
    last.sum().backward()  # recomputed, the gates of frames gone by would choose again
    expected = make_vit(policy=TopR(3)).train()
    with expected.training_clip():
        [expected(frame[None])["last_feat"] for frame in video][-1].sum().backward()
    for own, other in zip(vit.parameters(), expected.parameters()):
        torch.testing.assert_close(own.grad, other.grad)


@pytest.mark.parametrize("attention", ["full", "query-key"])
def test_attention_that_differs_from_the_dense_one_is_refused(attention):
    vit = make_vit(attention=attention).train()
    with pytest.raises(ValueError, match=f"exact or tokenwise attention, not '{attention}'"), vit.training_clip():
        pass


def test_stochastic_depth_is_refused():
    vit, frame = make_vit(drop_path_rate=0.5).train(), make_video(1)
    with vit.training_clip(), pytest.raises(ValueError, match=r"blocks\.1: .* without stochastic depth"):
        vit(frame)
    for block in vit.blocks:
        block.drop_path.eval()
    with vit.training_clip():
        assert vit(frame)["last_feat"].requires_grad


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_of_stochastic_depth_that_is_none(rate):
    with pytest.raises(ValueError, match="drop_path_rate must be from 0 to below 1"):
        make_vit(drop_path_rate=rate)
