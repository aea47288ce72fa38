"""Learning rate schedules against closed formulas, parameter groups and gradient clipping."""

import math

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.solver import build_lr_scheduler
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from torch import nn


def _rates(cfg, base_lrs=(1.0,)):
    """Learning rates of iterations 0 ... MAX_ITER - 1 of one group per base rate."""
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in base_lrs]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    scheduler = build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(cfg.SOLVER.MAX_ITER):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return rates


def _cfg(*options):
    cfg = get_cfg()
    cfg.merge_from_list(list(options))
    return cfg


def test_multi_step_with_linear_warmup():
    cfg = _cfg("SOLVER.MAX_ITER", 30, "SOLVER.STEPS", (10, 15, 20), "SOLVER.GAMMA", 0.1)
    cfg.merge_from_list(["SOLVER.WARMUP_FACTOR", 0.001, "SOLVER.WARMUP_ITERS", 5])
    expected = []
    for i in range(30):
        rise = 0.001 + (1 - 0.001) * i / 5 if i < 5 else 1.0
        expected.append(rise * 0.1 ** sum(i >= step for step in (10, 15, 20)))
    assert [rate for (rate,) in _rates(cfg)] == pytest.approx(expected)


def test_cosine_with_warmup_joins_the_cosine():
    cfg = _cfg("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.MAX_ITER", 20, "SOLVER.BASE_LR", 1.0)
    cfg.merge_from_list(["SOLVER.WARMUP_FACTOR", 0.01, "SOLVER.WARMUP_ITERS", 4, "SOLVER.BASE_LR_END", 0.2])

    def cosine(i):
        return 0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * i / 20))

    # The warm-up ends where the cosine, which runs from iteration 0, is at iteration 4.
    expected = [0.01 + (cosine(4) - 0.01) * i / 4 if i < 4 else cosine(i) for i in range(20)]
    assert [rate for (rate,) in _rates(cfg)] == pytest.approx(expected)


def test_groups_keep_their_ratio():
    cfg = _cfg("SOLVER.MAX_ITER", 12, "SOLVER.STEPS", (6,), "SOLVER.WARMUP_ITERS", 3)
    rates = _rates(cfg, base_lrs=(1.0, 0.25))
    assert all(second == pytest.approx(first / 4) for first, second in rates)


def test_scheduler_state_resumes():
    cfg = _cfg("SOLVER.MAX_ITER", 20, "SOLVER.STEPS", (5,), "SOLVER.WARMUP_ITERS", 0)
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = build_lr_scheduler(cfg, optimizer)
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    state, optimizer_state = scheduler.state_dict(), optimizer.state_dict()

    resumed_optimizer = torch.optim.SGD([parameter], lr=1.0)
    resumed = build_lr_scheduler(cfg, resumed_optimizer)
    resumed_optimizer.load_state_dict(optimizer_state)
    resumed.load_state_dict(state)
    assert resumed_optimizer.param_groups[0]["lr"] == 1.0
    resumed_optimizer.step()
    resumed.step()  # iteration 5: the first after the step
    assert resumed_optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


def test_unknown_scheduler_is_named():
    with pytest.raises(ValueError, match="NoSuchLR"):
        _rates(_cfg("SOLVER.LR_SCHEDULER_NAME", "NoSuchLR"))


def _model():
    model = nn.Sequential()
    model.add_module("fc", nn.Linear(4, 3))
    model.add_module("norm", nn.LayerNorm(3))
    model.add_module("frozen", nn.Linear(3, 3))
    model.frozen.requires_grad_(False)
    model.add_module("shared", nn.Linear(4, 3))
    model.shared.weight = model.fc.weight
    return model


def _values_by_name(model, groups):
    """{parameter name: (lr, weight decay)}; fails if a parameter is in no group or in two."""
    found = {}
    for group in groups:
        for parameter in group["params"]:
            assert id(parameter) not in found
            found[id(parameter)] = (group.get("lr"), group.get("weight_decay"))
    names = {name: found.pop(id(p)) for name, p in model.named_parameters() if p.requires_grad}
    assert not found
    return names


def test_parameter_groups():
    model = _model()
    groups = get_default_optimizer_params(
        model,
        base_lr=1.0,
        weight_decay=0.1,
        weight_decay_norm=0.0,
        bias_lr_factor=1.0,
        weight_decay_bias=None,
        lr_factor_func=lambda name: 0.5 if name.startswith("fc.") else 1.0,
        overrides={"bias": {"weight_decay": 0.7}},
    )
    assert _values_by_name(model, groups) == {
        "fc.weight": (0.5, 0.1),
        "fc.bias": (0.5, 0.7),
        "norm.weight": (1.0, 0.0),
        "norm.bias": (1.0, 0.7),  # overrides win over the norm's decay
        "shared.bias": (1.0, 0.7),
    }
    assert len(groups) == 4  # parameters with equal values share a group


def test_bias_factor():
    model = _model()
    groups = get_default_optimizer_params(
        model,
        base_lr=1.0,
        weight_decay=0.1,
        weight_decay_norm=0.0,
        bias_lr_factor=2.0,
        weight_decay_bias=0.3,
        lr_factor_func=lambda name: 0.5,
        overrides={"weight": {"lr": 3.0}},
    )
    values = _values_by_name(model, groups)
    assert values["fc.bias"] == values["norm.bias"] == (2.0, 0.3)  # the factor of a name is not for biases then
    assert values["fc.weight"] == (3.0, 0.1) and values["norm.weight"] == (3.0, 0.0)


@pytest.mark.parametrize("clip_type", ["value", "norm"])
def test_gradient_clipping(clip_type):
    cfg = _cfg("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", clip_type)
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 1.0
    big, small = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    optimizer = maybe_add_gradient_clipping(cfg, torch.optim.SGD)([big, small], lr=1.0)
    big.grad, small.grad = torch.tensor([3.0, -4.0]), torch.tensor([0.3, -0.4])
    optimizer.step()
    expected = [-1.0, 1.0] if clip_type == "value" else [-0.6, 0.8]
    # clip_grad_norm_ divides by norm + 1e-6
    torch.testing.assert_close(big.detach(), torch.tensor(expected), atol=1e-5, rtol=0)
    # each on its own: the small one stays
    torch.testing.assert_close(small.detach(), torch.tensor([-0.3, 0.4]), atol=1e-5, rtol=0)


def test_no_clipping_unless_enabled():
    assert maybe_add_gradient_clipping(get_cfg(), torch.optim.AdamW) is torch.optim.AdamW
