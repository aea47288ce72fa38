"""Operations of clips: of spatial steps that are computed in full, of the others, and of everything else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from eventful_vit import FactorisedViViT, FrameTrace, OperationCounts

STEP_KINDS = ("flush", "later")
"""Spatial steps computed in full, and the others."""
KINDS = (*STEP_KINDS, "rest")
"""These, and embedding, temporal model and classifiers."""
NOT_IN_PAPER = "embedding"
"""The category that the paper's figure leaves out."""


class ClipCounts:
    """MACs since the last `clear`."""

    def __init__(self) -> None:
        self._counts = {kind: OperationCounts() for kind in KINDS}
        self._steps = dict.fromkeys(STEP_KINDS, 0)

    def clear(self) -> None:
        """Start again from zero."""
        for counts in self._counts.values():
            counts.clear()
        self._steps = dict.fromkeys(STEP_KINDS, 0)

    def add_step(self, trace: FrameTrace) -> None:
        """A step of the spatial model, in all views."""
        kind = "flush" if all(trace.flushed) else "later"
        self._counts[kind].add_frame(trace)
        self._steps[kind] += len(trace.flushed)

    def add_rest(self, trace: FrameTrace) -> None:
        """Anything else."""
        self._counts["rest"].add_frame(trace)

    def macs(self) -> dict[str, dict[str, int]]:
        """{kind: {category: MACs}}"""
        return {kind: counts.by_category() for kind, counts in self._counts.items()}

    @property
    def steps(self) -> dict[str, int]:
        """Steps of all views that were computed in full, and the others."""
        return dict(self._steps)


@contextmanager
def count_clips(vivit: FactorisedViViT) -> Iterator[ClipCounts]:
    """Count the operations of a model while the context is open."""
    counts = ClipCounts()
    watched = ((vivit.spatial, counts.add_step), (vivit.temporal, counts.add_rest), (vivit, counts.add_rest))
    for module, observer in watched:
        module.observers.append(observer)
    try:
        yield counts
    finally:
        for module, observer in watched:
            module.observers.remove(observer)


def sum_categories(macs: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """MACs by category, of all kinds together."""
    sums: Counter[str] = Counter()
    for categories in macs.values():
        sums.update(categories)
    return dict(sums)
