"""Timing a detector side by side: dense and eventful, in one process, in turn, on random weights and a moving input.

Operations do not depend on what the weights or pictures are (top-r), so neither does the time.
"""

from __future__ import annotations

import gc
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn
from tqdm import tqdm

from .eventful import TopR, count_operations
from .modeling.backbone import synchronize

MACS_PER_GMAC = 1e9
MEBIBYTE = 2**20


@dataclass
class Variant:
    """One way to run the detector, and what was measured of it."""

    name: str
    r: int | None
    """Tokens per gate and frame; None is the dense model."""
    backbone_seconds: list[float] = field(default_factory=list)
    total_seconds: list[float] = field(default_factory=list)
    backbone_gmacs: float = 0.0
    total_gmacs: float = 0.0
    peak_mebibytes: float | None = None
    """Memory in use at the highest point of a frame, over that before the frame."""


def benchmark(cfg: CfgNode, budgets: Sequence[int], rounds: int) -> dict:
    """Time later frames of a detector, dense and at several budgets.

    Args:
        cfg: the detector; MODEL.VIT.IMG_SIZE is the side of the square frames.
        budgets: values of r.
        rounds: timed frames of each variant, taken in turn; one more comes first, untimed.

    Returns:
        A dict of plain values with a row for each variant: medians, ratios to dense, operations and memory.
    """
    model = build_model(cfg).eval()
    frames = moving_video(cfg.MODEL.VIT.IMG_SIZE)
    variants = [Variant("dense", None), *(Variant(f"r = {r}", r) for r in budgets)]
    flush = time_flush(model, frames)
    for turn in tqdm(range(rounds + 1), desc=f"{cfg.MODEL.VIT.IMG_SIZE} px", unit="round"):
        for variant in variants:
            measure(model, variant, next(frames), keep=turn > 0)
    return {
        "image_size": cfg.MODEL.VIT.IMG_SIZE,
        "attention": cfg.MODEL.EVENTFUL.ATTENTION,
        "device": str(model.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rounds": rounds,
        "flush_backbone_seconds": flush,
        "state_mebibytes": model.vit.state_bytes() / MEBIBYTE,
        "rows": [row(variant, variants[0]) for variant in variants],
    }


def moving_video(size: int) -> Iterator[dict]:
    """An endless video: a still noisy background with a patch that moves across it."""
    generator = torch.Generator().manual_seed(0)
    background = torch.randint(0, 256, (3, size, size), generator=generator, dtype=torch.uint8)
    patch = torch.randint(0, 256, (3, size // 4, size // 4), generator=generator, dtype=torch.uint8)
    frame_id = 0
    while True:
        frame = background.clone()
        left = 8 * frame_id % (size - size // 4)
        frame[:, size // 3 : size // 3 + size // 4, left : left + size // 4] = patch
        yield {"image": frame, "height": size, "width": size, "video_id": 0, "frame_id": frame_id}
        frame_id += 1


def time_flush(model: nn.Module, frames: Iterator[dict]) -> float:
    """Median backbone seconds of three frames that begin a sequence."""
    model.enabled = True
    seconds = []
    for _ in range(3):
        model.reset()
        with torch.no_grad():
            model([next(frames)])
        seconds.append(model.backbone_seconds)
    return statistics.median(seconds)


def measure(model: nn.Module, variant: Variant, frame: dict, keep: bool) -> None:
    """Run one frame of a variant; the untimed first one counts operations and memory."""
    model.enabled = variant.r is not None
    if variant.r is not None:
        model.set_policy(TopR(variant.r))
    with torch.no_grad():
        if keep:
            start = time.perf_counter()
            model([frame])
            synchronize(model.device)
            variant.total_seconds.append(time.perf_counter() - start)
            variant.backbone_seconds.append(model.backbone_seconds)
            return
        with count_operations(model) as counts, peak_memory(model.device) as peak:
            model([frame])
    variant.backbone_gmacs = counts.backbone() / MACS_PER_GMAC
    variant.total_gmacs = counts.total() / MACS_PER_GMAC
    variant.peak_mebibytes = peak[0]


@contextmanager
def peak_memory(device: torch.device) -> Iterator[list[float | None]]:
    """Memory in MiB that the block needed at its highest point, over what was in use before; None where unknown."""
    result: list[float | None] = [None]
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield result
        result[0] = (torch.cuda.max_memory_allocated(device) - before) / MEBIBYTE
        return
    before_resident = resident_mebibytes()
    if before_resident is None:
        yield result
        return
    highest, done = [before_resident], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            highest[0] = max(highest[0], resident_mebibytes() or 0.0)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield result
    finally:
        done.set()
        watcher.join()
    result[0] = highest[0] - before_resident


def resident_mebibytes() -> float | None:
    """Memory of this process that is in RAM; None where the system does not tell."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return None
    pages = int(statm.read_text().split()[1])
    return pages * 4096 / MEBIBYTE


def row(variant: Variant, dense: Variant) -> dict:
    """A variant's figures, and the ratios that compare it with the dense model."""
    backbone, total = statistics.median(variant.backbone_seconds), statistics.median(variant.total_seconds)
    return {
        "variant": variant.name,
        "backbone_gmacs": variant.backbone_gmacs,
        "total_gmacs": variant.total_gmacs,
        "backbone_seconds": backbone,
        "total_seconds": total,
        "backbone_speedup": statistics.median(dense.backbone_seconds) / backbone,
        "total_speedup": statistics.median(dense.total_seconds) / total,
        "backbone_saving": dense.backbone_gmacs / variant.backbone_gmacs,
        "peak_mebibytes": variant.peak_mebibytes,
    }


COLUMNS = {
    "backbone GMACs": ("backbone_gmacs", "{:.1f}"),
    "dense / this": ("backbone_saving", "{:.2f}"),
    "backbone s": ("backbone_seconds", "{:.3f}"),
    "dense s / this": ("backbone_speedup", "{:.2f}"),
    "total GMACs": ("total_gmacs", "{:.1f}"),
    "total s": ("total_seconds", "{:.3f}"),
    "dense total s / this": ("total_speedup", "{:.2f}"),
    "peak MiB in a frame": ("peak_mebibytes", "{:.0f}"),
}


def format_benchmark(result: dict) -> str:
    """The result as a heading and a markdown table."""
    head = (
        f"{result['image_size']} px, attention {result['attention']}, {result['device']} with {result['threads']} "
        f"threads, torch {result['torch']}, medians of {result['rounds']} frames. Flush frame, backbone: "
        f"{result['flush_backbone_seconds']:.3f} s. State: {result['state_mebibytes']:.0f} MiB per stream."
    )
    lines = ["| variant | " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * len(COLUMNS)]
    for line in result["rows"]:
        cells = ["-" if line[key] is None else form.format(line[key]) for key, form in COLUMNS.values()]
        lines.append(f"| {line['variant']} | " + " | ".join(cells) + " |")
    return head + "\n\n" + "\n".join(lines)
