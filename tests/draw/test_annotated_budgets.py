from __future__ import annotations

import cv2
import numpy as np
import pytest
from eventful_vitdet.draw.annotated_budgets import annotate_budgets
from eventful_vitdet.draw.cost_strip import CHART_PIXELS, LINE, strip_scale
from eventful_vitdet.draw.painter import GAP_PIXELS
from eventful_vitdet.errors import DatasetError
from eventful_vitdet.video import probe_video

from .conftest import HEIGHT, WIDTH


def test_one_annotated_video_per_budget(make_real, dataset, tmp_path):
    cfg, model = make_real(dataset[0], MODEL__ROI_HEADS__SCORE_THRESH_TEST=0.0)
    folder = tmp_path / "annotated"
    paths = annotate_budgets(cfg, model, ["dense", 5], dataset[0], str(folder), video_index=1, min_score=0.0)
    assert paths == [str(folder / f"{b}.mp4") for b in ("dense", "5")]
    assert model.enabled and str(model.vit.policy) == "top-r 5"  # as the last budget left it
    # Ten times as large, and beside the eventful model the dense one.
    height = 10 * HEIGHT + round((LINE + CHART_PIXELS) * strip_scale(np.empty((10 * HEIGHT, 10 * WIDTH))))
    for path, width in zip(paths, (10 * WIDTH, 20 * WIDTH + GAP_PIXELS)):
        info = probe_video(path)
        assert (info.width, info.num_frames) == (width, 3) and abs(info.height - height) <= 2
    capture = cv2.VideoCapture(paths[1])
    for _ in range(2):  # of the first frame, all tokens are shown
        _, frame = capture.read()
    left, right = frame[: 10 * HEIGHT, : 10 * WIDTH].astype(int), frame[: 10 * HEIGHT, -10 * WIDTH :].astype(int)
    assert left.std() > 20 and right.std() > 20  # boxes were drawn on the uniform frame
    assert (left[..., 0] - left[..., 2]).mean() > (right[..., 0] - right[..., 2]).mean() + 1  # bluer: the tokens
    with pytest.raises(DatasetError, match="has 2 videos, so there is no video 2"):
        annotate_budgets(cfg, model, ["dense"], dataset[0], str(tmp_path), video_index=2)
