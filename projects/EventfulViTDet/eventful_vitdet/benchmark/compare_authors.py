"""This project's backbone beside the authors' code: the same weights and frames, in one process, in turn."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from detectron2.config import CfgNode
from eventful_vit import EventfulViT, TopR, count_operations
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import ConfigError
from ..markdown_table import format_table
from ..modeling.backbone import build_vit
from ..predictor import load_detector
from ..structures import MACS_PER_GFLOP
from ..timing import timed_call
from .authors_backbone import AuthorsCode, AuthorsViT, to_frame, tokens_of
from .measure import moving_video, peak_memory
from .operation_counts import backbone_categories, by_category

COUNTED_FRAME = 1
"""The first later frame: its operations and memory are measured, its time is not."""


@dataclass
class Run:
    """A model, and what was measured of it."""

    model: nn.Module
    run: Callable[[Tensor], Tensor]
    """A frame (1, C, H, W) -> tokens (1, N, D)."""
    seconds: list[float] = field(default_factory=list)
    macs: dict[str, int] = field(default_factory=dict)
    """Operations of a later frame by category."""
    peak_bytes: float | None = None


@dataclass(frozen=True)
class Row:
    """One mode at one budget: the authors' code, this project in the same mode, and this project's `exact`."""

    mode: str
    r: int | None
    """Tokens per gate; None: dense."""
    theirs: Run
    ours: Run
    exact: Run | None
    """None in the dense row: `exact` is a way to be eventful."""
    difference: float
    """The largest difference of the outputs in any frame, over the largest output."""

    @property
    def same_operations(self) -> bool:
        return self.theirs.macs == self.ours.macs


def compare_authors(
    code: AuthorsCode, cfg: CfgNode, modes: Sequence[str], budgets: Sequence[int], frames: int
) -> Iterator[Row]:
    """Run the ViT of a configuration here and in the authors' code.

    Args:
        cfg: MODEL.VIT.IMG_SIZE is the side of the square frames in pixels; relative positions must be of the kind
            "matrix", as theirs are. With MODEL.WEIGHTS "" weights are random.
        modes: attention modes that both have.
        budgets: numbers of tokens; every mode is run at each.
        frames: frames of the video, of which the first is a flush and the second is counted; the others are timed.

    Yields:
        A dense row, then one for every mode and budget, each as soon as it is measured.
    """
    tokens = (cfg.MODEL.VIT.IMG_SIZE // cfg.MODEL.VIT.PATCH_SIZE) ** 2
    for r in budgets:
        if r > tokens:
            raise ConfigError(f"--budgets {r}: a frame has only {tokens} tokens, and the authors' gates need r of them")
    weights = _make_weights(cfg)
    yield _compare(code, cfg, weights, "dense", None, frames)
    for mode in modes:
        for r in budgets:
            yield _compare(code, cfg, weights, mode, r, frames)


def _make_weights(cfg: CfgNode) -> dict[str, Tensor]:
    """The weights of a configuration's ViT: random ones have relative positions too, which begin as zeros."""
    if cfg.MODEL.WEIGHTS:
        return load_detector(cfg).vit.state_dict()
    torch.manual_seed(0)
    weights = build_vit(cfg).to(cfg.MODEL.DEVICE).state_dict()
    for name, value in weights.items():
        if "rel_pos" in name:
            nn.init.normal_(value, std=0.1)
    return weights


def _compare(code: AuthorsCode, cfg: CfgNode, weights: dict, mode: str, r: int | None, frames: int) -> Row:
    ours = _our_run(cfg, weights, mode, r)
    runs = [_their_run(code, ours.model, cfg.MODEL.VIT.IMG_SIZE, mode, r), ours]
    if r is not None:
        runs.append(_our_run(cfg, weights, "exact", r))
    device = ours.model.pos_embed.device
    video, worst = moving_video(cfg.MODEL.VIT.IMG_SIZE), 0.0
    for number in tqdm(range(frames), desc=mode if r is None else f"{mode}, r = {r}", unit="frame", leave=False):
        frame = to_frame(next(video)["image"], device)
        outputs = [_run_frame(run, number, frame, device) for run in runs]
        worst = max(worst, float((outputs[0] - outputs[1]).abs().max() / outputs[0].abs().max()))
    return Row(mode, r, runs[0], ours, runs[2] if r is not None else None, worst)


