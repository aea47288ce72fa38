from .box_head import FastRCNNConvFCHead
from .cascade_rcnn import CascadeROIHeads
from .fast_rcnn import FastRCNNOutputLayers
from .mask_head import MaskRCNNConvUpsampleHead
from .roi_heads import ROI_HEADS_REGISTRY, StandardROIHeads, build_roi_heads

__all__ = [
    "ROI_HEADS_REGISTRY",
    "CascadeROIHeads",
    "FastRCNNConvFCHead",
    "FastRCNNOutputLayers",
    "MaskRCNNConvUpsampleHead",
    "StandardROIHeads",
    "build_roi_heads",
]
