"""Several videos at once, as one batch of streams, each written to files of its own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

from detectron2.config import CfgNode
from torch import nn
from tqdm import tqdm

from ..batch_detector import BatchDetector
from ..control import RuntimeControl
from ..costs import CostSums
from ..errors import VideoReadError
from ..interruption import Interruptions
from ..masks import MaskRequest
from ..predictor import FrameResult, class_names, dense_twin
from ..structures import SourceFrame
from ..video import JsonLinesWriter, VideoSource
from .annotated_video import (
    AnnotateOptions,
    DetectionChoice,
    check_tokens,
    describe_frame,
    make_painter,
    masks_of,
)
from .frame_files import FrameFiles, check_files, count_frames, selected_frames


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
        detector = stack.enter_context(BatchDetector(cfg, model, control, masks=masks_of(options)))
        dense = None
        if options.side_by_side_dense:
            twin = BatchDetector(cfg, *dense_twin(model), masks=MaskRequest(options.min_score))
            dense = stack.enter_context(twin)
        progress = stack.enter_context(tqdm(total=_all_frames(jobs), unit="frame", desc=f"{len(jobs)} inputs"))
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
    check_tokens(model, jobs[0].options)
    for job in jobs:
        check_files(job.source, job.output, job.options)


def _all_frames(jobs: Sequence[AnnotateJob]) -> int | None:
    """How many frames the inputs have together; None where one of them does not say."""
    counts = [count_frames(job.source, job.options) for job in jobs]
    return None if None in counts else sum(counts)


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
        self._job, self._outcome = job, outcome
        self._classes = class_names(cfg)
        self._painter = make_painter(self._classes, model, job.options)
        self._choose, self._choose_dense = (DetectionChoice(self._classes, job.source, job.options) for _ in range(2))
        self._exit = ExitStack()

    def __enter__(self) -> JobRun:
        source, options = self._job.source, self._job.options
        with ExitStack() as stack:
            self._files = stack.enter_context(FrameFiles(source, self._job.output, options))
            self._lines = stack.enter_context(JsonLinesWriter(options.save_json)) if options.save_json else None
            self._frames = stack.enter_context(closing(selected_frames(source, options)))
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._exit.__exit__(*exc_info)

    def close(self) -> None:
        """Finish the files."""
        self._exit.close()

    def next_frame(self) -> SourceFrame | None:
        """The next frame; None at the end, or where it cannot be read, which the outcome then says."""
        try:
            return next(self._frames, None)
        except VideoReadError as error:
            self._outcome.error = error
            return None

    def write(self, frame: SourceFrame, result: FrameResult, dense: FrameResult | None) -> None:
        """Write a frame's results into all files."""
        result = self._choose(result, frame)
        beside = None if dense is None else self._choose_dense(dense, frame)
        self._files.write(frame, self._painter.paint(frame, result, beside))
        if self._lines is not None:
            self._lines.write(describe_frame(frame, result, self._classes))
        self._outcome.costs.add_frame(result.cost)
