"""One pre-norm Transformer block: the way of a token through it, densely and on changed tokens (paper, figure 3).

A model describes its blocks by `BlockSpec`; `EventfulBlock` runs any of them. Everything that a block may consist of
stands here once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real
from typing import Union

import torch
from torch import Tensor, nn

from . import ops
from .attention.core import AttentionSpec
from .attention.layout import AttentionLayout, attention_layout
from .attention.modes import make_core
from .attention.rotary import RotaryTables
from .buffer import TokenBuffer
from .frame import AttentionWork, BlockTrace, Frame, FrameTrace
from .gate import GATE_REFERENCES, GateReference, TokenGate
from .layers import Linear, MlpParts, Norm, call, is_plain, run_linear, run_mlp, run_norm, type_of_rows
from .selection import Selection

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""Types of state and of products."""


@dataclass(frozen=True)
class EventfulOptions:
    """How a model reuses what earlier frames computed."""

    attention: str = "exact"
    """`exact`, or one of the paper's modes for the global blocks: `full`, `query-key`, `tokenwise`."""
    gate_before_norm: bool = False
    """Gate the input of the layer norms instead of their output; the norm then runs on the selected tokens only."""
    gate_reference: GateReference = "last-sent"
    """What a gate compares with: the value last sent on, or that of the previous frame (STGT baseline)."""
    state_dtype: torch.dtype | None = None
    """Storage type of references, buffers and attention state; None keeps the type of the tokens."""
    compute_dtype: torch.dtype | None = None
    """Type of the products of linear layers in inference; None is that of the parameters."""
    gpu_crossover: float | None = None
    """Share of a frame's tokens: with budgets from there on, a GPU computes frames in full. None: what was measured on
    an H200 (encoder.py); above 1: never."""

    def __post_init__(self) -> None:
        if self.gate_reference not in GATE_REFERENCES:
            raise ValueError(
                f"gate_reference = {self.gate_reference!r} is unknown; choose one of "
                f"{', '.join(map(repr, GATE_REFERENCES))}"
            )
        for name in ("state_dtype", "compute_dtype"):
            dtype = getattr(self, name)
            if dtype is not None and not isinstance(dtype, torch.dtype):
                raise TypeError(f"{name} needs a type such as torch.bfloat16, or None, got {dtype!r}")
            if dtype not in (None, *FLOATS):
                raise ValueError(f"{name} = {dtype} is not supported; choose one of {', '.join(map(str, FLOATS))}")
        share = self.gpu_crossover
        if share is not None and (isinstance(share, bool) or not isinstance(share, Real)):
            raise TypeError(f"gpu_crossover needs a share of a frame's tokens, or None, got {share!r}")
        if share is not None and not share >= 0:  # NaN fails this too
            raise ValueError(f"gpu_crossover needs a share of a frame's tokens, 0 or more, got {share!r}")


Scale = Union[nn.Module, Tensor, None]
"""LayerScale: a factor for each channel (D,), or a module."""


@dataclass(frozen=True)
class BlockSpec:
    """What a block consists of. Modules stay where the model has them, with their parameters and names.

    All of them but the attention work on single tokens: they take and return rows (..., channels).
    """

    dim: int
    """D, channels of a token."""
    heads: int
    head_dim: int
    """d, channels of a head."""
    norm1: Norm
    qkv: Linear
    """(..., D) -> (..., 3 H d): queries, keys and values side by side, the heads of each one after the other."""
    projection: Linear
    """(..., H d) -> (..., D)."""
    norm2: Norm
    mlp: MlpParts | nn.Module
    scale: float | None = None
    """Of the scores; None: d^-0.5."""
    rel_pos: tuple[Tensor, ...] = ()
    """Tables of decomposed relative positions along rows and columns (attention/position.py)."""
    query_norm: Norm | None = None
    """Norms of the queries and keys of each head, (..., H, d)."""
    key_norm: Norm | None = None
    rotary: RotaryTables | None = None
    projection_norm: Norm | None = None
    """Norm of what goes into the output projection."""
    layer_scale1: Scale = None
    """What scales the two branches before they are added."""
    layer_scale2: Scale = None
    drop_path: nn.Module | None = None
    """Stochastic depth, in training."""
    window: int = 0
    """Side of the attention windows in tokens; 0: every token attends to all."""
    kv_pool: int = 1
    """Keys and values are averaged over kv_pool x kv_pool tokens."""
    prefix: int = 0
    """Class and register tokens before those of the grid; only without windows, pooling and relative positions."""
    other_attention: Callable[[Tensor], Tensor] | None = None
    """Attention by code that is not known, on windows or grids (G, a, b, D) of normalised tokens; with prefix tokens,
    on (B, N, 1, D). It runs on all tokens of every frame."""
    after: nn.Module | None = None
    """A layer on the whole map (B, D, h, w) behind the block. It runs in every frame."""

    def adds_plainly(self, scale: Scale) -> bool:
        """Whether a branch is added to the residual stream as it is: not scaled, and not dropped."""
        return scale is None and not self.drops_branches

    @property
    def drops_branches(self) -> bool:
        """Whether stochastic depth is at work."""
        return self.drop_path is not None and self.drop_path.training and type(self.drop_path) is not nn.Identity

    def layout(self, grid: tuple[int, int]) -> AttentionLayout:
        """How the tokens of a grid (h, w) are laid out for attention."""
        if self.prefix:
            return attention_layout(self.prefix + grid[0] * grid[1], 1)
        return attention_layout(*grid, self.window, self.kv_pool)


