"""What the project registers in Detectron2: the eventful ViTDet backbone and the video detector."""

from .backbone import EventfulViT, build_eventful_vitdet_backbone
from .video_rcnn import VideoRCNN

__all__ = ["EventfulViT", "VideoRCNN", "build_eventful_vitdet_backbone"]
