"""Models of Detectron2's LazyConfig files as video detectors. These are Python, so reading one runs it.

LazyConfig is part of the real Detectron2 only; the embedded part refuses such files by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY

from ..errors import ConfigError
from .backbone import EventfulViT, build_pyramid_policy, eventful_options, policy_to_build_with, set_calibrated
from .pyramid import EventfulPyramid
from .video_rcnn import VideoRCNN

if TYPE_CHECKING:
    from omegaconf import DictConfig

ARCHITECTURE = "build_lazy_video_rcnn"
DETECTIONS_PER_IMAGE = 100
"""Of a box predictor that does not say how many."""


def use_eventful_vit(model: DictConfig, **options: Any) -> DictConfig:
    """Turn the `model` of a ViTDet LazyConfig into a video detector, in place, and return it.

    Args:
        options: further arguments of `EventfulViT`.

    Example, in a LazyConfig file:
        >>> model = use_eventful_vit(model_zoo.get_config("common/models/mask_rcnn_vitdet.py").model)
    """
    for key in ("backbone", "proposal_generator", "roi_heads"):
        if key not in model:
            raise ConfigError(f"this LazyConfig's model has no {key}: it is no two-stage detector")
    if "net" not in model.backbone:
        raise ConfigError("this LazyConfig's model.backbone has no net: it is no ViTDet")
    model["_target_"] = VideoRCNN
    model.backbone.net["_target_"] = EventfulViT
    model.backbone.net.update(options)
    return model


def lazy_settings(path: str) -> list:
    """KEY, VALUE, ...: the model of a LazyConfig file, and what data and evaluation need to know of it.

    Raises:
        ConfigError: the embedded Detectron2 runs, or the file has no ViTDet.
    """
    config = _load(path)
    model, net, heads = config.model, config.model.backbone.net, config.model.roi_heads
    predictor = heads.box_predictors[-1] if "box_predictors" in heads else heads.box_predictor
    settings = {
        "MODEL.META_ARCHITECTURE": ARCHITECTURE,
        "MODEL.LAZY_FILE": path,
        "MODEL.PIXEL_MEAN": list(model.pixel_mean),
        "MODEL.PIXEL_STD": list(model.pixel_std),
        "MODEL.MASK_ON": "mask_head" in heads,
        "MODEL.ROI_HEADS.NUM_CLASSES": heads.num_classes,
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST": float(predictor.get("test_score_thresh", 0.0)),
        "MODEL.VIT.IMG_SIZE": net.img_size,
        "MODEL.VIT.PATCH_SIZE": net.patch_size,
        "MODEL.VIT.DEPTH": net.depth,
        "TEST.DETECTIONS_PER_IMAGE": predictor.get("test_topk_per_image", DETECTIONS_PER_IMAGE),
        "INPUT.FORMAT": model.get("input_format", "BGR"),
        "INPUT.MIN_SIZE_TEST": net.img_size,
        "INPUT.MAX_SIZE_TEST": net.img_size,
    }
    return [item for pair in settings.items() for item in pair]


@META_ARCH_REGISTRY.register()
def build_lazy_video_rcnn(cfg: CfgNode) -> VideoRCNN:
    """Build the model of MODEL.LAZY_FILE, with the options and the policy of MODEL.EVENTFUL."""
    model = _load(cfg.MODEL.LAZY_FILE).model
    model.backbone.net.update(eventful_options(cfg))
    from detectron2.config import instantiate  # which only Detectron2 has; _load says so

    detector = instantiate(model)
    policy = policy_to_build_with(cfg)
    if policy is not None:
        detector.set_policy(policy)
    set_calibrated(cfg, detector.vit)
    if cfg.MODEL.EVENTFUL.PYRAMID.ENABLED:
        policy = build_pyramid_policy(cfg)
        detector.eventful_pyramid = EventfulPyramid(detector.backbone, detector.proposal_generator, policy)
    return detector


def _load(path: str) -> DictConfig:
    """Read a LazyConfig file; its model is a video detector afterwards."""
    try:
        from detectron2.config import LazyConfig
    except ImportError as error:
        raise ConfigError(
            f"{path}: LazyConfig files need the real Detectron2, which is not installed (see docs/design.md); "
            "configs/coco and configs/lvis have the published models as yaml files"
        ) from error
    config = LazyConfig.load(path)
    if "model" not in config:
        raise ConfigError(f"{path}: this LazyConfig file has no 'model'")
    use_eventful_vit(config.model)
    return config