class EventfulBlock:
    """Runs a block, and owns the names of its gates and state."""

    def __init__(self, name: str, options: EventfulOptions) -> None:
        """
        Args:
            name: such as "blocks.0".
        """
        settings = (options.gate_reference, options.state_dtype)
        self.name = name
        self.options = options
        self.qkv_gate = TokenGate(f"{name}.qkv", *settings)
        self.global_attention = make_core(options.attention, False, name, options.state_dtype)
        self.windowed_attention = make_core(options.attention, True, name, options.state_dtype)
        self.projection_gate = TokenGate(f"{name}.projection", *settings)
        self.projection_buffer = TokenBuffer(f"{name}.projection", options.state_dtype)
        self.mlp_gate = TokenGate(f"{name}.mlp", *settings)
        self.mlp_buffer = TokenBuffer(f"{name}.mlp", options.state_dtype)

    @property
    def gates(self) -> tuple[TokenGate, TokenGate, TokenGate]:
        """The gates in the order of their work."""
        return self.qkv_gate, self.projection_gate, self.mlp_gate

    # Densely.

    def dense(self, spec: BlockSpec, x: Tensor, grid: tuple[int, int], trace: FrameTrace | None) -> Tensor:
        """All tokens: (B, N, D) -> (B, N, D). Neither reads nor writes state; differentiable."""
        layout = spec.layout(grid)
        x = self._dense_attention(spec, x, layout)
        x = self._mlp(spec, run_norm(spec.norm2, x, self._type_of_rows(spec.mlp)), x)
        if trace is not None:
            trace.blocks.append(BlockTrace.of_all(spec, layout, len(x)))
        return self._after(spec, x, grid)

    def _dense_attention(self, spec: BlockSpec, x: Tensor, layout: AttentionLayout) -> Tensor:
        if spec.other_attention is not None:
            y = run_norm(spec.norm1, x)
            return self._with_branch(spec, x, spec.layer_scale1, _attend_by(spec.other_attention, y, layout))
        y = run_norm(spec.norm1, x, self._type_of_rows(spec.qkv))
        qkv = self._queries_keys_values(spec, y, None, layout)
        return self._project(spec, self._attention_spec(spec, layout, x).attend(qkv, qkv.dtype, layout), x)

    # On changed tokens.

    def eventful(self, spec: BlockSpec, x: Tensor, grid: tuple[int, int], frame: Frame) -> Tensor:
        """Changed tokens only: (B, N, D) -> (B, N, D), updating the state of the frame's streams. x may be
        overwritten."""
        layout, added = spec.layout(grid), None
        if spec.other_attention is None:
            complete = self._completed(frame)
            picked1, rows = self._gate(self.qkv_gate, spec.norm1, spec.qkv, x, None, complete)
            rows = self._queries_keys_values(spec, rows, picked1, layout)
            attention = self.windowed_attention if spec.window else self.global_attention
            a, work = attention(self._attention_spec(spec, layout, x), rows, picked1, layout, complete)
            dtype = None if spec.projection_norm is not None else self._type_of_rows(spec.projection)
            picked2, rows = self.projection_gate(a, complete, dtype=dtype or x.dtype)
            rows = self._project(spec, rows, used=picked2.used)
            added = self.projection_buffer.store(rows, picked2, complete, x.dtype)
        else:
            frame.state.note_missing(self.name, len(x))
            picked1 = picked2 = Selection.everything(*x.shape[:2])
            work = AttentionWork("other")
            x = self._dense_attention(spec, x, layout)

        picked3, rows = self._gate(self.mlp_gate, spec.norm2, spec.mlp, x, added, frame)
        self.mlp_buffer.add_to(x, self._mlp(spec, rows, used=picked3.used), picked3, frame)
        frame.trace.blocks.append(BlockTrace(spec, layout, work, (picked1, picked2, picked3)))
        return self._after(spec, x, grid)

    def _completed(self, frame: Frame) -> Frame:
        """The frame as this block's attention has to compute it: in full for streams for which other code, such as a
        module that was hooked into, computed it last."""
        missing = frame.state.take_missing(self.name, len(frame.flush))
        if not missing:
            return frame
        return replace(frame, flush=tuple(i in missing or flush for i, flush in enumerate(frame.flush)), budget=None)

    def _gate(
        self, gate: TokenGate, norm: Norm, layer: Linear | MlpParts, x: Tensor, added: Tensor | None, frame: Frame
    ) -> tuple[Selection, Tensor]:
        """Gate and layer norm in the order that the options ask for, to rows for a layer."""
        dtype = self._type_of_rows(layer)
        if not self.options.gate_before_norm:
            return gate(x, frame, norm, added, dtype)
        selection, rows = gate(x, frame, None, added)
        return selection, run_norm(norm, rows, dtype)

    # What both share: from rows of channels to rows of channels.

    def _type_of_rows(self, layer: Linear | MlpParts) -> torch.dtype | None:
        return type_of_rows(layer, self.options.compute_dtype)

    def _queries_keys_values(
        self, spec: BlockSpec, rows: Tensor, selection: Selection | None, layout: AttentionLayout
    ) -> Tensor:
        """Normalised tokens to [q | k | v]."""
        used = None if selection is None else selection.used
        qkv = run_linear(spec.qkv, rows, self.options.compute_dtype, used=used)
        if spec.query_norm is None and spec.key_norm is None and spec.rotary is None:
            return qkv
        q, k, v = qkv.unflatten(-1, (3, spec.heads, -1)).unbind(-3)
        q = q if spec.query_norm is None else run_norm(spec.query_norm, q)
        k = k if spec.key_norm is None else run_norm(spec.key_norm, k)
        if spec.rotary is not None:
            everything = selection is None
            places = torch.arange(layout.tokens, device=q.device) if everything else selection.places(q.device)
            q, k = spec.rotary.turn(q, places), spec.rotary.turn(k, places)
        return torch.stack([q, k, v], dim=-3).flatten(-3)

    def _attention_spec(self, spec: BlockSpec, layout: AttentionLayout, x: Tensor) -> AttentionSpec:
        padding = self._padding(spec, layout, x) if any(layout.padding) else None
        scale = spec.head_dim**-0.5 if spec.scale is None else spec.scale
        return AttentionSpec(spec.heads, scale, x.dtype, spec.rel_pos, padding)

    def _padding(self, spec: BlockSpec, layout: AttentionLayout, x: Tensor) -> Tensor | None:
        """[q | k | v] of a padding token, which is a zero token: of a linear layer, its bias."""
        if is_plain(spec.qkv, nn.Linear) and spec.query_norm is None and spec.key_norm is None:
            return spec.qkv.bias
        return self._queries_keys_values(spec, x.new_zeros(1, x.shape[-1]), None, layout).squeeze(0)

    def _project(
        self, spec: BlockSpec, rows: Tensor, residual: Tensor | None = None, used: Tensor | None = None
    ) -> Tensor:
        """The output projection; of all tokens, with the residual stream added."""
        added = residual if spec.adds_plainly(spec.layer_scale1) else None
        rows = rows if spec.projection_norm is None else run_norm(spec.projection_norm, rows)
        result = run_linear(spec.projection, rows, self.options.compute_dtype, added=added, used=used)
        if residual is None or added is not None:
            return result if added is not None else self._scaled(spec.layer_scale1, result)
        return self._with_branch(spec, residual, spec.layer_scale1, result)

    def _mlp(self, spec: BlockSpec, rows: Tensor, residual: Tensor | None = None, used: Tensor | None = None) -> Tensor:
        """The MLP; of all tokens, with the residual stream added."""
        plain = isinstance(spec.mlp, MlpParts)
        added = residual if plain and spec.adds_plainly(spec.layer_scale2) else None
        result = run_mlp(spec.mlp, rows, self.options.compute_dtype, added, used) if plain else call(spec.mlp, rows)
        if residual is None or added is not None:
            return result if added is not None else self._scaled(spec.layer_scale2, result)
        return self._with_branch(spec, residual, spec.layer_scale2, result)

    def _with_branch(self, spec: BlockSpec, residual: Tensor, scale: Scale, y: Tensor) -> Tensor:
        """The residual stream, which keeps its type, with a branch added."""
        y = self._scaled(scale, y)
        y = y if spec.drop_path is None else spec.drop_path(y)
        return residual + y.to(residual.dtype)

    def _scaled(self, scale: Scale, rows: Tensor) -> Tensor:
        if scale is None:
            return rows
        return ops.scale_channels(rows, scale) if isinstance(scale, Tensor) else call(scale, rows)

    def _after(self, spec: BlockSpec, x: Tensor, grid: tuple[int, int]) -> Tensor:
        if spec.after is None:
            return x
        maps = call(spec.after, x.transpose(1, 2).unflatten(2, grid))
        return maps.flatten(2).transpose(1, 2).contiguous()


def _attend_by(attention: Callable[[Tensor], Tensor], x: Tensor, layout: AttentionLayout) -> Tensor:
    """Attention of a module that takes windows or grids: (B, N, D) -> (B, N, D)."""
    groups = layout.partition(x, None)
    out = call(attention, groups.unflatten(1, layout.query_grid))
    return layout.merge(out.flatten(1, 2))
