"""Timing several ways to compute a frame in turn, on frames that drift."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

Frames = list[Tensor]


def drifting_frames(
    count: int, streams: int, size: int, dtype: torch.dtype, device: torch.device, seed: int = 0
) -> Frames:
    """Noise that drifts, at some places faster than at others, so that gates really choose: (B, 3, S, S) each."""
    generator = torch.Generator(device).manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    cells = max(2, size // 64)
    speed = torch.nn.functional.interpolate(noise(streams, 1, cells, cells).abs() ** 3, size=(size, size))
    frames = [noise(streams, 3, size, size)]
    for _ in range(count - 1):
        frames.append(frames[-1] + 0.1 * speed * noise(streams, 3, size, size))
    return [frame.to(dtype) for frame in frames]


def nth(frames: Frames, number: int) -> Tensor:
    """The frames forwards and backwards without end, so that neighbours always differ by one step."""
    period = max(1, 2 * (len(frames) - 1))
    place = number % period
    return frames[place if place < len(frames) else period - place]


@dataclass
class Timing:
    """Seconds of one way."""

    seconds: list[float] = field(default_factory=list)
    host_seconds: list[float] = field(default_factory=list)
    """Until the call came back; the device may still have been at work."""
    error: str | None = None

    def milliseconds(self) -> float | None:
        """Median; None if nothing was measured."""
        return 1e3 * statistics.median(self.seconds) if self.seconds else None

    def host_milliseconds(self) -> float | None:
        return 1e3 * statistics.median(self.host_seconds) if self.host_seconds else None


def timing_row(
    setting: str,
    size: int,
    dtype: str,
    variant: str,
    timing: Timing,
    dense: float | None,
    gmacs: float | None = None,
    state_gb: float | None = None,
    in_a_row: float | None = None,
) -> dict:
    """A row of the tables: what one variant takes, beside the `dense` milliseconds of the same turns.

    Args:
        in_a_row: milliseconds per frame where nobody waits between frames.
    """
    milliseconds = timing.milliseconds()
    return {
        "setting": setting,
        "size": size,
        "type": dtype,
        "variant": variant,
        "ms": milliseconds,
        "in_a_row_ms": in_a_row,
        "host_ms": timing.host_milliseconds(),
        "dense_over_this": dense / milliseconds if dense and milliseconds else None,
        "gmacs": gmacs,
        "tflops": 2 * gmacs / milliseconds if gmacs and milliseconds else None,
        "state_gb": state_gb,
        "frames": len(timing.seconds),
        "error": timing.error,
    }


def time_in_turn(
    calls: Mapping[str, Callable[[int], object]], device: torch.device, rounds: int, warm_up: int, until: float
) -> dict[str, Timing]:
    """Time each call with the number of the round. A call that fails is left out from then on, with its error.

    Args:
        warm_up: rounds that do not count: a frame's first ones compile, record and allocate.
        until: no further round begins after this `time.monotonic()`, once two have been timed.
    """
    timings = {name: Timing() for name in calls}
    for number in range(warm_up + rounds):
        if number >= warm_up + 2 and time.monotonic() > until:
            break
        for name, call in calls.items():
            timing = timings[name]
            if timing.error is not None:
                continue
            try:
                whole, host = time_once(lambda call=call, number=number: call(number), device)
            except Exception as error:  # of one way; the others are measured all the same
                timing.error = f"{type(error).__name__}: {error}"
                continue
            if number >= warm_up:
                timing.seconds.append(whole)
                timing.host_seconds.append(host)
    return timings


def milliseconds_in_a_row(call: Callable[[int], object], device: torch.device, frames: int = 12) -> float:
    """Milliseconds per frame where nobody waits for the device between frames: the median of some runs."""

    def run() -> None:
        for number in range(frames):
            call(number)

    return 1e3 * statistics.median(time_once(run, device)[0] for _ in range(3)) / frames


def time_once(call: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds of a call with all work that it starts on an idle device, and seconds until it came back."""
    wait(device)
    start = time.perf_counter()
    call()
    back = time.perf_counter() - start
    wait(device)
    return time.perf_counter() - start, back


def wait(device: torch.device) -> None:
    """Until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def product_rate(rows: int, inputs: int, outputs: int, dtype: torch.dtype, device: torch.device) -> float:
    """TFLOP/s of PyTorch's matrix product: the median of some, each of several products in a row."""
    x, weight = (torch.randn(n, inputs, device=device).to(dtype) for n in (rows, outputs))
    repeats = 20 if device.type == "cuda" else 1

    def run() -> None:
        for _ in range(repeats):
            torch.nn.functional.linear(x, weight)

    seconds = statistics.median(time_once(run, device)[0] for _ in range(9))
    return 2 * repeats * rows * inputs * outputs / seconds / 1e12
