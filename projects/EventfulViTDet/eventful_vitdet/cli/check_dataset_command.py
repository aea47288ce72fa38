"""Count the contents of a data set, compare them with the known totals, and name what is missing or unreadable.

    python tools/check_dataset.py imagenet_vid_val --quick
    python tools/check_dataset.py imagenet_vid_val
    python tools/check_dataset.py epic_kitchens_validation --quick

`--quick` only checks that every file exists and that video files have the frames that are listed; without it, every
frame is decoded, too. NAME is a registered data set;
FILE is a COCO-VID file, which is read by the rules of the keys DATASETS.*, or a CSV file of clips, whose classes must
be among MODEL.VIVIT.CLASSES. The exit code is 0 if all is well and 1 if not.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .arguments import add_pairs, command_parser
from .console import run

if TYPE_CHECKING:
    from ..actions.action_set_check import ActionSetReport
    from ..data.dataset_check import DatasetReport


def execute(arguments: argparse.Namespace) -> DatasetReport | ActionSetReport:
    from ..actions import is_action_set
    from ..config_files import build_cfg
    from ..data import ReadRules, register_test_json
    from ..data.dataset_check import check_dataset, format_report

    if arguments.name.endswith(".csv") or is_action_set(arguments.name):
        return check_clips(arguments)
    is_file = arguments.name.endswith(".json")
    name = register_test_json(arguments.name, arguments.root) if is_file else arguments.name
    rules = ReadRules.from_config(build_cfg("", arguments.opts))
    report = check_dataset(name, quick=arguments.quick, is_part=arguments.part, rules=rules)
    print(format_report(report))
    return report


def check_clips(arguments: argparse.Namespace) -> ActionSetReport:
    """Check a data set of actions."""
    from ..actions import register_action_csv
    from ..actions.action_set_check import check_action_set, format_report
    from ..actions.action_sets import BUILTIN_HEADS
    from ..config_files import build_cfg
    from ..modeling.video_classifier import parse_heads

    is_file = arguments.name.endswith(".csv")
    name = register_action_csv(arguments.name, arguments.root) if is_file else arguments.name
    heads = BUILTIN_HEADS.get(name) or parse_heads(build_cfg("", arguments.opts).MODEL.VIVIT.CLASSES)
    report = check_action_set(name, heads, quick=arguments.quick, is_part=arguments.part)
    print(format_report(report))
    return report


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("name", metavar="NAME|FILE", help="such as imagenet_vid_val, or a .json or .csv file")
    parser.add_argument("--root", metavar="DIR", help="folder that the paths in a file start from")
    parser.add_argument("--quick", action="store_true", help="do not decode the frames")
    parser.add_argument("--part", action="store_true", help="yours is only a part of it: ignore known totals")
    add_pairs(parser)
    return parser.parse_intermixed_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(words)
    reports: list[DatasetReport | ActionSetReport] = []
    code = run(lambda: reports.append(execute(arguments)), arguments)
    return code or int(not reports[0].is_sound)
