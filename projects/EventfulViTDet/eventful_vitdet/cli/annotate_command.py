"""Draw detections on video: boxes, updated tokens, and the cost of every frame. Or actions, as text.

    python tools/visualize_video.py street.mp4
    python tools/visualize_video.py street.mp4 --classes person car --budget 256 --save-json street.jsonl
    python tools/visualize_video.py --model configs/airborne_vid/vitdet_small.yaml \\
        --weights weights/airborne_vitdet_small.safetensors --input video.mp4 --output out.mp4

The first writes street_detections.mp4 beside the video. Inputs are video files, folders or quoted patterns of images or
videos, rtsp:// or http://, or a camera's number. With several inputs, --output is a folder, where each gets a file of
its name. See docs/visualize.md.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ..errors import ConfigError, ToolError, VideoReadError, VideoWriteError, describe_error
from ..files import file_key
from ..shown_score import SHOWN_SCORE
from .annotate_actions import ENDING as ACTIONS_ENDING
from .annotate_actions import annotate_actions, check_actions, csv_outputs
from .arguments import add_inputs, add_model, command_parser, factor, model_pairs, score, take_inputs, whole_number
from .console import run

DEFAULT_ENDING = "_detections"
"""What the name of an output has behind that of its input."""
TOGETHER = 4
"""Files that run as one batch: each has a state of its own in memory. Cameras all do, as none of them can wait."""

if TYPE_CHECKING:
    from detectron2.config import CfgNode
    from torch import nn

    from ..draw.annotated_video import AnnotateOptions
    from ..video import VideoSource

logger = logging.getLogger("eventful_vitdet")


def execute(arguments: argparse.Namespace) -> None:
    from ..config import is_classifier
    from ..config_files import build_cfg
    from ..control import budget_options
    from ..predictor import load_detector, load_model

    # What may be wrong is found out before the model is made, or even fetched.
    cfg = build_cfg(arguments.config_file, [*budget_options(arguments.budget), *model_pairs(arguments)])
    of_actions = is_classifier(cfg)
    if of_actions:
        names = check_actions(cfg, arguments)
    else:
        check_detections(cfg, arguments)
    sources, outputs = choose_files(arguments, ACTIONS_ENDING if of_actions else DEFAULT_ENDING)
    tables = csv_outputs(arguments.save_csv, [output for output, _ in outputs])
    model = load_model(cfg) if of_actions else load_detector(cfg)
    if arguments.output is None:
        for output, _ in outputs:
            logger.info("writing %s", output)
    options = annotate_options(arguments)
    if of_actions:
        annotate_one_by_one(partial(annotate_actions, names), cfg, model, sources, outputs, tables, options)
    elif len(sources) == 1:
        annotate_one_by_one(annotate, cfg, model, sources, outputs, tables, options)
    elif sources:
        annotate_together(cfg, model, sources, outputs, options)


def check_detections(cfg: CfgNode, arguments: argparse.Namespace) -> None:
    """Raise a UserError for options of the command line that a detector has no use for, or that cannot be met."""
    from ..class_lists import find_classes
    from ..identities import check_tracking
    from ..predictor import class_names

    if arguments.save_csv:
        raise ConfigError("--save-csv is for models of actions; detections are saved by --save-json")
    if arguments.classes:
        find_classes(class_names(cfg), arguments.classes)
    if arguments.track:
        check_tracking()


def choose_files(
    arguments: argparse.Namespace, ending: str
) -> tuple[Sequence[VideoSource], list[tuple[str, str | None]]]:
    """The sources of a command line, and the video and the JSON file of each."""
    from ..video import check_distinct, open_sources

    sources = open_sources(arguments.input)
    check_distinct(sources)
    if arguments.output is None:
        sources = without_own_outputs(sources, ending)
    return sources, choose_outputs(sources, arguments.output, arguments.save_json, ending)


def annotate_options(arguments: argparse.Namespace) -> AnnotateOptions:
    """How the videos of a command line are annotated; where results are saved, each video's options say."""
    from ..draw.annotated_video import AnnotateOptions

    return AnnotateOptions(
        side_by_side_dense=arguments.side_by_side_dense,
        show_tokens=arguments.show_tokens,
        min_score=SHOWN_SCORE if arguments.confidence_threshold is None else arguments.confidence_threshold,
        classes=arguments.classes,
        track=arguments.track,
        save_frames=arguments.save_frames,
        start=arguments.start,
        end=arguments.end,
        every=arguments.every,
        max_frames=arguments.max_frames,
        sound=not arguments.no_audio,
        enlarge=arguments.enlarge,
        window=not arguments.no_window,
    )


