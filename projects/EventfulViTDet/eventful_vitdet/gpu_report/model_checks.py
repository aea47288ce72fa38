"""Whole models on the GPU against the CPU's path, and later frames in which a wait of the host is an error."""

from __future__ import annotations

import copy
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from eventful_vit import EventfulViT, Streams, Threshold, TopR, encoder
from torch import Tensor

from ..attribute_swap import swapped
from .detector_agreement import check_detections
from .frame_times import Frames, drifting_frames
from .machine import NO_GPU, device, has_gpu, interpreted_operators
from .part_list import Note
from .report_models import BFLOAT16, FLOAT32, FOUR_BLOCKS, TINY, build_vit

BOUNDS = {"float32": 1e-3, "bfloat16": 5e-2}
"""Root mean square error, relative. In bfloat16 the two paths choose other tokens here and there."""
OTHER_CHOICE = 3e-2
"""The bound in float32 where a gate chose another token than on the CPU: two norms were equal to rounding."""


def check_models(note: Note) -> dict:
    """Compare frames of each model, then the detections of trained detectors."""
    result: dict = {"rows": [], "synchronisation": [], "detections": []}
    checks = [("tiny", TINY, 40, 8, form) for form in (FLOAT32, BFLOAT16)]
    if has_gpu():
        name = "four blocks of ViTDet-B, 512 px"
        checks += [(name, FOUR_BLOCKS, 512, 128, form) for form in (FLOAT32, BFLOAT16)]
    for name, architecture, size, r, form in checks:
        label, started = f"{name}, {form.name}", time.monotonic()
        print(f"  model: {label}", flush=True)
        try:
            model = build_vit(architecture, size, form, torch.device("cpu"), r)
            frames = drifting_frames(4 if has_gpu() else 3, 1, size, form.tokens, torch.device("cpu"))
            result["rows"] += compare_paths(model, frames, label, BOUNDS[form.name])
            print(f"  model: {label}: compared after {time.monotonic() - started:.0f} s", flush=True)
            result["synchronisation"].append({"model": label, **check_waits(model, frames, r)})
        except Exception:  # the other models are checked all the same
            result["rows"].append({"model": label, "what": "did not run", "error": None, "bound": None, "ok": False,
                                   "trace": traceback.format_exc()})  # fmt: skip
        print(f"  model: {label}: done after {time.monotonic() - started:.0f} s", flush=True)
        note(result)
    print("  model: detections", flush=True)
    result["detections"] = check_detections()
    passed = [row["ok"] for row in (*result["rows"], *result["synchronisation"], *result["detections"])]
    return {**result, "ok": all(ok is not False for ok in passed)}


def compare_paths(model: EventfulViT, frames: Frames, label: str, bound: float) -> list[dict]:
    """Frames densely and by two policies, on the CPU's path and on the kernels'."""
    other = copy.deepcopy(model).to(device())
    rows = []
    for what, policy in (("dense", None), ("top-r", model.policy), ("threshold", Threshold(0.5))):
        # A GPU computes large budgets in full, which a CPU does not: here both choose.
        with swapped(encoder, "CROSSOVER", float("inf")):
            expected, chosen = run_frames(model, frames, policy)
            with interpreted_operators():
                found, also_chosen = run_frames(other, [frame.to(device()) for frame in frames], policy)
        error = relative_error(found, expected)
        same = share_of_equal(also_chosen, chosen)
        limit = bound if same == 1 else max(bound, OTHER_CHOICE)
        rows.append({"model": label, "what": what, "error": error, "bound": limit, "same_choice": same,
                     "ok": error <= limit})  # fmt: skip
    return rows


def run_frames(model: EventfulViT, frames: Frames, policy: object | None) -> tuple[list[Tensor], list[Tensor]]:
    """Features of a video, and what each gate chose in each frame (B, N); densely without a policy."""
    model.enabled = policy is not None
    if policy is not None:
        model.set_policy(policy)
    state, features, chosen = Streams(), [], []
    with torch.no_grad():
        for frame in frames:
            (feature,) = model(frame, state).values()
            features.append(feature.float().cpu())
            if policy is not None:
                chosen += [gate.selection.mask().cpu() for gate in state.trace.gates.values()]
    model.enabled = True
    return features, chosen


def relative_error(found: list[Tensor], expected: list[Tensor]) -> float:
    """Root mean square of the worst frame; infinite for NaN."""
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(found, expected)]
    return max(error if error == error else float("inf") for error in errors)


def share_of_equal(found: list[Tensor], expected: list[Tensor]) -> float:
    """Share of tokens that both chose, or both did not."""
    if not expected:
        return 1.0
    return float(torch.cat([(a == b).flatten() for a, b in zip(found, expected)]).double().mean())


def check_waits(model: EventfulViT, frames: Frames, r: int) -> dict:
    """Later frames, with other budgets too, and dense ones, while every wait of the host for the device is an error."""
    if not has_gpu():
        return {"ok": None, "reason": NO_GPU}
    model = copy.deepcopy(model).to(device())
    frames = [frame.to(device()) for frame in frames]
    try:
        run_without_waits(model, frames, r, waits_are_errors)
    except RuntimeError as error:
        return {"ok": False, "reason": f"the host waits in a later frame: {error}", "trace": traceback.format_exc()}
    return {"ok": True, "reason": None}


def run_without_waits(
    model: EventfulViT, frames: Frames, r: int, no_waits: Callable[[], AbstractContextManager]
) -> None:
    """Frames that prepare and record what is prepared once, then frames within `no_waits`."""
    state = Streams()
    with torch.no_grad():
        model.enabled = False
        for number in range(3):  # the first frame, its recording, and once more
            model(frames[number % len(frames)])
        with no_waits():
            model(frames[0])
        model.enabled = True
        model.set_policy(TopR(r))
        for number in range(4):  # a flush, the first later frame, its recording, and once more
            model(frames[number % len(frames)], state)
        with no_waits():
            for number, policy in enumerate((TopR(r), TopR(r - r // 4), TopR(r))):
                model.set_policy(policy)
                model(frames[number % len(frames)], state)


@contextmanager
def waits_are_errors() -> Iterator[None]:
    """Inside, PyTorch raises RuntimeError where it would make the host wait for the GPU."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
