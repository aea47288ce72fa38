from __future__ import annotations

import cv2
import pytest
from eventful_vitdet.draw.annotated_budgets import annotate_budgets
from eventful_vitdet.draw.cost_strip import CHART_PIXELS, LINE
from eventful_vitdet.errors import DatasetError
from eventful_vitdet.video import probe_video

from .conftest import HEIGHT, WIDTH


def test_one_annotated_video_per_budget(make_real, dataset, tmp_path):
    cfg, model = make_real(dataset[0], MODEL__ROI_HEADS__SCORE_THRESH_TEST=0.0)
    folder = tmp_path / "annotated"
    paths = annotate_budgets(cfg, model, ["dense", 5], dataset[0], str(folder), video_index=1, min_score=0.0)
    assert paths == [str(folder / f"{b}.mp4") for b in ("dense", "5")]
    assert model.enabled and str(model.vit.policy) == "top-r 5"  # as the last budget left it
    for path in paths:
        info = probe_video(path)
        assert (info.width, info.height, info.num_frames) == (WIDTH, HEIGHT + LINE + CHART_PIXELS, 3)
    capture = cv2.VideoCapture(paths[1])
    _, first = capture.read()
    assert first[:HEIGHT].std() > 20  # boxes were drawn on the uniform frame
    with pytest.raises(DatasetError, match="has 2 videos, so there is no video 2"):
        annotate_budgets(cfg, model, ["dense"], dataset[0], str(tmp_path), video_index=2)
