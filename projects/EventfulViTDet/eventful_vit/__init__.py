"""Eventful Vision Transformers in plain PyTorch: models that recompute only the tokens that changed between frames.

Nothing here depends on Detectron2, or on any package but PyTorch.
"""

from .adapters.make_eventful import make_eventful
from .block import BlockSpec, EventfulBlock, EventfulOptions
from .cost import OperationCounts, count_operations
from .frame import FrameTrace
from .models.vitdet import EventfulViT
from .policies import PerGate, Policy, Threshold, TopFraction, TopR
from .streams import Streams

__all__ = [
    "BlockSpec",
    "EventfulBlock",
    "EventfulOptions",
    "EventfulViT",
    "FrameTrace",
    "OperationCounts",
    "PerGate",
    "Policy",
    "Streams",
    "Threshold",
    "TopFraction",
    "TopR",
    "count_operations",
    "make_eventful",
]
