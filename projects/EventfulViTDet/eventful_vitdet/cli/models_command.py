"""List the models that have names, and whether their weights are on this machine.

    eventful-vitdet models
    eventful-vitdet models coco/mask_rcnn_vitdet_b      # where its weights come from, and where they are kept

AP is the published one, on single images of the data set that a model was trained on (docs/models.md). Any other
configuration file can be used as a model, too, with its weights given by --weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import ConfigError
from ..known_models import CONFIGS, DEFAULT_MODEL, KNOWN_MODELS, KnownModel
from .arguments import command_parser

HERE, FETCHED, ABSENT = "here", "to be fetched", "in the repository only"


def state_of(model: KnownModel, place: Path | None) -> str:
    """Whether its weights are on this machine; `place` is its `local_file()`."""
    if place is not None and place.is_file():
        return HERE
    return ABSENT if model.file else FETCHED


def describe_all() -> str:
    """A line for each model."""
    rows = [("model", "finds", "box AP", "mask AP", "MB", "weights")]
    for model in KNOWN_MODELS:
        figures = ["" if ap is None else f"{ap:.1f}" for ap in (model.box_ap, model.mask_ap)]
        rows.append((model.name, model.finds, *figures, str(model.megabytes), state_of(model, model.local_file())))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, "", f"The default is {DEFAULT_MODEL}."])


def describe_one(name: str) -> str:
    """Where a model's configuration and weights are. Raises ConfigError for a name that is none."""
    model = next((model for model in KNOWN_MODELS if model.name == name), None)
    if model is None:
        raise ConfigError(f"there is no model {name!r}; `eventful-vitdet models` lists all")
    source, place = model.address() or f"{model.file} of the repository", model.local_file()
    lines = {
        "model": f"{model.name}: {model.finds}",
        "configuration": CONFIGS / f"{model.name}.yaml",
        "weights": f"{source} ({model.megabytes} MB)",
        "kept at": f"{place or 'no checkout of the repository'} ({state_of(model, place)})",
    }
    return "\n".join(f"{key}: {value}" for key, value in lines.items())


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("name", nargs="?", metavar="NAME", help="show details of this model")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(words)
    try:
        print(describe_one(arguments.name) if arguments.name else describe_all())
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
