"""Videos with the model's detections drawn on them, one per budget."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from torch import nn

from ..budgets import apply_budget, parse_budgets
from ..data import build_video_test_loader
from ..data.coco_vid import group_by_video
from ..errors import DatasetError
from ..evaluation import run_frames
from ..structures import Detections
from ..video import VideoWriter, iterate_frames, probe_video
from .draw import draw_detections
from .strip import add_strip, describe_cost

DEFAULT_FPS = 30.0


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
    videos = group_by_video(DatasetCatalog.get(dataset_name))
    if not 0 <= video_index < len(videos):
        raise DatasetError(f"data set '{dataset_name}' has {len(videos)} videos, so there is no video {video_index}")
    paths = []
    for budget, policy in parse_budgets(budgets).items():
        apply_budget(model, policy)
        paths.append(os.path.join(output_dir, f"{budget}.mp4"))
        label = budget if policy is None else str(policy)
        annotate_video(cfg, model, videos[video_index], dataset_name, paths[-1], label=label, min_score=min_score)
    return paths


def annotate_video(
    cfg: CfgNode,
    model: nn.Module,
    frames: list[dict],
    dataset_name: str,
    path: str,
    *,
    label: str,
    min_score: float = 0.3,
) -> None:
    """Run the model over the given frames of one video and write them with its detections to `path`.

    A strip below the picture says `label`, the frame's number, its GFlops and its milliseconds.
    """
    classes = MetadataCatalog.get(dataset_name).thing_classes
    loader = build_video_test_loader(cfg, dataset_name, frames)
    # The model's input is resized; the boxes are in pixels of the original, which is read a second time.
    with VideoWriter(path, _frame_rate(frames)) as video, closing(run_frames(model, loader)) as run:
        for (frame, image), (model_input, output, cost) in zip(iterate_frames(frames), run):
            detections = Detections.from_instances(output["instances"], model_input)
            drawn = draw_detections(image, detections, classes, min_score)
            video.write(add_strip(drawn, describe_cost(label, cost, frame["frame_id"])))


def _frame_rate(frames: list[dict]) -> float:
    fps = probe_video(frames[0]["file_name"]).fps if frames[0]["is_video_file"] else DEFAULT_FPS
    return (fps or DEFAULT_FPS) / frames[0]["frame_step"]
