"""Count what a data set holds, compare with the known totals, and name what is missing or cannot be read.

    python tools/check_dataset.py imagenet_vid_val --quick
    python tools/check_dataset.py imagenet_vid_val

`--quick` looks whether every file is there; without it, every frame is decoded, too. NAME is a registered data set or
the path of a COCO-VID file, to whose reading the keys DATASETS.* apply. The exit code is 0 if all is well and 1 if not.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .arguments import add_pairs, command_parser
from .console import run

if TYPE_CHECKING:
    from ..data.dataset_check import DatasetReport


def execute(arguments: argparse.Namespace) -> DatasetReport:
    from ..data import ReadRules, register_test_json
    from ..data.dataset_check import check_dataset, format_report
    from .command_line import build_cfg

    is_file = arguments.name.endswith(".json")
    name = register_test_json(arguments.name, arguments.root) if is_file else arguments.name
    rules = ReadRules.from_config(build_cfg("", arguments.opts))
    report = check_dataset(name, quick=arguments.quick, is_part=arguments.part, rules=rules)
    print(format_report(report))
    return report


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("name", metavar="NAME", help="such as imagenet_vid_val, or a file that ends in .json")
    parser.add_argument("--root", metavar="DIR", help="folder that the paths in a JSON file start from")
    parser.add_argument("--quick", action="store_true", help="do not decode the frames")
    parser.add_argument("--part", action="store_true", help="it is a part of that data set: no known totals")
    add_pairs(parser)
    return parser.parse_intermixed_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(words)
    reports: list[DatasetReport] = []
    code = run(lambda: reports.append(execute(arguments)), arguments)
    return code or int(not reports[0].is_sound)
