from .mask_ops import paste_masks_in_image
from .wrappers import Conv2d, LayerNorm, ShapeSpec, get_norm

__all__ = ["Conv2d", "LayerNorm", "ShapeSpec", "get_norm", "paste_masks_in_image"]
