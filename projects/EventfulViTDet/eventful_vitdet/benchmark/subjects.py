"""What is measured: a detector, or a Vision Transformer of timm, in all variants."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from eventful_vit import make_eventful
from torch import nn

from ..errors import ConfigError
from ..timing import run_timed, timed_call
from .variants import Variant, build_models

TIMM = "timm:"


@dataclass(frozen=True)
class Subject:
    """Models, and how a frame is run through one."""

    name: str
    models: dict[tuple, nn.Module]
    """A model for every `model_key` of the variants."""
    size: int
    """Side of the square frames in pixels."""
    device: torch.device
    run: Callable[[nn.Module, dict], object]
    """One frame of `moving_video` through a model."""
    time: Callable[[nn.Module, dict], tuple[float, float]]
    """The same; returns its seconds, and those of the backbone among them."""


def detector_subject(cfg: CfgNode, variants: Sequence[Variant]) -> Subject:
    """The detector of a configuration; frames have the side MODEL.VIT.IMG_SIZE."""
    models = build_models(cfg, variants)
    device = next(iter(models.values())).device

    def time(model: nn.Module, frame: dict) -> tuple[float, float]:
        call = run_timed(model, [frame], device)
        return call.seconds, call.backbone_seconds

    return Subject("detector", models, cfg.MODEL.VIT.IMG_SIZE, device, lambda model, frame: model([frame]), time)


def load_timm(name: str, size: int | None) -> tuple[nn.Module, int]:
    """A model of timm with random weights, and the side of its frames.

    Args:
        name: such as "timm:vit_small_patch16_224".
        size: side of the frames in pixels; None: the model's own.

    Raises:
        ConfigError: there is no such model, or it cannot have frames of this size.
    """
    try:
        import timm
    except ImportError:
        raise ConfigError(f"--model {name} needs timm: pip install 'eventful-vitdet[timm]'") from None
    if not name.startswith(TIMM):
        raise ConfigError(f"--model {name}: write timm:NAME, such as timm:vit_small_patch16_224")
    try:
        vit = timm.create_model(name[len(TIMM) :], **({} if size is None else {"img_size": size}))
        make_eventful(vit)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise ConfigError(f"--model {name}: {error}") from error
    return vit, int(vit.patch_embed.img_size[0])


def vit_subject(name: str, vit: nn.Module, size: int, variants: Sequence[Variant], device: torch.device) -> Subject:
    """A Vision Transformer. Its dense variant is the library's own code, with the library's fused attention."""
    models = {}
    for mode, dtype, pyramid in dict.fromkeys(variant.model_key for variant in variants):
        own = copy.deepcopy(vit).eval().to(device, getattr(torch, dtype))
        models[mode, dtype, pyramid] = make_eventful(own, attention=mode)

    def picture(model: nn.Module, frame: dict) -> torch.Tensor:
        return (frame["image"][None].to(device) / 127.5 - 1).to(next(model.parameters()).dtype)

    def time(model: nn.Module, frame: dict) -> tuple[float, float]:
        x = picture(model, frame)
        with torch.no_grad():
            _, seconds = timed_call(lambda: model(x), device)
        return seconds, seconds

    return Subject(name, models, size, device, lambda model, frame: model(picture(model, frame)), time)
