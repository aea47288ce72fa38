"""Evaluation on video: streaming inference, average precision, operations and seconds per frame."""

from .budgets import evaluate_budgets, evaluate_once, load_test_frames
from .coco_metrics import compute_coco_metrics
from .costs import CostSums, FrameCost
from .errors import EvaluationError
from .metrics import compute_agreement, compute_metrics, compute_vid_ap50
from .streaming import evaluate_stream, run_frames
from .vid_evaluator import Detections, VIDEvaluator

__all__ = [
    "CostSums",
    "Detections",
    "EvaluationError",
    "FrameCost",
    "VIDEvaluator",
    "compute_agreement",
    "compute_coco_metrics",
    "compute_metrics",
    "compute_vid_ap50",
    "evaluate_budgets",
    "evaluate_once",
    "evaluate_stream",
    "load_test_frames",
    "run_frames",
]
