"""VideoRCNN: a GeneralizedRCNN whose backbone remembers the earlier frames of a video."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import ImageList

from ..errors import ConfigError
from ..eventful import EventfulViT, Policy
from .backbone import build_pyramid_policy
from .eventful_pyramid import EventfulPyramid

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FramePosition:
    """Where a frame stands in its video."""

    video_id: int | str
    frame_id: int
    step: int | None
    """Distance between neighbouring frame numbers, where it is known."""
    size: tuple[int, int]
    """Height and width in pixels of the frame as the model sees it."""

    @classmethod
    def of(cls, frame: Mapping) -> FramePosition | None:
        """The position of a model input; None for a single image that belongs to no video."""
        if "video_id" not in frame:
            return None
        if "frame_id" not in frame:
            raise KeyError(f"the input of video {frame['video_id']} has no 'frame_id': its frames cannot be ordered")
        height, width = frame["image"].shape[-2:]
        return cls(frame["video_id"], int(frame["frame_id"]), frame.get("frame_step"), (height, width))

    def follow(self, before: FramePosition | None) -> tuple[bool, FramePosition]:
        """Whether this frame continues a sequence, and the position to compare the next one with.

        A gap in the frame numbers ends a sequence; a regular step of every n-th frame does not. Where the input does
        not tell the step, it is taken from the frames: it is 1 until a longer one has been seen, so such a
        sequence starts anew at its second frame.
        """
        if before is None or self.video_id != before.video_id or self.size != before.size:
            return False, self
        distance = self.frame_id - before.frame_id
        step = self.step or before.step or 1
        known = FramePosition(self.video_id, self.frame_id, self.step or (max(distance, 1)), self.size)
        return 0 < distance <= step, known


@META_ARCH_REGISTRY.register()
class VideoRCNN(GeneralizedRCNN):
    """A two-stage detector for video.

    In training it is the plain detector. In inference each position of the input list is a stream: the model compares
    `video_id` and `frame_id` of a frame with those of the stream's last one and starts over (a flush) by itself
    when the video changes, when frame numbers have a gap or go back, or when the frame's size changes. An input
    without `video_id` is a single image, and computed in full.

    With `eventful_pyramid`, the pyramid and the proposal network are eventful too (MODEL.EVENTFUL.PYRAMID).
    """

    @configurable
    def __init__(self, *, eventful_pyramid: EventfulPyramid | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        self.eventful_pyramid = eventful_pyramid
        vits = [name for name, module in self.backbone.named_modules() if isinstance(module, EventfulViT)]
        if len(vits) != 1:
            raise TypeError(f"VideoRCNN needs a backbone with one EventfulViT, found {len(vits)}")
        (self._vit_name,) = vits
        self._positions: list[FramePosition | None] = []
        self._canvas: tuple[int, int] | None = None
        self.flushed: tuple[bool, ...] = ()
        """For each input of the last inference call, whether it began a sequence and was computed in full."""

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Build the parts of the detector, as Detectron2 does, and the eventful pyramid over them."""
        parts = super().from_config(cfg)
        if cfg.MODEL.EVENTFUL.PYRAMID.ENABLED:
            policy = build_pyramid_policy(cfg)
            parts["eventful_pyramid"] = EventfulPyramid(parts["backbone"], parts["proposal_generator"], policy)
        return parts

    @property
    def vit(self) -> EventfulViT:
        """The backbone's Transformer, which owns the state."""
        return self.backbone.get_submodule(self._vit_name)

    @property
    def canvas(self) -> tuple[int, int] | None:
        """Height and width in pixels of the last inference call's frames with their padding; None before one."""
        return self._canvas

    @property
    def enabled(self) -> bool:
        """Whether inference reuses earlier frames; may be changed between any two frames."""
        return self.vit.enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self.vit.enabled = value

    @property
    def backbone_seconds(self) -> float:
        """Seconds that the Transformer took in the last call, embedding included, pyramid excluded."""
        return self.vit.seconds

    def set_policy(self, policy: Policy) -> None:
        """Exchange the policy from the next frame on."""
        self.vit.set_policy(policy)

    def set_pyramid_policy(self, policy: Policy | None) -> None:
        """Exchange the eventful pyramid's policy from the next frame on; None follows the backbone's policy.

        Raises:
            ValueError: the detector was built without an eventful pyramid.
        """
        if self.eventful_pyramid is None:
            raise ValueError("this detector has no eventful pyramid: set MODEL.EVENTFUL.PYRAMID.ENABLED to True")
        self.eventful_pyramid.policy = policy

    def state_bytes(self) -> int:
        """Bytes of state held for all streams, by the Transformer and the eventful pyramid."""
        pyramid = self.eventful_pyramid.state_bytes() if self.eventful_pyramid else 0
        return self.vit.state_bytes() + pyramid

    def reset(self, streams: Sequence[int] | None = None) -> None:
        """Forget some streams (positions in the input list), or all: their next frame starts a sequence."""
        self._forget(streams)
        if streams is None:
            self._positions = []
            self._canvas = None
        for stream in streams or ():
            if stream < len(self._positions):
                self._positions[stream] = None

    def _forget(self, streams: Sequence[int] | None) -> None:
        self.vit.reset(streams)
        if self.eventful_pyramid is not None:
            self.eventful_pyramid.reset(streams)

    def inference(self, batched_inputs: list[dict], *args, **kwargs) -> list:
        """Detect objects in one frame per stream; see GeneralizedRCNN.inference.

        With more arguments than the frames (Detectron2's, for other tasks), pyramid and proposals are dense.
        """
        begins, positions = self._compare(batched_inputs)
        streams = len(batched_inputs)
        self._forget([stream for stream, begin in enumerate(begins) if begin])
        # Until this frame is through, its streams have no position: an interrupted one starts over.
        self._positions[:streams] = [None] * streams
        pyramid = self.eventful_pyramid
        if pyramid is not None and pyramid.enabled and self.enabled and not args and not kwargs:
            results = self._detect(batched_inputs, pyramid)
        else:
            results = super().inference(batched_inputs, *args, **kwargs)
        self._positions[:streams] = positions
        self.flushed = tuple(
            begin or (self.enabled and flushed)
            for begin, flushed in zip(begins, self.vit.flushed if self.enabled else begins)
        )
        return results

    def _detect(self, batched_inputs: list[dict], pyramid: EventfulPyramid) -> list[dict]:
        """GeneralizedRCNN.inference, with pyramid and proposals eventful."""
        images = self.preprocess_image(batched_inputs)
        features = self.backbone.net(images.tensor)[self.backbone.in_feature]
        maps = pyramid(features, self.vit.flushed, self.vit.policy)
        rpn = self.proposal_generator
        anchors = rpn.anchor_generator([maps.features[name] for name in rpn.in_features])
        proposals = rpn.predict_proposals(anchors, maps.logits, maps.deltas, images.image_sizes)
        results, _ = self.roi_heads(images, maps.features, proposals, None)
        return [
            {"instances": detector_postprocess(found, frame.get("height", height), frame.get("width", width))}
            for found, frame, (height, width) in zip(results, batched_inputs, images.image_sizes)
        ]

    def _compare(self, frames: list[dict]) -> tuple[list[bool], list[FramePosition | None]]:
        """For each stream: does its frame begin a sequence, and the position to remember."""
        before = (self._positions + [None] * len(frames))[: len(frames)]
        begins, positions = [], []
        for frame, last in zip(frames, before):
            position = FramePosition.of(frame)
            continues, known = position.follow(last) if position else (False, None)
            begins.append(not continues)
            positions.append(known)
        return begins, positions

    def preprocess_image(self, batched_inputs: list[dict]) -> ImageList:
        """Normalise, pad and batch the frames; a padded size other than the last one ends all running sequences."""
        square = self.backbone.padding_constraints.get("square_size", 0)
        for frame in batched_inputs:
            check_fits(frame, square)
        frames = [frame["image"].to(self.device, non_blocking=True) for frame in batched_inputs]
        images = ImageList.from_tensors(
            [(frame - self.pixel_mean).div_(self.pixel_std) for frame in frames],
            size_divisibility=0 if square else self._coarsest_stride(),
            padding_constraints={"square_size": square},
        )
        if not self.training:
            self._follow_canvas(tuple(images.tensor.shape[-2:]))
        return images

    def _coarsest_stride(self) -> int:
        """Side in pixels of a cell of the pyramid's coarsest convolved level."""
        return int(self.vit.patch_size / min(1.0, *self.backbone.scale_factors))

    def _follow_canvas(self, canvas: tuple[int, int]) -> None:
        if self._canvas is not None and canvas != self._canvas:
            self._forget(None)
        self._canvas = canvas


def check_fits(frame: Mapping, square: int) -> None:
    """Refuse a frame that is larger than the square it would be padded to (0: no such square)."""
    height, width = frame["image"].shape[-2:]
    if square and max(height, width) > square:
        raise ConfigError(
            f"{describe(frame)}: {width} x {height} pixels after resizing do not fit into MODEL.VIT.IMG_SIZE = "
            f"{square}; lower INPUT.MAX_SIZE_TEST (in training, MAX_SIZE_TRAIN) to at most {square}"
        )


def describe(frame: Mapping) -> str:
    """Name a model input in a message."""
    parts = [f"{name.removesuffix('_id')} {frame[name]}" for name in ("video_id", "frame_id") if name in frame]
    return ", ".join(parts) or str(frame.get("file_name", "image"))
