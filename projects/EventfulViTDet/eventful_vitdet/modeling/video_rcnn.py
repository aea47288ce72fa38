"""VideoRCNN: a GeneralizedRCNN whose backbone remembers the earlier frames of a video."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import ImageList, Instances
from eventful_vit import EventfulViT, Policy
from torch import Tensor, nn

from ..contention import fitting_threads
from ..data.earlier_frames import EARLIER
from ..errors import ConfigError
from ..masks import MaskRequest, has_masks
from .backbone import build_pyramid_policy
from .detector_state import DetectorState, DetectorTrace
from .frame_upload import FrameUpload
from .gpu_detector import RestOnGPU, write_normalised
from .pyramid import EventfulPyramid

if TYPE_CHECKING:
    from .gpu_detector.rest_of_frame import RestOfFrame

logger = logging.getLogger(__name__)


@META_ARCH_REGISTRY.register()
class VideoRCNN(GeneralizedRCNN):
    """A two-stage detector for video.

    In training it is the plain detector, on single images or on the last frames of clips, which then see what gates let
    through (DATALOADER.EARLIER_FRAMES). In inference each position of the input list is a stream: the model compares
    `video_id` and `frame_id` of a frame with those of the stream's last one and starts over (a flush) by itself
    when the video changes, when frame numbers have a gap or go back, or when the frame's size changes. An input
    without `video_id` is a single image, and computed in full.

    With `eventful_pyramid`, the pyramid and the proposal network are eventful too (MODEL.EVENTFUL.PYRAMID).
    """

    @configurable
    def __init__(self, *, eventful_pyramid: EventfulPyramid | None = None, **kwargs) -> None:
        """
        Args:
            eventful_pyramid: over the detector's own layers; None: pyramid and proposals are computed densely.
            kwargs: the arguments of GeneralizedRCNN.

        Raises:
            ConfigError: the backbone has no EventfulViT, or several.
        """
        super().__init__(**kwargs)
        self.eventful_pyramid = eventful_pyramid
        vits = [name for name, module in self.backbone.named_modules() if isinstance(module, EventfulViT)]
        if len(vits) != 1:
            raise ConfigError(
                f"MODEL.BACKBONE.NAME: a VideoRCNN needs a backbone with one EventfulViT, such as "
                f"build_eventful_vitdet_backbone; {type(self.backbone).__name__} has {len(vits)}"
            )
        (self._vit_name,) = vits
        self._own_state: DetectorState | None = None
        self._rest_on_gpu = RestOnGPU()
        self._upload = FrameUpload()
        self.mask_request: MaskRequest | None = None
        """Which detections get a mask. None: all, pasted into the image (`pred_masks`), as Detectron2 has them. Else
        those asked for, left in their boxes: `box_masks` (N, M, M), NaN for the others."""
        self._check_pyramid_policy(self.vit.policy)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Build the parts of the detector, as Detectron2 does, and the eventful pyramid over them."""
        parts = super().from_config(cfg)
        if cfg.MODEL.EVENTFUL.PYRAMID.ENABLED:
            policy = build_pyramid_policy(cfg)
            parts["eventful_pyramid"] = EventfulPyramid(parts["backbone"], parts["proposal_generator"], policy)
        return parts

    def __getstate__(self) -> dict:
        """For copies and pickles: without state."""
        return {**vars(self), "_own_state": None, "_rest_on_gpu": RestOnGPU()}

    @property
    def vit(self) -> EventfulViT:
        """The backbone's Transformer."""
        return self.backbone.get_submodule(self._vit_name)

    @property
    def state(self) -> DetectorState:
        """The state of frames that come without one."""
        if self._own_state is None:
            self._own_state = self.new_state()
        return self._own_state

    def new_state(self) -> DetectorState:
        """A further state, to be handed in with the frames of other streams."""
        return DetectorState()

    @property
    def enabled(self) -> bool:
        """Whether inference reuses earlier frames; may be changed between any two frames."""
        return self.vit.enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self.vit.enabled = value

    def set_policy(self, policy: Policy) -> None:
        """Exchange the policy from the next frame on. Raises ValueError as `EventfulViT.set_policy` does."""
        self._check_pyramid_policy(policy)
        self.vit.set_policy(policy)

    def set_pyramid_policy(self, policy: Policy | None) -> None:
        """Exchange the eventful pyramid's policy from the next frame on; None follows the backbone's policy.

        Raises:
            ConfigError: the detector was built without an eventful pyramid, or the policy learns from frames.
        """
        if self.eventful_pyramid is None:
            raise ConfigError("this detector has no eventful pyramid: set MODEL.EVENTFUL.PYRAMID.ENABLED to True")
        self.eventful_pyramid.policy = policy
        self._check_pyramid_policy(self.vit.policy)

    def _check_pyramid_policy(self, policy: Policy) -> None:
        if self.eventful_pyramid is None:
            return
        try:
            (self.eventful_pyramid.policy or policy).check([*self.vit.gate_names, self.eventful_pyramid.gate_name])
        except ValueError as error:
            raise ConfigError(f"MODEL.EVENTFUL.GATES: {error}") from error

    def state_bytes(self) -> int:
        """Bytes that the detector's own state holds, for the Transformer and the eventful pyramid."""
        return self.state.nbytes

    def weights_changed(self) -> None:
        """Say that weights were changed in a way that PyTorch does not track (see `EventfulModel.weights_changed`)."""
        self.vit.weights_changed()
        self._rest_on_gpu.forget()
        if self.eventful_pyramid is not None:
            self.eventful_pyramid.weights_changed()

    def train(self, mode: bool = True) -> VideoRCNN:
        """As of any module; a change of mode ends the running streams."""
        if mode != self.training:
            self._rest_on_gpu.forget()
        return super().train(mode)

    def reset(self, streams: Sequence[int] | None = None) -> None:
        """Forget some streams of the detector's own state, or all: their next frame starts a sequence."""
        self.state.reset(streams)

    def forward(self, batched_inputs: list[dict], state: DetectorState | None = None) -> list[dict] | dict:
        """Losses in training; in inference, detections in one frame per stream (see `inference`)."""
        if self.training:
            return self._losses(batched_inputs)
        return self.inference(batched_inputs, state=state)

    def _losses(self, batched_inputs: list[dict]) -> dict:
        """Losses in images; in those that end a clip ("earlier", images before it), after gated frames."""
        clips = [item[EARLIER] for item in batched_inputs if EARLIER in item]
        if not clips:
            return super().forward(batched_inputs)
        with self.vit.training_clip():
            for images in zip(*clips):
                frames = [{**item, "image": image} for item, image in zip(batched_inputs, images)]
                self.vit(self.preprocess_image(frames).tensor)
            return super().forward(batched_inputs)

    def inference(
        self,
        batched_inputs: list[dict],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
        *,
        state: DetectorState | None = None,
    ) -> list:
        """Detect objects in one frame per stream; see GeneralizedRCNN.inference.

        Args:
            state: what was kept of these streams; None: the detector's own.
        """
        state = state or self.state
        begins, positions = state.begin(batched_inputs)
        streams = len(begins)
        results = None
        try:
            with fitting_threads(self.device):
                results = self._detect(batched_inputs, detected_instances, state, do_postprocess)
        finally:
            if results is None:
                # Frames that were refused, because of one of them, changed nothing: all streams continue behind them.
                # Those that were interrupted in their midst start over.
                running = (state.vit.running + (False,) * streams)[:streams]
                positions = [place if alive else None for place, alive in zip(positions, running)]
            state.positions[:streams] = positions
        vit = state.vit.trace if self.enabled else None
        flushed = tuple(
            begin or (vit is not None and computed) for begin, computed in zip(begins, vit.flushed if vit else begins)
        )
        state.trace = DetectorTrace(flushed, state.canvas, vit, state.pyramid.trace if self._has_pyramid() else None)
        return results

    def _detect(
        self,
        batched_inputs: list[dict],
        detected_instances: list[Instances] | None,
        state: DetectorState,
        do_postprocess: bool,
    ) -> list:
        images = self.preprocess_image(batched_inputs)
        state.use_canvas(tuple(images.tensor.shape[-2:]))
        eventful_pyramid = detected_instances is None and self._has_pyramid()
        rest = None if detected_instances is not None else self._rest_on_gpu.for_frame(self)
        with self.vit.using(state.vit):
            if rest is not None:
                tokens = self.backbone.net(images.tensor)[self.backbone.in_feature]
                return self._detect_on_gpu(rest, tokens, images, batched_inputs, do_postprocess)
            if eventful_pyramid:
                features, proposals = self._eventful_proposals(images, state)
            else:
                features = self.backbone(images.tensor)
                proposals = None
        if detected_instances is not None:
            given = [instances.to(self.device) for instances in detected_instances]
            results = self.roi_heads.forward_with_given_boxes(features, given)
        else:
            if proposals is None:
                proposals, _ = self.proposal_generator(images, features, None)
            results = self._second_stage(images, features, proposals)
        return _postprocess(results, batched_inputs) if do_postprocess else results

    def _second_stage(
        self, images: ImageList, features: dict[str, Tensor], proposals: list[Instances]
    ) -> list[Instances]:
        if self.mask_request is None or not has_masks(self):
            return self.roi_heads(images, features, proposals, None)[0]
        results, _ = _without_masks(self.roi_heads)(images, features, proposals, None)
        return self._add_masks(features, results, self.mask_request)

    def _detect_on_gpu(
        self, rest: RestOfFrame, tokens: Tensor, images: ImageList, batched_inputs: list[dict], do_postprocess: bool
    ) -> list:
        """What follows the Transformer, with fixed sizes (gpu_detector)."""
        sizes = images.image_sizes
        frame = rest(tokens, sizes, [_output_size(item, size) for item, size in zip(batched_inputs, sizes)])
        boxes_only = not (has_masks(self) or getattr(self.roi_heads, "keypoint_on", False))
        if boxes_only and do_postprocess and frame.has_detections:
            return [{"instances": found} for found in frame.placed_detections()]
        if not frame.has_detections:
            results = self._second_stage(images, frame.features(), frame.proposals())
        elif boxes_only:
            results = frame.detections()
        elif self.mask_request is None:
            results = self.roi_heads.forward_with_given_boxes(frame.features(), frame.detections())
        else:
            results = self._add_masks(frame.features(), frame.detections(), self.mask_request)
        return _postprocess(results, batched_inputs) if do_postprocess else results

    def _add_masks(
        self, features: dict[str, Tensor], results: list[Instances], request: MaskRequest
    ) -> list[Instances]:
        """Give detections the masks that are asked for."""
        if request.per_image == 0:
            return results
        chosen = [request.choose(found.scores) for found in results]
        parts = [found[rows] for found, rows in zip(results, chosen)]
        for found, rows, part in zip(results, chosen, self.roi_heads.forward_with_given_boxes(features, parts)):
            masks = part.pred_masks[:, 0]
            found.box_masks = masks.new_full((len(found), *masks.shape[1:]), float("nan"))
            found.box_masks[rows] = masks
        return results

    def _has_pyramid(self) -> bool:
        """Whether the eventful pyramid runs: on a CPU. Its many small steps take a GPU longer than all positions do."""
        wanted = self.eventful_pyramid is not None and self.eventful_pyramid.enabled and self.enabled
        if wanted and self.device.type == "cuda":
            _warn_of_dense_pyramid()
            return False
        return wanted

    def _eventful_proposals(self, images: ImageList, state: DetectorState) -> tuple[dict[str, Tensor], list[Instances]]:
        """Features and proposals, where pyramid and proposal network are eventful."""
        tokens = self.backbone.net(images.tensor)[self.backbone.in_feature]
        maps = self.eventful_pyramid(tokens, state.vit.trace.flushed, state.vit.frame_policy, state.pyramid)
        rpn = self.proposal_generator
        anchors = rpn.anchor_generator([maps.features[name] for name in rpn.in_features])
        return maps.features, rpn.predict_proposals(anchors, maps.logits, maps.deltas, images.image_sizes)

    def preprocess_image(self, batched_inputs: list[dict]) -> ImageList:
        """Normalise, pad and batch the frames."""
        square = self.backbone.padding_constraints.get("square_size", 0)
        for frame in batched_inputs:
            check_fits(frame, square)
        frames = self._upload([frame["image"] for frame in batched_inputs], self.device)
        sizes = [tuple(frame["image"].shape[-2:]) for frame in batched_inputs]
        canvas = (square, square) if square else tuple(self._whole_cells(max(side)) for side in zip(*sizes))
        like = torch.promote_types(batched_inputs[0]["image"].dtype, self.pixel_mean.dtype)
        batch = torch.empty(len(sizes), len(self.pixel_mean), *canvas, dtype=like, device=self.device)
        if not write_normalised(frames, self.pixel_mean, self.pixel_std, batch):
            batch.zero_()
            for place, frame, (height, width) in zip(batch, frames, sizes):
                inside = place[:, :height, :width]
                torch.sub(frame, self.pixel_mean, out=inside)
                inside.div_(self.pixel_std)
        check_pool(self.vit, canvas)
        return ImageList(batch, sizes)

    def canvas_of(self, size: Sequence[int]) -> tuple[int, int]:
        """Height and width of a frame (height, width) with its padding, where it is a batch by itself."""
        square = self.backbone.padding_constraints.get("square_size", 0)
        return (square, square) if square else tuple(map(self._whole_cells, size))

    def _whole_cells(self, side: int) -> int:
        """A side in pixels, rounded up to whole cells of the pyramid's coarsest convolved level."""
        stride = int(self.vit.patch_size / min(1.0, *self.backbone.scale_factors))
        return -(-side // stride) * stride


@cache
def _warn_of_dense_pyramid() -> None:
    logger.warning(
        "GPU: the pyramid is computed densely, which is faster there; MODEL.EVENTFUL.PYRAMID.ENABLED is for CPUs"
    )


def _without_masks(roi_heads: nn.Module) -> nn.Module:
    """The same layers as heads that find boxes only. Those of the detector may be at work in another thread."""
    boxes_only = copy.copy(roi_heads)
    boxes_only.mask_on = False
    return boxes_only


def _postprocess(results: list[Instances], frames: list[dict]) -> list[dict]:
    """Detections in pixels of the frames as they were before resizing."""
    return [
        {"instances": detector_postprocess(found, *_output_size(frame, found.image_size))}
        for found, frame in zip(results, frames)
    ]


def _output_size(frame: Mapping, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a frame as it was before resizing, where the input tells them."""
    return frame.get("height", size[0]), frame.get("width", size[1])


def check_fits(frame: Mapping, square: int) -> None:
    """Refuse a frame that is larger than the square it would be padded to (0: no such square)."""
    height, width = frame["image"].shape[-2:]
    if square and max(height, width) > square:
        raise ConfigError(
            f"{describe(frame)}: {width} x {height} pixels after resizing do not fit into MODEL.VIT.IMG_SIZE = "
            f"{square}; lower INPUT.MAX_SIZE_TEST (in training, MAX_SIZE_TRAIN) to at most {square}"
        )


def check_pool(vit: EventfulViT, size: Sequence[int]) -> None:
    """Refuse images whose tokens cannot be pooled as the configuration asks for."""
    pool = max(block.kv_pool for block in vit.blocks)
    height, width = (side // vit.patch_size for side in size)
    if height % pool or width % pool:
        raise ConfigError(
            f"MODEL.EVENTFUL.KV_POOL = {pool} does not divide the {height} x {width} tokens of a frame of "
            f"{size[1]} x {size[0]} pixels (with padding); choose a divisor of both sides or another image size"
        )


def describe(frame: Mapping) -> str:
    """Name a model input in a message."""
    parts = [f"{name.removesuffix('_id')} {frame[name]}" for name in ("video_id", "frame_id") if name in frame]
    return ", ".join(parts) or str(frame.get("file_name", "image"))
