"""Masks of detections as columns of numbers, for the record of a video."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..masks import RunLengths

MASK_COLUMNS = {"mask_sizes", "mask_lengths", "mask_counts"}
"""In records of models with masks."""
NO_MASK = -1
"""The length of what a detection without a mask has."""


def pack_masks(masks: np.ndarray | None) -> dict[str, np.ndarray]:
    """Columns for (M,) RunLengths or None: sizes (M, 2), lengths (M,) and all counts in a row. {} for None."""
    if masks is None:
        return {}
    counts = b"".join(mask.counts for mask in masks if mask is not None)
    return {
        "mask_sizes": np.array([(0, 0) if mask is None else mask[:2] for mask in masks], np.int32).reshape(-1, 2),
        "mask_lengths": np.array([NO_MASK if mask is None else len(mask.counts) for mask in masks], np.int32),
        "mask_counts": np.frombuffer(counts, np.uint8),
    }


def unpack_masks(columns: Mapping[str, np.ndarray], rows: int) -> np.ndarray | None:
    """What `pack_masks` got, for so many detections. Raises ValueError where the columns do not fit together."""
    if "mask_lengths" not in columns:
        return None
    sizes, lengths, counts = (columns[name] for name in ("mask_sizes", "mask_lengths", "mask_counts"))
    ends = np.maximum(lengths, 0).cumsum()
    if lengths.shape != (rows,) or sizes.shape != (rows, 2) or (ends[-1] if rows else 0) != counts.size:
        raise ValueError("its masks do not fit its detections")
    content, masks = counts.tobytes(), np.full(rows, None, object)
    for row in np.flatnonzero(lengths != NO_MASK):
        masks[row] = RunLengths(*sizes[row].tolist(), content[ends[row] - lengths[row] : ends[row]])
    return masks
