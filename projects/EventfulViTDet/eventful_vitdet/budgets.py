"""Budgets by name, as commands take them and results state them: "dense", the r of top-r, or "calibrated"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from eventful_vit import Policy, TopR
from eventful_vit.model import EventfulModel
from torch import nn

from .budget_words import CALIBRATED, DENSE
from .errors import ConfigError
from .policy_files import calibrated_policy


def parse_budgets(
    budgets: Sequence[str | int], policy_file: str = "", vit: EventfulModel | None = None
) -> dict[str, Policy | None]:
    """Map each budget, as text, to its policy: "dense" to None, "calibrated" to that of a file.

    Args:
        policy_file: MODEL.EVENTFUL.POLICY_FILE.
        vit: the model that the file has to fit.

    Raises:
        ConfigError: anything else is among the budgets, or the file cannot be used.
    """
    policies: dict[str, Policy | None] = {}
    for budget in budgets:
        word = str(budget).strip()
        if word == CALIBRATED:
            policies[word] = calibrated_policy(policy_file, vit)
            continue
        if word != DENSE and not re.fullmatch(r"\d+", word):
            raise ConfigError(f"budget {word!r} is neither 'dense', 'calibrated' nor a number of tokens, 0 or more")
        word = word if word == DENSE else str(int(word))
        policies[word] = None if word == DENSE else TopR(int(word))
    if not policies:
        raise ConfigError("no budgets to evaluate: give 'dense' or numbers of tokens")
    return policies


def apply_budget(model: nn.Module, policy: Policy | None) -> None:
    """Let a model run densely (None) or with a policy from the next frame on, without its earlier frames.

    Args:
        model: a VideoRCNN or a VideoClassifier.
    """
    model.enabled = policy is not None
    if policy is not None:
        model.set_policy(policy)
    model.reset()


def describe_budget(policy: Policy | None) -> str:
    """A budget as results state it: "dense", "top-r 64"."""
    return DENSE if policy is None else str(policy)


def name_of_budget(policy: str) -> str | None:
    """The word of a command line that `describe_budget` gave this for; None where no word does."""
    if policy.startswith((f"{CALIBRATED} ", "shared ")):  # a budget per gate, or one that gates share
        return CALIBRATED
    found = re.fullmatch(r"(?:top-r )?(\d+|dense)", policy)
    return found[1] if found else None


def short_label(policy: str) -> str:
    """What `describe_budget` gives, for axes and legends: "r = 64"."""
    return policy.replace("top-r ", "r = ")
