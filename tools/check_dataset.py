#!/usr/bin/env python3
"""Count what a data set holds, compare with the known totals, and name what is missing or cannot be read.

    python tools/check_dataset.py imagenet_vid_val --quick
    python tools/check_dataset.py imagenet_vid_val

`--quick` looks whether every file is there; without it, every frame is decoded, too. NAME is a registered data set or
the path of a COCO-VID file. The exit code is 0 if all is well and 1 if not.
"""

import argparse
import sys

import eventful_vitdet  # noqa: F401  (makes detectron2 importable)
from detectron2.utils.logger import setup_logger
from eventful_vitdet.command_line import run
from eventful_vitdet.data import register_test_json
from eventful_vitdet.data.check import DatasetReport, check_dataset, format_report


def main(arguments: argparse.Namespace) -> DatasetReport:
    setup_logger(name="eventful_vitdet")
    is_file = arguments.name.endswith(".json")
    name = register_test_json(arguments.name, arguments.root) if is_file else arguments.name
    report = check_dataset(name, quick=arguments.quick, is_part=arguments.part)
    print(format_report(report))
    return report


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", metavar="NAME", help="such as imagenet_vid_val, or a file that ends in .json")
    parser.add_argument("--root", metavar="DIR", help="folder that the paths in a JSON file start from")
    parser.add_argument("--quick", action="store_true", help="do not decode the frames")
    parser.add_argument("--part", action="store_true", help="it is a part of that data set: no known totals")
    return parser.parse_args()


if __name__ == "__main__":
    parsed = parse_arguments()
    reports: list[DatasetReport] = []
    code = run(lambda: reports.append(main(parsed)))
    sys.exit(code or int(not reports[0].is_sound))
