"""A pre-norm Transformer block that can run densely or on the changed tokens alone (algorithm, section 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from .attention import Attention, AttentionLayout, make_attention
from .buffer import TokenBuffer
from .counting import each
from .gate import GATE_REFERENCES, GateInput, GateReference, TokenGate
from .linear import Linear
from .selection import Selection
from .step import Step

LAYER_NORM_EPS = 1e-6
MLP_ROWS = 1024


@dataclass(frozen=True)
class EventfulOptions:
    """How a model reuses what earlier frames computed."""

    attention: str = "exact"
    """`exact`, or one of the paper's modes for the global blocks: `full`, `query-key`, `tokenwise`."""
    gate_before_norm: bool = False
    """Gate the input of the layer norms instead of their output; the norm then runs on the selected tokens alone."""
    gate_reference: GateReference = "last-sent"
    """What a gate compares with: the value last sent on, or that of the previous frame (STGT baseline)."""
    state_dtype: torch.dtype | None = None
    """Storage type of references, buffers and attention state; None keeps the type of the tokens."""
    compute_dtype: torch.dtype | None = None
    """Type of the products of linear layers in inference; None is that of the parameters."""

    def __post_init__(self) -> None:
        if self.gate_reference not in GATE_REFERENCES:
            raise ValueError(
                f"gate_reference = {self.gate_reference!r} is unknown; choose one of "
                f"{', '.join(map(repr, GATE_REFERENCES))}"
            )


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2)
        if len(rows) <= MLP_ROWS or torch.is_grad_enabled() or x.is_cuda:
            return self.fc2(self.fc1.activated(x))
        # The hidden rows of a few hundred tokens are still in cache when they are read again.
        return torch.cat([self.fc2(self.fc1.activated(part)) for part in rows.split(MLP_ROWS)]).view(x.shape)


