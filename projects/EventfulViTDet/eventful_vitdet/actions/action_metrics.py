"""Top-1 and top-5 accuracy of each head, and of verb and noun together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

ACTION = "action"
"""Verb and noun together, where a model has both."""
PAIR = ("verb", "noun")
TOPS = (1, 5)


def rank_truth(logits: Mapping[str, Tensor], labels: Mapping[str, int]) -> dict[str, int]:
    """How many classes a model prefers to the true one, by head, and for pairs of verb and noun as "action".

    An equal score counts as preferred, so a model that cannot decide gets no credit. The score of a pair is the
    product of the probabilities of its parts.
    """
    scores = {name: values.double().log_softmax(-1) for name, values in logits.items()}
    ranks = {name: _rank(scores[name], scores[name][labels[name]]) for name in logits if name in labels}
    if all(name in ranks for name in PAIR):
        verbs, nouns = (scores[name] for name in PAIR)
        truth = verbs[labels["verb"]] + nouns[labels["noun"]]
        ranks[ACTION] = _rank((verbs[:, None] + nouns[None, :]).flatten(), truth)
    return ranks


def _rank(scores: Tensor, truth: Tensor) -> int:
    return int((scores >= truth).sum()) - 1


def accuracies(ranks: Iterable[Mapping[str, int]]) -> dict[str, float]:
    """{"verb_top1": percent, "verb_top5": ..., ...} of the ranks of several clips."""
    by_head: dict[str, list[int]] = {}
    for clip in ranks:
        for name, rank in clip.items():
            by_head.setdefault(name, []).append(rank)
    return {
        f"{name}_top{top}": 100.0 * sum(rank < top for rank in found) / len(found)
        for name, found in by_head.items()
        for top in TOPS
    }


def best_classes(logits: Mapping[str, Tensor], number: int = 5) -> dict[str, list[list]]:
    """By head, the classes of the largest probabilities: [[class, probability], ...]."""
    found = {}
    for name, values in logits.items():
        best = torch.softmax(values.double(), -1).topk(min(number, len(values)))
        found[name] = [[c, round(p, 6)] for c, p in zip(best.indices.tolist(), best.values.tolist())]
    return found
