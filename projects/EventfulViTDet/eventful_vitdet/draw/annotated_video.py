"""A detector's way through a video, written as a video and as JSON lines, and shown while it is made."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

import numpy as np
from detectron2.config import CfgNode
from torch import nn
from tqdm import tqdm

from ..class_lists import find_classes
from ..control import RuntimeControl
from ..costs import CostSums
from ..errors import ConfigError, VideoReadError, VideoWriteError
from ..files import write_atomically
from ..identities import UNKNOWN, ObjectTracker
from ..interruption import Interruptions
from ..masks import MaskRequest, encode_mask, paste_mask
from ..predictor import FrameResult, VideoDetector, class_names, dense_detector
from ..structures import Detections, SourceFrame
from ..video import JsonLinesWriter, SoundCopy, VideoSource, VideoWriter, check_part, encode_png
from .painter import FramePainter
from .preview_window import PreviewWindow

Item = TypeVar("Item")

logger = logging.getLogger(__name__)


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
    min_score: float = 0.3
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
    if options.show_tokens is not None and not model.enabled:
        raise ConfigError("MODEL.EVENTFUL.ENABLED is False: the dense model has no updated tokens to show")
    check_part(source, options.start, options.end, options.every)
    check_outputs(source, output, options)
    classes = class_names(cfg)
    chosen = find_classes(classes, options.classes) if options.classes else None
    painter = FramePainter(
        classes,
        model.vit.gate_names,
        tokens=options.show_tokens,
        min_score=options.min_score,
        enlarge=options.enlarge,
    )
    costs, pictures, unread = CostSums(), set(options.save_frames), []
    with ExitStack() as stack:
        interruptions = stack.enter_context(Interruptions())
        # Files first: they fail at once where they cannot be written.
        video = stack.enter_context(open_writer(source, output, options))
        lines = stack.enter_context(JsonLinesWriter(options.save_json)) if options.save_json else None
        window = stack.enter_context(PreviewWindow(source.name)) if options.window else None
        frames = stack.enter_context(closing(_detect_all(cfg, model, source, options, control, chosen)))
        stack.enter_context(interruptions.allowed())
        for frame, result, dense in put_off_errors(frames, unread):
            picture = painter.paint(frame, result, dense)
            video.write(picture, frame.seconds, frame.duration)
            if frame.index in pictures:
                path = picture_path(output, frame.index)
                write_atomically(path, encode_png(picture))
                pictures.remove(frame.index)
                with tqdm.external_write_mode():
                    logger.info("frame %d: %s", frame.index, path)
            if lines is not None:
                lines.write(describe_frame(frame, result, classes))
            costs.add_frame(result.cost)
            if window is not None and not window.show(picture):
                break
    warn_of_missed_pictures(pictures, costs.num_frames)
    if unread:
        raise unread[0]
    return costs


def warn_of_missed_pictures(pictures: Collection[int], frames: int) -> None:
    """Say of which frames there is no picture, as the video had no more than so many frames."""
    if pictures:
        logger.warning("no picture of frame %s: there were %d frames", ", ".join(map(str, sorted(pictures))), frames)


def put_off_errors(frames: Iterable[Item], unread: list[VideoReadError]) -> Iterator[Item]:
    """The frames up to one that cannot be read, which goes to `unread`: what was made of those before it is finished
    first. Without any, the error is raised at once."""
    is_first = True
    try:
        for frame in frames:
            yield frame
            is_first = False
    except VideoReadError as error:
        if is_first:
            raise
        unread.append(error)


def open_writer(source: VideoSource, output: str, options: AnnotateOptions) -> VideoWriter:
    """The annotated video, with the source's sound."""
    sound = SoundCopy(source.sound_path) if options.sound and source.sound_path else None
    fps = source.fps / options.every
    return VideoWriter(output, fps, keep_partial=True, pixel_aspect=source.pixel_aspect, sound=sound)


def check_outputs(source: VideoSource, output: str, options: AnnotateOptions) -> None:
    """Raise VideoWriteError if an output is a folder, or would take the place of an input or of another output."""
    pictures = [picture_path(output, number) for number in options.save_frames]
    inputs = {os.path.realpath(path) for path in source.paths}
    taken = set()
    for path in (output, *filter(None, (options.save_json, options.save_csv)), *pictures):
        real = os.path.realpath(path)
        if os.path.isdir(path):
            raise VideoWriteError(f"{path}: is a folder; name a file")
        if real in inputs:
            raise VideoWriteError(f"{path}: is the input itself, or a part of it; write to another file")
        if real in taken:
            raise VideoWriteError(f"{path}: is named for two outputs; give each a file of its own")
        taken.add(real)


def picture_path(output: str, index: int) -> str:
    """Where the picture of a frame is written, beside the video."""
    return f"{os.path.splitext(output)[0]}_{index}.png"


def _detect_all(
    cfg: CfgNode,
    model: nn.Module,
    source: VideoSource,
    options: AnnotateOptions,
    control: RuntimeControl | None,
    chosen: np.ndarray | None,
) -> Iterator[tuple[SourceFrame, FrameResult, FrameResult | None]]:
    """Every frame with its result, and the dense model's where that is asked for; of the chosen classes (C,), bool."""
    with ExitStack() as stack:
        # The JSON has all detections, the picture the drawn ones.
        masks = MaskRequest(0.0 if options.save_json else options.min_score)
        detector = stack.enter_context(VideoDetector(cfg, model, control, masks=masks))
        beside = MaskRequest(options.min_score)
        dense = stack.enter_context(dense_detector(cfg, model, beside)) if options.side_by_side_dense else None
        frames = stack.enter_context(closing(source.frames(options.start, options.every)))
        trackers = [ObjectTracker(source.fps / options.every) if options.track else None for _ in range(2)]
        total = count_frames(source, options)
        progress = stack.enter_context(tqdm(total=total, unit="frame", desc=os.path.basename(source.name)))
        for frame in itertools.islice(frames, options.max_frames):
            if options.end is not None and frame.index >= options.end:
                break
            results = detector.detect(frame), dense.detect(frame) if dense else None
            results = [result and keep_classes(result, chosen) for result in results]
            yield frame, *(result and identify(result, frame, t) for result, t in zip(results, trackers))
            progress.update()


def keep_classes(result: FrameResult, chosen: np.ndarray | None) -> FrameResult:
    if chosen is None:
        return result
    return replace(result, detections=result.detections.select(chosen[result.detections.classes]))


def identify(result: FrameResult, frame: SourceFrame, tracker: ObjectTracker | None) -> FrameResult:
    if tracker is None:
        return result
    return replace(result, detections=tracker.identify(result.detections, frame.sequence))


def count_frames(source: VideoSource, options: AnnotateOptions) -> int | None:
    """How many frames there will be; None where nobody knows."""
    ends = [end for end in (source.num_frames, options.end) if end is not None]
    counts = [len(range(options.start, min(ends), options.every))] if ends else []
    return min(counts + [options.max_frames] if options.max_frames else counts, default=None)


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
        "ms": {"backbone": 1000 * cost.backbone_seconds, "total": 1000 * cost.total_seconds},
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
