"""A report of an evaluation at several budgets: one HTML file that needs nothing else."""

from .document import write_report
from .results import ReportError

__all__ = ["ReportError", "write_report"]
