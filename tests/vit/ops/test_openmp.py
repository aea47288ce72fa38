"""PyTorch's idle threads make room for the kernels' threads."""

import os
import subprocess
import sys
import threading

import pytest
import torch
from eventful_vit.ops.cpu import openmp

LISTS = "import os; threads = lambda: len(os.listdir('/proc/self/task'))\n"


def run(code: str, **variables: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "2", **variables}
    return subprocess.run(
        [sys.executable, "-c", LISTS + code], env=environment, capture_output=True, text=True, check=True, timeout=120
    ).stdout.strip()


@pytest.mark.skipif(not openmp._pauses(), reason="PyTorch's OpenMP library is not GNU's, or there is no /proc")
def test_idle_threads_end_and_come_back():
    code = """
import time, torch
from eventful_vit.ops.cpu import end_waiting_threads

def ends_with(count):  # threads need a moment to end
    end_waiting_threads()
    deadline = time.monotonic() + 10
    while threads() != count and time.monotonic() < deadline:
        time.sleep(0.001)
    return threads() == count

alone = threads()
for _ in range(3):
    x = torch.ones(1_000_000).sin()
    assert (x == x[0]).all() and threads() == alone + 1
    assert ends_with(alone) and ends_with(alone)
print("done")
"""
    assert run(code) == "done"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
def test_a_forked_process_leaves_its_parents_threads_alone(two_threads):
    torch.ones(1_000_000).sin()
    child = os.fork()
    if child == 0:
        openmp.end_waiting_threads()
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_other_threads_keep_theirs(two_threads):
    """While one Python thread ends what it has, another one goes on computing."""
    x, stop, wrong = torch.ones(300_000), threading.Event(), []

    def compute() -> None:
        while not stop.is_set():
            if (x + x).sum() != 600_000:
                wrong.append(1)

    other = threading.Thread(target=compute)
    other.start()
    for _ in range(200):
        x.sin()
        openmp.end_waiting_threads()
    stop.set()
    other.join()
    assert not wrong


def test_where_nothing_is_found(monkeypatch, two_threads):
    monkeypatch.setattr(openmp, "loaded_libraries", list)
    openmp._pauses.cache_clear()
    openmp.end_waiting_threads()
    openmp._pauses.cache_clear()


@pytest.mark.parametrize(
    ("variables", "expected"), [({}, "20000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "active"}, "None")]
)
def test_threads_wait_for_a_bounded_time(variables, expected, monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert run("import eventful_vitdet; print(os.environ.get('GOMP_SPINCOUNT'))", **variables) == expected
