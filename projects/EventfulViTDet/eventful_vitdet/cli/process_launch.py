"""The processes of a command: started here by PyTorch's elastic launcher, or before by torchrun or SLURM."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, record
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ..errors import ConfigError, ToolError, describe_error, is_for_user
from ..interruption import EXIT_CODE, SIGNALS, held_back, listen, raise_once
from .console import FILE_ONLY
from .launcher_store import open_fresh_store, uses_launchers_store
from .slurm import slurm_variables

logger = logging.getLogger("eventful_vitdet")

Main = Callable[[argparse.Namespace], None]

TIMEOUT = timedelta(minutes=30)
"""Of an operation of all processes together; waiting for other processes' videos is another matter."""
START_METHOD = "spawn"
"""New interpreters: a forked process cannot use a GPU that its parent has looked at."""
MONITOR_SECONDS = 0.1
NOTICE_SECONDS = 5.0
"""In which a process with an error ends, and its launcher ends the others."""
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
"""Environment variable: where a process tells its launcher what went wrong."""
LAUNCHER_LOGGERS = ("torch.distributed.elastic", "torch.multiprocessing")
MAX_PORT = 65535
MEETING = ("MASTER_ADDR", "MASTER_PORT")


def launch_main(main: Main, args: argparse.Namespace) -> None:
    """Call `main(args)` in as many processes as the arguments ask for, or as one of those that were started already.

    Processes are ended when one of them fails; an error of the user in it is raised here with its message.
    """
    if args.num_gpus * args.num_machines == 1 and (found := slurm_variables(os.environ)):
        os.environ.update(found)
        if found["RANK"] == "0":
            text = "process 1 of {WORLD_SIZE} (SLURM) waits for the others at {MASTER_ADDR}:{MASTER_PORT}"
            print(text.format(**found), file=sys.stderr)
    if variable("WORLD_SIZE", 1) > 1 and "RANK" in os.environ:
        check_variables(args)
        run_started(main, args)
    elif args.num_gpus * args.num_machines > 1:
        start_processes(main, args)
    else:
        main(args)


def was_restarted() -> bool:
    """Whether torchrun has started the processes of this command again, after one of them failed.

    All processes call this together: machines count by themselves.
    """
    return any(comm.all_gather(variable("TORCHELASTIC_RESTART_COUNT", 0) > 0))


def variable(name: str, default: int | None = None) -> int:
    """A number among the environment variables. Raises ConfigError if it is none."""
    text = os.environ.get(name, default)
    try:
        return int(text)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the environment variable {name} is {text!r}; a launcher sets it to a number") from error


def check_variables(args: argparse.Namespace) -> None:
    """Raise ConfigError unless a launcher's variables are complete, and agree with the arguments."""
    for name in MEETING:
        if not os.environ.get(name):
            raise ConfigError(
                f"WORLD_SIZE and RANK are set, as by torchrun, but {name} is not; start the command with torchrun, or "
                "unset WORLD_SIZE"
            )
    if not 0 <= (port := variable("MASTER_PORT")) <= MAX_PORT:
        raise ConfigError(f"the environment variable MASTER_PORT is {port}; ports are numbers from 0 to {MAX_PORT}")
    started = variable("LOCAL_WORLD_SIZE", 1)
    if args.num_machines != 1 or args.num_gpus not in (1, started):
        raise ConfigError(
            f"a launcher has started {started} processes on this machine already: leave out --num-gpus, --num-machines"
        )


def run_started(main: Main, args: argparse.Namespace) -> None:
    """Call `main(args)` as one of several processes that a launcher has started."""
    try:
        with joined():
            record(main)(args)
    except Exception as error:
        if not is_for_user(error):
            raise
        tell_launcher(describe_error(error))
        if "TORCHELASTIC_RUN_ID" in os.environ and os.environ["RANK"] != "0":
            # All processes may have met the same error. Then torchrun ends this one, and the first has said it.
            time.sleep(NOTICE_SECONDS)
        raise


@contextmanager
def joined() -> Iterator[None]:
    """Within this context, the process belongs to the group that its environment variables describe.

    Raises ConfigError for variables that cannot be, ToolError if the processes do not meet.
    """
    local_rank, local_size = variable("LOCAL_RANK", 0), variable("LOCAL_WORLD_SIZE", 1)
    if torch.cuda.is_available():
        check_gpus(local_rank + 1)
        torch.cuda.set_device(local_rank)
    check_order(local_rank, local_size)
    try:
        form_group("nccl" if torch.cuda.is_available() else "gloo")
        comm.create_local_process_group(local_size)
        comm.synchronize()
    except RuntimeError as error:
        size, address, port = (os.environ[name] for name in ("WORLD_SIZE", *MEETING))
        raise ToolError(
            f"the {size} processes of this command could not connect at {address}:{port}: {describe_error(error)}"
        ) from error
    yield
    comm.synchronize()
    dist.destroy_process_group()


def form_group(backend: str) -> None:
    """Make PyTorch's group of all processes."""
    rank, size = variable("RANK"), variable("WORLD_SIZE")
    store = open_fresh_store(rank, size, TIMEOUT) if uses_launchers_store() else None
    # Without a store, process 0 opens one where the environment variables say.
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)


