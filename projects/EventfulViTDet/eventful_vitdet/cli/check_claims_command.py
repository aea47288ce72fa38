"""Look for numbers that the README claims and the ledger, docs/claims.md, does not explain.

    python tools/check_claims.py
    python tools/check_claims.py --rerun

The exit code is 0 only if every claim has an entry, every entry a claim, and, with --rerun, what is quick to measure
is still so.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence

from ..errors import EvaluationError
from ..known_models import CHECKOUT
from .arguments import command_parser
from .console import run


def execute(arguments: argparse.Namespace) -> None:
    from ..claims import check_claims, find_claims
    from .checkout import checkout_file

    readme = checkout_file("README.md").read_text(encoding="utf-8")
    checkout_file("docs/claims.md")
    faults = check_claims(CHECKOUT)
    print(f"README.md: {len(find_claims(readme))} claims, {len(faults)} faults")
    if arguments.rerun:
        faults += measure()
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        raise EvaluationError(f"{len(faults)} claims are not as docs/claims.md or a measurement has them; see above")


def measure() -> list[str]:
    """Measure again what is quick to measure; returns what is wrong."""
    from .claim_checks import measure_again

    faults = []
    with tempfile.TemporaryDirectory() as folder:
        for name, found in measure_again(CHECKOUT, folder):
            print(f"{name}: {len(found) or 'no'} difference{'' if len(found) == 1 else 's'}")
            faults += found
    return faults


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("--rerun", action="store_true", help="measure again what takes no more than a minute")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(words)
    return run(lambda: execute(arguments), arguments)
