"""What is compared: ways to run one detector, and the models they need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from eventful_vit import TopR, ops
from eventful_vit.attention.layout import attention_layout
from eventful_vit.attention.position import position_tables, position_terms
from eventful_vit.ops.attention import split_heads
from torch import Tensor, nn

from ..attribute_swap import swapped
from ..config import config_errors

DTYPES = ("float32", "bfloat16", "float16")


@dataclass
class Variant:
    """One way to run the detector, and what was measured of it."""

    mode: str
    """Attention mode of the eventful path, or "dense"."""
    dtype: str = "float32"
    """Type of the backbone's products and state; the rest of the detector runs in float32."""
    r: int | None = None
    """Tokens per gate and frame; None: dense."""
    pyramid: bool = False
    """The pyramid and the proposal network are eventful too."""
    library: bool = False
    """Dense attention by torch's scaled_dot_product_attention, with the position bias as a mask."""
    backbone_seconds: list[float] = field(default_factory=list)
    total_seconds: list[float] = field(default_factory=list)
    flush_seconds: list[float] = field(default_factory=list)
    """Backbone seconds of frames that began a sequence; of a model's first variant only."""
    backbone_gmacs: float = 0.0
    total_gmacs: float = 0.0
    peak_bytes: float | None = None
    """Memory in use at the highest point of a frame, over that before the frame."""

    @property
    def name(self) -> str:
        parts = [self.mode, *(["scaled_dot_product_attention"] if self.library else [])]
        parts += [f"r = {self.r}"] if self.r is not None else []
        parts += ["eventful pyramid"] if self.pyramid else []
        return ", ".join(parts)

    @property
    def model_key(self) -> tuple[str, str, bool]:
        """Variants with the same key run on one model, and share its state."""
        return ("exact" if self.mode == "dense" else self.mode, self.dtype, self.pyramid)


def make_variants(
    modes: Sequence[str],
    dtypes: Sequence[str],
    budgets: Sequence[int],
    pyramid: bool = False,
    library: bool = False,
) -> list[Variant]:
    """Dense in every type, then every mode and type at every budget.

    Args:
        pyramid: `exact` also with the eventful pyramid.
        library: dense also by scaled_dot_product_attention.
    """
    variants = []
    for dtype in dtypes:
        variants.append(Variant("dense", dtype))
        if library:
            variants.append(Variant("dense", dtype, library=True))
        for mode in modes:
            for with_pyramid in (False, True) if pyramid and mode == "exact" else (False,):
                variants += [Variant(mode, dtype, r, with_pyramid) for r in budgets]
    return variants


def build_models(cfg: CfgNode, variants: Sequence[Variant]) -> dict[tuple, nn.Module]:
    """A model for every key among the variants, all over the same random parameters."""
    models: dict[tuple, nn.Module] = {}
    for mode, dtype, pyramid in dict.fromkeys(variant.model_key for variant in variants):
        own = cfg.clone()
        own.defrost()
        own.MODEL.EVENTFUL.ATTENTION = mode
        own.MODEL.EVENTFUL.PYRAMID.ENABLED = pyramid
        own.MODEL.EVENTFUL.STATE_DTYPE = own.MODEL.EVENTFUL.COMPUTE_DTYPE = "" if dtype == "float32" else dtype
        with config_errors():
            model = build_model(own).eval()
        if models:
            model.load_state_dict(next(iter(models.values())).state_dict(), assign=True)
        models[mode, dtype, pyramid] = model
    return models


def prepare(model: nn.Module, variant: Variant) -> None:
    """Let a model run as a variant from the next frame on."""
    model.enabled = variant.r is not None
    if variant.r is not None:
        model.set_policy(TopR(variant.r))


@contextmanager
def dense_attention(variant: Variant) -> Iterator[None]:
    """Inside, dense attention is computed as the variant asks for."""
    if not variant.library:
        yield
        return
    with swapped(ops, "attend", attend_by_library):
        yield


def attend_by_library(
    qkv: Tensor, padding: Tensor | None, tables: Sequence[Tensor], heads: int, scale: float, layout: Sequence[int],
    dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    """The operator `attend` by scaled_dot_product_attention: (B, N, 3D) -> (B, N, D)."""
    layout = attention_layout(*layout)
    outputs = []
    for image in layout.partition(qkv, padding).split(layout.windows if layout.window else 1):
        q, k, v = split_heads(image, heads)
        k, v = layout.pool_keys(k), layout.pool_keys(v)
        mask = None
        if tables:
            terms = position_terms(q.flatten(0, 1), position_tables(*tables, layout), layout)
            mask = (terms[0][..., :, None] + terms[1][..., None, :]).reshape(*q.shape[:3], k.shape[2])
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
        outputs.append(out.transpose(1, 2).flatten(2))
    return layout.merge(torch.cat(outputs)).to(dtype)
