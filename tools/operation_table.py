#!/usr/bin/env python3
"""Count the operations of ViTDet-B at every size and budget of a reference file, and compare category by category.

    python tools/operation_table.py

Prints a markdown table. The exit code is 0 only if every count is the reference's, to the last operation.
"""

import argparse
import sys
from pathlib import Path

import eventful_vitdet  # noqa: F401  (makes detectron2 importable)
from eventful_vitdet.command_line import build_cfg, run
from eventful_vitdet.errors import EvaluationError
from eventful_vitdet.evaluation.operation_table import format_operation_table, operation_table, read_reference

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "imagenet_vid" / "vitdet_b_1024_eventful_r512.yaml"
REFERENCE = ROOT / "tests" / "golden" / "vitdet_b_counts.json"


def main(arguments: argparse.Namespace) -> None:
    rows = operation_table(build_cfg(str(CONFIG)), read_reference(arguments.reference))
    print(format_operation_table(rows))
    wrong = [row for row in rows if row.differences()]
    for row in wrong:
        print(f"{row.configuration}, r {row.r}, {row.frame} frame: {', '.join(row.differences())}", file=sys.stderr)
    if wrong:
        raise EvaluationError(f"{len(wrong)} of {len(rows)} frames differ from {arguments.reference}")
    print(f"\nall {len(rows)} frames agree with {arguments.reference} in every category")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", default=str(REFERENCE), metavar="FILE", help="counts to compare with")
    parsed = parser.parse_args()
    sys.exit(run(lambda: main(parsed)))