def annotate_one_by_one(
    write: Callable[..., None],
    cfg: CfgNode,
    model: nn.Module,
    sources: Sequence[VideoSource],
    outputs: Sequence[tuple[str, str | None]],
    tables: Sequence[str | None],
    options: AnnotateOptions,
) -> None:
    """Write one video after the other. Raises ToolError if any of several could not be read whole."""
    unread = 0
    for source, (output, json_path), csv_path in zip(sources, outputs, tables):
        try:
            write(cfg, model, source, output, replace(options, save_json=json_path, save_csv=csv_path))
        except VideoReadError as error:
            if len(sources) == 1:
                raise
            unread += 1
            print(f"error: {describe_error(error)}", file=sys.stderr)
    raise_for_unread(unread, len(sources))


def annotate_together(
    cfg: CfgNode,
    model: nn.Module,
    sources: Sequence[VideoSource],
    outputs: Sequence[tuple[str, str | None]],
    options: AnnotateOptions,
) -> None:
    """Write several videos, computed as batches of streams. Raises ToolError if any could not be read whole."""
    from ..control import build_runtime_control
    from ..draw.annotated_batch import AnnotateJob, annotate_batch, check_jobs
    from ..draw.annotated_video import describe_costs

    jobs = [
        AnnotateJob(source, output, replace(options, save_json=json_path))
        for source, (output, json_path) in zip(sources, outputs)
    ]
    check_jobs(model, jobs)
    control = build_runtime_control(cfg, model)
    size = len(jobs) if any(source.live for source in sources) else TOGETHER
    unread = 0
    for start in range(0, len(jobs), size):
        batch = jobs[start : start + size]
        for job, outcome in zip(batch, annotate_batch(cfg, model, batch, control)):
            print(f"{job.output}: {describe_costs(outcome.costs)}", flush=True)
            if outcome.error is not None:
                unread += 1
                print(f"error: {describe_error(outcome.error)}", file=sys.stderr)
    if control.controller.state is not None:
        print(control.controller.state)
    raise_for_unread(unread, len(sources))


def raise_for_unread(unread: int, all_sources: int) -> None:
    """Raise ToolError if some of the videos could not be read whole."""
    if unread:
        raise ToolError(f"{unread} of {all_sources} videos could not be read whole")


def annotate(cfg: CfgNode, model: nn.Module, source: VideoSource, output: str, options: AnnotateOptions) -> None:
    """Write one video, and say what it cost."""
    from ..control import build_runtime_control
    from ..draw.annotated_video import annotate_video, describe_costs

    control = build_runtime_control(cfg, model)
    costs = annotate_video(cfg, model, source, output, options, control)
    print(f"{output}: {describe_costs(costs)}")
    if control.controller.state is not None:
        print(control.controller.state)


def choose_outputs(
    sources: Sequence[VideoSource], output: str | None, save_json: str | None, ending: str = DEFAULT_ENDING
) -> list[tuple[str, str | None]]:
    """The video and the JSON file of each source. Without `output`, videos get the names of `default_outputs`.

    Raises VideoWriteError where several sources meet the name of one file, or an output would take an input's place.
    """
    from ..video.video_writer import SUFFIXES

    beside = default_outputs(sources, ending) if output is None else []
    if len(sources) == 1:
        return [(beside[0] if output is None else output, save_json)]
    for option, path in (("--output", output), ("--save-json", save_json)):
        if path is not None and os.path.splitext(path)[1] and not os.path.isdir(path):
            raise VideoWriteError(f"{option} {path}: there are {len(sources)} videos, a file for each; name a folder")
    names = unique_names([source.name for source in sources])
    videos = beside if output is None else [os.path.join(output, f"{name}{SUFFIXES[0]}") for name in names]
    jsons = [None if save_json is None else os.path.join(save_json, f"{name}.jsonl") for name in names]
    inputs = {file_key(path) for source in sources for path in source.paths}
    for path in (path for path in (*videos, *jsons) if path is not None):
        if file_key(path) in inputs:
            raise VideoWriteError(f"{path}: is an input; choose another folder for the outputs")
    return list(zip(videos, jsons))


