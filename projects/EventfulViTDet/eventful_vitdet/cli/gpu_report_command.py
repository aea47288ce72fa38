"""Check and measure everything on a GPU, in under nine minutes.

python tools/gpu_report.py
python tools/gpu_report.py --only tables tune
python tools/gpu_report.py --only paper

Writes gpu_report.json and gpu_report.md to --output as it goes. A second call runs what is not finished, and what was
measured with other code. Without a GPU, operators and models are checked in Triton's interpreter at tiny sizes.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ..gpu_report.part_list import PARTS, Part

PAPER = "paper"


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 1 if a part failed, or found a fault."""
    arguments = parse(words)
    from ..gpu_report.report_file import ReportFileError

    if PAPER in arguments.only:
        print_paper(arguments.size, arguments.r)
    names = [part.name for part in PARTS] if not arguments.only else arguments.only
    chosen = [part for part in PARTS if part.name in names]
    if not chosen:
        return 0
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the part that runs is ended too
    try:
        return run_parts(chosen, Path(arguments.output), arguments.restart)
    except ReportFileError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; rerun the same command to continue", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gpu_report.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*(part.name for part in PARTS), PAPER]
    parser.add_argument("--only", nargs="+", choices=names, default=[], metavar="PART", help=", ".join(names))
    parser.add_argument("--output", default="output/gpu_report", metavar="DIR", help="default: output/gpu_report")
    parser.add_argument("--restart", action="store_true", help="run the parts again that are finished")
    parser.add_argument("--size", type=int, default=1024, metavar="PIXELS", help="of --only paper (default: 1024)")
    parser.add_argument("--r", type=int, default=512, help="of --only paper (default: 512)")
    arguments = parser.parse_args(words)
    if arguments.size < 16 or arguments.size % 16:
        parser.error(f"--size {arguments.size} is not a multiple of ViTDet-B's patches, 16 pixels")
    if not 1 <= arguments.r <= (arguments.size // 16) ** 2:
        parser.error(f"--r {arguments.r} is not a number of tokens; there are {(arguments.size // 16) ** 2}")
    return arguments


def run_parts(parts: Sequence[Part], folder: Path, restart: bool) -> int:
    """Run parts that are not finished, and write the report after each."""
    from ..files import write_atomically
    from ..gpu_report.machine import NO_GPU, describe_machine
    from ..gpu_report.parts import is_finished, run_part
    from ..gpu_report.report_file import JSON_NAME, MARKDOWN_NAME, load_report, write_strict_json
    from ..gpu_report.report_markdown import format_report

    machine = describe_machine()
    if machine["device"] == NO_GPU:
        print("no GPU: kernels run in Triton's interpreter, at tiny sizes, and nothing is timed", flush=True)
    else:
        print(", ".join(f"{key} {value}" for key, value in machine.items()), flush=True)
    report = load_report(folder, machine, restart)
    started = time.monotonic()
    for part in parts:
        if not restart and is_finished(report["parts"].get(part.name)):
            print(f"{part.name}: finished before", flush=True)
            continue
        print(f"{part.name}: at most {part.seconds} s, {time.monotonic() - started:.0f} s so far", flush=True)
        report["parts"][part.name] = outcome = run_part(part)
        write_strict_json(folder / JSON_NAME, report)
        write_atomically(str(folder / MARKDOWN_NAME), format_report(report))
        reason = f": {outcome['reason']}" if outcome["reason"] else ""
        print(f"{part.name}: {outcome['status']}{reason} ({outcome['seconds']:.0f} s)", flush=True)
    write_atomically(str(folder / MARKDOWN_NAME), format_report(report))
    print(f"\n{format_report(report)}\n{folder / MARKDOWN_NAME}", flush=True)
    return int(any(has_fault(report["parts"][part.name]) for part in parts))


def has_fault(outcome: dict) -> bool:
    """Whether a part did not come to its end, or found something wrong. A goal that is not reached is no fault."""
    from ..gpu_report.parts import DONE, SKIPPED

    return outcome["status"] not in (DONE, SKIPPED) or outcome["result"].get("ok") is False


def print_paper(size: int, r: int) -> None:
    """Traffic and launches of a later frame of ViTDet-B, computed from its shapes."""
    from ..gpu_report.paper_traffic import frame_table
    from ..gpu_report.report_markdown import format_paper
    from ..gpu_report.report_models import ALL_BFLOAT16, BFLOAT16

    for form in (BFLOAT16, ALL_BFLOAT16):
        print(format_paper(frame_table(size, r, form), f"ViTDet-B, {size} px, r = {r}, {form.name}") + "\n")
