#!/usr/bin/env python3
"""Write a report of an evaluation: one HTML file that needs nothing else.

    python tools/report.py output/demo/inference --config-file configs/demo/vitdet_tiny.yaml

The folder is the one that `train_net.py --eval-only --budgets ...` wrote below OUTPUT_DIR. The configuration, or
--test-json, names the data set that it evaluated; without it the report has no pictures and no names of videos.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

import eventful_vitdet  # noqa: F401  (makes detectron2 importable)
from eventful_vitdet.command_line import build_cfg, run
from eventful_vitdet.data import register_test_json
from eventful_vitdet.errors import ReportError
from eventful_vitdet.visualization.report import write_report


def main(arguments: argparse.Namespace) -> None:
    output = arguments.output or os.path.join(arguments.folder, "report.html")
    write_report(
        arguments.folder,
        output,
        dataset=find_dataset(arguments),
        videos=arguments.videos,
        title=arguments.title,
        thumbnails=arguments.thumbnails,
    )
    print(f"report: {output}")


def find_dataset(arguments: argparse.Namespace) -> str | None:
    """The evaluated data set's name: of --test-json, or of the configuration."""
    if arguments.test_json:
        return register_test_json(arguments.test_json, arguments.test_root)
    if not arguments.config_file and not arguments.opts:
        return None
    names = build_cfg(arguments.config_file, arguments.opts).DATASETS.TEST
    if len(names) > 1:  # each has a folder called after it
        here = Path(arguments.folder).resolve().name
        names = [name for name in names if re.sub(r"[^\w.-]+", "_", name) == here]
    if len(names) != 1:
        raise ReportError(f"DATASETS.TEST does not name the data set of {arguments.folder}; set it to that one")
    return names[0]


def count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, 0 or larger")
    return int(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="an evaluation's inference folder, with budgets.json")
    parser.add_argument("--config-file", default="", metavar="FILE", help="configuration of the evaluation")
    parser.add_argument("--test-json", metavar="FILE", help="the COCO-VID file that was evaluated, as in train_net.py")
    parser.add_argument("--test-root", metavar="DIR", help="folder that its paths start from")
    parser.add_argument("--output", metavar="FILE", help="default: report.html in the folder")
    parser.add_argument("--videos", nargs="+", default=[], metavar="ID", help="timelines of these (default: of 12)")
    parser.add_argument("--thumbnails", type=count, default=6, metavar="N", help="pictures per budget (default: 6)")
    parser.add_argument("--title", default="", help="heading of the report")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="configuration, as in train_net.py")
    parsed = parser.parse_intermixed_args()
    sys.exit(run(lambda: main(parsed)))
