"""The results of several budgets as TensorBoard scalars: every metric over what a frame costs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

from .machine_times import comparable_times
from .results import scalar_results

TENSORBOARD_FOLDER = "tensorboard"
UNFINISHED = ".unfinished"
MMACS_PER_GFLOP = 1000


def write_sweep(folder: str, results: Sequence[dict]) -> str:
    """Write the content of budgets.json for TensorBoard and return the folder of the file, which is replaced.

    The step of a point is the backbone's mean cost in millions of multiply-accumulates per frame, so a metric's curve
    is its trade-off against computation.
    """
    from torch.utils.tensorboard import SummaryWriter  # takes a second to import, and only sweeps need it

    results = sorted(comparable_times(results), key=lambda result: result["gflops_per_frame"]["backbone"]["mean"])
    target = os.path.join(folder, TENSORBOARD_FOLDER)
    # Written beside and renamed: a full disk, or an end at any moment, leaves no part of a file.
    temporary = target + UNFINISHED
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with SummaryWriter(temporary) as writer:
            for result in results:
                step = round(result["gflops_per_frame"]["backbone"]["mean"] * MMACS_PER_GFLOP)
                for group, values in scalar_results(result).items():
                    for name, value in values.items():
                        if value == value:  # not NaN, which stands for undefined
                            writer.add_scalar(f"{group}/{name}", value, step)
        shutil.rmtree(target, ignore_errors=True)
        os.rename(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target
