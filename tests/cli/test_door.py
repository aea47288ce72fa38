"""Ctrl-C is one line and exit code 130, whenever it comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = """
import os, signal, sys, threading, types

SIGINT = signal.SIGINT
COME = {moment!r}

def interrupt_at(moment):
    if moment == COME:
        os.kill(os.getpid(), SIGINT)

class Importer:
    def find_spec(self, name, path, target=None):
        if name == "eventful_vitdet.cli.some_command":
            from importlib.machinery import ModuleSpec
            return ModuleSpec(name, self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        try:
            interrupt_at("import")
        except BaseException:  # as some libraries do
            pass
        module.main = main

class Careless:
    def __del__(self):
        raise AttributeError("half made")

def main():
    from eventful_vitdet.interruption import say_interrupted
    things = Careless() if COME in ("once", "twice") else None
    try:
        interrupt_at("once")
        interrupt_at("twice")
        return 3
    except KeyboardInterrupt:
        interrupt_at("twice")
        return say_interrupted()

from eventful_vitdet.cli.door import Door
sys.meta_path.insert(0, Importer())
assert "torch" not in sys.modules
door = Door("some_command")
interrupt_at("begin")
import atexit
atexit.register(interrupt_at, "end")
door.open()
"""


def start(repository: Path, *words: str, **options) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(repository / "projects" / "EventfulViTDet")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *words], env=environment, start_new_session=True, **pipes, **options)


@pytest.mark.parametrize("moment", ["begin", "import"])
def test_at_the_beginning(repository, moment):
    done = start(repository, "-c", COMMAND.format(moment=moment))
    assert done.communicate(timeout=60)[1] == "interrupted\n" and done.returncode == 130


def test_while_it_works(repository):
    """What was half made then, and cannot be deleted, is nobody's concern."""
    done = start(repository, "-c", COMMAND.format(moment="once"))
    assert done.communicate(timeout=60)[1] == "interrupted\n" and done.returncode == 130


def test_nothing_of_the_interpreter_is_taken_apart(repository):
    """A thread that is left in a library would crash there."""
    crash = "import os, sys\nsys.kept = type('Kept', (), {'__del__': lambda self, leave=os._exit: leave(9)})()\n"
    done = start(repository, "-c", crash + COMMAND.format(moment="once"))
    assert done.communicate(timeout=60)[1] == "interrupted\n" and done.returncode == 130
    usual = start(repository, "-c", crash + COMMAND.format(moment="never"))
    assert usual.communicate(timeout=60)[1] == "" and usual.returncode == 9  # so the object does what it is for


def test_twice_while_it_works(repository):
    """The second time is quicker than anything that the command might still do."""
    done = start(repository, "-c", COMMAND.format(moment="twice"))
    assert done.communicate(timeout=60)[1] == "" and done.returncode == 130


def test_when_all_is_done(repository):
    done = start(repository, "-c", COMMAND.format(moment="end"))
    assert done.communicate(timeout=60)[1] == "" and done.returncode == 3


def test_where_it_is_ignored(repository):
    ignore = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    done = start(repository, "-c", ignore + COMMAND.format(moment="import"))
    assert done.communicate(timeout=60)[1] == "" and done.returncode == 3


def importing_torch(process: subprocess.Popen, folder: Path) -> bool:
    return "libtorch" in Path(f"/proc/{process.pid}/maps").read_text()


def evaluating(process: subprocess.Popen, folder: Path) -> bool:
    return bool(list(folder.glob("out/inference/videos/*.npz")))


@pytest.fixture(scope="module")
def videos(tmp_path_factory, render_videos) -> Path:
    """The annotation file of rendered videos that take some seconds to evaluate."""
    folder = tmp_path_factory.mktemp("rendered")
    render_videos(folder, "test", 4, 40, "--size", "128x128")
    return folder / "annotations" / "test.json"


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.long)])
@pytest.mark.parametrize("begun", [importing_torch, evaluating])
def test_the_command_itself(repository, tmp_path, videos, processes, begun):
    words = ["--eval-only", "--num-gpus", str(processes), "--test-json", str(videos)]
    options = ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path / "out"), "TEST.THREADS_PER_PROCESS", "1"]
    config = ["--config-file", str(repository / "configs" / "demo" / "vitdet_tiny.yaml")]
    run = start(repository, str(repository / "tools" / "train_net.py"), *config, *words, *options)
    deadline = time.monotonic() + 120
    while not begun(run, tmp_path):
        assert run.poll() is None and time.monotonic() < deadline, run.communicate()[1]
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    errors = run.communicate(timeout=60)[1]
    assert run.returncode == 130 and "Traceback" not in errors
    lines = [line for line in errors.splitlines() if line.strip()]
    assert lines[-1].endswith("interrupted") and sum(line.endswith("interrupted") for line in lines) == 1
