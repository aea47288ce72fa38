"""Frames on their way to a GPU: through pinned memory that is kept, so that the host does not wait for the GPU."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor

ALIGNMENT = 256
"""Bytes. Where frames differ, each begins at a multiple, so that it can be read as values of any type."""


class FrameUpload:
    """Copies frames to devices."""

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def __reduce__(self) -> tuple:
        """For copies and pickles: without memory."""
        return FrameUpload, ()

    def __call__(self, images: Sequence[Tensor], device: torch.device) -> Tensor | list[Tensor]:
        """Images (C, H, W) on a device. Those that come to a GPU in one shape and type are one tensor there."""
        if device.type != "cuda" or any(image.device.type != "cpu" or image.is_pinned() for image in images):
            return [image.to(device, non_blocking=True) for image in images]
        staging = getattr(self._of_thread, "staging", None)
        if staging is None or staging.device != device:
            staging = self._of_thread.staging = Staging(device)
        return staging(images)


class Staging:
    """Pinned memory of a thread that frames for one device pass through."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._memory = torch.empty(0, dtype=torch.uint8)
        self._is_read: torch.cuda.Event | None = None
        """When the device has read what was written last."""

    # Frames may be inference tensors, the kept memory may not.
    @torch.inference_mode(False)
    @torch.no_grad()
    def __call__(self, images: Sequence[Tensor]) -> Tensor | list[Tensor]:
        alike = all(image.shape == images[0].shape and image.dtype is images[0].dtype for image in images)
        step = 1 if alike else ALIGNMENT
        starts, end = [], 0
        for image in images:
            starts.append(end)
            end += -(-image.nbytes // step) * step
        self._make_room(end)
        parts = []
        for image, start in zip(images, starts):
            part = self._memory[start : start + image.nbytes].view(image.dtype).view(image.shape)
            parts.append(part.copy_(image))
        if alike:
            together = self._memory[:end].view(images[0].dtype).view(len(images), *images[0].shape)
            result = together.to(self.device, non_blocking=True, copy=True)
        else:
            result = [part.to(self.device, non_blocking=True, copy=True) for part in parts]
        if self._is_read is not None:
            self._is_read.record(torch.cuda.current_stream(self.device))
        return result

    def _make_room(self, size: int) -> None:
        """Have memory that may be written."""
        if self._is_read is not None:
            self._is_read.synchronize()
        if len(self._memory) < size:
            on_gpu = self.device.type == "cuda"
            self._memory = torch.empty(size, dtype=torch.uint8, pin_memory=on_gpu)
            self._is_read = torch.cuda.Event() if on_gpu else None
