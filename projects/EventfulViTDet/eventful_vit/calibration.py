"""Calibration: a budget for each gate, learnt from frames without labels.

What counts is how far the features of the eventful model are from those of the dense one. Gates differ in what a token
more brings, and in what it costs. `calibrate` measures both for every gate, and moves budgets from gates where they
bring little to gates where they bring much, at equal operations. On request, thresholds take the place of these
budgets, and all gates and frames share one budget of operations (shared_budget.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import index
from typing import Any

import torch
from torch import Tensor

from .calibrated_budgets import Calibration, count_parameters, share_of_tokens
from .cost import count_operations
from .frame import FrameTrace
from .model import EventfulModel
from .policies import PerGate, Policy, Threshold, TopFraction

Budgets = dict[str, float]
"""Tokens of each gate. Fractions are rounded when a policy is made of them."""

Progress = Callable[[int, int, str], None]
"""Takes passes over the frames that are done, about how many there will be, and what was found last."""

STEP = 2.0
"""By how much a round may change a budget, and how far apart the two budgets are whose difference it looks at."""
DAMPING = 0.5
"""Where features err in inverse proportion to a budget, this is Newton's step."""
LEAST_RATIO = 0.02
"""Gates that bring nothing, or less, are taken to bring so much of the average."""
LEAST_CHANGE = 1e-10
"""Below this, features differ by rounding only, from which nothing is learnt."""
TOLERANCE = 0.01
"""Of a target of operations."""
LEAST_LEFT = 0.05
"""Of a gate's largest errors. A threshold is at least so large: one of 0, where a budget leaves nothing behind, could
not be raised for a video in which more moves."""
FACTORS = 8.0
"""Thresholds are multiplied or divided by at most so much, to meet a target."""
PASSES_OF_A_SEARCH = 11
"""About how often all frames run until budgets cost the target."""


