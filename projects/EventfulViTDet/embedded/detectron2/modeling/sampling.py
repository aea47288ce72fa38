from __future__ import annotations

import torch


def subsample_labels(
    labels: torch.Tensor, num_samples: int, positive_fraction: float, bg_label: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """A random sample of the positives and negatives among ``labels`` (N,), as two vectors of indices.

    ``bg_label`` is negative, -1 is never taken, all else is positive. At most ``positive_fraction *
    num_samples`` positives are taken; negatives fill up the rest, as far as there are any.
    """
    positive = ((labels != -1) & (labels != bg_label)).nonzero().flatten()
    negative = (labels == bg_label).nonzero().flatten()
    num_positive = min(len(positive), int(num_samples * positive_fraction))
    return _draw(positive, num_positive), _draw(negative, num_samples - num_positive)


def _draw(indices: torch.Tensor, count: int) -> torch.Tensor:
    return indices[torch.randperm(len(indices), device=indices.device)[:count]]
