"""Medians of interleaved frames, operations, state and peak memory of every variant.

Weights are random and the video is made up: with top-r, operations hardly depend on what either is, nor does time.
"""

from __future__ import annotations

import ctypes
import gc
import os
import statistics
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from detectron2.config import CfgNode
from eventful_vit import count_operations
from torch import nn
from tqdm import tqdm

from ..structures import MACS_PER_GFLOP
from .profile import profile_frame
from .roofline import matmul_rate
from .subjects import Subject, detector_subject
from .variants import Variant, dense_attention, prepare


def benchmark(cfg: CfgNode, variants: Sequence[Variant], rounds: int, profile: bool = False) -> dict:
    """Time later frames of a detector in several variants, in turn.

    Args:
        cfg: the detector; MODEL.VIT.IMG_SIZE is the side of the square frames.
        variants: what to compare; the first dense one of a type is what others of that type are compared with.
        rounds: timed frames of each variant; two more come first, untimed.
        profile: also time the parts of one more frame of each variant.

    Returns:
        A dict of plain values with a row for each variant: medians, ratios to dense, operations, memory.
    """
    subject = detector_subject(cfg, variants)
    frames = moving_video(subject.size)
    result = compare(subject, variants, rounds, frames)
    if profile:
        for variant in variants:
            model = subject.models[variant.model_key]
            prepare(model, variant)
            with dense_attention(variant):
                parts = profile_frame(model, next(frames), subject.device)
            result["profiles"][f"{variant.dtype}, {variant.name}"] = parts
    result["output_errors"] = output_errors(subject.models, next(frames))
    return result


def compare(subject: Subject, variants: Sequence[Variant], rounds: int, frames: Iterator[dict]) -> dict:
    """Time later frames of a subject in several variants, in turn; arguments and result are those of `benchmark`."""
    models, device = subject.models, subject.device
    rates = measure_rates(device, variants)
    for turn in tqdm(range(rounds + 2), desc=f"{subject.size} px", unit="round"):
        flushed: set[tuple] = set()
        for variant in variants:
            model = models[variant.model_key]
            prepare(model, variant)
            with dense_attention(variant), torch.no_grad():
                if turn > 1 and variant.r is not None and variant.model_key not in flushed:
                    flushed.add(variant.model_key)
                    time_flush(subject, model, variant, frames)
                run_turn(subject, model, variant, frames, turn)
    # Again, and the better one counts: a limit that was measured while the machine did something else is none.
    rates = {dtype: max(rate, rates[dtype]) for dtype, rate in measure_rates(device, variants).items()}
    return {
        "name": subject.name,
        "image_size": subject.size,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rounds": rounds,
        "busy_processes": 0,
        "matmul_gflops_per_second": rates,
        "output_errors": {},
        "rows": [row(variant, dense_of(variant, variants), rates, models) for variant in variants],
        "profiles": {},
    }


def measure_rates(device: torch.device, variants: Sequence[Variant]) -> dict[str, float]:
    """The rate of matrix products in every type that occurs, in GFLOP/s."""
    return {dtype: matmul_rate(device, getattr(torch, dtype)) for dtype in {variant.dtype for variant in variants}}


def output_errors(models: dict[tuple, nn.Module], frame: dict) -> dict[str, float]:
    """How far the dense backbone's output in each type is from that in float32: root mean square, relative."""
    outputs = {}
    for (_, dtype, _), model in models.items():
        if dtype not in outputs:
            model.enabled = False
            with torch.no_grad():
                outputs[dtype] = model.vit(model.preprocess_image([frame]).tensor)[model.vit.out_feature].float()
    precise = outputs.pop("float32", None)
    if precise is None:
        return {}
    return {dtype: float((output - precise).norm() / precise.norm()) for dtype, output in outputs.items()}


