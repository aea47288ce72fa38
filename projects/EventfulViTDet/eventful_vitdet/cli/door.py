"""How a script becomes a command: Ctrl-C is one line and exit code 130 from the first moment on."""

from __future__ import annotations

import atexit
import importlib
import os
import signal
import sys
import warnings
from contextlib import suppress
from typing import NoReturn

from ..interruption import EXIT_CODE, leave, listen, raise_then_leave, say_interrupted


class Door:
    """A command that has not been imported yet.

    To be made when the script is loaded, also by the processes that the command starts: while modules are imported,
    which takes seconds, an interruption ends the process at once. Where interruptions are ignored, as under nohup, they
    stay ignored.

    Example:
        >>> door = Door("train_command")
        >>> if __name__ == "__main__":
        ...     door.open()
    """

    def __init__(self, module: str) -> None:
        """`module` is the name of a module of this folder, with a function `main` that returns an exit code."""
        self._module = module
        self._code: int | None = None
        atexit.register(self._leave_interrupted)  # the first that is registered is the last that is called
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)  # fvcore uses it
        self._before = signal.getsignal(signal.SIGINT)
        self._listens = self._before is signal.default_int_handler
        if self._listens:
            signal.signal(signal.SIGINT, leave)
            listen()

    def open(self) -> NoReturn:
        """Import the command, run it, and exit with its code."""
        try:
            command = importlib.import_module(f".{self._module}", __package__)
            if self._listens:
                signal.signal(signal.SIGINT, raise_then_leave)
                atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
            self._code = command.main()
        except KeyboardInterrupt:
            self._code = say_interrupted()
        finally:
            signal.signal(signal.SIGINT, self._before)
        sys.exit(self._code)

    def _leave_interrupted(self) -> None:
        """End an interrupted command before the interpreter is taken apart.

        A thread that was left to itself within a library, such as one that asks an address that does not answer, would
        crash the process there if it came back at that moment.
        """
        if self._code == EXIT_CODE:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError):  # nobody reads it any more
                    stream.flush()
            os._exit(EXIT_CODE)
