"""Refusing frames with values that are not finite: one such value would stay in the state for ever."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import ops


def check_finite(images: Tensor) -> Callable[[], None]:
    """Raise ValueError, naming the streams, for frames (B, ...) with NaN or infinity.

    On a GPU, nothing waits for the answer here: the returned function raises. Call it within the frame, when all its
    work is under way, so that the GPU has something to do meanwhile.
    """
    if images.is_cuda:
        answer = FiniteAnswer(len(images), images.device)
        answer.fetch(ops.finite(images))
        return answer.refuse_others
    _refuse_others(ops.finite(images), "no state was changed")
    return lambda: None


class FiniteAnswer:
    """Whether the values of each stream's frame are finite, on its way from a GPU to the host."""

    def __init__(self, streams: int, device: torch.device) -> None:
        self._device = device
        self._answer = torch.ones(streams, dtype=torch.bool, device="cpu", pin_memory=device.type == "cuda")
        self._arrived = torch.cuda.Event() if device.type == "cuda" else None

    def fetch(self, finite: Tensor) -> None:
        """Copy it from the GPU, (B,) bool, when that has computed it."""
        self._answer.copy_(finite, non_blocking=True)
        if self._arrived is not None:
            self._arrived.record(torch.cuda.current_stream(self._device.index))

    def wait(self) -> None:
        """Wait until it is here."""
        if self._arrived is not None:
            self._arrived.synchronize()

    def refuse_others(self) -> None:
        """Raise ValueError, naming the streams, if there are such values."""
        self.wait()
        _refuse_others(self._answer, "all streams begin again")


def _refuse_others(finite: Tensor, consequence: str) -> None:
    if not bool(finite.all()):
        bad = (~finite).nonzero().flatten().tolist()
        raise ValueError(f"NaN or infinity in the frame of stream {', '.join(map(str, bad))}; {consequence}")
