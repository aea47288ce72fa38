"""Other processes that want the cores, for as long as they are wanted."""

import os
import subprocess
import sys
import time

from eventful_vitdet.benchmark.busy_machine import busy_processes


def children() -> set[str]:
    words = ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(os.getpid())]  # of any width
    out = subprocess.run(words, capture_output=True, text=True).stdout
    return {line.split()[0] for line in out.splitlines() if "getppid" in line}


def test_they_work_within_the_context_only():
    with busy_processes(2):
        assert len(children()) == 2
    assert not children()


def test_they_end_with_whoever_started_them():
    code = """
import os, time
from eventful_vitdet.benchmark.busy_machine import busy_processes
with busy_processes(1):
    children = open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read()
    print(children, flush=True)
    os._exit(0)
"""
    (child,) = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    deadline = time.monotonic() + 120
    while os.path.exists(f"/proc/{child}") and time.monotonic() < deadline:
        if open(f"/proc/{child}/stat").read().split()[2] == "Z":  # nobody here reaps it
            break
        time.sleep(0.01)
    assert time.monotonic() < deadline
