"""A detector for video outside of data sets: one picture after the other, as they come."""

from __future__ import annotations

import copy
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from eventful_vit import OperationCounts, count_operations
from eventful_vit.frame import GateTrace
from torch import nn

from .budgets import DENSE
from .checkpoint import VideoCheckpointer
from .class_lists import model_class_names
from .config import config_errors, is_classifier
from .control import RuntimeControl, build_runtime_control
from .controllers import Constant, TargetState
from .data.input_preparation import InputPreparation
from .errors import ConfigError
from .masks import NO_MASKS, MaskRequest, masks_requested
from .modeling.video_rcnn import VideoRCNN
from .structures import Detections, FrameCost, SourceFrame, TokenGrid
from .timing import frame_cost, run_timed

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrameResult:
    """What came of a frame."""

    detections: Detections
    """Boxes in pixels of the picture as it was given."""
    cost: FrameCost
    budget: str
    """What chose the tokens, such as "top-r 128"; "dense" for the dense model."""
    scene_cut: bool
    """A scene cut was seen, so the next frame will be computed in full."""
    token_area: tuple[float, float]
    """Height and width that all tokens together cover, in pixels of the picture; more than it where it was padded."""
    token_grid: tuple[int, int]
    gates: Mapping[str, GateTrace] = field(default_factory=dict)
    """What the model's gates chose, by name; to be read before the next frame. Empty for the dense model."""
    target: TargetState | None = None
    """How a target of milliseconds or GFlops is held, where the controller has one."""


class VideoDetector:
    """Runs a VideoRCNN on the frames of a source, steered by a `RuntimeControl`.

    A context manager: inside, the model is in eval mode and its operations are counted.

    Example:
        >>> with VideoDetector(cfg, model) as detector, closing(source.frames()) as frames:
        ...     for frame in frames:
        ...         result = detector.detect(frame)
    """

    def __init__(
        self,
        cfg: CfgNode,
        model: nn.Module,
        control: RuntimeControl | None = None,
        clock: Callable[[], float] = time.perf_counter,
        masks: MaskRequest = NO_MASKS,
    ) -> None:
        """
        Args:
            control: default: what MODEL.EVENTFUL.CONTROLLER asks for.
            clock: seconds; frames are timed by it.
            masks: which detections get a mask, of a model that has them. Ask for those that are used only.
        """
        self.model = model
        self.control = control or build_runtime_control(cfg, model)
        self._prepare = InputPreparation(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, cfg.INPUT.FORMAT)
        self._clock = clock
        self._masks = masks
        self._device = next(model.parameters()).device
        self._exit = ExitStack()

    def __enter__(self) -> VideoDetector:
        self._counts = self._exit.enter_context(ready_to_detect(self.model, self._masks))
        self.model.reset()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._exit.close()

    def detect(self, frame: SourceFrame) -> FrameResult:
        """Detect objects in a frame. Frames are expected in the order of their numbers; a gap, another sequence and
        another size start over, with a flush."""
        model_input = model_input_of(frame, self._prepare)
        policy = self.control.before_frame(frame.index)
        budget = str(policy) if self.model.enabled else DENSE
        output, cost = self._run(model_input)
        trace = self.model.state.trace
        grid, area = locate_tokens(model_input, trace.canvas, self.model.vit.patch_size)
        cut = self.control.after_frame(cost, trace.vit, grid)
        return FrameResult(
            detections=Detections.from_instances(output["instances"], model_input),
            cost=cost,
            budget=budget,
            scene_cut=cut,
            token_area=area,
            token_grid=(grid.rows, grid.columns),
            gates=trace.vit.gates if trace.vit else {},
            target=self.control.controller.state if self.model.enabled else None,
        )

    def _run(self, model_input: dict) -> tuple[dict, FrameCost]:
        self._counts.clear()
        call = run_timed(self.model, [model_input], self._device, self._clock)
        cost = frame_cost(self.model.state.trace, self._counts, call)
        # Of the dense model, all frames are alike.
        return call.outputs[0], cost if self.model.enabled else replace(cost, flushed=False)


