"""Take the weights out of a training checkpoint, as a safetensors file to publish.

python tools/export_weights.py output/demo/vitdet_tiny/model_ema.pth weights/demo_vitdet_tiny.safetensors --half
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError, shorten
from .arguments import command_parser
from .console import run

if TYPE_CHECKING:
    from torch import Tensor


def execute(arguments: argparse.Namespace) -> None:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save

    from ..files import write_atomically
    from ..weight_files import first_line, read_checkpoint
    from ..weight_sets import choose_set

    if not os.path.isfile(arguments.checkpoint):
        raise CheckpointError(f"there is no file {arguments.checkpoint}")
    _, stored = choose_set(arguments.checkpoint, read_checkpoint(arguments.checkpoint), arguments.set)
    # Copies: parameters that share memory could not be stored.
    weights = {name: value.clone().contiguous() for name, value in stored.items()}
    if arguments.half:
        weights = halved(weights)
    output = Path(arguments.output)
    if os.path.isdir(output):
        raise CheckpointError(f"{output} is a folder; name a file")
    try:
        # As bytes: a file that safetensors writes itself can be read by its owner only.
        write_atomically(str(output), save(weights))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{output} cannot be written: {first_line(error)}") from error
    parameters = sum(value.numel() for value in weights.values())
    kind = torch.float16 if arguments.half else "as stored"
    print(f"{output}: {parameters} parameters ({kind}), {output.stat().st_size / 1e6:.1f} MB")


def halved(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with their floating-point numbers in float16. Raises CheckpointError for those that it cannot hold."""
    import torch

    floats = {name: value for name, value in weights.items() if value.is_floating_point()}
    most = torch.finfo(torch.float16).max
    large = [name for name, value in floats.items() if bool((value.abs() > most).any())]
    if large:
        raise CheckpointError(f"--half: float16 ends at 65504, and there are larger values in {shorten(large)}")
    return {**weights, **{name: value.half() for name, value in floats.items()}}


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("checkpoint", help=".pth, .pkl or .safetensors")
    parser.add_argument("output", help="the safetensors file to write")
    parser.add_argument("--set", default="", metavar="KEY", help="which set of weights, of a file that has several")
    parser.add_argument("--half", action="store_true", help="store float16, half the size")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(words)
    return run(lambda: execute(arguments), arguments)
