"""The score from which detections are shown. Imports nothing, so that parsers may use it."""

from __future__ import annotations

SHOWN_SCORE = 0.3
"""Detections from this score on are drawn, and get a mask, unless somebody asks for others."""
