"""A report of an evaluation at several budgets: one HTML file that needs nothing else; and its plot as a picture."""

from .document import write_report, write_tradeoff

__all__ = ["write_report", "write_tradeoff"]
