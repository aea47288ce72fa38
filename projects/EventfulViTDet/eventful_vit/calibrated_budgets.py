"""Budgets that `calibrate` found (calibration.py): as a policy, and as the content of a file."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .model import EventfulModel
from .policies import PerGate, TopFraction
from .shared_budget import SharedBudget

FORMAT = 1


@dataclass(frozen=True)
class Calibration:
    """Budgets that were found for a model, and what they did on the frames that they were found on."""

    gates: Mapping[str, int]
    """Tokens of each gate, out of `tokens`."""
    tokens: int
    parameters: int
    """Of the model, by which another one is recognised."""
    gflops: float
    """10^9 multiply-accumulates per stream and later frame, position encoding and blocks."""
    change: float
    """Mean squared distance of later frames' features to the dense ones, relative to these."""
    uniform: int
    """The one budget for all gates that costs as much, or a little less, ..."""
    uniform_change: float
    """... and its distance."""
    thresholds: Mapping[str, float] | None = None
    """Of a shared budget: the error of each gate above which it updates a token. `gates` are then the tokens that it
    usually updates, `gflops` is the budget, and `change` the distance with it."""

    def policy(self) -> PerGate | SharedBudget:
        """The budgets as shares of a frame's tokens, so that they suit frames of other sizes too."""
        gates = {name: share_of_tokens(r, self.tokens) for name, r in self.gates.items()}
        if self.thresholds is not None:
            shares = {name: share.fraction for name, share in gates.items()}
            return SharedBudget(self.gflops, self.tokens, self.thresholds, shares)
        gates["*"] = gates[list(gates)[-1]]  # what follows the last block, such as an eventful pyramid
        return PerGate(gates, f"calibrated {self.gflops:.4g} ({self.digest()})")

    def digest(self) -> str:
        """A short name of the budgets."""
        text = json.dumps([self.tokens, sorted(self.gates.items())])
        return hashlib.sha256(text.encode()).hexdigest()[:6]

    def check(self, model: EventfulModel) -> None:
        """Raise ValueError, saying what differs, unless the budgets were found for a model like this one."""
        names, parameters = set(model.gate_names), count_parameters(model)
        if names != set(self.gates):
            first = min(names ^ set(self.gates))
            raise ValueError(
                f"made for another model: it has budgets for {len(self.gates)} gates, this model has {len(names)} "
                f"({first} is in one of them only)"
            )
        if parameters != self.parameters:
            raise ValueError(f"made for a model of {self.parameters:,} parameters, this one has {parameters:,}")

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        content = {"format": FORMAT, **asdict(self), "gates": dict(self.gates)}
        if self.thresholds is None:
            del content["thresholds"]
        return content

    @classmethod
    def from_dict(cls, content: Any) -> Calibration:
        """What `to_dict` gave. Raises ValueError, naming the entry, for anything else."""
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"no calibrated budgets (expected an entry \"format\": {FORMAT})")
        whole, real = ("tokens", "parameters", "uniform"), ("gflops", "change", "uniform_change")
        for name in whole:
            if not _is_whole(content.get(name)):
                raise ValueError(f"{name} is {content.get(name)!r}; expected a whole number")
        for name in real:
            if not _is_number(content.get(name)):
                raise ValueError(f"{name} is {content.get(name)!r}; expected a number, 0 or larger")
        gates, tokens = content.get("gates"), content["tokens"]
        if not isinstance(gates, dict) or not gates or tokens < 1:
            raise ValueError("it needs gates, {NAME: TOKENS}, and tokens of 1 or more")
        for name, r in gates.items():
            if not _is_whole(r) or r > tokens:
                raise ValueError(f"gates, {name}: {r!r}; expected a whole number from 0 to {tokens}")
        thresholds = content.get("thresholds")
        if thresholds is not None:
            _check_thresholds(thresholds, gates, content["gflops"])
        return cls(gates=gates, thresholds=thresholds, **{name: content[name] for name in (*whole, *real)})


def _check_thresholds(thresholds: Any, gates: Mapping[str, int], gflops: float) -> None:
    if not isinstance(thresholds, dict) or set(thresholds) != set(gates):
        raise ValueError("thresholds: expected one for each of the gates, {NAME: NUMBER}")
    for name, threshold in thresholds.items():
        if not _is_number(threshold):
            raise ValueError(f"thresholds, {name}: {threshold!r}; expected a number, 0 or larger")
    if gflops == 0:
        raise ValueError("gflops is 0; with thresholds, it is the budget, above 0")


def share_of_tokens(r: int, tokens: int) -> TopFraction:
    """A budget as a share of a frame's tokens."""
    # Half a token more: the share of a budget must not be rounded down to a token less.
    return TopFraction(min((r + 0.5) / tokens, 1.0))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


def count_parameters(model: EventfulModel) -> int:
    """Numbers in a model's parameters."""
    return sum(parameter.numel() for parameter in model.parameters())
