"""Optimisers: ViTDet's AdamW, SGD, and Muon for the Transformer's matrices."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling.backbone.vit import get_vit_lr_decay_rate
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from torch import nn

from .errors import ConfigError
from .muon import Muon

OPTIMIZERS = ("adamw", "muon", "sgd")


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser that SOLVER.OPTIMIZER asks for, with ViTDet's rules.

    No weight decay on absolute positions, SOLVER.WEIGHT_DECAY_NORM on PyTorch's norms (the Transformer's; those of
    pyramid and heads are Detectron2's own class, and decay), and learning rates that fall by SOLVER.LAYER_DECAY from
    one block to the one before it, but for the matrices that Muon takes.

    Raises:
        ConfigError: an unknown optimiser.
    """
    solver = cfg.SOLVER
    if solver.OPTIMIZER not in OPTIMIZERS:
        known = ", ".join(map(repr, OPTIMIZERS))
        raise ConfigError(f"SOLVER.OPTIMIZER = {solver.OPTIMIZER!r} is unknown; choose one of {known}")
    if solver.OPTIMIZER == "muon":
        return with_clipping(cfg, MuonAdamW)(cfg, model)
    parameters = parameter_groups(cfg, model)
    if solver.OPTIMIZER == "sgd":
        optimizer = with_clipping(cfg, torch.optim.SGD)
        return optimizer(parameters, lr=solver.BASE_LR, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV)
    return with_clipping(cfg, torch.optim.AdamW)(parameters, lr=solver.BASE_LR)


def parameter_groups(cfg: CfgNode, model: nn.Module) -> list[dict[str, Any]]:
    """Parameters by learning rate and weight decay."""
    solver, depth = cfg.SOLVER, cfg.MODEL.VIT.DEPTH
    return get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        lr_factor_func=lambda name: get_vit_lr_decay_rate(name, solver.LAYER_DECAY, depth),
        overrides={"pos_embed": {"weight_decay": 0.0}},
    )


def with_clipping(cfg: CfgNode, optimizer: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """An optimiser class that clips gradients before each step, as SOLVER.CLIP_GRADIENTS asks for.

    Detectron2 clips each parameter by itself ("value", "norm"); "full_model" is added here: the norm over all of them.
    """
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if not clip.ENABLED or clip.CLIP_TYPE != "full_model":
        return maybe_add_gradient_clipping(cfg, optimizer)

    class FullModelClipping(optimizer):
        def step(self, closure=None):
            parameters = [parameter for group in self.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(parameters, clip.CLIP_VALUE, clip.NORM_TYPE)
            return super().step(closure)

    return FullModelClipping


class MuonAdamW(torch.optim.Optimizer):
    """Muon for the weight matrices of the Transformer's blocks, AdamW for everything else.

    Muon has a learning rate of its own, SOLVER.MUON_LR. Both are one optimiser to schedulers and checkpoints.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module) -> None:
        solver = cfg.SOLVER
        matrices = [
            parameter
            for name, parameter in model.named_parameters()
            if ".blocks." in name and parameter.ndim == 2 and name.endswith("weight")
        ]
        taken = set(matrices)
        others = [
            {**group, "params": [p for p in group["params"] if p not in taken]}
            for group in parameter_groups(cfg, model)
        ]
        self._muon = Muon(matrices, solver.MUON_LR, solver.WEIGHT_DECAY)
        self._adamw = torch.optim.AdamW([group for group in others if group["params"]], lr=solver.BASE_LR)
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], defaults={})
        self._share()

    def _share(self) -> None:
        """Let the two optimisers work on this one's groups and state, the ones that are scheduled and saved."""
        self._muon.param_groups = self.param_groups[:1]
        self._adamw.param_groups = self.param_groups[1:]
        self._muon.state = self._adamw.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure=None):
        loss = None if closure is None else closure()
        self._muon.step()
        self._adamw.step()
        return loss
