"""Detections on video: boxes, the tokens that were updated, and what every frame costs.

    python tools/visualize_video.py --config-file configs/airborne_vid/vitdet_small.yaml \\
        --input video.mp4 --output out.mp4 MODEL.WEIGHTS weights/airborne_vitdet_small.safetensors

The input is a video file, a folder or quoted pattern of images or videos, rtsp:// or http://, or a camera's number.
With several videos, --output is a folder, where each gets a file of its name. See docs/visualize.md.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import ToolError, VideoReadError, VideoWriteError, describe_error
from .arguments import add_pairs, command_parser, factor, score, whole_number
from .console import run

if TYPE_CHECKING:
    from detectron2.config import CfgNode
    from torch import nn

    from ..draw.annotated_video import AnnotateOptions
    from ..video import VideoSource


def execute(arguments: argparse.Namespace) -> None:
    from ..control import budget_options
    from ..draw.annotated_video import AnnotateOptions
    from ..predictor import load_detector
    from ..video import open_sources
    from .command_line import build_cfg

    cfg = build_cfg(arguments.config_file, [*budget_options(arguments.budget), *arguments.opts])
    sources = open_sources(arguments.input)
    outputs = choose_outputs(sources, arguments.output, arguments.save_json)
    model = load_detector(cfg)
    options = AnnotateOptions(
        side_by_side_dense=arguments.side_by_side_dense,
        show_tokens=arguments.show_tokens,
        min_score=arguments.confidence_threshold,
        save_frames=arguments.save_frames,
        start=arguments.start,
        end=arguments.end,
        every=arguments.every,
        max_frames=arguments.max_frames,
        sound=not arguments.no_audio,
        enlarge=arguments.enlarge,
        window=not arguments.no_window,
    )
    unread = 0
    for source, (output, json_path) in zip(sources, outputs):
        try:
            annotate(cfg, model, source, output, replace(options, save_json=json_path))
        except VideoReadError as error:
            if len(sources) == 1:
                raise
            unread += 1
            print(f"error: {describe_error(error)}", file=sys.stderr)
    if unread:
        raise ToolError(f"{unread} of {len(sources)} videos could not be read whole")


def annotate(cfg: CfgNode, model: nn.Module, source: VideoSource, output: str, options: AnnotateOptions) -> None:
    """Write one video, and say what it cost."""
    from ..control import build_runtime_control
    from ..draw.annotated_video import annotate_video, describe_costs

    control = build_runtime_control(cfg, model)
    costs = annotate_video(cfg, model, source, output, options, control)
    print(f"{output}: {describe_costs(costs)}")
    if control.controller.state is not None:
        print(control.controller.state)


def choose_outputs(sources: Sequence[VideoSource], output: str, save_json: str | None) -> list[tuple[str, str | None]]:
    """The video and the JSON file of each source.

    Raises VideoWriteError where several sources meet the name of one file, or an output would take an input's place.
    """
    from ..video.video_writer import SUFFIXES

    if len(sources) == 1:
        return [(output, save_json)]
    for option, path in (("--output", output), ("--save-json", save_json)):
        if path is not None and os.path.splitext(path)[1] and not os.path.isdir(path):
            raise VideoWriteError(f"{option} {path}: there are {len(sources)} videos, a file for each; name a folder")
    chosen = []
    for name in unique_names([source.name for source in sources]):
        json_path = None if save_json is None else os.path.join(save_json, f"{name}.jsonl")
        chosen.append((os.path.join(output, f"{name}{SUFFIXES[0]}"), json_path))
    inputs = {os.path.realpath(path) for source in sources for path in source.paths}
    for path in (path for pair in chosen for path in pair if path is not None):
        if os.path.realpath(path) in inputs:
            raise VideoWriteError(f"{path}: is an input; choose another folder for the outputs")
    return chosen


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


def take_pairs(inputs: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split off KEY VALUE pairs that a command line has right behind its inputs."""
    for position, word in enumerate(inputs):
        if re.fullmatch(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)+", word) and not os.path.exists(word):
            return list(inputs[:position]), list(inputs[position:])
    return list(inputs), []


def numbers(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} are not numbers of frames, such as 20,60")
    return sorted({int(word) for word in words})


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    option = parser.add_argument
    inputs = "videos, folders, 'patterns*', rtsp://..., http://..., or number of a camera"
    option("--config-file", required=True, metavar="FILE", help="configuration, as in train_net.py")
    option("--input", required=True, nargs="+", action="extend", metavar="INPUT", help=inputs)
    option("--output", required=True, metavar="FILE.mp4", help="the annotated video; of several inputs, a folder")
    option("--side-by-side-dense", action="store_true", help="run the dense model too, shown on the right")
    option("--show-tokens", metavar="any|BLOCK", help="tint updated tokens: any, a block (3), or a gate of it (3.qkv)")
    option("--budget", metavar="SCHEDULE", help="tokens per gate: 256, or by frame as in 0:512,120:128,240:2048")
    option("--save-json", metavar="FILE.jsonl", help="detections and costs, a line per frame; or a folder as --output")
    option("--confidence-threshold", type=score, default=0.3, metavar="SCORE", help="weakest to draw (default: 0.3)")
    option("--save-frames", type=numbers, default=[], metavar="N,N,...", help="write these frames as pictures too")
    option("--start", type=whole_number(0), default=0, metavar="N", help="number of the first frame (default: 0)")
    option("--end", type=whole_number(1), metavar="N", help="number of the frame to stop before")
    option("--every", type=whole_number(1), default=1, metavar="N", help="take every N-th frame")
    option("--enlarge", type=factor, default=1.0, metavar="FACTOR", help="draw on frames so many times as large")
    option("--max-frames", type=whole_number(1), metavar="N", help="stop after so many frames")
    option("--no-audio", action="store_true", help="leave the sound out; otherwise it is copied")
    option("--no-window", action="store_true", help="show nothing while writing, even where there is a display")
    add_pairs(parser)
    arguments = parser.parse_args(words)
    arguments.input, pairs = take_pairs(arguments.input)
    arguments.opts = pairs + arguments.opts
    if not arguments.input:
        parser.error("--input needs a video, a folder, an address, or the number of a camera")
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(words)
    return run(lambda: execute(arguments), arguments)
