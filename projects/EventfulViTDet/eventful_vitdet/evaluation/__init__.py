"""Evaluation on video: streaming inference, average precision, operations and seconds per frame."""

from .budgets import evaluate_budgets, evaluate_once
from .coco_metrics import compute_coco_metrics
from .metrics import compute_agreement, compute_metrics, compute_vid_ap50
from .store import VideoRecord, read_record, record_paths, write_record
from .streaming import run_frames
from .tables import DetectionTable
from .targets import load_test_frames
from .vid_evaluator import VIDEvaluator

__all__ = [
    "DetectionTable",
    "VIDEvaluator",
    "VideoRecord",
    "compute_agreement",
    "compute_coco_metrics",
    "compute_metrics",
    "compute_vid_ap50",
    "evaluate_budgets",
    "evaluate_once",
    "load_test_frames",
    "read_record",
    "record_paths",
    "run_frames",
    "write_record",
]
