"""Accuracy of heads and of actions."""

import pytest
import torch
from eventful_vitdet.actions.action_metrics import accuracies, best_classes, rank_truth


def logits(*values: float) -> torch.Tensor:
    return torch.tensor(values).log()


def test_ranks_count_the_classes_before_the_truth():
    assert rank_truth({"label": logits(0.1, 0.6, 0.3)}, {"label": 2}) == {"label": 1}
    assert rank_truth({"label": logits(0.1, 0.6, 0.3)}, {"label": 1}) == {"label": 0}


def test_equal_scores_count_against_the_model():
    assert rank_truth({"label": torch.zeros(7)}, {"label": 0}) == {"label": 6}


def test_an_action_is_a_pair():
    # Products: verb 0 with noun 0 0.42, with noun 1 0.18, verb 1 with noun 0 0.28, with noun 1 0.12.
    scores = {"verb": logits(0.6, 0.4), "noun": logits(0.7, 0.3)}
    assert rank_truth(scores, {"verb": 0, "noun": 0}) == {"verb": 0, "noun": 0, "action": 0}
    assert rank_truth(scores, {"verb": 1, "noun": 0}) == {"verb": 1, "noun": 0, "action": 1}
    assert rank_truth(scores, {"verb": 0, "noun": 1})["action"] == 2
    assert rank_truth({"verb": logits(0.6, 0.4)}, {"verb": 0, "noun": 1}) == {"verb": 0}


def test_accuracies_are_percentages_of_clips():
    found = accuracies([{"verb": 0}, {"verb": 4}, {"verb": 5}, {"verb": 1}])
    assert found == {"verb_top1": 25.0, "verb_top5": 75.0}


def test_best_classes_are_the_most_probable():
    found = best_classes({"label": logits(0.1, 0.6, 0.3)}, 2)["label"]
    assert [name for name, _ in found] == [1, 2]
    assert [p for _, p in found] == pytest.approx([0.6, 0.3], abs=1e-6)
