"""Timing a detector or a Vision Transformer side by side: dense and eventful, in one process, in turn."""

from .benchmark_tables import format_benchmark, format_profile, plot_benchmark
from .budget_times import format_times, time_budgets
from .measure import benchmark, compare, moving_video
from .profile import profile_frame
from .subjects import load_timm, vit_subject
from .variants import Variant, make_variants

__all__ = [
    "Variant",
    "benchmark",
    "compare",
    "format_benchmark",
    "format_profile",
    "format_times",
    "load_timm",
    "make_variants",
    "moving_video",
    "plot_benchmark",
    "profile_frame",
    "time_budgets",
    "vit_subject",
]
