"""Make a COCO-VID file from plain COCO annotations of frames, as CVAT and Label Studio export them.

    python tools/convert_coco.py my/annotations/instances_default.json my/annotations/videos.json
    python tools/convert_coco.py result.json my/annotations/videos.json --images my/frames \\
        --pattern '(?P<video>camera_[a-z]+)_(?P<frame>[0-9]+)'

Frames of one folder whose names differ only in the last number form a video, and that number is the frame number. For
other names, use --pattern, a regular expression that is searched in the file names. Tracks are taken from
`attributes.track_id`. The new file is checked as an evaluation would check it; see datasets/README.md for the format.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .arguments import command_parser
from .console import run


def execute(arguments: argparse.Namespace) -> None:
    from ..data import default_test_root
    from ..data.plain_coco import convert_plain_coco

    root = default_test_root(arguments.output) if arguments.root is None else arguments.root
    done = convert_plain_coco(
        arguments.input,
        arguments.output,
        root,
        images=arguments.images,
        pattern=arguments.pattern,
        names_only=arguments.names_only,
    )
    print(
        f"{arguments.output}: {done.videos} videos, {done.frames} frames, {done.boxes} boxes, {done.tracks} tracks; "
        f"file names start from {root}"
    )
    if done.single_frames > done.videos / 2:
        print(f"note: {done.single_frames} of the videos have one frame only; --pattern tells how frames are named")
    if done.absent_files:
        print(f"note: {done.absent_files} of the files are not there; --images or --root says where they are")


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("input", help="the COCO file")
    parser.add_argument("output", help="the COCO-VID file to write")
    parser.add_argument("--images", metavar="DIR", help="folder that the input's file names start from")
    parser.add_argument(
        "--root",
        metavar="DIR",
        help="folder that the output's file names start from (default: its folder, or the parent of 'annotations')",
    )
    parser.add_argument(
        "--pattern", metavar="REGEX", help="with the groups (?P<frame>[0-9]+) and, if need be, (?P<video>...)"
    )
    parser.add_argument("--names-only", action="store_true", help="leave out the folders in the input's file names")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(words)
    return run(lambda: execute(arguments), arguments)
