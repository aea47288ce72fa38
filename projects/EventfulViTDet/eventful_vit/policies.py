"""Policies: which tokens a gate lets through (paper, section 4.3).

A policy looks at one number per token, the L2 norm of the token's error (how far it moved since it was last sent
on), and marks the tokens to update. Policies hold no state, so one may replace another between any two frames; what one
has to remember of a video is kept with the video's state (`Policy.next`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from numbers import Integral
from operator import index
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .ops.gating import largest_above

if TYPE_CHECKING:
    from .frame import FrameTrace


class Policy:
    """Base class: a rule that turns error norms into a choice of tokens."""

    def choose(self, norms: Tensor) -> Tensor:
        """Mark the tokens to update.

        Args:
            norms: error norms, (B, N), one row per stream.

        Returns:
            Boolean mask (B, N); every row is chosen independently of the others.
        """
        limits = _checked_limits(self, norms.shape[-1])
        if limits is None:
            raise NotImplementedError(f"{type(self).__name__} needs choose() or limits()")
        return largest_above(norms, *limits)

    def limits(self, tokens: int) -> tuple[int, float] | None:
        """The policy as two numbers: at most so many of a stream's N tokens, those with the largest norms, and only
        norms above a threshold. None for a policy that is not of this kind; `choose` then decides, as it does in a
        subclass that replaces it."""
        return None

    def for_gate(self, name: str, tokens: int) -> Policy:
        """The policy of one gate.

        Args:
            name: the gate, such as "blocks.3.mlp".
            tokens: N, tokens of a stream.
        """
        return self

    def next(self, memory: Any, trace: FrameTrace | None) -> tuple[Policy, Any]:
        """The policy of the next frame of some streams, for policies that learn from earlier ones.

        Args:
            memory: what this returned for the last frame of these streams; None before their first one. It may be of
                another policy, which decided then.
            trace: that frame's; None if it is not known, or was asked about before.

        Returns:
            A policy that says the same for all of the frame, and what to remember.
        """
        return self, None

    def check(self, gates: Sequence[str]) -> None:
        """Raise ValueError if this policy does not suit a model with these gates."""


def learns(policy: Policy) -> bool:
    """Whether a policy says what it does after what it remembers of earlier frames (`Policy.next`)."""
    return type(policy).next is not Policy.next


def limits_of(policy: Policy, tokens: int) -> tuple[int, float] | None:
    """`policy.limits`, checked; None where `choose` decides."""
    return None if _replaces_choose(type(policy)) else _checked_limits(policy, tokens)


@lru_cache(maxsize=256)
def _replaces_choose(kind: type[Policy]) -> bool:
    """Whether `choose` was written for a class below that of `limits`, and so may say something else."""
    for each in kind.__mro__:
        if "limits" in vars(each):
            return False
        if "choose" in vars(each):
            return True
    return False


def _checked_limits(policy: Policy, tokens: int) -> tuple[int, float] | None:
    """Kernels rely on these numbers, and a policy may be anyone's."""
    limits = policy.limits(tokens)
    if limits is None:
        return None
    count, threshold = limits if isinstance(limits, Sequence) and len(limits) == 2 else (None, None)
    is_number = hasattr(threshold, "__float__") and not math.isnan(threshold)
    if not (isinstance(count, Integral) and count >= 0 and is_number):
        name = f"{type(policy).__name__}.limits()"
        raise ValueError(f"{name} must give a whole number of tokens, 0 or more, and a threshold; found {limits}")
    return min(int(count), tokens), float(threshold)


def choice_of(policy: Policy, norms: Tensor) -> Tensor:
    """`policy.choose`, checked: kernels write to the places that are marked, and a policy may be anyone's."""
    chosen = policy.choose(norms)
    if isinstance(chosen, Tensor) and chosen.dtype is torch.bool and chosen.shape == norms.shape:
        return chosen
    found = f"{chosen.dtype} {tuple(chosen.shape)}" if isinstance(chosen, Tensor) else repr(chosen)
    raise ValueError(
        f"{type(policy).__name__}.choose() must give a boolean mask of the shape of the norms, {tuple(norms.shape)}; "
        f"found {found}"
    )


@dataclass(frozen=True)
class TopR(Policy):
    """The r tokens with the largest error: a fixed cost per frame.

    r = 0 reuses everything, r >= N updates everything.
    """

    r: int

    def __post_init__(self) -> None:
        if isinstance(self.r, bool) or not hasattr(self.r, "__index__"):
            raise TypeError(f"TopR needs a whole number of tokens, got {self.r!r}")
        object.__setattr__(self, "r", index(self.r))  # an array of one number could be written to later
        if self.r < 0:
            raise ValueError(f"TopR needs r >= 0 tokens, got r = {self.r}")

    def limits(self, tokens: int) -> tuple[int, float]:
        return min(self.r, tokens), -math.inf

    def __str__(self) -> str:
        return f"top-r {self.r}"


