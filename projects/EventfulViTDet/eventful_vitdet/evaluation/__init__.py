"""Evaluation on video: streaming inference, average precision, operations and seconds per frame."""

from .coco_metrics import compute_coco_metrics
from .detection_table import DetectionTable
from .from_config import evaluate_budgets, evaluate_once
from .metrics import compute_agreement, compute_metrics, compute_vid_ap50
from .store import VideoRecord, read_record, record_paths, write_record
from .targets import load_test_frames
from .timed_frames import run_frames
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
