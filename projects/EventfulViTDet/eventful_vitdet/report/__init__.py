"""A report of an evaluation at several budgets: one HTML file that needs nothing else."""

from .document import write_report

__all__ = ["write_report"]
