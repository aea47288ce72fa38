"""What the profiler sees of a frame: how often the host starts something, and how long the GPU waits in between."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch.autograd import DeviceType

from .frame_times import wait

STARTS = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch",
          "cudaMemcpyAsync", "cudaMemsetAsync")  # fmt: skip
"""Calls by which the host starts work on the GPU."""
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
GPU_WORK = ("kernel", "gpu_memcpy", "gpu_memset")
"""Kinds of events in a trace that are work of the GPU."""
FRAME = "one frame"
BUSIEST = 12
"""So many kernels are named."""
NAME_LENGTH = 60


def profile_frame_launches(call: Callable[[], object]) -> dict:
    """Profile one call on a GPU.

    Returns:
        Starts and waits of the host; kernels, copies and fills on the GPU, one by one; microseconds from the start of
        the first to the end of the last, and of these, how many the GPU was idle; and the kernels that took longest.
    """
    from torch.profiler import ProfilerActivity, profile, record_function

    wait(torch.device("cuda"))
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        with record_function(FRAME):
            call()
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "trace.json")
        found.export_chrome_trace(str(file))
        trace = json.loads(file.read_text(encoding="utf-8"))["traceEvents"]
    return {**summarise_events(list(found.events())), "busiest": busiest_kernels(trace)}


def summarise_events(events: Sequence) -> dict:
    """The figures of `profile_frame_launches` from a profile's events."""
    (frame,) = [event for event in events if event.name == FRAME and event.device_type == DeviceType.CPU]
    # What the profiler does before and after the frame does not count.
    names = [event.name for event in events if frame.time_range.start <= event.time_range.start < frame.time_range.end]
    work = [event for event in events if event.device_type == DeviceType.CUDA and event.name != FRAME]
    span, idle = span_and_idle([(event.time_range.start, event.time_range.end) for event in work])
    return {
        "starts": sum(name in STARTS for name in names),
        "waits": sum(name in WAITS for name in names),
        "kernels": len(work),
        "span_us": span,
        "idle_us": idle,
    }


def busiest_kernels(trace: Sequence[Mapping]) -> list[dict]:
    """The kernels, by name and grid, that took the GPU longest: how often they ran, and microseconds in all.

    Args:
        trace: a profile's events as its trace file has them, which knows the grids.
    """
    sums: dict[tuple[str, str], list[float]] = {}
    for event in trace:
        if event.get("ph") == "X" and event.get("cat") in GPU_WORK:
            grid = event.get("args", {}).get("grid", ())
            total = sums.setdefault((event["name"][:NAME_LENGTH], " x ".join(map(str, grid))), [0, 0.0])
            total[0] += 1
            total[1] += event["dur"]
    rows = [{"kernel": name, "grid": grid, "count": n, "us": us} for (name, grid), (n, us) in sums.items()]
    return sorted(rows, key=lambda row: -row["us"])[:BUSIEST]


def span_and_idle(intervals: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """From the first start to the last end of some intervals, and how much of it none of them covers."""
    if not intervals:
        return 0.0, 0.0
    ordered = sorted(intervals)
    idle, end = 0.0, ordered[0][0]
    for start, stop in ordered:
        idle += max(0.0, start - end)
        end = max(end, stop)
    return end - ordered[0][0], idle
