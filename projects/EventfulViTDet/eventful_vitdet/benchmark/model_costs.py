"""What a detector's frames cost in operations, from its configuration only: no weights, no frames, no memory.

As in operation_counts.py, models lie on PyTorch's "meta" device and later frames' traces are made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from eventful_vit import EventfulViT, FrameTrace, OperationCounts, count_operations
from eventful_vit.frame import AttentionWork, BlockTrace
from eventful_vit.ops.attention import DENSE_ABOVE
from eventful_vit.selection import Selection
from torch import Tensor, nn

from ..markdown_table import format_table
from ..structures import MACS_PER_GFLOP
from .operation_counts import first_tokens

PARTS = ("pyramid", "proposals", "heads")


@dataclass(frozen=True)
class ModelCosts:
    """A detector's size, and MACs of a square frame of MODEL.VIT.IMG_SIZE."""

    parameters: int
    backbone: int
    """Of the dense model: position encoding and blocks."""
    later: dict[int, int]
    """The same for a frame after the first, by r of top-r: at most so many, with every window touched."""
    parts: dict[str, int]
    """Of what follows, in every frame: PARTS, with as many proposals and masks as there can be."""

    @property
    def parameters_bytes(self) -> int:
        """In float32, as published files have them."""
        return 4 * self.parameters


def model_costs(cfg: CfgNode, budgets: Sequence[int]) -> ModelCosts:
    """Count the operations of a configuration; attention is "exact"."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "meta"
    cfg.MODEL.EVENTFUL.ENABLED = False
    with torch.device("meta"):
        model = build_model(cfg).eval()
    with torch.no_grad(), count_operations(model) as counts:
        features = model.backbone(torch.empty(1, 3, cfg.MODEL.VIT.IMG_SIZE, cfg.MODEL.VIT.IMG_SIZE, device="meta"))
        model.proposal_generator.rpn_head([features[name] for name in cfg.MODEL.RPN.IN_FEATURES])
        _run_heads(model.roi_heads, cfg)
    macs = counts.by_category()
    grid = (cfg.MODEL.VIT.IMG_SIZE // model.vit.patch_size,) * 2
    return ModelCosts(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        backbone=counts.backbone(),
        later={r: count_exact(model.vit, grid, r) for r in budgets},
        parts={part: macs.get(part, 0) for part in PARTS},
    )


def _run_heads(heads: nn.Module, cfg: CfgNode) -> None:
    """Run the layers of all stages for all proposals, and of the mask head for all detections."""
    cascade = isinstance(heads.box_head, nn.ModuleList)
    stages = zip(heads.box_head, heads.box_predictor) if cascade else [(heads.box_head, heads.box_predictor)]
    for head, predictor in stages:
        predictor(head(_regions(cfg, cfg.MODEL.RPN.POST_NMS_TOPK_TEST, cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION)))
    if heads.mask_on:
        side = cfg.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION
        heads.mask_head.layers(_regions(cfg, cfg.TEST.DETECTIONS_PER_IMAGE, side))


def _regions(cfg: CfgNode, number: int, side: int) -> Tensor:
    return torch.empty(number, cfg.MODEL.SIMPLE_PYRAMID.OUT_CHANNELS, side, side, device="meta")


def count_exact(vit: EventfulViT, grid: tuple[int, int], r: int) -> int:
    """The backbone's MACs of a frame after the first, in which each gate selects r tokens, in all windows."""
    trace, mask = FrameTrace((False,), grid), first_tokens(grid, r)
    tokens = grid[0] * grid[1]
    for block in vit.blocks:
        spec = block.specification()
        layout = spec.layout(grid)
        selection = Selection.from_mask(mask[None])
        if spec.window:
            work = AttentionWork("windows", executed=torch.tensor([min(r, layout.windows)]))
        else:
            recomputed = tokens if r > DENSE_ABOVE * tokens else r
            executed = torch.tensor([[spec.heads * (tokens - recomputed), spec.heads * recomputed]])
            work = AttentionWork("exact", torch.tensor([0, min(r, tokens)]), executed)
        trace.blocks.append(BlockTrace(spec, layout, work, (selection,) * 3))
    trace.add_layer("add", vit.embed_dim, tokens)  # positions
    counts = OperationCounts()
    counts.add_frame(trace)
    return counts.backbone()


def format_model_costs(costs: dict[str, ModelCosts], budgets: Sequence[int]) -> str:
    """A row for each model, in millions of parameters and GFlops (10^9 MACs)."""
    header = ("model", "parameters (M)", "file (MB)", "ViT dense", *(f"r = {r}" for r in budgets), *PARTS)
    rows = [
        (
            name,
            f"{cost.parameters / 1e6:.1f}",
            f"{cost.parameters_bytes / 1e6:.0f}",
            *(f"{macs / MACS_PER_GFLOP:.0f}" for macs in (cost.backbone, *cost.later.values(), *cost.parts.values())),
        )
        for name, cost in costs.items()
    ]
    return format_table(header, rows)
