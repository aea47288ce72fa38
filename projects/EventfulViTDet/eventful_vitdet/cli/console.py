"""What a command shows: messages of its parts, and how it ended. All is in log.txt too, where a run has one."""

from __future__ import annotations

import argparse
import atexit
import gc
import importlib
import io
import logging
import os
import select
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import describe_error, is_for_user, without_controls
from ..interruption import left_at_once, say_interrupted

LOGGERS = ("eventful_vitdet", "eventful_vit", "detectron2", "fvcore", "uvicorn", "py.warnings")
"""Everything that commands log comes by one of these. The last has Python's warnings, which are about code."""
SHOWN = ("eventful_vitdet", "eventful_vit.ops.cpu.build", "detectron2.utils.events", "detectron2.engine.train_loop")
"""Whose ordinary messages are worth a line on the screen."""
FILE_ONLY = "file_only"
"""Attribute of records that are shown in another way."""
SILENT = logging.CRITICAL + 1
BROKEN_PIPE = 141
"""Exit code of a command whose output nobody reads any more: that of a process that SIGPIPE ends."""
DEFAULTS = argparse.Namespace(verbosity=0, traceback=False)

logger = logging.getLogger("eventful_vitdet")

# Python would look through all of PyTorch for garbage when it ends. That takes a second or more, and a command
# that was ended by a signal would seem to hang.
atexit.register(gc.freeze)


def run(main: Callable[[], object], options: argparse.Namespace = DEFAULTS) -> int:
    """Run a command's main function; returns the exit code.

    An error that the user can put right becomes one line on standard error, an interruption leaves quietly. Anything
    else is a defect: it is raised, and its traceback is in log.txt as well.

    Args:
        options: with `verbosity` and `traceback`, as all commands have them.
    """
    logging.raiseExceptions = False  # a log that cannot be written, on a full disk, is not worth a traceback a line
    take_console(options.verbosity)
    with left_at_once():
        importlib.import_module("eventful_vitdet.predictor")  # with it comes PyTorch, which takes seconds
    try:
        main()
        reaches_somebody()
    except KeyboardInterrupt:
        return say_interrupted()
    except Exception as error:
        if isinstance(error, BrokenPipeError) and not reaches_somebody():
            return BROKEN_PIPE
        logger.error("%s", describe_error(error), exc_info=True, extra={FILE_ONLY: True})
        if not is_for_user(error):
            raise
        if options.traceback:
            traceback.print_exc()
        print(f"error: {describe_error(error)}", file=sys.stderr)
        return 1
    return 0


def reaches_somebody() -> bool:
    """Whether what is printed is still read; if not, as after `| head`, nothing more is written."""
    try:
        number = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):  # there is none, or it is no file
        return True
    if not hasattr(select, "poll"):  # Windows
        return True
    state = select.poll()
    state.register(number, 0)
    if not any(events & select.POLLERR for _, events in state.poll(0)):
        return True
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)  # Python writes what is left when it ends
    return False


def allow_any_text() -> None:
    """Names of files may have what the screen's encoding lacks, or bytes that are no text: show these as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def take_console(verbosity: int = 0, rank: int = 0) -> None:
    """Show messages as `Console` does, and no longer as other handlers would; files stay as they are.

    Args:
        rank: only the first of several processes shows anything.
    """
    if verbosity < 0:
        os.environ["TQDM_DISABLE"] = "1"  # read by tqdm when it is imported
    allow_any_text()
    logging.captureWarnings(True)
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)  # a question of Detectron2's that it dislikes
    for name in LOGGERS:
        owner = logging.getLogger(name)
        owner.setLevel(logging.DEBUG)
        owner.propagate = False
        owner.handlers[:] = [handler for handler in owner.handlers if not isinstance(handler, Console)]
        for handler in owner.handlers:
            if getattr(handler, "stream", None) in (sys.stdout, sys.stderr):
                handler.setLevel(SILENT)  # kept, or Detectron2 would add another one
        owner.addHandler(Console(verbosity) if rank == 0 else logging.NullHandler())


@contextmanager
def bars_aside() -> Iterator[None]:
    """Take progress bars off the screen meanwhile, so that a line does not begin behind one."""
    tqdm = sys.modules.get("tqdm")  # without it, there are no bars
    if tqdm is None:
        yield
        return
    with tqdm.tqdm.external_write_mode():
        yield


class Console(logging.Handler):
    """Messages on standard output, warnings on standard error, as they are at the time of the message."""

    def __init__(self, verbosity: int = 0) -> None:
        """
        Args:
            verbosity: -1 shows warnings only, 0 what SHOWN says, 1 everything.
        """
        super().__init__()
        self.verbosity = verbosity

    def emit(self, record: logging.LogRecord) -> None:
        if not self.shows(record):
            return
        is_warning = record.levelno >= logging.WARNING
        message = without_controls(record.getMessage())
        text = f"{record.levelname.lower()}: {message}" if is_warning else message
        try:  # without tracebacks, which follow when the command ends
            with bars_aside():
                print(text, file=sys.stderr if is_warning else sys.stdout, flush=True)
        except (OSError, ValueError):  # nobody reads it any more
            self.verbosity = -1

    def shows(self, record: logging.LogRecord) -> bool:
        """Whether a message is for the screen."""
        if hasattr(record, FILE_ONLY):
            return False
        if self.verbosity > 0:
            return True
        if record.name == "py.warnings":
            return False
        if record.levelno >= logging.WARNING:
            return True
        known = any(record.name == name or record.name.startswith(f"{name}.") for name in SHOWN)
        return self.verbosity == 0 and known and record.levelno >= logging.INFO
