"""Pictures of what the model does: boxes on video, and accuracy against cost."""

from .annotate import annotate_budgets, annotate_video
from .draw import add_strip, class_color, draw_detections
from .tradeoff import plot_budgets, plot_tradeoff
from .video_writer import VideoWriteError, VideoWriter

__all__ = [
    "VideoWriteError",
    "VideoWriter",
    "add_strip",
    "annotate_budgets",
    "annotate_video",
    "class_color",
    "draw_detections",
    "plot_budgets",
    "plot_tradeoff",
]
