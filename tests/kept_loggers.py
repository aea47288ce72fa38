"""The loggers that commands keep to themselves, as they were before."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from eventful_vitdet.cli.console import LOGGERS


@contextmanager
def kept_loggers() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in LOGGERS]
    states = [(list(logger.handlers), logger.level) for logger in loggers]
    yield
    logging.captureWarnings(False)
    for logger, (handlers, level) in zip(loggers, states):
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = True
