"""Pyramid, proposals and boxes of a frame on a GPU, recorded once and then repeated.

The kernels of a frame do not depend on what it shows: every size is fixed, and image sizes are numbers in memory. So
the second frame of a kind is recorded as a CUDA graph, which the later ones repeat, as the Transformer's are
(eventful_vit/recorded.py). Only the number of detections is waited for, at the very end.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field

import torch
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.vit import SimpleFeaturePyramid
from detectron2.structures import Boxes, Instances
from eventful_vit.layers import is_observed, is_replaced
from eventful_vit.ops import tf32
from eventful_vit.ops.gpu.graph import Graph, shared_pool
from eventful_vit.recorded import keep_last
from eventful_vit.weights import HookWatch, WeightWatch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from ...errors import ConfigError
from .doubling import take_doubling
from .fixed_detections import FixedDetections, SecondStage
from .fixed_proposals import Anchors, FixedProposals, ProposalNetwork
from .image_sizes import ImageSizes
from .inference_copies import copy_for_inference

Sizes = list[tuple[int, int]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FixedFrame:
    """What was computed of a frame, in memory that the next one overwrites."""

    maps: dict[str, Tensor]
    """The pyramid's, (B, C, H, W) by name."""
    proposals: FixedProposals
    detections: FixedDetections | None
    """None where the detector's heads are not known."""


class Pyramid:
    """Detectron2's SimpleFeaturePyramid on the Transformer's output, for inference on a GPU."""

    def __init__(self, backbone: nn.Module, dtype: torch.dtype | None) -> None:
        """Raises ConfigError for a pyramid of another kind."""
        if type(backbone) is not SimpleFeaturePyramid:
            raise ConfigError(f"{type(backbone).__name__} is no SimpleFeaturePyramid")
        if backbone.top_block is not None and type(backbone.top_block) is not LastLevelMaxPool:
            raise ConfigError(f"{type(backbone.top_block).__name__} is no LastLevelMaxPool")
        self._names = list(backbone.output_shape())
        self._stages = [_stage(stage, dtype) for stage in backbone.stages]
        self._top = backbone.top_block
        """LastLevelMaxPool, which takes every other line and column; or None."""

    def __call__(self, source: Tensor) -> dict[str, Tensor]:
        """(B, D, h, w) to maps by name."""
        levels = [stage(source) for stage in self._stages]
        if self._top is not None:
            finest = levels[self._names.index(self._top.in_feature)]
            levels.append(finest[:, :, ::2, ::2].contiguous(memory_format=torch.channels_last))
        return dict(zip(self._names, levels))