def run_turn(subject: Subject, model: nn.Module, variant: Variant, frames: Iterator[dict], turn: int) -> None:
    """One frame of a variant. The first turn sets up state, the second one counts operations and memory."""
    if turn == 0:
        subject.run(model, next(frames))
    elif turn == 1:
        with count_operations(model) as counts, peak_memory(subject.device) as peak:
            subject.run(model, next(frames))
        variant.backbone_gmacs = counts.backbone() / MACS_PER_GFLOP
        variant.total_gmacs = counts.total() / MACS_PER_GFLOP
        variant.peak_bytes = peak[0]
    else:
        seconds, backbone_seconds = subject.time(model, next(frames))
        variant.total_seconds.append(seconds)
        variant.backbone_seconds.append(backbone_seconds)


def time_flush(subject: Subject, model: nn.Module, variant: Variant, frames: Iterator[dict]) -> None:
    """Time a frame that begins a sequence, on state that is allocated already, and run one that follows it."""
    model.reset([0])
    variant.flush_seconds.append(subject.time(model, next(frames))[1])
    subject.run(model, next(frames))


def dense_of(variant: Variant, variants: Sequence[Variant]) -> Variant | None:
    """The dense variant that a variant is compared with."""
    same = (other for other in variants if other.mode == "dense" and other.dtype == variant.dtype)
    return next(same, None)


def moving_video(size: int) -> Iterator[dict]:
    """An endless video: a still noisy background with a patch that moves across it."""
    generator = torch.Generator().manual_seed(0)
    background = torch.randint(0, 256, (3, size, size), generator=generator, dtype=torch.uint8)
    patch = torch.randint(0, 256, (3, size // 4, size // 4), generator=generator, dtype=torch.uint8)
    shape = {"height": size, "width": size, "video_id": 0}
    frame_id = 0
    while True:
        frame = background.clone()
        left = 8 * frame_id % (size - size // 4)
        frame[:, size // 3 : size // 3 + size // 4, left : left + size // 4] = patch
        # Variants take turns with one video, so each misses the frames of the others: no gap, for this purpose.
        yield {**shape, "image": frame, "frame_id": frame_id, "frame_step": 10**9}
        frame_id += 1


@contextmanager
def peak_memory(device: torch.device) -> Iterator[list[float | None]]:
    """Memory in bytes that the block needed at its highest point, over what was in use before; None where unknown."""
    result: list[float | None] = [None]
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield result
        result[0] = torch.cuda.max_memory_allocated(device) - before
        return
    if resident_bytes() is None:
        yield result
        return
    return_free_memory()
    before_resident = resident_bytes()
    highest, done = [before_resident], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            highest[0] = max(highest[0], resident_bytes() or 0.0)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield result
    finally:
        done.set()
        watcher.join()
    result[0] = highest[0] - before_resident


def return_free_memory() -> None:
    """Let the C library give freed memory back to the system, where it can: using it again would not be seen."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def resident_bytes() -> float | None:
    """Memory of this process that is in RAM; None where the system does not tell."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return None
    pages = int(statm.read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def row(variant: Variant, dense: Variant | None, rates: dict[str, float], models: dict[tuple, nn.Module]) -> dict:
    """A variant's figures, and the ratios that compare it with the dense model of its type."""
    backbone, total = statistics.median(variant.backbone_seconds), statistics.median(variant.total_seconds)
    flush = statistics.median(variant.flush_seconds) if variant.flush_seconds else None
    dense_backbone = statistics.median(dense.backbone_seconds) if dense else None
    return {
        "variant": variant.name,
        "dtype": variant.dtype,
        "r": variant.r,
        "backbone_gmacs": variant.backbone_gmacs,
        "total_gmacs": variant.total_gmacs,
        "backbone_seconds": backbone,
        "total_seconds": total,
        "backbone_gflops_per_second": 2 * variant.backbone_gmacs / backbone,
        "share_of_matmul_rate": 2 * variant.backbone_gmacs / backbone / rates[variant.dtype],
        "backbone_speedup": dense_backbone / backbone if dense_backbone else None,
        "total_speedup": statistics.median(dense.total_seconds) / total if dense else None,
        "backbone_saving": dense.backbone_gmacs / variant.backbone_gmacs if dense else None,
        "flush_over_dense": flush / dense_backbone if flush and dense_backbone else None,
        "state_bytes": models[variant.model_key].state_bytes() if variant.r is not None else 0,
        "peak_bytes": variant.peak_bytes,
    }
