"""Logging to standard output (main process) and to a file per process."""

from __future__ import annotations

import logging
import os
import sys


class _StdoutHandler(logging.StreamHandler):
    """Writes to whatever ``sys.stdout`` is at the time of the message, so that redirections are followed."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self):
        return sys.stdout


def setup_logger(output: str | None = None, distributed_rank: int = 0, *, name: str = "detectron2") -> logging.Logger:
    """Prepare the logger ``name``; calling it again adds only what is missing.

    ``output`` is a folder (its ``log.txt`` is used) or a file ending in .txt or .log; ranks above 0 append
    ``.rank<N>`` and print nothing.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    handlers: list[logging.Handler] = []
    if distributed_rank == 0 and not any(isinstance(handler, _StdoutHandler) for handler in logger.handlers):
        handlers.append(_StdoutHandler())
    if output is not None:
        path = output if output.endswith((".txt", ".log")) else os.path.join(output, "log.txt")
        path = os.path.abspath(path + (f".rank{distributed_rank}" if distributed_rank > 0 else ""))
        if not any(getattr(handler, "baseFilename", None) == path for handler in logger.handlers):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            handlers.append(logging.FileHandler(path))
    layout = "[%(asctime)s %(name)s] %(levelname)s: %(message)s"
    for handler in handlers:
        handler.setFormatter(logging.Formatter(layout, datefmt="%m/%d %H:%M:%S"))
        logger.addHandler(handler)
    return logger
