"""Which budget reaches a number of milliseconds on this machine: measured on a video, put into words."""

from .advice_text import advice_as_json, describe_noise, format_measured
from .interleaved_frames import measure_budgets
from .measured_budgets import MeasuredBudget, Measurement
from .recommendation import Recommendation, recommend
from .ways_out import Candidate, ways_out

__all__ = [
    "Candidate",
    "MeasuredBudget",
    "Measurement",
    "Recommendation",
    "advice_as_json",
    "describe_noise",
    "format_measured",
    "measure_budgets",
    "recommend",
    "ways_out",
]
