"""The eventful ViTDet backbone: EventfulViT and the simple feature pyramid, built from a configuration."""

from __future__ import annotations

from collections.abc import Sequence

import eventful_vit
import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.vit import SimpleFeaturePyramid
from eventful_vit import PerGate, Policy, Threshold, TopFraction, TopR
from eventful_vit.model import EventfulModel
from eventful_vit.ops.gpu.device_facts import multiplies_bfloat16

from ..budget_words import CALIBRATED
from ..errors import ConfigError
from ..policy_files import calibrated_policy

PER_GATE = "per-gate"
DTYPES = {"": None, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class EventfulViT(eventful_vit.EventfulViT, Backbone):
    """EventfulViT with Detectron2's backbone interface; takes the place of its `ViT`."""

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {self.out_feature: ShapeSpec(channels=self.embed_dim, stride=self.patch_size)}


@BACKBONE_REGISTRY.register()
def build_eventful_vitdet_backbone(cfg: CfgNode, input_shape: ShapeSpec | None = None) -> SimpleFeaturePyramid:
    """Build EventfulViT with the simple feature pyramid from MODEL.VIT, MODEL.SIMPLE_PYRAMID and MODEL.EVENTFUL."""
    pyramid = cfg.MODEL.SIMPLE_PYRAMID
    backbone = SimpleFeaturePyramid(
        net=build_vit(cfg),
        in_feature="last_feat",
        out_channels=pyramid.OUT_CHANNELS,
        scale_factors=pyramid.SCALE_FACTORS,
        top_block=LastLevelMaxPool(),
        norm=pyramid.NORM,
        square_pad=0 if cfg.MODEL.VIT.IMG_SIZE_HW else cfg.MODEL.VIT.IMG_SIZE,
    )
    check_levels(cfg, list(backbone.output_shape()))
    return backbone


def check_levels(cfg: CfgNode, levels: list[str]) -> None:
    """Raise ConfigError, naming the key, if the detector wants feature maps that the pyramid does not make."""
    for part in ("RPN", "ROI_HEADS"):
        unknown = [name for name in cfg.MODEL[part].IN_FEATURES if name not in levels]
        if unknown:
            raise ConfigError(
                f"MODEL.{part}.IN_FEATURES names {', '.join(unknown)}, but the pyramid makes {', '.join(levels)} "
                "(was --config-file forgotten?)"
            )


def check_vit(cfg: CfgNode) -> None:
    """Raise ConfigError, naming the key, for numbers that no ViT can have."""
    vit = cfg.MODEL.VIT
    keys = ("IMG_SIZE", "PRETRAIN_IMG_SIZE", "PATCH_SIZE", "EMBED_DIM", "DEPTH", "NUM_HEADS")
    numbers = {f"VIT.{key}": vit[key] for key in keys} | {"EVENTFUL.KV_POOL": cfg.MODEL.EVENTFUL.KV_POOL}
    for key, number in numbers.items():
        if number < 1:
            raise ConfigError(f"MODEL.{key} must be 1 or larger, found {number}")
    if len(vit.IMG_SIZE_HW) not in (0, 2):
        raise ConfigError(f"MODEL.VIT.IMG_SIZE_HW must be (height, width) or (), found {tuple(vit.IMG_SIZE_HW)}")


def build_vit(cfg: CfgNode) -> EventfulViT:
    """Build the ViT without the rest of the detector."""
    vit = cfg.MODEL.VIT
    check_vit(cfg)
    policy, options = policy_to_build_with(cfg), eventful_options(cfg)
    try:
        vit = EventfulViT(
            img_size=tuple(vit.IMG_SIZE_HW) or vit.IMG_SIZE,
            patch_size=vit.PATCH_SIZE,
            in_chans=len(cfg.MODEL.PIXEL_MEAN),
            embed_dim=vit.EMBED_DIM,
            depth=vit.DEPTH,
            num_heads=vit.NUM_HEADS,
            mlp_ratio=vit.MLP_RATIO,
            drop_path_rate=vit.DROP_PATH_RATE,
            use_abs_pos=vit.USE_ABS_POS,
            use_rel_pos=vit.USE_REL_POS,
            rel_pos_img_size=vit.REL_POS_IMG_SIZE,
            rel_pos_resize=vit.REL_POS_RESIZE,
            window_size=vit.WINDOW_SIZE,
            window_block_indexes=vit.WINDOW_BLOCKS,
            pretrain_img_size=vit.PRETRAIN_IMG_SIZE,
            policy=policy,
            **options,
        )
    except ValueError as error:
        raise ConfigError(f"MODEL.VIT or MODEL.EVENTFUL: {error}") from error
    set_calibrated(cfg, vit)
    return vit


def eventful_options(cfg: CfgNode) -> dict:
    """Arguments of EventfulViT that MODEL.EVENTFUL gives, the policy excepted."""
    eventful = cfg.MODEL.EVENTFUL
    return {
        "enabled": eventful.ENABLED,
        "attention": eventful.ATTENTION,
        "gate_before_norm": eventful.GATE_BEFORE_NORM,
        "gate_reference": eventful.GATE_REFERENCE,
        "kv_pool": eventful.KV_POOL,
        "state_dtype": parse_dtype(cfg, "STATE_DTYPE"),
        "compute_dtype": parse_dtype(cfg, "COMPUTE_DTYPE"),
        "gpu_crossover": eventful.GPU_CROSSOVER,
    }


def build_policy(cfg: CfgNode) -> Policy:
    """The policy that MODEL.EVENTFUL asks for.

    Raises:
        ConfigError: an unknown policy, or a value that it cannot have; the message names the key.
    """
    return _policy(cfg.MODEL.EVENTFUL, "MODEL.EVENTFUL")


def policy_to_build_with(cfg: CfgNode) -> Policy | None:
    """`build_policy`, but None for calibrated budgets: whether they are the model's can be told when there is one."""
    return None if cfg.MODEL.EVENTFUL.POLICY == CALIBRATED else build_policy(cfg)


def set_calibrated(cfg: CfgNode, vit: EventfulModel) -> None:
    """Give a model its calibrated budgets, if MODEL.EVENTFUL asks for such. Raises ConfigError for another model's."""
    if cfg.MODEL.EVENTFUL.POLICY == CALIBRATED:
        vit.set_policy(calibrated_policy(cfg.MODEL.EVENTFUL.POLICY_FILE, vit))


def build_pyramid_policy(cfg: CfgNode) -> Policy | None:
    """The policy that MODEL.EVENTFUL.PYRAMID asks for, None for the backbone's. Raises as `build_policy` does."""
    pyramid = cfg.MODEL.EVENTFUL.PYRAMID
    return _policy(pyramid, "MODEL.EVENTFUL.PYRAMID") if pyramid.POLICY else None


_POLICIES = {"top-r": ("R", TopR), "threshold": ("THRESHOLD", Threshold), "fraction": ("FRACTION", TopFraction)}
"""Policies by name, each with the key of its value."""


def _policy(settings: CfgNode, node: str) -> Policy:
    if settings.POLICY == PER_GATE and "GATES" in settings:
        return _per_gate(settings.GATES, f"{node}.GATES")
    if settings.POLICY == CALIBRATED and "POLICY_FILE" in settings:
        return calibrated_policy(settings.POLICY_FILE)
    if settings.POLICY not in _POLICIES:
        known = ", ".join(map(repr, (*_POLICIES, PER_GATE, CALIBRATED) if "GATES" in settings else _POLICIES))
        raise ConfigError(f"{node}.POLICY = {settings.POLICY!r} is unknown; choose one of {known}")
    key, policy = _POLICIES[settings.POLICY]
    try:
        return policy(settings[key])
    except ValueError as error:
        raise ConfigError(f"{node}.{key}: {error}") from error


def _per_gate(gates: Sequence, node: str) -> PerGate:
    policies = {}
    for entry in gates:
        fits = isinstance(entry, (list, tuple)) and len(entry) == 3 and isinstance(entry[0], str)
        if not fits or not isinstance(entry[1], str) or entry[1] not in _POLICIES:
            raise ConfigError(
                f"{node} has {entry!r}; expected [NAME, POLICY, VALUE], such as ['blocks.*.mlp', 'top-r', 128], with a "
                f"policy out of {', '.join(map(repr, _POLICIES))}"
            )
        name, policy, value = entry
        try:
            policies[name] = _POLICIES[policy][1](value)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{node}, {name}: {error}") from error
    return PerGate(policies)


def parse_dtype(cfg: CfgNode, key: str) -> torch.dtype | None:
    """The type that a key of MODEL.EVENTFUL names. Raises ConfigError where it is unknown, or the GPU has none such."""
    name = cfg.MODEL.EVENTFUL[key]
    if name not in DTYPES:
        raise ConfigError(f"MODEL.EVENTFUL.{key} = {name!r} is unknown; choose one of {', '.join(map(repr, DTYPES))}")
    is_gpu = cfg.MODEL.DEVICE.startswith("cuda")
    if name == "bfloat16" and is_gpu and not multiplies_bfloat16(torch.device(cfg.MODEL.DEVICE)):
        raise ConfigError(
            f"MODEL.EVENTFUL.{key} = {name!r}: this GPU only emulates bfloat16, slowly; choose 'float16' or ''"
        )
    return DTYPES[name]
