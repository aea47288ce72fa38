"""Optimizers and schedules from a config."""

from __future__ import annotations

import logging
from typing import Any, Callable

import torch
from detectron2.config import CfgNode
from fvcore.common.param_scheduler import CosineParamScheduler, MultiStepParamScheduler
from torch import nn

from .lr_scheduler import LRMultiplier, WarmupParamScheduler

_NORM_LAYERS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)


def get_default_optimizer_params(
    model: nn.Module,
    base_lr: float | None = None,
    weight_decay: float | None = None,
    weight_decay_norm: float | None = None,
    bias_lr_factor: float | None = 1.0,
    weight_decay_bias: float | None = None,
    lr_factor_func: Callable[[str], float] | None = None,
    overrides: dict[str, dict[str, float]] | None = None,
) -> list[dict[str, Any]]:
    """Trainable parameters as few optimizer groups, one per distinct set of values.

    ``weight_decay_norm`` applies to normalization layers; ``lr_factor_func`` maps a parameter's full name to
    a factor of ``base_lr``; ``overrides`` maps a parameter's last name (such as "pos_embed" or "bias") to
    values that win over everything else. Where a value is None, the optimizer's own default holds.
    """
    if base_lr is None and (lr_factor_func is not None or bias_lr_factor not in (None, 1.0)):
        raise ValueError("lr_factor_func and bias_lr_factor need base_lr")
    overrides = dict(overrides or {})
    for_bias: dict[str, float] = {}
    if bias_lr_factor not in (None, 1.0):
        for_bias["lr"] = base_lr * bias_lr_factor
    if weight_decay_bias is not None:
        for_bias["weight_decay"] = weight_decay_bias
    if for_bias and "bias" in overrides:
        raise ValueError("'bias' has values in overrides and by bias_lr_factor or weight_decay_bias")
    if for_bias:
        overrides["bias"] = for_bias

    groups: dict[frozenset, dict[str, Any]] = {}
    seen: set[nn.Parameter] = set()  # a shared parameter belongs to the first module that names it
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            values = {"lr": base_lr, "weight_decay": weight_decay}
            if isinstance(module, _NORM_LAYERS) and weight_decay_norm is not None:
                values["weight_decay"] = weight_decay_norm
            if lr_factor_func is not None:
                values["lr"] *= lr_factor_func(f"{module_name}.{name}")
            values.update(overrides.get(name, {}))
            values = {key: value for key, value in values.items() if value is not None}
            groups.setdefault(frozenset(values.items()), {"params": [], **values})["params"].append(parameter)
    return list(groups.values())


def maybe_add_gradient_clipping(
    cfg: CfgNode, optimizer: type[torch.optim.Optimizer] | torch.optim.Optimizer
) -> type[torch.optim.Optimizer] | torch.optim.Optimizer:
    """Make an optimizer (or a class of optimizers) clip every parameter's gradient, if SOLVER.CLIP_GRADIENTS
    says so; "norm" limits the norm of each parameter's gradient, not that of all together."""
    settings = cfg.SOLVER.CLIP_GRADIENTS
    if not settings.ENABLED:
        return optimizer
    kind, limit, norm_type = settings.CLIP_TYPE, settings.CLIP_VALUE, settings.NORM_TYPE
    if kind not in ("value", "norm"):
        raise ValueError(f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE is '{kind}'; known: value, norm")

    def clip(stepping: torch.optim.Optimizer, *_: Any) -> None:
        for parameter in (parameter for group in stepping.param_groups for parameter in group["params"]):
            if kind == "value":
                nn.utils.clip_grad_value_(parameter, limit)
            else:
                nn.utils.clip_grad_norm_(parameter, limit, norm_type)

    if isinstance(optimizer, torch.optim.Optimizer):
        optimizer.register_step_pre_hook(clip)
        return optimizer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        optimizer.__init__(self, *args, **kwargs)
        self.register_step_pre_hook(clip)

    return type(f"{optimizer.__name__}WithGradientClip", (optimizer,), {"__init__": __init__})


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRMultiplier:
    """The schedule SOLVER.LR_SCHEDULER_NAME with its warm-up; call ``step()`` after every iteration."""
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
        steps = [step for step in solver.STEPS if step < solver.MAX_ITER]
        if len(steps) < len(solver.STEPS):
            message = "SOLVER.STEPS %s: those not below SOLVER.MAX_ITER (%d) are left out"
            logging.getLogger(__name__).warning(message, solver.STEPS, solver.MAX_ITER)
        values = [solver.GAMMA**count for count in range(len(steps) + 1)]
        schedule = MultiStepParamScheduler(values, num_updates=solver.MAX_ITER, milestones=steps)
    elif solver.LR_SCHEDULER_NAME == "WarmupCosineLR":
        if not 0.0 <= solver.BASE_LR_END <= solver.BASE_LR:
            raise ValueError(f"SOLVER.BASE_LR_END is {solver.BASE_LR_END}, not within 0 and SOLVER.BASE_LR")
        schedule = CosineParamScheduler(1.0, solver.BASE_LR_END / solver.BASE_LR)
    else:
        known = "WarmupMultiStepLR, WarmupCosineLR"
        raise ValueError(f"SOLVER.LR_SCHEDULER_NAME is '{solver.LR_SCHEDULER_NAME}'; known: {known}")
    warmup_length = min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0)
    with_warmup = WarmupParamScheduler(
        schedule, solver.WARMUP_FACTOR, warmup_length, solver.WARMUP_METHOD, solver.RESCALE_INTERVAL
    )
    return LRMultiplier(optimizer, multiplier=with_warmup, max_iter=solver.MAX_ITER)
