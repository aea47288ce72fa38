from .backbone import BACKBONE_REGISTRY, Backbone
from .meta_arch import META_ARCH_REGISTRY, GeneralizedRCNN, build_model

__all__ = ["BACKBONE_REGISTRY", "META_ARCH_REGISTRY", "Backbone", "GeneralizedRCNN", "build_model"]
