"""Count the operations of ViTDet-B at every size and budget of a reference file, and compare category by category.

    python tools/operation_table.py

Prints a markdown table. The exit code is 0 only if every count is the reference's, to the last operation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ..errors import EvaluationError
from ..known_models import CHECKOUT
from .arguments import command_parser
from .console import run

CONFIG = "imagenet_vid/vitdet_b_1024_eventful_r512.yaml"  # by its name below configs/
REFERENCE = CHECKOUT / "tests" / "golden" / "vitdet_b_counts.json"


def execute(arguments: argparse.Namespace) -> None:
    from ..benchmark.operation_counts import format_operation_table, operation_table, read_reference
    from ..config_files import build_cfg

    rows = operation_table(build_cfg(CONFIG), read_reference(arguments.reference))
    print(format_operation_table(rows))
    wrong = [row for row in rows if row.differences()]
    for row in wrong:
        print(f"{row.configuration}, r {row.r}, {row.frame} frame: {', '.join(row.differences())}", file=sys.stderr)
    if wrong:
        raise EvaluationError(f"{len(wrong)} of {len(rows)} frames differ from {arguments.reference}")
    print(f"\nall {len(rows)} frames agree with {arguments.reference} in every category")


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("--reference", default=str(REFERENCE), metavar="FILE", help="counts to compare with")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(words)
    return run(lambda: execute(arguments), arguments)
