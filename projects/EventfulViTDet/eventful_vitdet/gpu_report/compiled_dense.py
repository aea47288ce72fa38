"""The dense backbone under torch.compile, beside our own dense path, in turn."""

from __future__ import annotations

import time

import torch

from .backbone_tables import FRAMES
from .frame_times import drifting_frames, nth, time_in_turn
from .machine import device
from .part_list import Note
from .report_models import ALL_BFLOAT16, VITDET_B, build_vit

SIZE = 1024
MODE = "max-autotune"


def measure_compiled(note: Note) -> dict:
    """Times of ViTDet-B at 1024 px in bfloat16."""
    note({"rows": [], "reason": "compiling took longer than this part's time limit"})
    return time_compiled(VITDET_B, SIZE, device(), MODE, "inductor", 20)


def time_compiled(
    architecture: dict, size: int, where: torch.device, mode: str | None, backend: str, rounds: int
) -> dict:
    """Compile a dense model and time it."""
    model = build_vit(architecture, size, ALL_BFLOAT16, where, 1)
    model.enabled = False
    frames = drifting_frames(FRAMES, 1, size, torch.bfloat16, where)
    compiled = torch.compile(model, mode=mode, backend=backend)

    def ours(number: int) -> None:
        with torch.no_grad():
            model(nth(frames, number))

    def theirs(number: int) -> None:
        # With gradients on, operators are PyTorch operations that a compiler sees; no parameter asks for any.
        with torch.enable_grad():
            compiled(nth(frames, number))

    started = time.monotonic()
    theirs(0)
    seconds = time.monotonic() - started
    timings = time_in_turn({"dense": ours, f"torch.compile, {mode}": theirs}, where, rounds, 4, time.monotonic() + 15)
    rows = [
        {"variant": name, "ms": timing.milliseconds(), "host_ms": timing.host_milliseconds(), "error": timing.error}
        for name, timing in timings.items()
    ]
    return {"rows": rows, "reason": None, "size": size, "type": ALL_BFLOAT16.name, "compile_seconds": seconds}
