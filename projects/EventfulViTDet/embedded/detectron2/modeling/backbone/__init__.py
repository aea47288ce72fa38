from .backbone import BACKBONE_REGISTRY, Backbone, build_backbone
from .vit import SimpleFeaturePyramid, get_vit_lr_decay_rate

__all__ = ["BACKBONE_REGISTRY", "Backbone", "SimpleFeaturePyramid", "build_backbone", "get_vit_lr_decay_rate"]
