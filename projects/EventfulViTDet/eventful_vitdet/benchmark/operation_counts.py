"""The paper's operation table of ViTDet-B: counted by the model itself, and compared with reference counts.

The models lie on PyTorch's "meta" device: tensors have shapes and no content, so ViTDet-B takes no memory. Dense frames
run there; of later ones the trace is made up, since content would decide which tokens a gate selects. Both are counted
by the function that counts in every evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from eventful_vit import EventfulViT, FrameTrace, OperationCounts, count_operations
from eventful_vit.attention.exact import changed_cells
from eventful_vit.cost import BACKBONE_CATEGORIES
from eventful_vit.frame import AttentionWork, BlockTrace
from eventful_vit.selection import Selection
from torch import Tensor

from ..errors import EvaluationError, FileError
from ..markdown_table import format_table
from ..modeling.backbone import build_vit
from ..structures import MACS_PER_GFLOP

REFERENCE_NAMES = {
    "linear_flops": "linear",
    "bias_flops": "bias",
    "matmul_flops": "matmul",
    "einsum_flops": "position",
    "add_flops": "add",
    "gate_flops": "gate",
    "accumulator_flops": "accumulator",
}
"""Categories of a reference file, and what they are called here."""
ATTENTION_MODES = {"dense": "tokenwise", "temporal": "full", "tokenwise": "tokenwise"}
"""Types of global blocks in a reference file, and the MODEL.EVENTFUL.ATTENTION to run; a dense model ignores it."""
MODEL_KEYS = ("dim", "depth", "heads", "mlp_ratio", "patch_size", "window_size", "global_block_indexes")
CONFIGURATION_KEYS = ("input_size", "global_blocks", "first_frame")


@dataclass(frozen=True)
class Row:
    """One line of the table: a frame of a configuration, as this project counts it and as the reference has it."""

    configuration: str
    r: int | None
    """Tokens per gate; None where every token is computed."""
    frame: str
    counted: Mapping[str, int]
    """MACs of this project's model by category."""
    reference: Mapping[str, int]
    """MACs of the reference by category."""

    def differences(self) -> list[str]:
        """The categories in which the two differ, in words."""
        return [
            f"{name} {self.counted[name]:,} (reference: {self.reference[name]:,})"
            for name in BACKBONE_CATEGORIES
            if self.counted[name] != self.reference[name]
        ]


@dataclass(frozen=True)
class LaterFrame:
    """A frame after the first, as a reference file lists it."""

    r: int
    """Tokens that every gate updates."""
    keys: Mapping[int, int]
    """With pooled keys: how many of them the tokens touch, for each global block."""
    macs: Mapping[str, int]
    """MACs by the reference's categories."""


def operation_table(cfg: CfgNode, reference: dict) -> list[Row]:
    """Count every frame that a reference lists.

    Args:
        cfg: the ViTDet that the reference was made with; size, attention and pooling are taken from the reference.
        reference: the content of a reference file.

    Returns:
        The rows, in the reference's order.

    Raises:
        EvaluationError: the reference is of another model, or lists what no frame can be.
    """
    check_model(cfg, reference["model"])
    rows = []
    for name, configuration in reference["configurations"].items():
        vit = build_configuration(cfg, configuration)
        size = tuple(configuration["input_size"])
        frame = "first" if vit.enabled else "every"
        counted = count_dense(vit, size)
        rows.append(Row(name, None, frame, counted, by_category(configuration["first_frame"])))
        for later in later_frames(configuration):
            mode = ATTENTION_MODES[configuration["global_blocks"]["type"]]
            counted = count_later(vit, size, mode, later)
            rows.append(Row(name, later.r, "later", counted, by_category(later.macs)))
    return rows


def read_reference(path: str) -> dict:
    """Read a reference file. Raises EvaluationError if it is none, FileError if it cannot be read."""
    try:
        with open(path, encoding="utf-8") as file:
            reference = json.load(file)
    except OSError as error:
        raise FileError(error.errno, error.strerror, path) from error
    except ValueError as error:
        raise EvaluationError(f"{path} is not valid JSON ({error})") from error
    check_keys(path, reference, ("model", "configurations"))
    check_keys(f"{path}, model", reference["model"], MODEL_KEYS)
    for name, configuration in reference["configurations"].items():
        check_keys(f"{path}, {name}", configuration, CONFIGURATION_KEYS)
        if configuration["global_blocks"].get("type") not in ATTENTION_MODES:
            raise EvaluationError(f"{path}, {name}: the type of global_blocks is none of {', '.join(ATTENTION_MODES)}")
    return reference


def check_keys(where: str, part: Any, keys: Sequence[str]) -> None:
    """Raise EvaluationError unless a part of a reference file is an object with these keys."""
    missing = [key for key in keys if not isinstance(part, dict) or key not in part]
    if missing:
        raise EvaluationError(f"{where}: no {', '.join(missing)}; is this a file of reference counts?")


def check_model(cfg: CfgNode, model: Mapping[str, Any]) -> None:
    """Raise EvaluationError, naming the key, unless a reference's model is the ViT of `cfg`."""
    vit = cfg.MODEL.VIT
    expected = {
        "EMBED_DIM": model["dim"],
        "DEPTH": model["depth"],
        "NUM_HEADS": model["heads"],
        "MLP_RATIO": model["mlp_ratio"],
        "PATCH_SIZE": model["patch_size"],
        "WINDOW_SIZE": model["window_size"],
        "WINDOW_BLOCKS": [i for i in range(model["depth"]) if i not in model["global_block_indexes"]],
    }
    for key, value in expected.items():
        found = list(vit[key]) if isinstance(value, list) else vit[key]
        if found != value:
            raise EvaluationError(f"the reference counts a model with MODEL.VIT.{key} {value}, this one has {found}")


