"""Write a report of an evaluation: one HTML file that needs nothing else.

    python tools/report.py output/demo/inference --config-file configs/demo/vitdet_tiny.yaml

The folder is the one that `train_net.py --eval-only --budgets ...` wrote below OUTPUT_DIR. The configuration, or
--test-json, names the data set that it evaluated; without it the report has no pictures and no names of videos.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ReportError
from .arguments import add_pairs, command_parser, whole_number
from .console import run

if TYPE_CHECKING:
    from detectron2.config import CfgNode


def execute(arguments: argparse.Namespace) -> None:
    from ..config_files import build_cfg
    from ..data import ReadRules
    from ..report import write_report, write_tradeoff

    output = arguments.output or os.path.join(arguments.folder, "report.html")
    cfg = build_cfg(arguments.config_file, arguments.opts)
    write_report(
        arguments.folder,
        output,
        dataset=find_dataset(arguments, cfg),
        rules=ReadRules.from_config(cfg),
        videos=arguments.videos,
        title=arguments.title,
        thumbnails=arguments.thumbnails,
    )
    print(f"report: {output}")
    if arguments.plot:
        write_tradeoff(arguments.folder, arguments.plot, arguments.title)
        print(f"plot: {arguments.plot}")


def find_dataset(arguments: argparse.Namespace, cfg: CfgNode) -> str | None:
    """The evaluated data set's name: of --test-json, or of the configuration."""
    from ..data import register_paths, register_test_json
    from ..evaluation.targets import folder_name

    if arguments.test_json:
        return register_test_json(arguments.test_json, arguments.root)
    if not arguments.config_file and not arguments.opts:
        return None
    names = register_paths(cfg.DATASETS.TEST)
    if len(names) > 1:  # each has a folder called after it
        here = Path(arguments.folder).resolve().name
        names = [name for name in names if folder_name(name) == here]
    if len(names) != 1:
        raise ReportError(f"DATASETS.TEST does not name the data set of {arguments.folder}; set it to that one")
    return names[0]


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("folder", help="an evaluation's inference folder, with budgets.json")
    parser.add_argument("--config-file", default="", metavar="FILE", help="configuration of the evaluation")
    parser.add_argument("--test-json", metavar="FILE", help="the COCO-VID file that was evaluated, as in train_net.py")
    parser.add_argument("--root", "--test-root", metavar="DIR", help="folder that its paths start from")
    parser.add_argument("--output", metavar="FILE", help="default: report.html in the folder")
    parser.add_argument("--videos", nargs="+", default=[], metavar="ID", help="timelines to show (default: 12)")
    parser.add_argument(
        "--thumbnails", type=whole_number(0), default=6, metavar="N", help="pictures per budget (default: 6)"
    )
    parser.add_argument("--plot", metavar="FILE.svg", help="also write AP50 against cost as a separate picture")
    parser.add_argument("--title", default="", help="heading of the report")
    add_pairs(parser)
    return parser.parse_intermixed_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(words)
    return run(lambda: execute(arguments), arguments)
