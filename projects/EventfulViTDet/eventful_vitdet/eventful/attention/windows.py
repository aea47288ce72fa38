"""Windowed attention that recomputes only windows with a changed token; in the others, nothing it reads has changed."""

from __future__ import annotations

import torch
from torch import Tensor

from ..buffer import TokenBuffer
from ..kernels import native
from ..selection import Selection
from ..state import StreamTensor
from ..step import Step
from .layer import Attention
from .layout import AttentionLayout


class TouchedWindowsAttention:
    """`exact` in windowed blocks: equal to `tokenwise`, for the cost of the windows that the selection touches.

    The touched windows of all streams are computed together.
    """

    def __init__(self, name: str, state_dtype: torch.dtype | None = None) -> None:
        self.buffer = TokenBuffer(f"{name}.qkv", state_dtype)
        self.output = StreamTensor(f"{name} attention output", state_dtype)

    def __call__(
        self, layer: Attention, rows: Tensor, selection: Selection, layout: AttentionLayout, step: Step
    ) -> Tensor:
        qkv = self.buffer(selection, rows)
        output = self.output.slots((*qkv.shape[:2], layer.proj.in_features), rows)
        if selection.index is None or step.fixed_sizes:
            output.copy_(layer.attend_to_state(qkv, rows.dtype, layout))
            self.count([len(layout.window_members)] * selection.streams, layer, layout, step)
        else:
            touched = self._recompute(selection, layer, qkv, output, layout, rows.dtype)
            self.count(touched, layer, layout, step)
        # The block's gate takes a copy of what it keeps; nobody writes to this.
        return output.to(rows.dtype)

    def memory(self, layer: Attention, layout: AttentionLayout, streams: int, like: Tensor) -> list[Tensor]:
        """The state of some streams: queries, keys and values (B, N, 3D), and attention's output (B, N, D)."""
        shape = (streams, layout.tokens)
        qkv = self.buffer.memory((*shape, layer.qkv.out_features), like)
        return [qkv, self.output.slots((*shape, layer.proj.in_features), like)]

    @staticmethod
    def _recompute(
        selection: Selection,
        layer: Attention,
        qkv: Tensor,
        output: Tensor,
        layout: AttentionLayout,
        dtype: torch.dtype,
    ) -> list[int]:
        """Bring the output (B, N, D) of the touched windows up to date; returns how many each stream has."""
        if native.usable(qkv) and dtype == torch.float32:
            problem = layer.native_problem(qkv.flatten(0, 1), layout)
            windows = (layout.window_of_token, layout.window_members)
            return native.attend_touched(problem, *windows, selection.index, output.flatten(0, 1))
        touched = touched_windows(selection, layout)
        stream, window = touched.nonzero(as_tuple=True)
        members = layout.window_members.to(qkv.device)[window]
        inside = members >= 0
        flat = members.clamp(min=0) + stream[:, None] * layout.tokens
        groups = qkv.flatten(0, 1)[flat].to(qkv.dtype if qkv.is_cuda else dtype)
        if any(layout.padding):
            groups[~inside] = 0 if layer.qkv.bias is None else layer.qkv.bias.to(groups.dtype)
        result = layer.attend_groups(groups, layout)
        output.view(-1, output.shape[-1])[flat[inside]] = result[inside].to(output.dtype)
        return touched.sum(dim=1).tolist()

    @staticmethod
    def count(windows: list[int], layer: Attention, layout: AttentionLayout, step: Step) -> None:
        """Count the computed windows of each stream: their shares of all, and the padding where there is some."""
        every = len(layout.window_members)
        step.count("matmul", [n * layer.product_macs(layout) // every for n in windows])
        step.count("position", [n * layer.position_macs(layout) // every for n in windows])
        step.count("add", [n * layer.bias_additions(layout) // every for n in windows])
        step.count("bias", [layer.padding_additions(layout) if n else 0 for n in windows])

    def clear(self) -> None:
        self.buffer.clear()
        self.output.clear()

    @property
    def nbytes(self) -> int:
        return self.buffer.nbytes + self.output.nbytes


def touched_windows(selection: Selection, layout: AttentionLayout) -> Tensor:
    """Which windows hold a selected token: boolean (B, windows)."""
    assert selection.index is not None
    windows = len(layout.window_members)
    place = layout.window_of_token.to(selection.index.device)[selection.index % selection.tokens]
    touched = torch.zeros(selection.streams * windows, dtype=torch.bool, device=selection.index.device)
    touched[selection.index // selection.tokens * windows + place] = True
    return touched.view(selection.streams, windows)