def _stage(stage: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    doubling, others = take_doubling(stage, dtype)
    others = copy_for_inference(others, dtype)
    return others if doubling is None else nn.Sequential(doubling, others)


@dataclass
class _Kind:
    """Frames of one shape, with the memory that they are computed in."""

    source: Tensor
    """(B, D, h, w), channels last."""
    numbers: Tensor
    """(3, B, 1, 4), of `ImageSizes`."""
    graph: Graph | None
    written: tuple | None = None
    """The sizes that `numbers` holds."""
    anchors: Anchors | None = None
    frames: int = 0
    result: FixedFrame | None = None

    def set_sizes(self, sizes: Sizes, output_sizes: Sizes) -> None:
        """Write heights and widths where the frame reads them. From pinned memory, so nothing waits for it."""
        if self.written == (sizes, output_sizes):
            return
        self.written = (list(sizes), list(output_sizes))
        limits = [[w, h, w, h] for h, w in sizes]
        output_limits = [[w, h, w, h] for h, w in output_sizes]
        scales = [[after / before for before, after in zip(*pair)] for pair in zip(limits, output_limits)]
        numbers = torch.tensor([limits, scales, output_limits], dtype=torch.float32)[:, :, None]
        self.numbers.copy_(numbers.pin_memory() if self.numbers.is_cuda else numbers, non_blocking=True)

    def sizes(self) -> ImageSizes:
        return ImageSizes(*self.numbers)


@dataclass
class _Layers:
    """The layers in the form that a GPU takes them, for weights as they are at one time; and what was recorded."""

    version: int
    pyramid: Pyramid
    proposals: ProposalNetwork
    second_stage: SecondStage | None
    kinds: dict[tuple, _Kind] = field(default_factory=dict)

    def settings(self) -> tuple:
        """Numbers of the detector that a recording cannot read again."""
        stages = () if self.second_stage is None else self.second_stage.settings()
        return (*self.proposals.settings(), *stages)


class RestOfFrame:
    """Everything behind the Transformer of one detector.

    Use `is_possible` before each call: where somebody watches or changes the layers, Detectron2's own code has to run.
    """

    def __init__(self, detector: nn.Module, dtype: torch.dtype | None) -> None:
        """
        Args:
            detector: a GeneralizedRCNN with a simple feature pyramid.
            dtype: type of convolutions and products; None is that of the weights.

        Raises:
            ConfigError: its pyramid or proposal network is not known.
        """
        self._parts = nn.ModuleList([*detector.backbone.stages, detector.proposal_generator, detector.roi_heads])
        self._detector_parts = detector.backbone, detector.proposal_generator, detector.roi_heads
        self._dtype = dtype
        self._watch = WeightWatch(self._parts)
        self._of_thread = threading.local()
        self._watch_layers()
        self._make_layers(0)  # whether it can be done

    def is_possible(self, device: torch.device) -> bool:
        """Whether the next frame may be computed here: in inference, where no hook or mode sees its operations, and
        layers run what their classes were written with."""
        if torch.is_grad_enabled() or torch.is_autocast_enabled(device.type) or torch.compiler.is_compiling():
            return False
        if _get_current_dispatch_mode() is not None or self._hooks.is_observed():
            return False
        return not any(map(is_replaced, self._classes))

    # Recorded memory outlives the call, so it must not consist of inference tensors (as in EventfulViT).
    @torch.inference_mode(False)
    @torch.no_grad()
    def __call__(self, source: Tensor, image_sizes: Sizes, output_sizes: Sizes) -> ComputedFrame:
        """Compute a frame.

        Args:
            source: the Transformer's output, (B, D, h, w).
            image_sizes: height and width in pixels of each image without its padding.
            output_sizes: those before it was resized.
        """
        layers = self._layers()
        key = (source.shape, source.dtype, source.device, *tf32.settings(), *layers.settings())
        kind = layers.kinds.pop(key, None) or self._make_kind(source, layers)
        kind.source.copy_(source)
        kind.set_sizes(list(image_sizes), list(output_sizes))
        result = self._compute(layers, kind)
        keep_last(layers.kinds, key, kind)  # an interrupted one is forgotten
        return ComputedFrame(result, layers.second_stage, list(image_sizes), list(output_sizes), source.dtype)

    def _layers(self) -> _Layers:
        version = self._watch.version()
        layers = getattr(self._of_thread, "layers", None)
        if layers is None or layers.version != version:
            self._watch_layers()
            layers = self._of_thread.layers = self._make_layers(version)
        return layers

    def _watch_layers(self) -> None:
        """Look from now on at the modules as they are now."""
        modules = [self._detector_parts[0], *self._parts.modules()]
        self._hooks = HookWatch(modules, _is_watched)
        self._classes = set(map(type, modules))

    def _make_layers(self, version: int) -> _Layers:
        backbone, rpn, heads = self._detector_parts
        second_stage = None
        try:
            second_stage = SecondStage(heads, self._dtype)
        except ConfigError as error:
            logger.info("GPU: the second stage runs as Detectron2's own code: %s", error)
        return _Layers(version, Pyramid(backbone, self._dtype), ProposalNetwork(rpn, self._dtype), second_stage)

    def _make_kind(self, source: Tensor, layers: _Layers) -> _Kind:
        dtype = self._dtype or next(self._parts.parameters()).dtype
        graph = None
        if source.is_cuda:
            graph = Graph(source.device, shared_pool(kind.graph for kind in layers.kinds.values()))
        numbers = torch.empty(3, len(source), 1, 4, dtype=torch.float32, device=source.device)
        return _Kind(torch.empty_like(source, dtype=dtype, memory_format=torch.channels_last), numbers, graph)

    def _compute(self, layers: _Layers, kind: _Kind) -> FixedFrame:
        """The first frame of a kind runs as usual, the second one is recorded, the others repeat it."""

        def run() -> FixedFrame:
            return _run(layers, kind)

        kind.frames += 1
        if kind.frames == 1 or kind.graph is None or kind.graph.refusal is not None:
            return run()
        if kind.frames > 2:
            kind.graph.replay()
            return kind.result
        kind.result = kind.graph.record(run)
        if kind.graph.refusal is not None:
            logger.info("GPU: pyramid, proposals and heads run kernel by kernel: %s", kind.graph.refusal)
        return kind.result


def _run(layers: _Layers, kind: _Kind) -> FixedFrame:
    with _on_device(kind.source.device):
        maps = layers.pyramid(kind.source)
        if kind.anchors is None:
            kind.anchors = layers.proposals.anchors(maps)
        sizes, found = kind.sizes(), None
        proposals = layers.proposals(maps, kind.anchors, sizes)
        if layers.second_stage is not None:
            found = layers.second_stage(maps, proposals, sizes)
    return FixedFrame(maps, proposals, found)


def _on_device(device: torch.device) -> torch.cuda.device:
    """Triton starts kernels on the current GPU."""
    return torch.cuda.device(device if device.type == "cuda" else -1)


def _is_watched(module: nn.Module) -> bool:
    return bool(module._forward_hooks) or is_observed(module)


@dataclass(frozen=True)
class ComputedFrame:
    """A computed frame in Detectron2's terms. Ask before the next one is computed."""

    _fixed: FixedFrame
    _second_stage: SecondStage | None
    _sizes: Sizes
    _output_sizes: Sizes
    _dtype: torch.dtype

    def features(self) -> dict[str, Tensor]:
        """The pyramid's maps by name, (B, C, H, W), in the type of the Transformer's output."""
        return {name: level.to(self._dtype) for name, level in self._fixed.maps.items()}

    @property
    def has_detections(self) -> bool:
        """Whether the second stage was computed; else `proposals` have to go through the detector's heads."""
        return self._second_stage is not None

    def detections(self) -> list[Instances]:
        """Boxes, scores and classes of each image."""
        return self._second_stage.instances(self._fixed.detections, self._sizes, None)

    def placed_detections(self) -> list[Instances]:
        """The same in pixels of the frames before they were resized."""
        return self._second_stage.instances(self._fixed.detections, self._sizes, self._output_sizes)

    def proposals(self) -> list[Instances]:
        """The proposals of each image, best first."""
        found = self._fixed.proposals
        return [
            Instances(
                size,
                proposal_boxes=Boxes(found.boxes[image, :count].clone()),
                objectness_logits=found.logits[image, :count].clone(),
            )
            for image, (size, count) in enumerate(zip(self._sizes, found.count.tolist()))
        ]
