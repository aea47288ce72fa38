"""Convert between the layout of ILSVRC2015 and a COCO-VID file, keeping boxes, tracks and flags.

    python datasets/convert_imagenet_vid.py to-coco imagenet_vid_val datasets/ILSVRC2015/imagenet_vid_val.json
    python datasets/convert_imagenet_vid.py to-official my/annotations/val.json my_ILSVRC2015 --part val

`to-coco` reads the data set from ILSVRC2015 in DETECTRON2_DATASETS. File names in the new file start from that folder,
so write it there. `to-official` writes Annotations, ImageSets and, as links, Data of a COCO-VID or YouTube-VIS file; it
takes the 30 classes of ImageNet VID only, by name or by `wnid`, and leaves masks out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..errors import ConfigError
from .arguments import command_parser
from .console import run


def to_coco(arguments: argparse.Namespace) -> None:
    from ..data import dataset_folder
    from ..data.builtin import IMAGENET_VID_FOLDER
    from ..data.imagenet_vid.convert import official_to_coco
    from ..data.imagenet_vid.official import OFFICIAL_SPLITS

    if arguments.name not in OFFICIAL_SPLITS:
        raise ConfigError(f"{arguments.name!r} is no data set of ILSVRC2015; choose from {', '.join(OFFICIAL_SPLITS)}")
    numbers = official_to_coco(arguments.name, dataset_folder(IMAGENET_VID_FOLDER), arguments.output)
    print(f"{arguments.output}: {numbers[0]} videos, {numbers[1]} frames, {numbers[2]} boxes")


def to_official(arguments: argparse.Namespace) -> None:
    from ..data import default_test_root
    from ..data.imagenet_vid.convert import coco_to_official

    options = {"kind": arguments.kind, "part": arguments.part, "frames": arguments.frames}
    root = default_test_root(arguments.json) if arguments.root is None else arguments.root
    numbers = coco_to_official(arguments.json, root, arguments.output, **options)
    print(f"{arguments.output}: {numbers[0]} videos, {numbers[1]} frames")


def parse_arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("to-coco", help="write a COCO-VID file")
    command.add_argument("name", help="a data set that is read from ILSVRC2015, such as imagenet_vid_val")
    command.add_argument("output", help="the JSON file to write")
    command.set_defaults(call=to_coco)
    command = commands.add_parser(
        "to-official", help="write XML files and a list, of a COCO-VID file with ImageNet VID's classes only"
    )
    command.add_argument("json", help="the COCO-VID or YouTube-VIS file")
    command.add_argument("output", help="the folder to write, in place of ILSVRC2015")
    command.add_argument(
        "--root",
        help="folder that the paths in the JSON file start from (default: its folder, or the parent of 'annotations')",
    )
    command.add_argument("--kind", choices=["VID", "DET"], default="VID", help="DET: images (default: VID)")
    command.add_argument("--part", choices=["train", "val"], default="val", help="(default: val)")
    frames = ["link", "copy", "none"]
    command.add_argument("--frames", choices=frames, default="link", help="image files (default: link)")
    command.set_defaults(call=to_official)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse_arguments(words)
    return run(lambda: arguments.call(arguments), arguments)
