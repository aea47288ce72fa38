"""Eventful Vision Transformers in plain PyTorch: models that recompute only the tokens that changed between frames.

Nothing here depends on Detectron2, or on any package but PyTorch.
"""

from .adapters.make_eventful import make_eventful
from .block import BlockSpec, EventfulBlock, EventfulOptions
from .calibrated_budgets import Calibration
from .calibration import calibrate
from .cost import OperationCounts, count_operations
from .frame import FrameTrace
from .models.vitdet import EventfulViT
from .models.vivit import FactorisedViViT
from .policies import PerGate, Policy, Threshold, TopFraction, TopR
from .shared_budget import SharedBudget
from .streams import Streams

__all__ = [
    "BlockSpec",
    "Calibration",
    "EventfulBlock",
    "EventfulOptions",
    "EventfulViT",
    "FactorisedViViT",
    "FrameTrace",
    "OperationCounts",
    "PerGate",
    "Policy",
    "SharedBudget",
    "Streams",
    "Threshold",
    "TopFraction",
    "TopR",
    "calibrate",
    "count_operations",
    "make_eventful",
]
