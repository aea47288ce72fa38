"""The models that are checked and measured, with seeded random weights: speed does not depend on these."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from eventful_vit import EventfulViT, TopR

VITDET_B = {
    "embed_dim": 768,
    "depth": 12,
    "num_heads": 12,
    "window_size": 14,
    "window_block_indexes": (0, 1, 3, 4, 6, 7, 9, 10),
    "use_rel_pos": True,
}
FOUR_BLOCKS = {**VITDET_B, "depth": 4, "window_block_indexes": (0, 1, 3)}
"""The first blocks of ViTDet-B, three with windows and one without: enough to compare with, in less time on a CPU."""
TINY = {
    "patch_size": 8,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "window_size": 3,
    "window_block_indexes": (0,),
    "use_rel_pos": True,
    "pretrain_img_size": 32,
}


@dataclass(frozen=True)
class Form:
    """Which types a model computes in."""

    name: str
    tokens: torch.dtype = torch.float32
    """Of parameters, frames and the residual stream."""
    products: torch.dtype | None = None
    """COMPUTE_DTYPE and STATE_DTYPE; None: that of the tokens."""


FLOAT32 = Form("float32")
BFLOAT16 = Form("bfloat16", products=torch.bfloat16)
"""As a configuration asks for it: the residual stream stays in float32."""
ALL_BFLOAT16 = Form("bfloat16 throughout", tokens=torch.bfloat16)


def build_vit(architecture: dict, size: int, form: Form, device: torch.device, r: int) -> EventfulViT:
    """A model in eval mode."""
    torch.manual_seed(0)
    with torch.device(device):
        vit = EventfulViT(
            size, **architecture, policy=TopR(r), state_dtype=form.products, compute_dtype=form.products
        )  # fmt: skip
    with torch.no_grad():
        for name, parameter in vit.named_parameters():
            if "rel_pos" in name or "norm" in name or "bias" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return vit.eval().requires_grad_(False).to(form.tokens)