@dataclass(frozen=True)
class TopFraction(Policy):
    """The floor(fraction * N) tokens with the largest error: a fixed cost, relative to the frame's size."""

    fraction: float

    def __post_init__(self) -> None:
        _keep_as_number(self, "fraction")
        if not 0.0 <= self.fraction <= 1.0:  # NaN fails this too
            raise ValueError(f"TopFraction needs a fraction between 0 and 1, got {self.fraction!r}")

    def limits(self, tokens: int) -> tuple[int, float]:
        return math.floor(self.fraction * tokens), -math.inf

    def __str__(self) -> str:
        return f"fraction {_write_number(self.fraction)}"


@dataclass(frozen=True)
class Threshold(Policy):
    """All tokens whose error norm exceeds a threshold: the cost follows the content."""

    threshold: float
    at_most: float = 1.0
    """Share of a frame's tokens; if more exceed the threshold, those with the largest errors are updated."""

    def __post_init__(self) -> None:
        _keep_as_number(self, "threshold")
        _keep_as_number(self, "at_most")
        if math.isnan(self.threshold):
            raise ValueError("Threshold needs a number, got NaN")
        if not 0.0 <= self.at_most <= 1.0:  # NaN fails this too
            raise ValueError(f"Threshold needs at_most between 0 and 1, got {self.at_most!r}")

    def limits(self, tokens: int) -> tuple[int, float]:
        return math.floor(self.at_most * tokens), self.threshold

    def __str__(self) -> str:
        bound = "" if self.at_most == 1 else f", at most {_write_number(self.at_most)} of the tokens"
        return f"threshold {_write_number(self.threshold)}{bound}"


@dataclass(frozen=True)
class PerGate(Policy):
    """A policy for each gate, by its name.

    Gates are named blocks.<number>.{qkv,projection,mlp}. Names may have wildcards (`*`, `?`); the first that matches
    counts.

    Example:
        >>> policy = PerGate({"blocks.0.*": TopR(512), "*.mlp": TopR(128), "*": TopR(256)})
        >>> str(policy.for_gate("blocks.5.mlp", tokens=4096))
        'top-r 128'
    """

    gates: Mapping[str, Policy]
    title: str = ""
    """What to call it where that is shown, in place of the list of its gates. It must tell budgets apart."""

    def __post_init__(self) -> None:
        for name, policy in self.gates.items():
            if not isinstance(policy, Policy) or isinstance(policy, PerGate):
                raise TypeError(f"PerGate needs a policy such as TopR(256) for {name!r}, got {policy!r}")
            if learns(policy) or type(policy).for_gate is not Policy.for_gate:
                raise TypeError(
                    f"PerGate needs a policy that is the same for all gates and frames, such as TopR(256), for "
                    f"{name!r}; a {type(policy).__name__} decides for gates by itself, or learns from frames"
                )

    def __eq__(self, other: object) -> bool:
        """With the order of the gates, as the first name that matches counts."""
        if type(other) is not type(self):
            return NotImplemented
        return (list(self.gates.items()), self.title) == (list(other.gates.items()), other.title)

    def __hash__(self) -> int:
        """Without the gates' policies, which may be exchanged in place."""
        return hash((tuple(self.gates), self.title))

    def for_gate(self, name: str, tokens: int) -> Policy:
        return self.gates[_first_match(tuple(self.gates), name)]

    def check(self, gates: Sequence[str]) -> None:
        for pattern in self.gates:
            if not any(fnmatchcase(gate, pattern) for gate in gates):
                raise ValueError(f"{pattern!r} names no gate; this model has {gates[0]} to {gates[-1]}")
        for gate in gates:
            if not any(fnmatchcase(gate, pattern) for pattern in self.gates):
                raise ValueError(f"no policy for gate {gate!r}; add one under '*' for all gates that are not named")

    def __str__(self) -> str:
        return self.title or "per gate " + ", ".join(f"{name}: {policy}" for name, policy in self.gates.items())


@lru_cache(maxsize=4096)
def _first_match(patterns: tuple[str, ...], gate: str) -> str:
    """The first of some patterns that a gate's name matches."""
    for pattern in patterns:
        if fnmatchcase(gate, pattern):
            return pattern
    raise KeyError(f"no policy for gate {gate!r}")


_FIXED = (TopR, TopFraction, Threshold)
"""Policies that say the same in every frame."""


def fixed_form(policy: Policy) -> Policy | tuple | None:
    """A value that is equal for two policies only if they say the same in every frame; None for those of which nobody
    can know."""
    if type(policy) in _FIXED:
        return policy
    if type(policy) is PerGate and all(type(each) in _FIXED for each in policy.gates.values()):
        return tuple(policy.gates.items())
    return None


def _keep_as_number(policy: Policy, name: str) -> None:
    """Make a number of an attribute: an array of one could be written to later."""
    value = getattr(policy, name)
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise TypeError(f"{type(policy).__name__} needs a number, got {value!r}")
    object.__setattr__(policy, name, float(value))


def _write_number(value: float) -> str:
    """A number as short as possible, from which it can be read again."""
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))
