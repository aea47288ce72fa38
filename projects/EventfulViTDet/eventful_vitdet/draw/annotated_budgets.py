"""One video of a data set, annotated at several budgets: a file for each."""

from __future__ import annotations

import os
from collections.abc import Sequence

from detectron2.config import CfgNode
from torch import nn

from ..budgets import apply_budget, parse_budgets
from ..control import RuntimeControl
from ..controllers import Constant
from ..data import ReadRules, load_frames
from ..data.coco_vid import group_by_video
from ..data.listed_video import ListedVideo
from ..errors import DatasetError
from ..shown_score import SHOWN_SCORE
from .annotated_video import AnnotateOptions, annotate_video
from .tokens import ANY

LONGEST_SIDE = 640
"""Pixels that the longer side of an annotated frame should have at least, about."""


def annotate_budgets(
    cfg: CfgNode,
    model: nn.Module,
    budgets: Sequence[str | int],
    dataset_name: str,
    output_dir: str,
    *,
    video_index: int = 0,
    min_score: float = SHOWN_SCORE,
) -> list[str]:
    """Run the model over one video of a data set at every budget ("dense" or the r of top-r).

    Writes `<output_dir>/<budget>.mp4` for each and returns the paths: eventful ones show the updated tokens, and the
    dense model beside them. Small videos are enlarged. `video_index` counts the data set's videos. The model is left at
    the last budget.
    """
    videos = group_by_video(load_frames(dataset_name, rules=ReadRules.from_config(cfg))[0])
    if not 0 <= video_index < len(videos):
        raise DatasetError(f"data set '{dataset_name}' has {len(videos)} videos, so there is no video {video_index}")
    source = ListedVideo(videos[video_index])
    longest = max(videos[video_index][0]["width"], videos[video_index][0]["height"])
    common = {"min_score": min_score, "window": False, "enlarge": max(1, round(LONGEST_SIDE / longest))}
    paths = []
    for budget, policy in parse_budgets(budgets).items():
        apply_budget(model, policy)
        control = RuntimeControl(model, Constant(policy or model.vit.policy))
        paths.append(os.path.join(output_dir, f"{budget}.mp4"))
        eventful = {"show_tokens": ANY, "side_by_side_dense": True} if policy is not None else {}
        annotate_video(cfg, model, source, paths[-1], AnnotateOptions(**common, **eventful), control)
    return paths
