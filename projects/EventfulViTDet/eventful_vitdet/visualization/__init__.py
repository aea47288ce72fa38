"""Pictures of what the model does: boxes on video, and accuracy against cost."""

from .annotate import annotate_budgets, annotate_video
from .draw import class_color, draw_caption, draw_detections, draw_tokens, fit_into
from .figure import BudgetRun, plot_run, record_run
from .painter import FramePainter
from .response_plot import plot_responses
from .strip import CostChart, add_strip, describe_cost
from .tokens import choose_gates, updated_share
from .tradeoff import plot_budgets, plot_tradeoff
from .visualize import VisualizeOptions, class_names, describe_costs, describe_frame, visualize_video

__all__ = [
    "BudgetRun",
    "CostChart",
    "FramePainter",
    "VisualizeOptions",
    "add_strip",
    "annotate_budgets",
    "annotate_video",
    "choose_gates",
    "class_color",
    "class_names",
    "describe_cost",
    "describe_costs",
    "describe_frame",
    "draw_caption",
    "draw_detections",
    "draw_tokens",
    "fit_into",
    "plot_budgets",
    "plot_responses",
    "plot_run",
    "plot_tradeoff",
    "record_run",
    "updated_share",
    "visualize_video",
]