def _their_run(code: AuthorsCode, vit: EventfulViT, size: int, mode: str, r: int | None) -> Run:
    grid = (size // vit.patch_size,) * 2
    theirs = AuthorsViT(code, vit, mode, grid).to(vit.pos_embed.device)
    if r is not None:
        theirs.set_budget(r)
    return Run(theirs, theirs)


def _our_run(cfg: CfgNode, weights: dict, mode: str, r: int | None) -> Run:
    own = cfg.clone()
    own.defrost()
    own.MODEL.EVENTFUL.ATTENTION = "exact" if r is None else mode
    vit = build_vit(own).eval()
    vit.load_state_dict(weights, assign=True)
    vit.enabled = r is not None
    if r is not None:
        vit.set_policy(TopR(r))
    return Run(vit, lambda frame: tokens_of(vit(frame)[vit.out_feature]))


def _run_frame(run: Run, number: int, frame: Tensor, device: torch.device) -> Tensor:
    with torch.no_grad():
        if number == COUNTED_FRAME:
            with peak_memory(device) as peak:
                output = _count_frame(run, frame)
            run.peak_bytes = peak[0]
            return output
        output, seconds = timed_call(lambda: run.run(frame), device)
    if number > COUNTED_FRAME:
        run.seconds.append(seconds)
    return output.clone()


def _count_frame(run: Run, frame: Tensor) -> Tensor:
    if isinstance(run.model, AuthorsViT):
        run.model.start_counting()
        output = run.run(frame).clone()
        run.macs = by_category(run.model.stop_counting())
        return output
    with count_operations(run.model) as counts:
        output = run.run(frame).clone()
    run.macs = backbone_categories(counts)
    return output


HEADER = (
    "attention", "r", "largest difference", "GFlops", "same operations", "authors ms", "ours ms", "times faster",
    "`exact` ms", "times faster", "state MiB: authors", "ours", "`exact`", "peak MiB: authors", "ours", "`exact`",
)  # fmt: skip


def row_figures(row: Row) -> dict:
    """A row as plain values: seconds are medians, memory is in bytes."""
    runs = {"authors": row.theirs, "ours": row.ours, "exact": row.exact}
    return {
        "attention": row.mode,
        "r": row.r,
        "largest_difference": row.difference,
        "same_operations": row.same_operations,
        **{
            name: None
            if run is None
            else {
                "seconds": statistics.median(run.seconds),
                "gmacs": sum(run.macs.values()) / MACS_PER_GFLOP,
                "macs_by_category": run.macs,
                "state_bytes": run.model.state_bytes(),
                "peak_bytes": run.peak_bytes,
            }
            for name, run in runs.items()
        },
    }


def format_comparison(figures: Sequence[dict]) -> str:
    """What `row_figures` gave, as a markdown table."""
    return format_table(HEADER, [_cells(row) for row in figures])


def _cells(row: dict) -> tuple:
    theirs, runs = row["authors"], [row[name] for name in ("authors", "ours", "exact")]
    times = []
    for run in runs[1:]:
        times += ["-", "-"] if run is None else [_ms(run), f"{theirs['seconds'] / run['seconds']:.1f}"]
    memory = [_mib(run and run[kind]) for kind in ("state_bytes", "peak_bytes") for run in runs]
    return (
        row["attention"],
        "-" if row["r"] is None else row["r"],
        f"{row['largest_difference']:.1e}",
        f"{theirs['gmacs']:.3f}",
        "yes" if row["same_operations"] else f"no: {row['ours']['gmacs']:.3f}",
        _ms(theirs),
        *times,
        *memory,
    )


def _ms(run: dict) -> str:
    return f"{1000 * run['seconds']:.1f}"


def _mib(number: float | None) -> str:
    return "-" if number is None else f"{number / 2**20:.0f}"
