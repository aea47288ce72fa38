from .box_head import FastRCNNConvFCHead
from .fast_rcnn import FastRCNNOutputLayers
from .roi_heads import StandardROIHeads

__all__ = ["FastRCNNConvFCHead", "FastRCNNOutputLayers", "StandardROIHeads"]
