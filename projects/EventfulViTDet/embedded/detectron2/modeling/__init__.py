from .backbone import BACKBONE_REGISTRY, Backbone, SimpleFeaturePyramid, build_backbone
from .meta_arch import META_ARCH_REGISTRY, GeneralizedRCNN, build_model
from .proposal_generator import PROPOSAL_GENERATOR_REGISTRY
from .roi_heads import ROI_HEADS_REGISTRY

__all__ = [
    "BACKBONE_REGISTRY",
    "META_ARCH_REGISTRY",
    "PROPOSAL_GENERATOR_REGISTRY",
    "ROI_HEADS_REGISTRY",
    "Backbone",
    "GeneralizedRCNN",
    "SimpleFeaturePyramid",
    "build_backbone",
    "build_model",
]
