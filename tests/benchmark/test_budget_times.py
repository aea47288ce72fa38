from __future__ import annotations

import torch
from eventful_vitdet.benchmark import format_times, time_budgets


def test_every_budget_has_a_row_of_later_frames(tiny_model):
    model = tiny_model()
    shape = {"height": 96, "width": 96, "video_id": 0, "frame_step": 1}
    frames = [
        {**shape, "frame_id": i, "image": torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8)} for i in range(3)
    ]
    rows = time_budgets(model, frames, ["dense", 4], rounds=1)
    assert [row["budget"] for row in rows] == ["dense", "top-r 4"]
    assert all(0 < row["backbone"] < row["total"] for row in rows)
    lines = format_times(rows).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["dense", "top-r 4"]
    assert lines[2].split("|")[3].strip() == "1.00"
