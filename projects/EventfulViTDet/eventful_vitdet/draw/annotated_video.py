"""A detector's way through a video, written as a video and as JSON lines, and shown while it is made."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace

from detectron2.config import CfgNode
from torch import nn
from tqdm import tqdm

from ..class_lists import find_classes
from ..control import RuntimeControl
from ..costs import CostSums
from ..errors import ConfigError
from ..identities import UNKNOWN, ObjectTracker
from ..interruption import Interruptions
from ..masks import MaskRequest, encode_mask, paste_mask
from ..predictor import FrameResult, VideoDetector, class_names, dense_detector
from ..shown_score import SHOWN_SCORE
from ..structures import Detections, SourceFrame
from ..video import JsonLinesWriter, VideoSource
from .frame_files import FrameFiles, check_files, count_frames, put_off_errors, selected_frames
from .painter import FramePainter
from .preview_window import PreviewWindow


@dataclass(frozen=True)
class AnnotateOptions:
    """What to make of a video besides the boxes."""

    side_by_side_dense: bool = False
    """Run the dense model too and show it on the right."""
    show_tokens: str | None = None
    """Which updated tokens to tint, see `choose_gates`."""
    save_json: str | None = None
    """Path of a file for the detections, a line of JSON per frame."""
    save_csv: str | None = None
    """Path of a file for a table of the steps; of actions only (action_video.py)."""
    min_score: float = SHOWN_SCORE
    """Weaker detections are not drawn; the JSON has all."""
    classes: Sequence[str] = ()
    """Names of the classes to draw and to save; () for all."""
    track: bool = False
    """Number the objects, see identities.py."""
    save_frames: Collection[int] = ()
    """Numbers of frames to write as pictures too, beside the video."""
    start: int = 0
    """Number of the first frame."""
    end: int | None = None
    """Number of the frame to stop before."""
    every: int = 1
    """Take every n-th frame."""
    max_frames: int | None = None
    """Stop after so many."""
    sound: bool = True
    """Copy the sound of a video file."""
    enlarge: float = 1.0
    """Factor by which the video is larger than the source."""
    window: bool = True
    """Show the video while it is made, where there is a display."""


def annotate_video(
    cfg: CfgNode,
    model: nn.Module,
    source: VideoSource,
    output: str,
    options: AnnotateOptions | None = None,
    control: RuntimeControl | None = None,
) -> CostSums:
    """Detect objects in every frame of a source and write the annotated video to `output`.

    `control` steers the budget; by default that of MODEL.EVENTFUL.CONTROLLER. Memory does not grow with the length.
    When something goes wrong on the way, or at Ctrl-C, SIGTERM or SIGHUP, what was written up to there is kept as a
    file that plays, and the error goes on to the caller. Of a damaged video all that can be decoded is written, and
    VideoReadError raised at the end. Returns the costs of the frames.
    """
    options = options or AnnotateOptions()
    check_tokens(model, options)
    check_files(source, output, options)
    classes = class_names(cfg)
    painter = make_painter(classes, model, options)
    costs, unread = CostSums(), []
    with ExitStack() as stack:
        interruptions = stack.enter_context(Interruptions())
        # Files first: they fail at once where they cannot be written.
        files = stack.enter_context(FrameFiles(source, output, options))
        lines = stack.enter_context(JsonLinesWriter(options.save_json)) if options.save_json else None
        window = stack.enter_context(PreviewWindow(source.name)) if options.window else None
        frames = stack.enter_context(closing(_detect_all(cfg, model, source, options, control, classes)))
        stack.enter_context(interruptions.allowed())
        for frame, result, dense in put_off_errors(frames, unread):
            picture = painter.paint(frame, result, dense)
            files.write(frame, picture)
            if lines is not None:
                lines.write(describe_frame(frame, result, classes))
            costs.add_frame(result.cost)
            if window is not None and not window.show(picture):
                break
    if unread:
        raise unread[0]
    return costs


def check_tokens(model: nn.Module, options: AnnotateOptions) -> None:
    """Raise ConfigError if tokens are to be shown that the model does not choose."""
    if options.show_tokens is not None and not model.enabled:
        raise ConfigError("MODEL.EVENTFUL.ENABLED is False: the dense model has no updated tokens to show")


def make_painter(classes: Sequence[str], model: nn.Module, options: AnnotateOptions) -> FramePainter:
    """What paints the frames of a detector."""
    return FramePainter(
        classes,
        model.vit.gate_names,
        tokens=options.show_tokens,
        min_score=options.min_score,
        enlarge=options.enlarge,
    )


class DetectionChoice:
    """Which detections of a video's frames are drawn and saved, and the numbers of their objects."""

    def __init__(self, classes: Sequence[str], source: VideoSource, options: AnnotateOptions) -> None:
        self._chosen = find_classes(classes, options.classes) if options.classes else None
        self._tracker = ObjectTracker(source.fps / options.every) if options.track else None

    def __call__(self, result: FrameResult, frame: SourceFrame) -> FrameResult:
        found = result.detections
        if self._chosen is not None:
            found = found.select(self._chosen[found.classes])
        if self._tracker is not None:
            found = self._tracker.identify(found, frame.sequence)
        return replace(result, detections=found)


