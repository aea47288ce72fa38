"""Later frames in one call of the compiled kernels (kernels/frame.cpp).

In a small model, going through gates, layers and buffers one by one in Python takes longer than their work. The usual
case is therefore also one call: all blocks, a fixed budget, `exact` attention, everything in float32. It computes what
the blocks compute one by one, with the same kernels, on the memory that gates, buffers and attention own.
"""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .attention import exact
from .attention.exact import ExactAttention, executed_macs
from .attention.layout import AttentionLayout
from .attention.windows import TouchedWindowsAttention
from .block import Block
from .kernels import native, structures
from .linear import Linear
from .selection import Selection
from .step import Step

FLOAT32 = (None, torch.float32)


class Watch:
    """Notices when blocks are no longer what they were: parameters, layers, hooks. Quick, as every frame asks."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._modules = [
            (holder._modules, name, module)
            for block in blocks
            for holder in (block, block.attn, block.mlp)
            for name, module in holder._modules.items()
        ]
        self._parameters = [
            (module._parameters, name)
            for block in blocks
            for module in block.modules()
            for name, parameter in module._parameters.items()
            if parameter is not None
        ]
        self._stamps = self._current_stamps()

    def unchanged(self) -> bool:
        return (
            all(modules.get(name) is module for modules, name, module in self._modules)
            and not any(module._forward_hooks or module._forward_pre_hooks for _, _, module in self._modules)
            and self._current_stamps() == self._stamps
        )

    def _current_stamps(self) -> list[tuple[int, int]]:
        found = [parameters.get(name) for parameters, name in self._parameters]
        return [(-1, -1) if p is None else (p.data_ptr(), p._version) for p in found]


@dataclass
class FramePlan:
    """The blocks as the kernels see them: where their parameters and their state lie."""

    blocks: ctypes.Array
    owners: list
    """Whatever must stay in memory for that."""
    watch: Watch
    shape: torch.Size
    """(B, N, D), what it was made for."""
    grid: tuple[int, int]


class NativeFrames:
    """Runs later frames of a model's blocks, where they are of the usual kind."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = blocks
        self._plan: FramePlan | None = None

    def clear(self) -> None:
        """Forget where the state lies."""
        self._plan = None

    def __deepcopy__(self, memo: dict) -> NativeFrames:
        return NativeFrames(copy.deepcopy(self._blocks, memo))  # with state of its own

    def suits(self, x: Tensor, step: Step) -> bool:
        """Whether a frame of tokens x (B, N, D) can be run."""
        count = step.policy.fixed_count(x.shape[1])
        return (
            count is not None
            and count < x.shape[1]
            and not any(step.flush)
            and not step.fixed_sizes
            and x.dtype == torch.float32
            and native.usable(x)
            and self._blocks_are_usual()
        )

    def _blocks_are_usual(self) -> bool:
        if self._plan is not None and self._plan.watch.unchanged():
            return True
        self._plan = None
        return len(self._blocks) > 0 and all(is_usual(block) for block in self._blocks)

    def run(self, x: Tensor, grid: tuple[int, int], step: Step) -> Tensor:
        """Run all blocks on tokens x (B, N, D), which are overwritten."""
        streams, tokens, channels = x.shape
        count, depth = step.policy.fixed_count(tokens), len(self._blocks)
        norms = x.new_empty(3 * depth, streams, tokens)
        index = torch.empty(3 * depth, streams * count, dtype=torch.int64)
        executed = (structures.LONG * (2 * streams * depth))()
        plan = self._current_plan(x, grid)
        hidden = self._blocks[0].mlp.fc1.out_features
        frame = structures.Frame(
            ctypes.addressof(plan.blocks), depth, streams, tokens, count, channels, hidden,
            count > exact.DENSE_ABOVE * tokens, torch.get_num_threads(),
            structures.Limits(exact.SCORE_LIMIT, exact.DRIFT_LIMIT, exact.TERM_ROUNDING),
            x.data_ptr(), norms.data_ptr(), index.data_ptr(), ctypes.addressof(executed),
        )  # fmt: skip
        if not native.function("run_frame")(ctypes.byref(frame)):
            # Weights were written to in a way that PyTorch does not show. Nothing has been computed yet.
            self.clear()
            return self.run(x, grid, step)
        selections = [Selection(streams, tokens, (count,) * streams, chosen) for chosen in index.unbind()]
        gates = [gate for block in self._blocks for gate in block.gates().values()]
        for gate, seen, selection in zip(gates, norms.unbind(), selections):
            gate.norms, gate.selection = seen, selection
        if step.counts is not None:
            for number, block in enumerate(self._blocks):
                work = executed[2 * streams * number : 2 * streams * (number + 1)]
                count_block(block, selections[3 * number], list(zip(work[::2], work[1::2])), grid, step)
        return x

    def _current_plan(self, x: Tensor, grid: tuple[int, int]) -> FramePlan:
        if self._plan is None or (self._plan.shape, self._plan.grid) != (x.shape, grid):
            self._plan = make_plan(self._blocks, x, grid)
        return self._plan


