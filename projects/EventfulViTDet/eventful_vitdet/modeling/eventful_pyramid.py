"""The feature pyramid and the proposal network's convolutions, recomputed only where the backbone's output changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.vit import SimpleFeaturePyramid
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from torch import Tensor, nn

from ..eventful.counting import CountsOperations
from ..eventful.gate import TokenGate
from ..eventful.policies import Policy
from ..eventful.selection import Selection
from ..eventful.step import Step
from .incremental_convolution import IncrementalConvolution
from .token_layers import make_token_layers


class PyramidGate(TokenGate):
    """The gate at the backbone's output. It counts as part of the pyramid, not of the paper's backbone figure."""

    def __call__(self, c: Tensor, step: Step) -> tuple[Selection, Tensor]:
        """Gate one frame: the selection, and all tokens (B, N, D) as they were last sent on.

        The tokens are the gate's own state: read them, never write to them.
        """
        selection, _ = super().__call__(c, replace(step, counts=None))
        step.count("pyramid", [0 if flush else c[0].numel() for flush in step.flush])
        return selection, self._u.slots(tuple(c.shape), c)


@dataclass(frozen=True)
class FrameMaps:
    """What the rest of the detector needs of a frame. The tensors are state: read them before the next frame."""

    features: dict[str, Tensor]
    """The pyramid's maps by name, (B, C, H, W)."""
    logits: list[Tensor]
    """Objectness of the anchors of each of the proposal network's levels, (B, H * W * A)."""
    deltas: list[Tensor]
    """Their deltas, (B, H * W * A, 4)."""


@dataclass(frozen=True)
class _Map:
    """A map as rows (B, H * W, C), and which positions may have changed, (B, H, W)."""

    rows: Tensor
    changed: Tensor

    def as_image(self) -> Tensor:
        """(B, C, H, W), a view."""
        return self.rows.unflatten(1, self.changed.shape[1:]).permute(0, 3, 1, 2)


class EventfulPyramid(CountsOperations):
    """An eventful path through a SimpleFeaturePyramid and the head of an RPN, over their parameters.

    A gate selects the tokens of the backbone's output that changed. Every layer recomputes what these can reach and
    keeps the rest, so the results are those of the dense layers on the gate's reference, to rounding. It has no
    parameters of its own, and calls neither the pyramid nor the head.
    """

    def __init__(
        self, backbone: SimpleFeaturePyramid, proposal_generator: nn.Module, policy: Policy | None = None
    ) -> None:
        """
        Args:
            backbone: a simple feature pyramid, with LastLevelMaxPool or nothing on top.
            proposal_generator: Detectron2's RPN with its standard head.
            policy: which tokens to update; None follows the backbone's policy.

        Raises:
            ValueError: layers that cannot be updated in parts.
        """
        super().__init__()
        _check_detector(backbone, proposal_generator)
        self.enabled = True
        """Whether VideoRCNN takes this path; may be changed between any two frames."""
        self.policy = policy
        self.gate = PyramidGate("pyramid gate")
        names = list(backbone.output_shape())
        self._stages = {name: _Stage(name, stage) for name, stage in zip(names, backbone.stages)}
        self._top_name, self._below_top = _top_level(backbone.top_block, names)
        self._heads = {name: _RPNHead(name, proposal_generator.rpn_head) for name in proposal_generator.in_features}
        self._live: list[bool] = []
        self._grid: tuple[int, int] | None = None

    # State outlives the call, so it must not be made of inference tensors (as in EventfulViT).
    @torch.inference_mode(False)
    @torch.no_grad()
    def forward(self, features: Tensor, flushed: Sequence[bool], backbone_policy: Policy) -> FrameMaps:
        """Everything up to the proposals, for one frame per stream.

        Args:
            features: the backbone's output, (B, D, h, w).
            flushed: for each stream, whether the backbone began a sequence with this frame.
            backbone_policy: the backbone's policy, for a pyramid without one of its own.
        """
        grid = (features.shape[2], features.shape[3])
        step = self._begin(grid, flushed, self.policy or backbone_policy)
        selection, tokens = self.gate(features.flatten(2).transpose(1, 2), step)
        changed = selection.mask(tokens.device).unflatten(1, grid)
        maps = {name: stage(tokens, changed, step) for name, stage in self._stages.items()}
        maps |= self._top(maps)
        predictions = [head(maps[name], step) for name, head in self._heads.items()]
        self._live[: len(flushed)] = [True] * len(flushed)
        return FrameMaps(
            features={name: level.as_image() for name, level in maps.items()},
            logits=[logits.flatten(1) for logits, _ in predictions],
            deltas=[deltas.unflatten(2, (-1, 4)).flatten(1, 2) for _, deltas in predictions],
        )

    def reset(self, streams: Sequence[int] | None = None) -> None:
        """Forget some streams, or all and their memory: their next frame is computed in full."""
        if streams is None:
            self._live = []
            self._grid = None
            for owner in (self.gate, *self._stages.values(), *self._heads.values()):
                owner.clear()
        for stream in streams or ():
            if stream < len(self._live):
                self._live[stream] = False

    def state_bytes(self) -> int:
        """Bytes of state held for all streams."""
        return sum(owner.nbytes for owner in (self.gate, *self._stages.values(), *self._heads.values()))

    def _begin(self, grid: tuple[int, int], flushed: Sequence[bool], policy: Policy) -> Step:
        if grid != self._grid:
            self.reset()
            self._grid = grid
        streams = len(flushed)
        live = (self._live + [False] * streams)[:streams]
        # An interrupted frame leaves half of the state behind: these streams are live again only at its end.
        self._live[:streams] = [False] * streams
        return Step(policy, tuple(flush or not alive for flush, alive in zip(flushed, live)), self.counts)

    def _top(self, maps: dict[str, _Map]) -> dict[str, _Map]:
        """The level above the last stage: every second line and column of one of the maps."""
        if self._top_name is None:
            return {}
        below = maps[self._below_top]
        rows = below.rows.unflatten(1, below.changed.shape[1:])[:, ::2, ::2].flatten(1, 2)
        return {self._top_name: _Map(rows, below.changed[:, ::2, ::2])}


