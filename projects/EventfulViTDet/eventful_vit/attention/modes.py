"""The attention modes by name."""

from __future__ import annotations

import torch

from .core import AttentionCore
from .exact import ExactAttention
from .paper_modes import FullAttention, QueryKeyAttention, TokenwiseAttention
from .windows import TouchedWindowsAttention

ATTENTION_MODES: dict[str, type] = {
    "exact": ExactAttention,
    "full": FullAttention,
    "query-key": QueryKeyAttention,
    "tokenwise": TokenwiseAttention,
}


def make_core(mode: str, windowed: bool, name: str, state_dtype: torch.dtype | None) -> AttentionCore:
    """Build the attention core of a block. Windowed blocks are `tokenwise` in all of the paper's modes.

    Raises:
        ValueError: the mode is unknown.
    """
    if mode not in ATTENTION_MODES:
        raise ValueError(f"attention = {mode!r} is unknown; choose one of {', '.join(map(repr, ATTENTION_MODES))}")
    if windowed:
        return (TouchedWindowsAttention if mode == "exact" else TokenwiseAttention)(name, state_dtype)
    return ATTENTION_MODES[mode](name, state_dtype)
