"""The environment variable that has all operators run as PyTorch operations, on CPU and GPU."""

from __future__ import annotations

import os

SWITCH = "EVENTFUL_VITDET_KERNELS"
"""`off`: no kernel is compiled or loaded."""


def is_off() -> bool:
    """Whether the user switched the kernels off."""
    return os.environ.get(SWITCH, "").lower() in ("off", "0")
