from __future__ import annotations

from collections.abc import Sequence

import torch


class Matcher:
    """Gives every prediction (or anchor) the ground truth that fits best, and a label that says how well.

    Labels are 1 (positive), 0 (negative) and -1 (ignore).
    """

    def __init__(self, thresholds: Sequence[float], labels: Sequence[int], allow_low_quality_matches: bool = False):
        """
        Args:
            thresholds: rising bounds above 0; a quality that equals a bound lies above it.
            labels: of the qualities below the first bound, between the first two, ..., above the last.
            allow_low_quality_matches: label 1, for every ground truth, the predictions that fit it best, too (all
                on a tie), however badly they do.
        """
        if not thresholds or list(thresholds) != sorted(thresholds) or thresholds[0] <= 0:
            raise ValueError(f"IOU_THRESHOLDS (a key of MODEL) must rise and be above 0, got {list(thresholds)}")
        if len(labels) != len(thresholds) + 1 or not set(labels) <= {-1, 0, 1}:
            raise ValueError(
                f"IOU_LABELS must be one more than the {len(thresholds)} IOU_THRESHOLDS and out of -1, 0, 1, "
                f"got {list(labels)} (keys of MODEL)"
            )
        self.thresholds = list(thresholds)
        self.labels = list(labels)
        self.allow_low_quality_matches = allow_low_quality_matches

    def __call__(self, match_quality_matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            match_quality_matrix: (M, N) quality >= 0 (IoU) of M ground truths against N predictions.

        Returns:
            (N,) int64 index of the best ground truth (0 if there is none), (N,) int8 labels.
        """
        num_truths, num_predictions = match_quality_matrix.shape
        labels = match_quality_matrix.new_tensor(self.labels, dtype=torch.int8)
        if num_truths == 0 or num_predictions == 0:
            matches = torch.zeros(num_predictions, dtype=torch.int64, device=labels.device)
            return matches, labels[:1].expand(num_predictions).clone()
        best_quality, matches = match_quality_matrix.max(dim=0)
        bounds = match_quality_matrix.new_tensor(self.thresholds)
        match_labels = labels[torch.bucketize(best_quality, bounds, right=True)]
        if self.allow_low_quality_matches:
            best_per_truth = match_quality_matrix.max(dim=1, keepdim=True).values
            match_labels[(match_quality_matrix == best_per_truth).any(dim=0)] = 1
        return matches, match_labels