def is_usual(block: Block) -> bool:
    """Whether the kernels know this kind of block, and nobody wants to see its parts at work (hooks)."""
    layers = block.layers()
    return (
        isinstance(block.attention, (ExactAttention, TouchedWindowsAttention))
        and block.kv_pool == 1
        and not block.gate_before_norm
        and all(gate.reference == "last-sent" for gate in block.gates().values())
        and block.state_dtype in FLOAT32
        and all(type(layer) is Linear and layer.compute_dtype in FLOAT32 for layer in layers)
        and native.readable(*block.parameters())
        and native.knows_norm(block.norm1)
        and native.knows_norm(block.norm2)
        and type(block).forward_eventful is Block.forward_eventful
        and "forward_eventful" not in vars(block)
        and not any(module._forward_hooks or module._forward_pre_hooks for module in block.modules())
    )


def make_plan(blocks: Sequence[Block], x: Tensor, grid: tuple[int, int]) -> FramePlan:
    """Describe the blocks, whose state there is, for frames of tokens x (B, N, D)."""
    owners: list = []
    described = [_describe(block, x, block.layout(grid), owners) for block in blocks]
    return FramePlan((structures.Block * len(blocks))(*described), owners, Watch(blocks), x.shape, grid)


def _describe(block: Block, x: Tensor, layout: AttentionLayout, owners: list) -> structures.Block:
    buffers = [buffer.memory(tuple(x.shape), x) for buffer in (block.projection_buffer, block.mlp_buffer)]
    qkv, *state = block.attention.memory(block.attn, layout, x.shape[0], x)
    problem = block.attn.native_problem(qkv.flatten(0, 1), layout)
    windows, output, sums = structures.Windows(), None, structures.Sums()
    if layout.window:
        places, members = layout.window_of_token, layout.window_members
        windows = structures.Windows(places.data_ptr(), members.data_ptr(), len(members), layout.tokens)
        output = state[0].data_ptr()
        owners += [places, members]
    else:
        sums = structures.Sums(*(part.data_ptr() for part in state))
    owners += [*buffers, qkv, *state, problem]
    return structures.Block(
        _gate(block.qkv_gate.memory(x), block.norm1, owners),
        _gate(block.projection_gate.memory(x), None, owners),
        _gate(block.mlp_gate.memory(x), block.norm2, owners),
        *(_layer(layer, owners) for layer in block.layers()),
        qkv.data_ptr(),
        *(buffer.data_ptr() for buffer in buffers),
        problem.build(),
        windows,
        output,
        sums,
    )


def _gate(reference: Tensor, norm: nn.LayerNorm | None, owners: list) -> structures.Gate:
    owners.append(reference)
    return structures.Gate(reference.data_ptr(), native.norm_structure(norm))


def _layer(layer: Linear, owners: list) -> structures.Layer:
    packed = layer.packed_weight()
    owners.append(packed)
    bias = None if layer.bias is None else layer.bias.data_ptr()
    return structures.Layer(layer.weight.data_ptr(), packed.data_ptr(), bias)


def count_block(
    block: Block, selection: Selection, executed: list[tuple[int, int]], grid: tuple[int, int], step: Step
) -> None:
    """Count a block's frame; `executed` has what the kernel says of each stream's attention."""
    layout, layer, count = block.layout(grid), block.attn, selection.counts[0]
    step.count("gate", [3 * layout.tokens * layer.proj.in_features] * selection.streams)
    block.count_linears(selection, step, *block.layers())
    block.count_residuals(layout, step)
    if layout.window:
        block.attention.count([windows for windows, _ in executed], layer, layout, step)
        return
    for stream, (exchanged, recomputed) in enumerate(executed):
        if exchanged or recomputed:
            for category, macs in executed_macs(
                layer, layout, exchanged, count if exchanged else 0, recomputed
            ).items():
                step.count_stream(category, stream, macs)
