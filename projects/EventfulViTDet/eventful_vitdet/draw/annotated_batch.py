"""Several videos at once, as one batch of streams, each written to files of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

from detectron2.config import CfgNode
from torch import nn
from tqdm import tqdm

from ..batch_detector import BatchDetector
from ..class_lists import find_classes
from ..control import RuntimeControl
from ..controllers import Constant
from ..costs import CostSums
from ..errors import ConfigError, VideoReadError
from ..files import write_atomically
from ..identities import ObjectTracker
from ..interruption import Interruptions
from ..masks import MaskRequest
from ..predictor import FrameResult, class_names, share_weights
from ..structures import SourceFrame
from ..video import JsonLinesWriter, VideoSource, check_part, encode_png
from .annotated_video import (
    AnnotateOptions,
    check_outputs,
    describe_frame,
    identify,
    keep_classes,
    open_writer,
    picture_path,
)
from .painter import FramePainter

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnnotateJob:
    """One input of a batch, and where its results go."""

    source: VideoSource
    output: str
    options: AnnotateOptions


@dataclass
class JobOutcome:
    """What came of an input."""

    costs: CostSums = field(default_factory=CostSums)
    error: VideoReadError | None = None
    """What could not be read; all before it was written."""


def annotate_batch(
    cfg: CfgNode, model: nn.Module, jobs: Sequence[AnnotateJob], control: RuntimeControl
) -> list[JobOutcome]:
    """Detect objects in all inputs, frame by frame together, and write each annotated video.

    The jobs differ in their files only. An input that ends or cannot be read any more leaves the batch, and its files
    are finished; the others continue. Interruptions leave files that play, as in `annotate_video`.
    """
    check_jobs(model, jobs)
    options = jobs[0].options
    outcomes = [JobOutcome() for _ in jobs]
    with ExitStack() as stack:
        interruptions = stack.enter_context(Interruptions())
        runs = {}
        for number, job in enumerate(jobs):
            runs[number] = stack.enter_context(JobRun(cfg, model, job, outcomes[number]))
        masks = MaskRequest(0.0 if options.save_json else options.min_score)
        detector = stack.enter_context(BatchDetector(cfg, model, control, masks=masks))
        dense = None
        if options.side_by_side_dense:
            twin = share_weights(model)
            twin.enabled = False
            fixed = RuntimeControl(twin, Constant(twin.vit.policy))
            dense = stack.enter_context(BatchDetector(cfg, twin, fixed, masks=MaskRequest(options.min_score)))
        progress = stack.enter_context(tqdm(unit="frame", desc=f"{len(jobs)} inputs"))
        stack.enter_context(interruptions.allowed())
        while frames := _next_frames(runs):
            results = detector.detect(frames)
            beside = dense.detect(frames) if dense else {}
            for number, frame in frames.items():
                runs[number].write(frame, results[number], beside.get(number))
            progress.update(len(frames))
    return outcomes


def check_jobs(model: nn.Module, jobs: Sequence[AnnotateJob]) -> None:
    """Raise ConfigError or VideoWriteError for what cannot be done, before anything is computed."""
    options = jobs[0].options
    if options.show_tokens is not None and not model.enabled:
        raise ConfigError("MODEL.EVENTFUL.ENABLED is False: the dense model has no updated tokens to show")
    for job in jobs:
        check_part(job.source, options.start, options.end, options.every)
        check_outputs(job.source, job.output, job.options)


def _next_frames(runs: dict[int, JobRun]) -> dict[int, SourceFrame]:
    """The next frame of every input that has one; the others are finished and taken out."""
    frames = {}
    for number, run in list(runs.items()):
        frame = run.next_frame()
        if frame is None:
            runs.pop(number).close()
        else:
            frames[number] = frame
    return frames


class JobRun:
    """One input on its way through the batch: its frames and its files; a context manager."""

    def __init__(self, cfg: CfgNode, model: nn.Module, job: AnnotateJob, outcome: JobOutcome) -> None:
        self._job, self._outcome, options = job, outcome, job.options
        self._classes = class_names(cfg)
        self._chosen = find_classes(self._classes, options.classes) if options.classes else None
        self._painter = FramePainter(
            self._classes,
            model.vit.gate_names,
            tokens=options.show_tokens,
            min_score=options.min_score,
            enlarge=options.enlarge,
        )
        fps = job.source.fps / options.every
        self._trackers = [ObjectTracker(fps) if options.track else None for _ in range(2)]
        self._pictures = set(options.save_frames)
        self._exit = ExitStack()

    def __enter__(self) -> JobRun:
        source, options = self._job.source, self._job.options
        with ExitStack() as stack:
            self._video = stack.enter_context(open_writer(source, self._job.output, options))
            json_lines = JsonLinesWriter(options.save_json) if options.save_json else None
            self._lines = stack.enter_context(json_lines) if json_lines else None
            self._frames: Iterator = stack.enter_context(closing(source.frames(options.start, options.every)))
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._exit.__exit__(*exc_info)

    def close(self) -> None:
        """Finish the files."""
        self._exit.close()
        if self._pictures:
            missed = ", ".join(map(str, sorted(self._pictures)))
            logger.warning("%s: no picture of frame %s", self._job.source.name, missed)

    def next_frame(self) -> SourceFrame | None:
        """The next frame; None at the end, or where it cannot be read, which the outcome then says."""
        options = self._job.options
        if options.max_frames is not None and self._outcome.costs.num_frames >= options.max_frames:
            return None
        try:
            frame = next(self._frames, None)
        except VideoReadError as error:
            self._outcome.error = error
            return None
        return None if frame is None or (options.end is not None and frame.index >= options.end) else frame

    def write(self, frame: SourceFrame, result: FrameResult, dense: FrameResult | None) -> None:
        """Write a frame's results into all files."""
        results = [found and keep_classes(found, self._chosen) for found in (result, dense)]
        result, dense = (found and identify(found, frame, t) for found, t in zip(results, self._trackers))
        picture = self._painter.paint(frame, result, dense)
        self._video.write(picture, frame.seconds, frame.duration)
        if frame.index in self._pictures:
            self._pictures.remove(frame.index)
            write_atomically(picture_path(self._job.output, frame.index), encode_png(picture))
        if self._lines is not None:
            self._lines.write(describe_frame(frame, result, self._classes))
        self._outcome.costs.add_frame(result.cost)
