"""Tensors that live from one frame to the next, with a slot for each stream."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class StreamTensor:
    """A state tensor with one slot per stream, allocated on first use and owned by one module.

    Slots are written in full by a stream's flush frame before they are ever read, so they are handed out
    uninitialised. More streams than before get new slots; fewer use the first ones and leave the rest as they are.
    """

    def __init__(self, name: str, dtype: torch.dtype | None = None) -> None:
        """
        Args:
            name: what the state is, for messages.
            dtype: storage type; None takes that of the first values stored.
        """
        self.name = name
        self.dtype = dtype
        self._slots: Tensor | None = None

    def slots(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """The slots of the first `shape[0]` streams.

        Args:
            shape: (B, ...), the shape for this frame.
            like: a tensor with the device, and the type where the state has none of its own.

        Raises:
            ValueError: the state was made for a frame of another size.
        """
        if self._slots is not None and self._slots.shape == shape and self._slots.device == like.device:
            return self._slots
        if self._slots is None or self._slots.device != like.device:
            self._slots = torch.empty(shape, dtype=self.dtype or like.dtype, device=like.device)
        if self._slots.shape[1:] != torch.Size(shape[1:]):
            raise ValueError(
                f"{self.name}: the state holds {tuple(self._slots.shape[1:])} per stream, this frame needs "
                f"{tuple(shape[1:])}; call reset() before a video of another size"
            )
        if shape[0] > self._slots.shape[0]:
            new = self._slots.new_empty((shape[0] - self._slots.shape[0], *shape[1:]))
            self._slots = torch.cat([self._slots, new])
        return self._slots[: shape[0]]

    def clear(self) -> None:
        """Release the memory of all streams."""
        self._slots = None

    @property
    def nbytes(self) -> int:
        """Bytes held, over all streams."""
        if self._slots is None:
            return 0
        return math.prod(self._slots.shape) * self._slots.element_size()
