"""The parts of a report, and how long each may take. Imports nothing that takes time: commands list them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Note = Callable[[dict], None]
"""What a part calls with its result so far."""


@dataclass(frozen=True)
class Part:
    """A part of the report."""

    name: str
    function: str
    """module:function; called with a `Note`, it returns the result. One with a "reason" is none."""
    seconds: int
    """Time limit."""
    needs_gpu: bool = True


_PACKAGE = __package__
PARTS = (
    Part("operators", f"{_PACKAGE}.operator_checks:check_operators", 90, needs_gpu=False),
    Part("model", f"{_PACKAGE}.model_checks:check_models", 69, needs_gpu=False),
    Part("tables", f"{_PACKAGE}.backbone_tables:measure_tables", 155),
    Part("tune", f"{_PACKAGE}.tile_sweep:sweep_tiles", 90),
    Part("compiled", f"{_PACKAGE}.compiled_dense:measure_compiled", 75),
    Part("suite", f"{_PACKAGE}.gpu_suite:run_suite", 60),
)
"""In the order in which they are run: together under nine minutes."""