class _Stage:
    """One stage of the pyramid: from tokens to a map."""

    def __init__(self, name: str, layers: nn.Sequential) -> None:
        *before, convolution = layers
        self._token_layers = make_token_layers(f"pyramid {name}", before)
        self._convolution = IncrementalConvolution(f"pyramid {name}", convolution, "pyramid")

    def __call__(self, tokens: Tensor, changed: Tensor, step: Step) -> _Map:
        """Bring the map up to date, given all tokens (B, h * w, D) and which of them changed, (B, h, w)."""
        inputs = self._token_layers(tokens, changed, step)
        (rows,), reached = self._convolution(inputs, self._token_layers.mark(changed), step)
        return _Map(rows, reached)

    def clear(self) -> None:
        self._token_layers.clear()
        self._convolution.clear()

    @property
    def nbytes(self) -> int:
        return self._token_layers.nbytes + self._convolution.nbytes


class _RPNHead:
    """The proposal network's head on one level."""

    def __init__(self, name: str, head: nn.Module) -> None:
        layers = list(head.conv) if isinstance(head.conv, nn.Sequential) else [head.conv]
        outputs = [()] * (len(layers) - 1) + [(head.objectness_logits, head.anchor_deltas)]
        self._convolutions = [
            IncrementalConvolution(f"proposals {name} conv{i}", layer, "proposals", heads)
            for i, (layer, heads) in enumerate(zip(layers, outputs))
        ]

    def __call__(self, level: _Map, step: Step) -> list[Tensor]:
        """Bring logits (B, H * W, A) and deltas (B, H * W, 4 A) up to date."""
        kept, changed = [level.rows], level.changed
        for convolution in self._convolutions:
            kept, changed = convolution(kept[0], changed, step)
        return kept

    def clear(self) -> None:
        for convolution in self._convolutions:
            convolution.clear()

    @property
    def nbytes(self) -> int:
        return sum(convolution.nbytes for convolution in self._convolutions)


def _check_detector(backbone: nn.Module, proposal_generator: nn.Module | None) -> None:
    """Raise ValueError, naming the key, for parts that have no eventful path."""
    if not isinstance(backbone, SimpleFeaturePyramid):
        raise ValueError(
            "MODEL.EVENTFUL.PYRAMID.ENABLED needs a SimpleFeaturePyramid (MODEL.BACKBONE.NAME "
            f"build_eventful_vitdet_backbone), found {type(backbone).__name__}"
        )
    head = getattr(proposal_generator, "rpn_head", None)
    if not isinstance(head, StandardRPNHead):
        found = type(proposal_generator if head is None else head).__name__
        raise ValueError(
            f"MODEL.EVENTFUL.PYRAMID.ENABLED needs an RPN with Detectron2's StandardRPNHead, found {found}"
        )
    if isinstance(head.conv, nn.Sequential) and not len(head.conv):
        raise ValueError(
            "MODEL.EVENTFUL.PYRAMID.ENABLED needs a convolution in the RPN, but MODEL.RPN.CONV_DIMS is empty"
        )
    if head.anchor_deltas.out_channels != 4 * head.objectness_logits.out_channels:
        raise ValueError("MODEL.EVENTFUL.PYRAMID.ENABLED needs anchors of four numbers, not rotated ones")


def _top_level(top_block: nn.Module | None, names: Sequence[str]) -> tuple[str | None, str | None]:
    """Name of the level above the stages, and of the one it is taken from; None without such a level."""
    if top_block is None:
        return None, None
    if not isinstance(top_block, LastLevelMaxPool):
        raise ValueError(f"the eventful pyramid knows LastLevelMaxPool alone, found {type(top_block).__name__}")
    return names[-1], top_block.in_feature
