"""What follows the Transformer in a detector's frame, as a GPU computes it best: with fixed sizes, in a CUDA graph.

`RestOnGPU` is the way in. The kernels need Triton, so nothing else here is imported before a GPU's frame asks for it.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from eventful_vit.ops import gpu
from torch import Tensor, nn

from ...errors import ConfigError

if TYPE_CHECKING:
    from .rest_of_frame import RestOfFrame

__all__ = ["RestOnGPU", "write_normalised"]

logger = logging.getLogger(__name__)


class RestOnGPU:
    """A detector's frames behind the Transformer, where kernels of this project can compute them."""

    def __init__(self) -> None:
        self._parts: tuple = ()
        self._rest: RestOfFrame | None = None

    def for_frame(self, detector: nn.Module) -> RestOfFrame | None:
        """What computes the next frame; None where Detectron2's own code has to, as on a CPU."""
        if detector.device.type != "cuda":
            return None
        backbone = detector.backbone
        # A pyramid's stages are a list, in which others may be put.
        layers = (*getattr(backbone, "stages", ()), getattr(backbone, "top_block", None))
        parts = (backbone, *layers, detector.proposal_generator, detector.roi_heads)
        if parts != self._parts:
            self._parts, self._rest = parts, _make(detector)
        return self._rest if self._rest is not None and self._rest.is_possible(detector.device) else None

    def forget(self) -> None:
        """Free what was made of the weights. It is made again for the next frame."""
        self._parts, self._rest = (), None


def write_normalised(frames: Tensor | Sequence[Tensor], mean: Tensor, deviation: Tensor, batch: Tensor) -> bool:
    """Write (frames - mean) / deviation into an uninitialised batch, with zeros where they are smaller.

    Args:
        frames: one (C, H, W) per image of the batch, (B, C, H', W'); or all, (B, C, H, W).

    Returns:
        Whether it was done: on a GPU with kernels of this project, in float32.
    """
    if batch.device.type != "cuda" or gpu.load_kernels(batch.device) is None:
        return False
    pieces = [(frames, batch)] if isinstance(frames, Tensor) else list(zip([f[None] for f in frames], batch.split(1)))
    is_float32 = batch.dtype is mean.dtype is deviation.dtype is torch.float32
    # The kernel does not broadcast grey frames.
    if not is_float32 or any(piece.shape[:2] != place.shape[:2] for piece, place in pieces):
        return False
    normalise = importlib.import_module(".frame_pixels", __name__).normalise
    with torch.cuda.device(batch.device):
        for piece, place in pieces:
            normalise(piece, mean, deviation, place)
    return True


def _make(detector: nn.Module) -> RestOfFrame | None:
    if gpu.load_kernels(detector.device) is None:  # the log says why
        return None
    module = importlib.import_module(".rest_of_frame", __name__)
    try:
        return module.RestOfFrame(detector, detector.vit.compute_dtype)
    except ConfigError as error:
        logger.info("GPU: pyramid, proposals and heads run as Detectron2's own code: %s", error)
        return None
