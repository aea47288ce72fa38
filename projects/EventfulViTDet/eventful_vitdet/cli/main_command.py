"""The installed command `eventful-vitdet`: the commands of this package by short names."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from .. import __version__
from ..known_models import DEFAULT_MODEL
from .arguments import INSTALLED


@dataclass(frozen=True)
class Subcommand:
    """What a word stands for."""

    module: str
    """Of this folder, with a function `main`."""
    does: str
    options: tuple[str, ...] = ()
    """Which that command is given."""


SUBCOMMANDS = {
    "predict": Subcommand("annotate_command", "detect objects in videos or a camera, and write annotated videos"),
    "live": Subcommand("live_command", "show detections on a web page, with a slider for the budget"),
    "advise": Subcommand("advise_command", "find the budget that reaches a target time on this machine"),
    "evaluate": Subcommand("train_command", "measure accuracy, computation and time on a data set", ("--eval-only",)),
    "train": Subcommand("train_command", "train a model"),
    "report": Subcommand("report_command", "write the report of an evaluation as one HTML file"),
    "benchmark": Subcommand("benchmark_command", "measure seconds per frame on this machine"),
    "calibrate": Subcommand("calibrate_command", "learn a budget for each gate from video without labels"),
    "check-data": Subcommand("check_dataset_command", "check that a data set is complete and readable"),
    "convert-coco": Subcommand("convert_coco_command", "make a COCO-VID file from plain COCO annotations of frames"),
    "models": Subcommand("models_command", "list the models that have names"),
}
EXAMPLES = {
    "predict street.mp4": f"{DEFAULT_MODEL}, fetched once",
    "predict street.mp4 --classes person car --budget 256": "",
    "live 0 --model coco/mask_rcnn_vitdet_b": "the first camera",
}


def describe() -> str:
    """The text of --help."""
    lines = [f"usage: {INSTALLED} COMMAND ...", "", "Video object detection that recomputes only what changed.", ""]
    lines += [f"  {name:<14}{command.does}" for name, command in SUBCOMMANDS.items()]
    lines += ["", f"`{INSTALLED} COMMAND --help` shows a command's options,"]
    lines += [f"`{INSTALLED} --version` the version.", ""]
    for words, comment in EXAMPLES.items():
        lines.append(f"  {INSTALLED} {words}" + (f"    # {comment}" if comment else ""))
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command that the first word names; returns its exit code."""
    words = list(sys.argv[1:] if words is None else words)
    if not words:
        print(describe(), file=sys.stderr)
        return 2
    name, rest = words[0], words[1:]
    if name in ("-h", "--help", "help"):
        print(describe())
        return 0
    if name == "--version":
        print(f"{INSTALLED} {__version__}")
        return 0
    if name not in SUBCOMMANDS:
        near = difflib.get_close_matches(name, SUBCOMMANDS, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(SUBCOMMANDS)}"
        print(f"{INSTALLED}: there is no command {name!r}; {hint}", file=sys.stderr)
        return 2
    command, before = SUBCOMMANDS[name], sys.argv
    sys.argv = [f"{INSTALLED} {name}", *rest]  # what parsers and messages call this command
    try:
        return importlib.import_module(f".{command.module}", __package__).main([*command.options, *rest])
    finally:
        sys.argv = before