def check_order(local_rank: int, local_size: int) -> None:
    """Raise ConfigError unless each machine has as many processes, and these have consecutive ranks."""
    rank, size = variable("RANK"), variable("WORLD_SIZE")
    if size % local_size or rank % local_size != local_rank:
        raise ConfigError(
            f"process {rank} of {size} is number {local_rank} of {local_size} on its machine: all machines must run "
            "the same number of processes, with consecutive ranks (with srun: --distribution=block)"
        )


def check_gpus(wanted: int) -> None:
    """Raise ConfigError if there are GPUs, but fewer than processes."""
    if torch.cuda.is_available() and wanted > torch.cuda.device_count():
        raise ConfigError(
            f"{wanted} processes, one per GPU, but {torch.cuda.device_count()} GPUs are visible (for processes on the "
            "CPU hide them: CUDA_VISIBLE_DEVICES='')"
        )


def start_processes(main: Main, args: argparse.Namespace) -> None:
    """Call `main(args)` in `--num-gpus` processes on this machine, and watch them.

    Raises ToolError for an error of the user in one of them, or if one was killed; ChildFailedError, with its
    traceback, for a defect.
    """
    check_gpus(args.num_gpus)
    with tempfile.TemporaryDirectory(prefix="eventful_vitdet_") as folder, handlers_kept(), launcher_silenced():
        config = LaunchConfig(
            min_nodes=args.num_machines,
            max_nodes=args.num_machines,
            nproc_per_node=args.num_gpus,
            run_id="eventful_vitdet",
            max_restarts=0,
            monitor_interval=MONITOR_SECONDS,
            start_method=START_METHOD,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            **meeting_place(args),
        )
        try:
            with held_back():
                elastic_launch(config, work)(main, args)
        except ChildFailedError as error:
            raise_failure(error, args.num_gpus * args.num_machines)
        except SignalException as error:
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from error
            raise SystemExit(128 + error.sigval) from error


def meeting_place(args: argparse.Namespace) -> dict[str, object]:
    """Where the launchers of all machines meet, as settings of LaunchConfig."""
    if args.num_machines == 1:  # any free port, at an address that needs no name resolution
        return {"rdzv_backend": "c10d", "rdzv_endpoint": "127.0.0.1:0", "local_addr": "127.0.0.1"}
    endpoint = args.dist_url.removeprefix("tcp://")
    host, _, port = endpoint.rpartition(":")
    if "://" in endpoint or not host or not re.fullmatch("[0-9]{1,5}", port) or int(port) > MAX_PORT:
        raise ConfigError(f"--dist-url must be tcp://HOST:PORT, the same on all machines, found {args.dist_url}")
    settings = {"rank": args.machine_rank, "timeout": TIMEOUT.total_seconds()}
    return {"rdzv_backend": "static", "rdzv_endpoint": endpoint, "rdzv_configs": settings}


def work(main: Main, args: argparse.Namespace) -> None:
    """What each of the started processes does."""
    logging.raiseExceptions = False
    signal.signal(signal.SIGINT, raise_once)  # a terminal sends it, and then the launcher
    try:
        listen()
        with joined():
            main(args)
    except KeyboardInterrupt:
        raise SystemExit(EXIT_CODE) from None
    except Exception as error:
        logger.error("%s", describe_error(error), exc_info=True, extra={FILE_ONLY: True})
        if not is_for_user(error):
            raise
        tell_launcher(describe_error(error))
        raise SystemExit(1) from error


def tell_launcher(message: str) -> None:
    """Let the launcher of this process, if it has one, know of an error of the user, in the launcher's own format."""
    if os.environ.get(ERROR_FILE):
        details = {"py_callstack": f"error: {message}", "timestamp": str(int(time.time()))}
        with open(os.environ[ERROR_FILE], "w", encoding="utf-8") as file:
            json.dump({"message": {"message": message, "extraInfo": details}, "user_error": True}, file)


def raise_failure(error: ChildFailedError, processes: int) -> NoReturn:
    """Raise what the process that failed first has told of, or the launcher's error with its traceback."""
    rank, failure = error.get_first_failure()
    sys.stderr.write("\n")  # a process that was ended may have left its progress bar there
    if failure.error_file_data.get("user_error"):
        raise ToolError(failure.error_file_data["message"]["message"]) from error
    if failure.exitcode == EXIT_CODE:
        raise KeyboardInterrupt from error
    if failure.exitcode < 0:
        raise ToolError(
            f"process {rank + 1} of {processes} was killed ({failure.signal_name()}; out of memory?), and the others "
            "were stopped. Rerun the same command to resume an evaluation"
        ) from error
    raise error


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Restore, afterwards, the handlers of signals, which PyTorch's launcher replaces."""
    heard = (*SIGNALS, signal.SIGQUIT) if hasattr(signal, "SIGQUIT") else SIGNALS
    before = {number: signal.getsignal(number) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def launcher_silenced() -> Iterator[None]:
    """Keep PyTorch's launcher from logging what this module says itself, in one line."""
    names = [name for name in logging.Logger.manager.loggerDict if name.startswith(LAUNCHER_LOGGERS)]
    before = {name: logging.getLogger(name).disabled for name in names}
    for name in names:
        logging.getLogger(name).disabled = True
    try:
        yield
    finally:
        for name, disabled in before.items():
            logging.getLogger(name).disabled = disabled