@contextmanager
def ready_to_detect(model: nn.Module, masks: MaskRequest) -> Iterator[OperationCounts]:
    """Within the context, a detector is in eval mode, gives these masks, and its operations are counted."""
    with ExitStack() as stack:
        stack.callback(model.train, model.training)
        model.eval()
        stack.enter_context(masks_requested(model, masks))
        yield stack.enter_context(count_operations(model))


def locate_tokens(
    model_input: dict, canvas: tuple[int, int], patch_size: int
) -> tuple[TokenGrid, tuple[float, float]]:
    """How the tokens of a frame lie that was padded to a canvas, and the height and width that all of them cover, in
    pixels of the original frame."""
    resized = tuple(model_input["image"].shape[-2:])
    area = canvas[0] * model_input["height"] / resized[0], canvas[1] * model_input["width"] / resized[1]
    return TokenGrid.of_frame(canvas, resized, patch_size), area


def model_input_of(frame: SourceFrame, prepare: InputPreparation) -> dict:
    """What a VideoRCNN is given of a frame."""
    height, width = frame.image.shape[:2]
    return {
        "image": prepare(frame.image),
        "height": height,
        "width": width,
        "video_id": frame.sequence,
        "frame_id": frame.index,
        "frame_step": frame.step,
        "file_name": frame.name,
    }


def load_detector(cfg: CfgNode) -> nn.Module:
    """The model of a configuration in eval mode, with the weights of MODEL.WEIGHTS.

    Raises ConfigError if that names none, CheckpointError if the file cannot be used.
    """
    if is_classifier(cfg):
        raise ConfigError(
            "MODEL.META_ARCHITECTURE is VideoClassifier: a detector is needed here; actions in videos are "
            "recognised by `predict` and `live`, data sets evaluated by train_net.py (docs/action_recognition.md)"
        )
    model = load_model(cfg)
    if not isinstance(model, VideoRCNN):
        raise ConfigError(f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE}: a VideoRCNN is needed here")
    return model


def load_model(cfg: CfgNode) -> nn.Module:
    """As `load_detector`, for any model."""
    if not cfg.MODEL.WEIGHTS:
        raise ConfigError("MODEL.WEIGHTS is empty: add MODEL.WEIGHTS and the file to the command")
    with config_errors():
        model = build_model(cfg).eval()
    VideoCheckpointer(model, weights_set=cfg.MODEL.WEIGHTS_SET).load(cfg.MODEL.WEIGHTS)
    return model


def share_weights(model: nn.Module) -> nn.Module:
    """A second model with the same weights (the same tensors) and a state of its own."""
    memo = {id(tensor): tensor for tensor in itertools.chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, memo)


def dense_detector(cfg: CfgNode, model: nn.Module, masks: MaskRequest = NO_MASKS) -> VideoDetector:
    """A detector of the dense model beside the eventful one: the same weights, and a state of its own."""
    return VideoDetector(cfg, *dense_twin(model), masks=masks)


def dense_twin(model: nn.Module) -> tuple[nn.Module, RuntimeControl]:
    """The dense model beside an eventful one, with the same weights, and a control that leaves it so."""
    twin = share_weights(model)
    twin.enabled = False
    return twin, RuntimeControl(twin, Constant(twin.vit.policy))


def class_names(cfg: CfgNode) -> list[str]:
    """Names of the model's classes: by MODEL.CLASS_NAMES, else of the first data set that has as many.

    Where there is none (their names are in annotation files that are not here), classes are numbered. Raises ValueError
    for what MODEL.CLASS_NAMES cannot be.
    """
    known = model_class_names(cfg)
    if known is not None:
        return known
    number = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        classes = MetadataCatalog.get(name).get("thing_classes")
        if classes is not None and len(classes) == number:
            return list(classes)
    logger.warning("no data set of DATASETS.TEST or DATASETS.TRAIN names %d classes: they are shown by number", number)
    return [f"class {index}" for index in range(number)]
