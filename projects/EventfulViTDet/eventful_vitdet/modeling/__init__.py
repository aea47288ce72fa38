"""What the project registers in Detectron2: the eventful ViTDet backbone and the video detector."""

from .backbone import EventfulViT, build_eventful_vitdet_backbone
from .lazy_model import build_lazy_video_rcnn, make_eventful
from .video_rcnn import VideoRCNN

__all__ = [
    "EventfulViT",
    "VideoRCNN",
    "build_eventful_vitdet_backbone",
    "build_lazy_video_rcnn",
    "make_eventful",
]