class Block(nn.Module):
    """Attention and MLP, each behind a layer norm, with residual connections.

    Both paths use the same parameters. The eventful path puts a gate and a buffer around each of the three token-wise
    functions: QKV, output projection, MLP. The residual stream itself is not gated.
    """

    def __init__(
        self,
        name: str,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        use_rel_pos: bool = False,
        window_size: int = 0,
        kv_pool: int = 1,
        token_grid: tuple[int, int],
        options: EventfulOptions,
    ) -> None:
        """
        Args:
            name: the block's name in messages.
            window_size: side of the attention windows in tokens; 0 makes the block global.
            kv_pool: pooling of keys and values in a global block.
            token_grid: (h, w) that relative position tables of a global block are made for.
        """
        super().__init__()
        self.window_size = window_size
        self.kv_pool = 1 if window_size else kv_pool
        table_grid = (window_size, window_size) if window_size else token_grid
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(dim, num_heads, qkv_bias, use_rel_pos, table_grid)
        self.drop_path = StochasticDepth(drop_path_rate, "row") if drop_path_rate > 0 else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

        for layer in self.layers():
            layer.compute_dtype = options.compute_dtype

        self._layout: AttentionLayout | None = None
        self.gate_before_norm = options.gate_before_norm
        self.state_dtype = options.state_dtype
        self.qkv_gate = TokenGate(f"{name} qkv gate", options.gate_reference, options.state_dtype)
        self.projection_gate = TokenGate(f"{name} projection gate", options.gate_reference, options.state_dtype)
        self.mlp_gate = TokenGate(f"{name} mlp gate", options.gate_reference, options.state_dtype)
        self.attention = make_attention(options.attention, window_size > 0, name, options.state_dtype)
        self.projection_buffer = TokenBuffer(f"{name} projection", options.state_dtype)
        self.mlp_buffer = TokenBuffer(f"{name} mlp", options.state_dtype)

    def layout(self, grid: tuple[int, int]) -> AttentionLayout:
        """How a token grid (h, w) is laid out for this block's attention."""
        if self._layout is None or self._layout.grid != grid:
            self._layout = AttentionLayout(grid, self.window_size, self.kv_pool)
        return self._layout

    def forward(self, x: Tensor, grid: tuple[int, int], step: Step) -> Tensor:
        """Dense path: (B, N, D) -> (B, N, D). Neither reads nor writes state."""
        layout = self.layout(grid)
        self._count_dense(layout, step)
        x = x + self.drop_path(self.attn.proj(self.attn.attend(self.attn.qkv(self.norm1(x)), layout)))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def forward_eventful(self, x: Tensor, grid: tuple[int, int], step: Step) -> Tensor:
        """Eventful path: (B, N, D) -> (B, N, D), updating the state of the batch's streams."""
        layout = self.layout(grid)
        selection, rows = self._gate_norm(self.qkv_gate, self.norm1, x, step)
        # Sums of attention, and the residual stream, are kept in the type of the tokens, whatever the products use.
        a = self.attention(self.attn, self.attn.qkv(rows).to(x.dtype), selection, layout, step)
        self.count_linears(selection, step, self.attn.qkv)

        selection, rows = self.projection_gate(a, step)
        x = self.projection_buffer.added_to(x, selection, self.attn.proj(rows))
        self.count_linears(selection, step, self.attn.proj)

        selection, rows = self._gate_norm(self.mlp_gate, self.norm2, x, step)
        x = self.mlp_buffer.added_to(x, selection, self.mlp(rows))
        self.count_linears(selection, step, self.mlp.fc1, self.mlp.fc2)
        self.count_residuals(layout, step)
        return x

    def _gate_norm(self, gate: TokenGate, norm: nn.LayerNorm, x: Tensor, step: Step) -> tuple[Selection, Tensor]:
        """Gate and layer norm in the order that the options ask for."""
        if self.gate_before_norm:
            selection, rows = gate(x, step)
            return selection, norm(rows)
        return gate(GateInput(x, norm), step)

    def layers(self) -> tuple[Linear, Linear, Linear, Linear]:
        """The linear layers in the order of their work: QKV, projection, and the two of the MLP."""
        return self.attn.qkv, self.attn.proj, self.mlp.fc1, self.mlp.fc2

    def parameters_in_order(self) -> list[nn.Parameter]:
        """All parameters that there are, much faster than by `parameters`."""
        modules = (self.norm1, self.norm2, *self.layers())
        found = [parameter for module in modules for parameter in (module.weight, module.bias) if parameter is not None]
        return [*found, self.attn.rel_pos_h, self.attn.rel_pos_w] if self.attn.use_rel_pos else found

    def clear(self) -> None:
        """Release the state of all streams."""
        for part in self._state_owners():
            part.clear()

    def state_bytes(self) -> int:
        """Bytes of state held for all streams."""
        return sum(part.nbytes for part in self._state_owners())

    def gates(self) -> dict[str, TokenGate]:
        """The block's gates by the name of what they guard."""
        return {"qkv": self.qkv_gate, "projection": self.projection_gate, "mlp": self.mlp_gate}

    def _state_owners(self) -> list:
        return [*self.gates().values(), self.attention, self.projection_buffer, self.mlp_buffer]

    # Counting, by the closed forms of the paper's evaluation.

    def _count_dense(self, layout: AttentionLayout, step: Step) -> None:
        if step.counts is None:
            return
        streams, attention = len(step.flush), self.attn
        everything = Selection.everything(streams, layout.tokens)
        self.count_linears(everything, step, *self.layers())
        step.count("matmul", each(streams, attention.product_macs(layout)))
        attention.count_position(layout, step)
        self.count_residuals(layout, step)

    @staticmethod
    def count_linears(selection: Selection, step: Step, *layers: nn.Linear) -> None:
        if step.counts is None:
            return
        for layer in layers:
            step.count("linear", [n * layer.in_features * layer.out_features for n in selection.counts])
            if layer.bias is not None:
                step.count("bias", [n * layer.out_features for n in selection.counts])

    def count_residuals(self, layout: AttentionLayout, step: Step) -> None:
        step.count("add", each(len(step.flush), 2 * layout.tokens * self.attn.proj.out_features))
