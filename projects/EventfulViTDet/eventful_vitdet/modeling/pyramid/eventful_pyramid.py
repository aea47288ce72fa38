"""The feature pyramid and the proposal network's convolutions, recomputed only where the backbone's output changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.vit import SimpleFeaturePyramid
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from eventful_vit.frame import Frame, FrameTrace
from eventful_vit.gate import TokenGate
from eventful_vit.model import Traced
from eventful_vit.policies import Policy, learns
from eventful_vit.streams import FrameForm, Streams
from eventful_vit.weights import WeightWatch, watch_of
from torch import Tensor, nn

from ...errors import ConfigError
from .convolution import IncrementalConvolution
from .token_layers import make_token_layers


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


class EventfulPyramid(Traced):
    """An eventful path through a SimpleFeaturePyramid and the head of an RPN, over their parameters.

    A gate selects the tokens of the backbone's output that changed. Every layer recomputes what these can reach and
    keeps the rest, so the results are those of the dense layers on the gate's reference, to rounding. It has no
    parameters of its own, and calls neither the pyramid nor the head.
    """

    gate_name = "pyramid"

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
            ConfigError: a policy that learns from frames.
        """
        super().__init__()
        _check_detector(backbone, proposal_generator)
        self.enabled = True
        """Whether VideoRCNN takes this path; may be changed between any two frames."""
        self.policy = policy
        self._gate = TokenGate(self.gate_name)
        names = list(backbone.output_shape())
        self._stages = {name: _Stage(name, stage) for name, stage in zip(names, backbone.stages)}
        self._top_name, self._below_top = _top_level(backbone.top_block, names)
        self._heads = {name: _RPNHead(name, proposal_generator.rpn_head) for name in proposal_generator.in_features}
        # In a list, so that it is not registered: these are the detector's.
        self._layers = [nn.ModuleList([*backbone.stages, proposal_generator.rpn_head])]
        self._watch: WeightWatch | None = None

    @property
    def policy(self) -> Policy | None:
        """Which tokens to update; None follows what the backbone's policy says of each frame."""
        return self._policy

    @policy.setter
    def policy(self, policy: Policy | None) -> None:
        if policy is not None and learns(policy):
            raise ConfigError(
                "the eventful pyramid needs a policy that is the same for all frames, such as TopR(256), or the "
                f"backbone's (None); a {type(policy).__name__} learns from the frames of a backbone"
            )
        self._policy = policy

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "_watch": None}

    # State outlives the call, so it must not consist of inference tensors (as in EventfulViT).
    @torch.inference_mode(False)
    @torch.no_grad()
    def forward(self, features: Tensor, flushed: Sequence[bool], backbone_policy: Policy, state: Streams) -> FrameMaps:
        """Everything up to the proposals, for one frame per stream.

        Args:
            features: the backbone's output, (B, D, h, w).
            flushed: for each stream, whether the backbone began a sequence with this frame.
            backbone_policy: what the backbone's policy says of this frame, for a pyramid without one of its own.
            state: what the pyramid keeps of these streams.
        """
        grid = (features.shape[2], features.shape[3])
        state.reset([stream for stream, begins in enumerate(flushed) if begins])
        form = FrameForm(grid, features.dtype, features.device)
        with state.frame(len(features), form, self._weights().version()) as flush:
            frame = Frame(self.policy or backbone_policy, flush, state, FrameTrace(flush, grid))
            maps, predictions = self._compute(features.flatten(2).transpose(1, 2), frame)
        state.trace = frame.trace
        self.report(frame.trace)
        return FrameMaps(
            features={name: level.as_image() for name, level in maps.items()},
            logits=[logits.flatten(1) for logits, _ in predictions],
            deltas=[deltas.unflatten(2, (-1, 4)).flatten(1, 2) for _, deltas in predictions],
        )

    def weights_changed(self) -> None:
        """See `EventfulModel.weights_changed`."""
        self._weights().changed()

    def _weights(self) -> WeightWatch:
        return watch_of(self, self._layers[0])

    def _compute(self, tokens: Tensor, frame: Frame) -> tuple[dict[str, _Map], list[list[Tensor]]]:
        """The maps by name, and logits and deltas of each of the proposal network's levels."""
        selection, _ = self._gate(tokens, frame)
        frame.trace.add_layer("pyramid", tokens[0].numel(), [0 if flush else 1 for flush in frame.flush])
        sent = self._gate.reference(tokens, frame)
        changed = selection.mask().to(tokens.device).unflatten(1, frame.trace.grid)
        maps = {name: stage(sent, changed, frame) for name, stage in self._stages.items()}
        maps |= self._top(maps)
        return maps, [head(maps[name], frame) for name, head in self._heads.items()]

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

    def __call__(self, tokens: Tensor, changed: Tensor, frame: Frame) -> _Map:
        """Bring the map up to date, given all tokens (B, h * w, D) and which of them changed, (B, h, w)."""
        inputs = self._token_layers(tokens, changed, frame)
        (rows,), reached = self._convolution(inputs, self._token_layers.mark(changed), frame)
        return _Map(rows, reached)


class _RPNHead:
    """The proposal network's head on one level."""

    def __init__(self, name: str, head: nn.Module) -> None:
        layers = list(head.conv) if isinstance(head.conv, nn.Sequential) else [head.conv]
        outputs = [()] * (len(layers) - 1) + [(head.objectness_logits, head.anchor_deltas)]
        self._convolutions = [
            IncrementalConvolution(f"proposals {name} conv{i}", layer, "proposals", heads)
            for i, (layer, heads) in enumerate(zip(layers, outputs))
        ]

    def __call__(self, level: _Map, frame: Frame) -> list[Tensor]:
        """Bring logits (B, H * W, A) and deltas (B, H * W, 4 A) up to date."""
        kept, changed = [level.rows], level.changed
        for convolution in self._convolutions:
            kept, changed = convolution(kept[0], changed, frame)
        return kept


def _check_detector(backbone: nn.Module, proposal_generator: nn.Module | None) -> None:
    """Raise ConfigError, naming the key, for parts that have no eventful path."""
    if not isinstance(backbone, SimpleFeaturePyramid):
        raise ConfigError(
            "MODEL.EVENTFUL.PYRAMID.ENABLED needs a SimpleFeaturePyramid (MODEL.BACKBONE.NAME "
            f"build_eventful_vitdet_backbone), found {type(backbone).__name__}"
        )
    head = getattr(proposal_generator, "rpn_head", None)
    if not isinstance(head, StandardRPNHead):
        found = type(proposal_generator if head is None else head).__name__
        raise ConfigError(
            f"MODEL.EVENTFUL.PYRAMID.ENABLED needs an RPN with Detectron2's StandardRPNHead, found {found}"
        )
    if isinstance(head.conv, nn.Sequential) and not len(head.conv):
        raise ConfigError(
            "MODEL.EVENTFUL.PYRAMID.ENABLED needs a convolution in the RPN, but MODEL.RPN.CONV_DIMS is empty"
        )
    if head.anchor_deltas.out_channels != 4 * head.objectness_logits.out_channels:
        raise ConfigError("MODEL.EVENTFUL.PYRAMID.ENABLED needs anchors of four numbers, not rotated ones")


def _top_level(top_block: nn.Module | None, names: Sequence[str]) -> tuple[str | None, str | None]:
    """Name of the level above the stages, and of the one it is taken from; None without such a level."""
    if top_block is None:
        return None, None
    if not isinstance(top_block, LastLevelMaxPool):
        raise ConfigError(f"the eventful pyramid knows LastLevelMaxPool only, found {type(top_block).__name__}")
    return names[-1], top_block.in_feature
