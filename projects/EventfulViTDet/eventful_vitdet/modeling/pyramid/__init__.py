"""The feature pyramid and the proposal network's convolutions, recomputed only where the backbone's output changed."""

from .eventful_pyramid import EventfulPyramid, FrameMaps

__all__ = ["EventfulPyramid", "FrameMaps"]
