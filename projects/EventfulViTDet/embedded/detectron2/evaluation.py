from __future__ import annotations

from typing import Any


class DatasetEvaluator:
    """Collects what a model gave for each batch and turns it into results at the end."""

    def reset(self) -> None:
        """Start over."""

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Take in one batch: the model's inputs and its outputs, in the same order."""

    def evaluate(self) -> dict[str, Any] | None:
        """Results as ``{task: {metric: value}}``; None in processes that have none."""
