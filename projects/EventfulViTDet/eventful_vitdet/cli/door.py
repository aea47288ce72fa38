"""How a script becomes a command: Ctrl-C is one line and exit code 130 from the first moment on."""

from __future__ import annotations

import atexit
import importlib
import signal
import sys
import warnings
from typing import NoReturn

from ..interruption import leave, listen, raise_then_leave, say_interrupted


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
            code = command.main()
        except KeyboardInterrupt:
            code = say_interrupted()
        finally:
            signal.signal(signal.SIGINT, self._before)
        sys.exit(code)
