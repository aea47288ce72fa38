"""Training with gates on: the outputs of the eventful model, with gradients."""

import pytest
import torch
from eventful_vit import PerGate, Threshold, TopR

from .small_models import CLOSE
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