def build_configuration(cfg: CfgNode, configuration: Mapping[str, Any]) -> EventfulViT:
    """The ViT of one configuration of a reference, with weights that take no memory."""
    blocks = configuration["global_blocks"]
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.VIT.IMG_SIZE_HW = tuple(configuration["input_size"])
    cfg.MODEL.EVENTFUL.ENABLED = blocks["type"] != "dense"
    cfg.MODEL.EVENTFUL.ATTENTION = ATTENTION_MODES[blocks["type"]]
    cfg.MODEL.EVENTFUL.KV_POOL = blocks["pool_size"] or 1
    with torch.device("meta"):
        return build_vit(cfg).eval()


def later_frames(configuration: Mapping[str, Any]) -> list[LaterFrame]:
    """All frames after the first of one configuration; none for a dense model, whose frames are alike."""
    frames = []
    for r, listed in configuration.get("by_k", {}).items():
        if "later_frame" in listed:
            frames.append(LaterFrame(int(r), {}, listed["later_frame"]))
            continue
        for macs, keys in zip(listed["later_frames"], listed["key_columns_updated_per_global_block"]):
            frames.append(LaterFrame(int(r), {int(block): number for block, number in keys.items()}, macs))
    return frames


def count_dense(vit: EventfulViT, size: tuple[int, int]) -> dict[str, int]:
    """The backbone's MACs by category of a dense frame, which a flush is too; `size` is (height, width) in pixels."""
    with torch.no_grad(), count_operations(vit) as counts:
        vit.enabled = False
        vit(torch.empty(1, 3, *size, device="meta"))
    return backbone_categories(counts)


def count_later(vit: EventfulViT, size: tuple[int, int], mode: str, frame: LaterFrame) -> dict[str, int]:
    """The same for a frame after the first, with an attention mode and the tokens that the frame says."""
    grid = (size[0] // vit.patch_size, size[1] // vit.patch_size)
    trace, masks = FrameTrace((False,), grid), iter(gate_masks(vit, size, frame))
    for block in vit.blocks:
        spec = block.specification()
        layout = spec.layout(grid)
        selections = tuple(Selection.from_mask(next(masks)[None]) for _ in range(3))
        kind = "dense" if spec.window or mode == "tokenwise" else mode
        work = AttentionWork(kind, changed_cells(selections[0], layout)[1])
        trace.blocks.append(BlockTrace(spec, layout, work, selections))
    trace.add_layer("add", vit.embed_dim, grid[0] * grid[1])  # positions
    counts = OperationCounts()
    counts.add_frame(trace)
    return backbone_categories(counts)


def backbone_categories(counts: OperationCounts) -> dict[str, int]:
    """Operations of position encoding and blocks by category, 0 where there were none."""
    found = counts.by_category()
    return {name: found.get(name, 0) for name in BACKBONE_CATEGORIES}


def gate_masks(vit: EventfulViT, size: tuple[int, int], frame: LaterFrame) -> list[Tensor]:
    """Which tokens every gate selects, (N,) each: as many as the frame says, touching as many pooled keys."""
    grid = (size[0] // vit.patch_size, size[1] // vit.patch_size)
    masks = []
    for name in vit.gate_names:
        block, kind = int(name.split(".")[1]), name.split(".")[2]
        keys = frame.keys.get(block) if kind == "qkv" else None
        masks.append(first_tokens(grid, frame.r) if keys is None else touching(vit, block, grid, frame.r, keys))
    return masks


def first_tokens(grid: tuple[int, int], r: int) -> Tensor:
    """A mask (N,) of the first r tokens."""
    return torch.arange(grid[0] * grid[1]) < r


def touching(vit: EventfulViT, block: int, grid: tuple[int, int], r: int, keys: int) -> Tensor:
    """A mask (N,) of r tokens that lie in exactly this many pooled cells of a block."""
    members = vit.blocks[block].specification().layout(grid).cell_members(torch.arange(keys))
    if not keys <= r <= members.numel():
        raise EvaluationError(f"{r} tokens cannot touch {keys} keys, each pooled from {members.shape[1]} tokens")
    mask = torch.zeros(grid[0] * grid[1], dtype=torch.bool)
    mask[members.T.flatten()[:r]] = True  # one token of every cell, then a second one, ...
    return mask


def by_category(macs: Mapping[str, int]) -> dict[str, int]:
    """A reference's counts under this project's names, 0 where it has none."""
    return {ours: int(macs.get(theirs, 0)) for theirs, ours in REFERENCE_NAMES.items()}


def format_operation_table(rows: Sequence[Row]) -> str:
    """The rows as a markdown table, in GFlops (10^9 MACs), with the saving against the dense model of that size."""
    header = ("configuration", "r", "frame", "GFlops", "reference", "dense / this", *BACKBONE_CATEGORIES, "agrees")
    dense = {row.configuration: sum(row.counted.values()) for row in rows if row.frame == "every"}
    lines = []
    for row in rows:
        total, expected = sum(row.counted.values()), sum(row.reference.values())
        base = dense.get(f"base_{row.configuration.rpartition('_')[2]}")
        lines.append(
            (
                row.configuration,
                "-" if row.r is None else row.r,
                row.frame,
                f"{total / MACS_PER_GFLOP:.3f}",
                f"{expected / MACS_PER_GFLOP:.3f}",
                "-" if base is None else f"{base / total:.2f}",
                *(f"{row.counted[name] / MACS_PER_GFLOP:.3f}" for name in BACKBONE_CATEGORIES),
                "no" if row.differences() else "yes",
            )
        )
    return format_table(header, lines)
