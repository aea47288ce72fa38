"""The budgets that are words, as commands and configurations name them. Imports nothing, so that parsers may use it."""

from __future__ import annotations

DENSE = "dense"
"""The dense model."""
CALIBRATED = "calibrated"
"""The budgets of MODEL.EVENTFUL.POLICY_FILE; also a value of MODEL.EVENTFUL.POLICY."""
