"""`make_eventful`: a Vision Transformer of another library that recomputes only the tokens that changed."""

from __future__ import annotations

import torch
from torch import nn

from ..block import EventfulOptions
from ..gate import GateReference
from ..model import EventfulModel
from ..policies import Policy
from .adapted_vit import AdaptedViT


def make_eventful(
    vit: nn.Module,
    policy: Policy | None = None,
    *,
    attention: str = "exact",
    gate_before_norm: bool = False,
    gate_reference: GateReference = "last-sent",
    state_dtype: torch.dtype | None = None,
    compute_dtype: torch.dtype | None = None,
    gpu_crossover: float | None = None,
    enabled: bool = True,
) -> AdaptedViT:
    """Make a Vision Transformer eventful.

    Known are timm's `VisionTransformer` and `Eva`, Hugging Face's ViT, DeiT, DINOv2, DINOv3, CLIP, SigLIP, OWL-ViT,
    YOLOS, ViTDet and SAM models and their relatives (docs/your-own-vit.md), torchvision's `VisionTransformer`, and the
    image encoder of segment_anything. The result is called like the model, returns the same, and shares its parameters
    and modules; `vit` can be used as before. See `EventfulOptions` for the options that are not explained here.

    Args:
        policy: which tokens to update; a quarter of them by default.
        attention: "exact" (dense attention's result, incrementally), or for comparison one of the paper's modes.
        state_dtype: storage type of references, buffers and attention state; None keeps that of the tokens.
        compute_dtype: type of the products of the blocks' linear layers on changed tokens; None is that of the weights.
        enabled: run on changed tokens in eval mode; may be changed at any time.

    Raises:
        TypeError: something is no module, policy or type.
        ValueError: the model, or a module inside, cannot run on changed tokens.

    Example:
        >>> vit = timm.create_model("vit_small_patch16_224", pretrained=True).eval()
        >>> model = make_eventful(vit, policy=TopR(32))
        >>> logits = [model(frame) for frame in video]  # (1, 3, 224, 224) each, in order
        >>> model.reset()  # before another video
    """
    if isinstance(vit, EventfulModel):
        raise ValueError(f"{type(vit).__name__} is eventful already; set_policy and enabled change how it runs")
    options = EventfulOptions(attention, gate_before_norm, gate_reference, state_dtype, compute_dtype, gpu_crossover)
    return AdaptedViT(vit, options, policy, enabled)
