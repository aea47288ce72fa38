"""`train_net.py --eval-only` in several processes on two dozen videos: equal to one process, killed, continued."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from eventful_vitdet.evaluation import read_record, record_paths

VIDEOS, FRAMES = 24, 20
TEST_JSON = "demo_vid/annotations/test.json"
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, repository) -> Path:
    """Rendered videos, and their evaluation by one process in `alone/`."""
    folder = tmp_path_factory.mktemp("scale")
    script = [sys.executable, str(repository / "datasets" / "render_synthetic_vid.py"), "--output", "demo_vid"]
    size = ["--split", "test", "--videos", str(VIDEOS), "--frames", str(FRAMES)]
    subprocess.run([*script, *size], cwd=folder, check=True, capture_output=True)
    began = time.monotonic()
    done = start(folder, repository, "alone", 1)
    _, errors = done.communicate(timeout=500)
    assert done.returncode == 0, errors[-3000:]
    (folder / "seconds").write_text(str(time.monotonic() - began))
    return folder


def start(folder: Path, repository: Path, output: str, processes: int, **variables: str):
    """Start the command in a session of its own, so that all its processes can be killed at once."""
    config = repository / "configs" / "demo" / "vitdet_tiny.yaml"
    weights = repository / "weights" / "demo_vitdet_tiny.safetensors"
    words = ["--config-file", str(config), "--eval-only", "--num-gpus", str(processes), "--test-json", TEST_JSON]
    options = ["MODEL.WEIGHTS", weights, "MODEL.DEVICE", "cpu", "OUTPUT_DIR", output, "TEST.THREADS_PER_PROCESS", 1]
    return subprocess.Popen(
        [sys.executable, str(repository / "tools" / "train_net.py"), *words, *map(str, options)],
        cwd=folder,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def assert_equal_to_one_process(folder: Path, output: str) -> None:
    alone, other = (folder / name / "inference" for name in ("alone", output))
    for name in ("coco_instances_results.json", "vid_submission.txt"):
        assert (alone / name).read_bytes() == (other / name).read_bytes()
    paths = record_paths(str(alone))
    assert len(paths) == VIDEOS == len(record_paths(str(other)))
    for path in paths:
        ours, theirs = read_record(path), read_record(str(other / "videos" / Path(path).name))
        assert len(ours) == FRAMES
        np.testing.assert_array_equal(ours.macs, theirs.macs)


def test_two_processes_equal_one(workspace, repository):
    done = start(workspace, repository, "two", 2)
    _, errors = done.communicate(timeout=500)
    assert done.returncode == 0, errors[-3000:]
    assert_equal_to_one_process(workspace, "two")


def test_killed_in_a_loop_and_continued(workspace, repository):
    rng, killed = random.Random(0), 0
    seconds = float((workspace / "seconds").read_text())  # of a whole run
    while True:
        run = start(workspace, repository, "killed", rng.choice((1, 2)))
        try:
            _, errors = run.communicate(timeout=seconds * rng.uniform(0.3, 0.6) if killed < 5 else 500)
            assert run.returncode == 0, errors[-3000:]
            break
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            run.communicate()
            killed += 1
    assert killed >= 1
    assert_equal_to_one_process(workspace, "killed")


def test_a_process_that_is_killed_ends_the_command(workspace, repository):
    run = start(workspace, repository, "ended", 2)
    videos = workspace / "ended" / "inference" / "videos"
    deadline = time.monotonic() + 200
    while not (videos.is_dir() and list(videos.glob("*.npz"))):
        assert time.monotonic() < deadline and run.poll() is None
        time.sleep(0.2)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    workers = [pid for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
    os.kill(int(workers[-1]), signal.SIGKILL)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 1
    # Python's own resource tracker may have a last word about what the killed process did not tidy up.
    assert re.search(r"^error: process \d of 2 was killed \(SIGKILL", errors, re.MULTILINE), errors[-3000:]
    assert "Traceback" not in errors
