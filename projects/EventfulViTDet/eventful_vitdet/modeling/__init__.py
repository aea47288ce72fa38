"""What the project registers in Detectron2: the eventful ViTDet backbone, the video detector, the video classifier."""

from .backbone import EventfulViT, build_eventful_vitdet_backbone
from .lazy_model import build_lazy_video_rcnn, use_eventful_vit
from .video_classifier import VideoClassifier
from .video_rcnn import VideoRCNN

__all__ = [
    "EventfulViT",
    "VideoClassifier",
    "VideoRCNN",
    "build_eventful_vitdet_backbone",
    "build_lazy_video_rcnn",
    "use_eventful_vit",
]
