"""Commands in several processes: started here, or as by torchrun and SLURM; errors, ends and interruptions of them."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from detectron2.utils import comm
from eventful_vitdet.cli import process_launch
from eventful_vitdet.cli.arguments import parse_training, training_parser
from eventful_vitdet.cli.console import run
from eventful_vitdet.cli.launcher_store import fresh_part
from eventful_vitdet.cli.process_launch import check_order, launch_main, raise_failure, tell_launcher, was_restarted
from eventful_vitdet.errors import ToolError, VideoReadError
from eventful_vitdet.interruption import EXIT_CODE
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="with GPUs, processes want one each")


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    """As if nothing had started this process; what a test sets is gone after it."""
    for name in [*LAUNCHED, *(name for name in os.environ if name.startswith(("SLURM_", "TORCHELASTIC_")))]:
        monkeypatch.delenv(name, raising=False)
    for name in LAUNCHED:  # so that these, too, are as before if the code under test sets them
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def forked(monkeypatch):
    """Processes begin in milliseconds, where new interpreters take seconds."""
    monkeypatch.setattr(process_launch, "START_METHOD", "fork")


def parse(*words: str, **values: object) -> argparse.Namespace:
    args = parse_training(training_parser(), list(words))
    vars(args).update(values)
    return args


def report(args: argparse.Namespace) -> None:
    """Write down what this process knows of the others."""
    seen = {
        "rank": comm.get_rank(),
        "local": comm.get_local_rank(),
        "all": comm.all_gather(10 * comm.get_rank()),
        "again": was_restarted(),
    }
    Path(args.folder, f"{comm.get_rank()}.json").write_text(json.dumps(seen))


def reports(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def fail(args: argparse.Namespace) -> None:
    """The second process fails, while the first waits."""
    if comm.get_rank() == 0:
        threading.Event().wait()
    if args.end == "interrupt":
        os.kill(os.getppid(), signal.SIGINT)
        threading.Event().wait()
    if args.end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise args.end


def test_one_process_is_this_one(tmp_path):
    launch_main(report, parse(folder=tmp_path))
    assert [seen["all"] for seen in reports(tmp_path)] == [[0]]


def test_processes_know_each_other(tmp_path, monkeypatch):
    monkeypatch.undo()  # new interpreters, as ever
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    launch_main(report, parse("--num-gpus", "2", folder=tmp_path))
    seen = [(s["rank"], s["local"], s["all"], s["again"]) for s in reports(tmp_path)]
    assert seen == [(0, 0, [0, 10], False), (1, 1, [0, 10], False)]
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    assert not multiprocessing.active_children()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize(
    ("end", "code", "message"),
    [
        (VideoReadError("v.mp4: damaged"), 1, "error: v.mp4: damaged"),
        ("kill", 1, "error: process 2 of 2 was killed (SIGKILL; out of memory?)"),
        ("interrupt", EXIT_CODE, "interrupted"),
    ],
    ids=["error", "kill", "interrupt"],
)
def test_the_end_of_one_process_ends_all(end, code, message, capfd):
    start = time.monotonic()
    assert run(lambda: launch_main(fail, parse("--num-gpus", "2", end=end))) == code
    assert time.monotonic() - start < 60  # and not for ever
    lines = [line for line in capfd.readouterr().err.splitlines() if "arn" not in line and line.strip()]
    assert lines[-1].startswith(message) and not any("Traceback" in line or "SIGTERM" in line for line in lines)
    assert not multiprocessing.active_children()


def test_a_defect_keeps_its_traceback():
    with pytest.raises(ChildFailedError, match="(?s)in fail.*ZeroDivisionError: a defect"):
        launch_main(fail, parse("--num-gpus", "2", end=ZeroDivisionError("a defect")))


def failure(folder: Path, exit_code: int) -> ChildFailedError:
    return ChildFailedError("command", {1: ProcessFailure(1, 4711, exit_code, str(folder / "error.json"))})


def test_an_error_of_the_user_reaches_the_launcher(tmp_path, monkeypatch):
    """In the format that torchrun reads, too."""
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    tell_launcher("v.mp4: damaged")
    error = failure(tmp_path, 1)
    assert "error: v.mp4: damaged" in str(error)
    with pytest.raises(ToolError, match="^v.mp4: damaged$"):
        raise_failure(error, 2)


def test_an_interrupted_process_is_no_error(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        raise_failure(failure(tmp_path, EXIT_CODE), 2)


def start_as_launched(rank: int, size: int, port: int, folder: Path, **variables: str) -> None:
    """One process with the variables of a launcher, which torchrun would be."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": str(size), **variables}
    os.environ.update({"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), **place})
    launch_main(report, parse(folder=folder))


def free_port() -> int:
    """One that a store may listen on in a moment."""
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False).port


def run_all(target, *arguments: tuple) -> list[int | None]:
    """Run a function in new interpreters, one for each tuple of arguments; returns their exit codes."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=target, args=args) for args in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        process.kill()
    return [process.exitcode for process in processes]


@pytest.mark.long
def test_processes_that_were_started_already_join(tmp_path):
    port = free_port()
    assert run_all(start_as_launched, *((rank, 2, port, tmp_path) for rank in (0, 1))) == [0, 0]
    assert [seen["all"] for seen in reports(tmp_path)] == [[0, 10], [0, 10]]


@pytest.mark.parametrize(
    ("variables", "words", "message"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, [], "MASTER_ADDR is not; start the command with torchrun"),
        ({"RANK": "0", "WORLD_SIZE": "two"}, [], "WORLD_SIZE is 'two'"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, ["--num-gpus", "3"], "--num-gpus"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "abc"}, [], "MASTER_PORT is 'abc'"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "65536"}, [], "MASTER_PORT is 65536; "),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "-1"}, [], "MASTER_PORT is -1; "),
    ],
)
def test_variables_that_cannot_be(variables, words, message, monkeypatch, capsys):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert run(lambda: launch_main(report, parse(*words))) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(("rank", "size", "local_rank", "local_size"), [(1, 4, 0, 2), (2, 3, 0, 2)])
def test_ranks_count_through_one_machine_after_the_other(monkeypatch, rank, size, local_rank, local_size):
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(size))
    with pytest.raises(ValueError, match=f"process {rank} of {size} is number {local_rank} of {local_size} on"):
        check_order(local_rank, local_size)


@pytest.mark.parametrize("address", ["auto", "tcp://host", "tcp://host:port", "tcp://host:99999", "tcp://:29500"])
def test_an_address_of_other_machines_needs_a_port(address):
    args = parse("--num-machines", "2", "--dist-url", address)
    with pytest.raises(ValueError, match="--dist-url must be tcp://HOST:PORT"):
        launch_main(report, args)


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="2 processes, one per GPU, but 1 GPUs are visible"):
        launch_main(report, parse("--num-gpus", "2"))


def test_an_attempt_finds_nothing_of_the_one_before():
    """In a store that outlives the processes, as torchrun's does, with words of processes that have ended."""
    shared, limit = dist.HashStore(), timedelta(seconds=20)
    for attempt in range(3):
        shared.set("eventful_vitdet/word/1", "of a process that was killed as it came")
        with ThreadPoolExecutor(3) as pool:
            stores = list(pool.map(lambda rank: fresh_part(shared, rank, 3, limit), (1, 0, 2)))
        assert not any(store.check(["key"]) for store in stores)
        stores[attempt].set("key", str(attempt))
        assert [store.get("key") for store in stores] == [str(attempt).encode()] * 3


@pytest.mark.parametrize("rank", [0, 1])
def test_who_waits_in_vain_says_for_whom(rank):
    with pytest.raises(RuntimeError, match="processes 1 did not come" if rank == 0 else "process 0 did not come"):
        fresh_part(dist.HashStore(), rank, 2, timedelta(seconds=0.2))


def test_processes_that_do_not_meet(monkeypatch, capsys):
    monkeypatch.setattr(process_launch, "TIMEOUT", timedelta(seconds=1))
    variables = {"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert run(lambda: launch_main(report, parse())) == 1
    first, *_, last = capsys.readouterr().err.splitlines()
    assert "process 1 of 2 (SLURM) waits for the others at 127.0.0.1" in first
    assert last.startswith("error: the 2 processes of this command could not connect at 127.0.0.1")
