"""One video of a data set, annotated at several budgets: a file for each."""

from __future__ import annotations

import os
from collections.abc import Sequence

from detectron2.config import CfgNode
from torch import nn

from ..budgets import apply_budget, parse_budgets
from ..control import Constant, RuntimeControl
from ..data.coco_vid import group_by_video
from ..data.listed_video import ListedVideo
from ..data.read_rules import ReadRules
from ..data.registration import load_frames
from ..errors import DatasetError
from .annotated_video import AnnotateOptions, annotate_video


def annotate_budgets(
    cfg: CfgNode,
    model: nn.Module,
    budgets: Sequence[str | int],
    dataset_name: str,
    output_dir: str,
    *,
    video_index: int = 0,
    min_score: float = 0.3,
) -> list[str]:
    """Run the model over one video of a data set at every budget ("dense" or the r of top-r).

    Writes `<output_dir>/<budget>.mp4` for each and returns the paths. `video_index` counts the data set's
    videos. The model is left at the last budget.
    """
    videos = group_by_video(load_frames(dataset_name, rules=ReadRules.from_config(cfg))[0])
    if not 0 <= video_index < len(videos):
        raise DatasetError(f"data set '{dataset_name}' has {len(videos)} videos, so there is no video {video_index}")
    source = ListedVideo(videos[video_index])
    options = AnnotateOptions(min_score=min_score, window=False)
    paths = []
    for budget, policy in parse_budgets(budgets).items():
        apply_budget(model, policy)
        control = RuntimeControl(model, Constant(policy or model.vit.policy))
        paths.append(os.path.join(output_dir, f"{budget}.mp4"))
        annotate_video(cfg, model, source, paths[-1], options, control)
    return paths
