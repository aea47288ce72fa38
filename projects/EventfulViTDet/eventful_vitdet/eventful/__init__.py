"""Eventful Transformers in plain PyTorch: policies, gates, buffers, attention, and the ViT built from them.

Nothing here depends on Detectron2.
"""

from .block import Block, EventfulOptions
from .counting import OperationCounts, count_operations
from .policies import Policy, Threshold, TopFraction, TopR
from .vit import EventfulViT

__all__ = [
    "Block",
    "EventfulOptions",
    "EventfulViT",
    "OperationCounts",
    "Policy",
    "Threshold",
    "TopFraction",
    "TopR",
    "count_operations",
]
