"""Timing a detector side by side: dense and eventful, in one process, in turn."""

from .benchmark_tables import format_benchmark, format_profile, plot_benchmark
from .budget_times import format_times, time_budgets
from .measure import benchmark
from .profile import profile_frame
from .variants import Variant, make_variants

__all__ = [
    "Variant",
    "benchmark",
    "format_benchmark",
    "format_profile",
    "format_times",
    "make_variants",
    "plot_benchmark",
    "profile_frame",
    "time_budgets",
]