def _detect_all(
    cfg: CfgNode,
    model: nn.Module,
    source: VideoSource,
    options: AnnotateOptions,
    control: RuntimeControl | None,
    classes: Sequence[str],
) -> Iterator[tuple[SourceFrame, FrameResult, FrameResult | None]]:
    """Every frame with its result, and the dense model's where that is asked for."""
    with ExitStack() as stack:
        detector = stack.enter_context(VideoDetector(cfg, model, control, masks=masks_of(options)))
        drawn = MaskRequest(options.min_score)
        dense = stack.enter_context(dense_detector(cfg, model, drawn)) if options.side_by_side_dense else None
        frames = stack.enter_context(closing(selected_frames(source, options)))
        choose, choose_dense = (DetectionChoice(classes, source, options) for _ in range(2))
        total = count_frames(source, options)
        progress = stack.enter_context(tqdm(total=total, unit="frame", desc=os.path.basename(source.name)))
        for frame in frames:
            result = detector.detect(frame)
            beside = choose_dense(dense.detect(frame), frame) if dense else None
            yield frame, choose(result, frame), beside
            progress.update()


def masks_of(options: AnnotateOptions) -> MaskRequest:
    """Which detections get masks: the JSON has all detections, the picture the drawn ones."""
    return MaskRequest(0.0 if options.save_json else options.min_score)


def describe_frame(frame: SourceFrame, result: FrameResult, classes: Sequence[str]) -> dict:
    """A frame's line in the JSON file; boxes are x0, y0, x1, y1 in pixels, masks COCO's run lengths."""
    cost, found = result.cost, result.detections
    extras = [{**mask, **track} for mask, track in zip(describe_masks(frame, found), describe_tracks(found))]
    return {
        "frame": frame.index,
        "file": frame.name,
        "seconds": round(frame.seconds, 4),
        "width": frame.image.shape[1],
        "height": frame.image.shape[0],
        "budget": result.budget,
        "flushed": cost.flushed,
        "scene_cut": result.scene_cut,
        "gflops": {"backbone": cost.backbone_gflops, "total": cost.total_gflops},
        "target": None if result.target is None else asdict(result.target),
        "ms": {"backbone": round(1000 * cost.backbone_seconds, 3), "total": round(1000 * cost.total_seconds, 3)},
        "detections": [
            {"class": classes[index], "score": round(score, 4), "box": [round(value, 2) for value in box], **extra}
            for box, score, index, extra in zip(
                found.boxes.tolist(), found.scores.tolist(), found.classes.tolist(), extras
            )
        ],
    }


def describe_masks(frame: SourceFrame, found: Detections) -> list[dict]:
    """For each detection {"mask": COCO's run lengths}, {} where it has none."""
    if found.masks is None:
        return [{}] * len(found.scores)
    size = frame.image.shape[:2]
    return [
        {"mask": encode_mask(paste_mask(mask, box, *size)).as_coco()} for mask, box in zip(found.masks, found.boxes)
    ]


def describe_tracks(found: Detections) -> list[dict]:
    """For each detection {"track": the number of its object, or None}, {} where objects are not tracked."""
    if found.tracks is None:
        return [{}] * len(found.scores)
    return [{"track": None if track == UNKNOWN else track} for track in found.tracks.tolist()]


def describe_costs(costs: CostSums) -> str:
    """What a run cost, in one line."""
    gflops, seconds = costs.gflops_per_frame()["total"], costs.seconds_per_frame()["total"]
    if not costs.num_frames:
        return "no frames"
    return (
        f"{costs.num_frames} frames, {costs.frames[True]} of them computed in full; "
        f"{gflops['mean']:.2f} GFlops and {1000 * seconds:.0f} ms per frame"
    )
