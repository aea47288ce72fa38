"""How the scripts of this folder end: errors that the user can put right, and Ctrl-C, are one line."""

from __future__ import annotations

import sys
from collections.abc import Callable

FAILED, INTERRUPTED = 1, 130
"""Exit codes; the second is what shells expect of an interrupted program."""


def run(work: Callable[[], object], errors: tuple[type[Exception], ...], interrupted: str) -> int:
    """Do a script's work and return its exit code.

    Args:
        errors: those that become one line; others are defects, and stay tracebacks.
        interrupted: what to say after Ctrl-C.
    """
    try:
        work()
    except errors as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return INTERRUPTED
    return 0
