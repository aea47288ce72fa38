from .batch_norm import get_norm
from .wrappers import Conv2d, ShapeSpec, batched_nms, cat

__all__ = ["Conv2d", "ShapeSpec", "batched_nms", "cat", "get_norm"]
