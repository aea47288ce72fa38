"""What a timed call counts as its own."""

from __future__ import annotations

import torch
from eventful_vitdet import timing


def test_compiling_the_kernels_is_no_frame_s_time(monkeypatch):
    events = []

    def clock() -> float:
        events.append("clock")
        return float(len(events))

    monkeypatch.setattr(timing.cpu, "available", lambda: events.append("compiled"))
    assert timing.timed_call(lambda: events.append("frame"), torch.device("cpu"), clock) == (None, 2.0)
    assert events == ["compiled", "clock", "frame", "clock"]