def calibrate(
    model: EventfulModel,
    frames: Sequence[Tensor],
    *,
    target_gflops: float | None = None,
    like: int | None = None,
    max_change: float | None = None,
    rounds: int = 3,
    shared: bool = False,
    features: Callable[[Any], Tensor] | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Find a budget for each gate from frames without labels.

    Starts with the same budget for all gates. Each round measures, gate by gate, what `STEP` times its budget brings
    and costs, changes all budgets accordingly, and scales them to the target. The best budgets that were measured
    win; those that all gates have in common are among them, so the result is never worse on these frames.

    Args:
        model: an EventfulViT, or the result of `make_eventful`, in eval mode.
        frames: two or more, in order, (B, 3, H, W) each; every position of the batch is a video of its own.
        target_gflops: 10^9 multiply-accumulates per stream and later frame that may be spent; or
        like: so many tokens in every gate, whose operations may be spent; or
        max_change: the distance to the dense features that is allowed; the least operations are then looked for.
        rounds: more take longer and may find better budgets.
        shared: learn a threshold for each gate, with which all gates and frames share the operations (`SharedBudget`).
        features: what to compare of the model's output; by default the output, its "last_feat" or last_hidden_state.
        progress: called after each pass over the frames with the number of passes done, about how many there will be,
            and what was found last, such as "round 1: features change by 3 %".

    The same frames give the same budgets. The model keeps its policy, its switch and its own state.

    Raises:
        ValueError: the target is out of reach, or an argument cannot be.
    """
    if [target_gflops, like, max_change].count(None) != 2:
        raise ValueError("calibrate needs one of target_gflops, like and max_change")
    for name, target in (("target_gflops", target_gflops), ("max_change", max_change)):
        if target is not None:
            _check_target(name, target)
    if like is not None:
        _check_count("like", like, 1)
    _check_count("rounds", rounds, 0)
    if shared and max_change is not None:
        raise ValueError("a shared budget needs target_gflops or like: it holds operations, no change of the features")
    with _settings_restored(model), torch.inference_mode():
        passes = _Passes(_expected_passes(len(model.gate_names), rounds, max_change is not None, shared), progress)
        trial = _Trial(model, frames, features or find_features, passes)
        search = _Search(trial, passes)
        if like is not None:
            target_gflops = trial(dict.fromkeys(trial.gates, like)).gflops
        if max_change is not None:
            found = search.describe(search.at_change(max_change, rounds))
        else:
            found = search.describe(search.at_cost(target_gflops, rounds))
            found = search.shared(found, target_gflops) if shared else found
        passes.end()
    return found


def _check_target(name: str, value: object) -> None:
    is_number = hasattr(value, "__float__") and not isinstance(value, bool)
    if not (is_number and 0 < float(value) < math.inf):
        raise ValueError(f"calibrate needs a number above 0 as {name}, got {value!r}")


def _check_count(name: str, value: object, least: int) -> None:
    is_whole = hasattr(value, "__index__") and not isinstance(value, bool)
    if not (is_whole and index(value) >= least):
        raise ValueError(f"calibrate needs a whole number, {least} or larger, as {name}, got {value!r}")


def _expected_passes(gates: int, rounds: int, is_for_change: bool, is_shared: bool) -> int:
    # The dense model, budgets that are alike, the rounds, the one budget that costs as much, and thresholds.
    searches = rounds + (4 if is_for_change else 2) + is_shared
    return 1 + rounds * gates + searches * PASSES_OF_A_SEARCH


def find_features(output: Any) -> Tensor:
    """The features in a model's output."""
    for name in ("last_feat", "last_hidden_state"):
        if isinstance(output, Mapping) and name in output:
            return output[name]
        if hasattr(output, name):
            return getattr(output, name)
    if isinstance(output, Tensor):
        return output
    raise ValueError(f"calibrate cannot tell what features are in a {type(output).__name__}: say by `features`")


@contextmanager
def _settings_restored(model: EventfulModel) -> Iterator[None]:
    if model.training:
        raise ValueError("calibrate needs a model in eval mode")
    policy, enabled = model.policy, model.enabled
    try:
        with model.using(model.new_state()):
            yield
    finally:
        model.policy, model.enabled = policy, enabled


@dataclass(frozen=True)
class _Outcome:
    change: float
    gflops: float


class _Passes:
    """Counts how often all frames were run, and tells it."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress = total, progress or (lambda done, total, found: None)
        self._done, self._found = 0, "dense model"
        self._progress(0, total, self._found)

    def add(self) -> None:
        """The frames were run once more."""
        self._done = min(self._done + 1, self._total)  # how many a search takes depends on what it finds
        self._progress(self._done, self._total, self._found)

    def say(self, found: str) -> None:
        """From now on, tell this too."""
        self._found = found
        self._progress(self._done, self._total, found)

    def end(self) -> None:
        """No more will come."""
        self._progress(self._total, self._total, self._found)


class _Trial:
    """Runs the frames with budgets."""

    def __init__(
        self,
        model: EventfulModel,
        frames: Sequence[Tensor],
        features: Callable[[Any], Tensor],
        passes: _Passes,
    ) -> None:
        if len(frames) < 2:
            raise ValueError(f"calibrate needs two frames or more, got {len(frames)}")
        self.model, self.frames, self._features, self._passes = model, frames, features, passes
        self.gates = model.gate_names
        self._known: dict[tuple[int, ...], _Outcome] = {}
        model.enabled = False
        self._dense = [features(model(frame)).float().clone() for frame in frames]
        model.enabled = True
        passes.add()
        self._size = sum(float(dense.square().sum()) for dense in self._dense[1:])
        if not 0 < self._size < math.inf:
            raise ValueError("the dense model's features are all zero, or not finite")
        self._state = model.new_state()
        model.set_policy(TopFraction(0.0))
        with model.using(self._state):
            for frame in frames[:2]:
                model(frame)
        norms = self._state.trace.gates[self.gates[0]].norms
        if norms is None:
            raise ValueError("the frames do not follow each other: the second one was computed in full")
        self.tokens = norms.shape[-1]

    def __call__(self, budgets: Mapping[str, float]) -> _Outcome:
        key = tuple(self.whole(budgets).values())
        if key not in self._known:
            self._known[key] = self._run(dict(zip(self.gates, key)))
        return self._known[key]

    def whole(self, budgets: Mapping[str, float]) -> dict[str, int]:
        """Budgets as gates have them."""
        return {name: max(0, min(self.tokens, round(budgets[name]))) for name in self.gates}

    def _run(self, budgets: Mapping[str, int]) -> _Outcome:
        return self.run(self.counts_policy(budgets))

    def counts_policy(self, budgets: Mapping[str, int]) -> PerGate:
        """The policy with so many tokens of each gate."""
        return PerGate({name: share_of_tokens(r, self.tokens) for name, r in budgets.items()})

    def run(self, policy: Policy, watch: Callable[[FrameTrace], None] | None = None) -> _Outcome:
        """What a policy does on all frames.

        Args:
            watch: called with the trace of each later frame.
        """
        self.model.set_policy(policy)
        self._state.reset()
        distance, macs = 0.0, 0
        with self.model.using(self._state), count_operations(self.model) as counts:
            for number, (frame, dense) in enumerate(zip(self.frames, self._dense)):
                counts.clear()
                features = self._features(self.model(frame)).float()
                if number:
                    distance += float((features - dense).square().sum())
                    macs += counts.backbone()
                    if watch is not None:
                        watch(self._state.trace)
        self._passes.add()
        later = (len(self.frames) - 1) * len(self.frames[0])
        return _Outcome(distance / self._size, macs / later / 1e9)


class _Search:
    """Looks for the budgets with the least change at a number of operations, or the other way round."""

    def __init__(self, trial: _Trial, passes: _Passes) -> None:
        self._trial, self._passes = trial, passes
        self._even = dict.fromkeys(trial.gates, 1.0)

    def at_cost(self, target: float, rounds: int) -> Budgets:
        """The budgets that change features least at 10^9 operations per frame."""
        trial = self._trial
        best = budgets = self._scale(self._even, target)
        self._passes.say(f"all gates alike: {self._describe(budgets)}")
        for number in range(1, rounds + 1):
            budgets = self._scale(self._exchange(budgets), target)
            self._passes.say(f"round {number}: {self._describe(budgets)}")
            if trial(budgets).change < trial(best).change:
                best = budgets
        return best

    def at_change(self, most: float, rounds: int) -> Budgets:
        """The cheapest budgets that change features by no more: those that are best at the cost at which all gates
        alike do so, made smaller in proportion."""
        alike = self._least(self._even, most)
        found = self.at_cost(self._trial(alike).gflops, rounds)
        cheaper = self._least(found, most)
        return min(alike, cheaper, key=lambda budgets: self._trial(budgets).gflops)

    def describe(self, budgets: Budgets) -> Calibration:
        """The budgets, and what they do."""
        trial = self._trial
        outcome = trial(budgets)
        uniform = self._scale(self._even, outcome.gflops)
        return Calibration(
            gates=trial.whole(budgets),
            tokens=trial.tokens,
            parameters=count_parameters(trial.model),
            gflops=outcome.gflops,
            change=outcome.change,
            uniform=trial.whole(uniform)[trial.gates[0]],
            uniform_change=trial(uniform).change,
        )

    def shared(self, found: Calibration, target: float) -> Calibration:
        """The same operations as a budget that gates and frames share: thresholds that let as many tokens through."""
        trial = self._trial
        learnt = self._usual_thresholds(found.gates)
        factor = self._threshold_factor(learnt, target)
        thresholds = {name: factor * threshold for name, threshold in learnt.items()}
        shared = replace(found, gflops=target, thresholds=thresholds)
        outcome = trial.run(shared.policy())
        self._passes.say(f"shared: {_words(outcome)}")
        return replace(shared, change=outcome.change)

    def _usual_thresholds(self, gates: Mapping[str, int]) -> dict[str, float]:
        """For each gate, the mean over frames of the largest error that its budget leaves behind.

        Raises ValueError, naming it, for a gate that saw no errors.
        """
        trial = self._trial
        sums = {name: torch.zeros(2, dtype=torch.float64, device="cpu") for name in trial.gates}

        def watch(trace: FrameTrace) -> None:
            for name in sums:
                norms = trace.gates[name].norms
                if norms is None:
                    raise ValueError(
                        f"no thresholds can be learnt: of {trial.tokens} tokens, gates take so many "
                        f"({gates[name]} at {name}) that a GPU computes them all; choose a lower target, or use a CPU"
                    )
                errors = norms.double().sort(dim=1, descending=True).values.mean(dim=0)
                sums[name] += errors[[0, min(gates[name], trial.tokens - 1)]].cpu()

        trial.run(trial.counts_policy(gates), watch)
        thresholds = {}
        for name, (largest, left) in ((name, errors.tolist()) for name, errors in sums.items()):
            if not largest > 0:
                raise ValueError(f"nothing moves at {name} in these frames: a shared budget needs some with motion")
            thresholds[name] = max(left, LEAST_LEFT * largest) / (len(trial.frames) - 1)
        return thresholds

    def _threshold_factor(self, thresholds: Mapping[str, float], target: float) -> float:
        """The factor of thresholds at which frames cost the target, to a hundredth."""
        low, high = 1 / FACTORS, FACTORS
        while high / low > 1 + TOLERANCE:
            middle = math.sqrt(low * high)
            policy = PerGate({name: Threshold(middle * threshold) for name, threshold in thresholds.items()})
            if self._trial.run(policy).gflops > target:
                low = middle
            else:
                high = middle
        return high

    def _least(self, shape: Budgets, max_change: float) -> Budgets:
        full = dict.fromkeys(self._trial.gates, float(self._trial.tokens))
        if not self._trial(full).change <= max_change:
            raise ValueError(f"a change of {max_change:g} is out of reach: all tokens: {self._trial(full).change:g}")
        return self._bisect(shape, lambda budgets: self._trial(budgets).change > max_change)[1]

    def _scale(self, shape: Budgets, target: float) -> Budgets:
        """The budgets in these proportions that cost at most the target."""
        least = self._trial(self._even).gflops
        if least > target:
            raise ValueError(f"{target:g} GFlops are out of reach: a token per gate takes {least:.4g}")
        return self._bisect(shape, lambda budgets: self._trial(budgets).gflops <= target)[0]

    def _bisect(self, shape: Budgets, is_below: Callable[[Budgets], bool]) -> tuple[Budgets, Budgets]:
        """The last budgets below a bound and the first ones beyond, in these proportions, to a hundredth."""
        tokens = self._trial.tokens

        def scaled(factor: float) -> Budgets:
            return {name: min(max(r * factor, 1.0), tokens) for name, r in shape.items()}

        low, high = 0.5 / max(shape.values()), tokens / min(shape.values())
        if is_below(scaled(high)):
            return scaled(high), scaled(high)
        while high / low > 1 + TOLERANCE and self._trial.whole(scaled(low)) != self._trial.whole(scaled(high)):
            middle = math.sqrt(low * high)
            if is_below(scaled(middle)):
                low = middle
            else:
                high = middle
        return scaled(low), scaled(high)

    def _exchange(self, budgets: Budgets) -> Budgets:
        """Budgets changed by what each gate's tokens bring for their cost."""
        now, ratios = self._trial(budgets), {}
        if now.change < LEAST_CHANGE:
            return budgets
        for name in self._trial.gates:
            more = min(max(budgets[name] * STEP, budgets[name] + 1), self._trial.tokens)
            after = self._trial({**budgets, name: more})
            bought = (after.gflops - now.gflops) / now.gflops
            gain = (now.change - after.change) / now.change
            ratios[name] = gain / bought if bought > 0 else 0.0
        mean = sum(max(ratio, 0.0) for ratio in ratios.values()) / len(ratios)
        if mean == 0:
            return budgets
        return {
            name: budgets[name] * min(max(max(ratio / mean, LEAST_RATIO) ** DAMPING, 1 / STEP), STEP)
            for name, ratio in ratios.items()
        }

    def _describe(self, budgets: Budgets) -> str:
        return _words(self._trial(budgets))


def _words(outcome: _Outcome) -> str:
    return f"features change by {100 * outcome.change:.3g} %"
