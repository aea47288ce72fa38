"""A frame on its way through a model: what goes in beside the tokens, and what comes out beside the features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .policies import Policy
from .selection import Selection

if TYPE_CHECKING:
    from .attention.layout import AttentionLayout
    from .block import BlockSpec
    from .streams import Streams


@dataclass(frozen=True)
class GateTrace:
    """What one gate saw and chose."""

    selection: Selection
    """Tokens that went on."""
    norms: Tensor | None
    """Error norms (B, N), infinite for streams that flushed; None if all did."""


@dataclass(frozen=True)
class AttentionWork:
    """What a block's attention executed."""

    kind: str
    """How it was computed: "dense", "query-key", "full", "exact", "windows", or "other" by code that is not known."""
    key_offsets: Tensor | None = None
    """Where each stream's changed keys begin in their list, and their number, (B + 1,); None if all changed."""
    executed: Tensor | None = None
    """exact: for each stream, (head, query) pairs whose terms were exchanged and that were recomputed, (B, 2).
    windows: windows computed, (B,)."""


@dataclass(frozen=True)
class BlockTrace:
    """What a block of B streams executed."""

    spec: BlockSpec
    layout: AttentionLayout
    attention: AttentionWork
    selections: tuple[Selection, Selection, Selection]
    """Tokens that ran through QKV, projection and MLP."""

    @classmethod
    def of_all(cls, spec: BlockSpec, layout: AttentionLayout, streams: int) -> BlockTrace:
        """All tokens, by dense attention."""
        kind = "dense" if spec.other_attention is None else "other"
        return cls(spec, layout, AttentionWork(kind), (Selection.everything(streams, layout.tokens),) * 3)


@dataclass(frozen=True)
class LayerWork:
    """Operations of layers around the blocks: so many MACs for each of so many positions, rows, or images."""

    category: str
    macs: int
    units: tuple[int, ...]
    """For each stream."""


@dataclass
class FrameTrace:
    """What a frame of B streams selected and executed.

    Tensors belong to the state that computed the frame; read them before its next frame.
    """

    flushed: tuple[bool, ...]
    """For each stream, whether it began, and was computed in full for that."""
    grid: tuple[int, int]
    """Tokens (h, w)."""
    gates: dict[str, GateTrace] = field(default_factory=dict)
    """By name, such as "blocks.0.qkv"; empty for a dense frame."""
    blocks: list[BlockTrace] = field(default_factory=list)
    layers: list[LayerWork] = field(default_factory=list)
    in_full: tuple[bool, ...] = ()
    """For each stream, whether it was computed in full; by default, those that began. On a GPU, large budgets do so."""

    def __post_init__(self) -> None:
        self.in_full = self.in_full or self.flushed

    def add_layer(self, category: str, macs: int, units: int | list[int]) -> None:
        """Note layers that ran: `macs` operations for each of `units`, the same number in all streams or one for
        each."""
        counts = (units,) * len(self.flushed) if isinstance(units, int) else tuple(units)
        self.layers.append(LayerWork(category, macs, counts))


@dataclass(frozen=True)
class GateBudget:
    """What a gate may choose, as numbers in memory (ops/gating.py)."""

    count: Tensor
    """() int64, tokens of each stream."""
    threshold: Tensor
    """() float32, a bound on their norms."""
    flush: Tensor | None
    """(B,) uint8, streams of which all tokens are chosen."""
    capacity: int
    """Room for the chosen tokens of all streams."""
    is_full: bool
    """Whether there will be as many."""

    @staticmethod
    @lru_cache(maxsize=256)
    def of(count: int, threshold: float, streams: int, device: torch.device) -> GateBudget:
        """A fixed budget without flushes."""
        # Filled where they are: a copy of a number from the host would wait for the GPU.
        numbers = torch.full((), count, device=device), torch.full((), threshold, dtype=torch.float32, device=device)
        return GateBudget(*numbers, None, streams * count, threshold == float("-inf"))

    @property
    def numbers(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """The tensors in the order that the operator takes them."""
        return self.count, self.threshold, self.flush


@dataclass(frozen=True)
class Frame:
    """What the parts of a model need to know about the frame being computed."""

    policy: Policy
    flush: tuple[bool, ...]
    """For each stream, whether this frame is computed in full and sets all state."""
    state: Streams
    trace: FrameTrace
    budget: Mapping[str, GateBudget] | None = None
    """What each gate may choose, in memory that a recorded frame reads again; None: as the policy says."""

    def slots(self, name: str, shape: tuple[int, ...], like: Tensor, dtype=None) -> Tensor:
        """A state tensor of the frame's streams, (B, *shape)."""
        return self.state.slots(name, (len(self.flush), *shape), dtype or like.dtype, like.device)
