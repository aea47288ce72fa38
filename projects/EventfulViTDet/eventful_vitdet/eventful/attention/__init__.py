"""Attention of Transformer blocks: dense, and recomputed in part where tokens changed."""

from .layer import Attention
from .layout import AttentionLayout
from .modes import ATTENTION_MODES, EventfulAttention, TokenwiseAttention, make_attention

__all__ = [
    "ATTENTION_MODES",
    "Attention",
    "AttentionLayout",
    "EventfulAttention",
    "TokenwiseAttention",
    "make_attention",
]