def default_outputs(sources: Sequence[VideoSource], ending: str = DEFAULT_ENDING) -> list[str]:
    """street_detections.mp4 beside street.mp4, or beside a folder of images; in the current folder for what is neither.
    Names are numbered where one would be taken twice."""
    from ..video.video_writer import SUFFIXES

    outputs: list[str] = []
    for source in sources:
        if len(source.paths) == 1:
            stem = os.path.splitext(source.paths[0])[0]
        elif os.path.isdir(source.name):
            stem = os.path.abspath(source.name) if source.name in (".", "..") else os.path.normpath(source.name)
        else:
            stem = unique_names([source.name])[0].strip("_") or "video"
        path, count = f"{stem}{ending}{SUFFIXES[0]}", 1
        while path in outputs:
            count += 1
            path = f"{stem}{ending}-{count}{SUFFIXES[0]}"
        outputs.append(path)
    return outputs


def without_own_outputs(sources: Sequence[VideoSource], ending: str = DEFAULT_ENDING) -> list[VideoSource]:
    """The sources but for those that an earlier run of the same command wrote, beside the others."""
    written = set(map(os.path.realpath, default_outputs(sources, ending)))
    kept = [source for source in sources if not any(os.path.realpath(path) in written for path in source.paths)]
    for source in sources:
        if source not in kept:
            logger.info("%s is passed over: it is this command's output", source.name)
    return kept


def unique_names(sources: Sequence[str]) -> list[str]:
    """Names for the outputs of sources: those of their files without suffix, with a number where that was taken."""
    names: list[str] = []
    for source in sources:
        stem = os.path.splitext(os.path.basename(os.path.normpath(source)))[0]
        stem = name = re.sub(r"[^\w.-]+", "_", stem) or "video"
        count = 1
        while name in names:
            count += 1
            name = f"{stem}-{count}"
        names.append(name)
    return names


def numbers(text: str) -> list[int]:
    """A type of argument: numbers of frames, rising and each once."""
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} are not numbers of frames, such as 20,60")
    return sorted({int(word) for word in words})


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    option = parser.add_argument
    add_inputs(parser, "videos, folders, 'patterns*', rtsp://..., http://..., or number of a camera")
    add_model(parser)
    output = "the annotated video, of several inputs a folder (default: INPUT_detections.mp4, beside the input)"
    option("--output", metavar="FILE.mp4", help=output)
    option("--classes", nargs="+", default=[], metavar="NAME", help="classes to draw and to save (default: all)")
    option("--track", action="store_true", help="number the objects, also in the JSON; needs the extra 'track'")
    option("--side-by-side-dense", action="store_true", help="also run the dense model, shown on the right")
    option("--show-tokens", metavar="any|BLOCK", help="tint updated tokens: any, those of a block (3) or gate (3.qkv)")
    option("--budget", metavar="SCHEDULE", help="tokens per gate: 256, or by frame as in 0:512,120:128,240:2048")
    option("--save-json", metavar="FILE.jsonl", help="detections and costs, a line per frame; or a folder")
    option("--save-csv", metavar="FILE.csv", help="models of actions: a table of the steps; or a folder")
    option("--confidence-threshold", type=score, metavar="SCORE", help=f"lowest score to draw (default: {SHOWN_SCORE})")
    option("--save-frames", type=numbers, default=[], metavar="N,N,...", help="also write these frames as pictures")
    option("--start", type=whole_number(0), default=0, metavar="N", help="number of the first frame (default: 0)")
    option("--end", type=whole_number(1), metavar="N", help="number of the frame to stop before")
    option("--every", type=whole_number(1), default=1, metavar="N", help="take every N-th frame")
    option("--enlarge", type=factor, default=1.0, metavar="FACTOR", help="enlarge frames by this factor before drawing")
    option("--max-frames", type=whole_number(1), metavar="N", help="stop after so many frames")
    option("--no-audio", action="store_true", help="leave out the sound, which is copied otherwise")
    option("--no-window", action="store_true", help="no preview window, even if there is a display")
    arguments = parser.parse_intermixed_args(words)
    hint = " (before --classes, which takes all words that follow)" if arguments.classes else ""
    take_inputs(parser, arguments, hint)
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(words)
    return run(lambda: execute(arguments), arguments)
