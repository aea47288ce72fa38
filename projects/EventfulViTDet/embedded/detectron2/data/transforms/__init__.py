from fvcore.transforms.transform import (
    HFlipTransform,
    NoOpTransform,
    Transform,
    TransformList,
    VFlipTransform,
)

from .augmentation import AugInput, Augmentation, AugmentationList
from .augmentation_impl import RandomBrightness, RandomContrast, RandomFlip, ResizeShortestEdge
from .transform import ResizeTransform

__all__ = [
    "AugInput",
    "Augmentation",
    "AugmentationList",
    "HFlipTransform",
    "NoOpTransform",
    "RandomBrightness",
    "RandomContrast",
    "RandomFlip",
    "ResizeShortestEdge",
    "ResizeTransform",
    "Transform",
    "TransformList",
    "VFlipTransform",
]
