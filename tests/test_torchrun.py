"""`torchrun tools/train_net.py`: two nodes of two processes on this machine, and a worker that fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(torch.cuda.is_available(), reason="with GPUs, processes want one each"),
]

VIDEOS, FRAMES = 8, 60
MODEL = {
    "MODEL.DEVICE": "cpu",
    "MODEL.VIT.DEPTH": "2",
    "MODEL.VIT.WINDOW_BLOCKS": "[0]",
    "TEST.THREADS_PER_PROCESS": "1",
    "SEED": "3",
}
TRAINING = {
    "SOLVER.IMS_PER_BATCH": "4",
    "SOLVER.MAX_ITER": "40",
    "SOLVER.CHECKPOINT_PERIOD": "5",
    "SOLVER.AMP.ENABLED": "False",
    "INPUT.CROP_PIXELS": "[64,64]",
    "DATASETS.TRAIN": "('annotations/test.json',)",
    "DATASETS.TEST": "()",
    "DATALOADER.FRAME_CACHE": "frames",
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, repository) -> Path:
    """Rendered videos, weights (`trained/`), and the evaluation of these by one process (`alone/`)."""
    folder = tmp_path_factory.mktemp("torchrun")
    words = ["--output", ".", "--split", "test", "--videos", str(VIDEOS), "--frames", str(FRAMES), "--size", "128x128"]
    renderer = [sys.executable, str(repository / "datasets" / "render_synthetic_vid.py")]
    subprocess.run([*renderer, *words], cwd=folder, check=True)
    short = {**TRAINING, "SOLVER.MAX_ITER": "1", "OUTPUT_DIR": "trained"}
    finish(start(folder, [sys.executable], repository, **short))
    finish(start(folder, [sys.executable], repository, "--eval-only", **evaluation("alone")))
    return folder


def evaluation(output: str) -> dict[str, str]:
    return {"OUTPUT_DIR": output, "MODEL.WEIGHTS": "trained/model_final.pth", "INPUT.MIN_SIZE_TEST": "160"}


def start(folder: Path, launcher: list[str], repository: Path, *words: str, **options: str) -> subprocess.Popen:
    config = ["--config-file", str(repository / "configs" / "demo" / "vitdet_tiny.yaml")]
    data = ["--test-json", "annotations/test.json"] if words else []
    pairs = [word for pair in {**MODEL, **options}.items() for word in pair]
    return subprocess.Popen(
        [*launcher, str(repository / "tools" / "train_net.py"), *config, *words, *data, *pairs],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository / "projects" / "EventfulViTDet")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes: subprocess.Popen) -> str:
    """Wait for processes that must succeed; returns what they wrote."""
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    for process, output in zip(processes, outputs):
        assert process.returncode == 0, output[-3000:]
    return "\n".join(outputs)


def torchrun(nodes: int, restarts: int = 0) -> list[str]:
    port = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False).port
    place = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--local-addr", "127.0.0.1"]
    counts = ["--nnodes", str(nodes), "--nproc-per-node", "2", "--max-restarts", str(restarts)]
    return [sys.executable, "-m", "torch.distributed.run", *counts, "--rdzv-id", "test", *place]


def wait_for(pattern: str, folder: Path, *processes: subprocess.Popen) -> None:
    deadline = time.monotonic() + 200
    while not list(folder.glob(pattern)):
        running = all(process.poll() is None for process in processes)
        assert running and time.monotonic() < deadline, [process.communicate()[0][-3000:] for process in processes]
        time.sleep(0.05)


def kill_a_worker(launcher: subprocess.Popen) -> None:
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    workers = [pid for pid in map(int, children) if b"train_net.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(workers[-1], signal.SIGKILL)


def check_equal_to_one_process(folder: Path, output: str) -> None:
    alone, other = (folder / name / "inference" for name in ("alone", output))
    for name in ("coco_instances_results.json", "vid_submission.txt"):
        assert (alone / name).read_bytes() == (other / name).read_bytes()


def test_two_nodes_share_the_videos(workspace, repository):
    launcher = torchrun(2)
    words = ["--eval-only"]
    finish(*(start(workspace, launcher, repository, *words, **evaluation("nodes")) for _ in range(2)))
    check_equal_to_one_process(workspace, "nodes")
    assert "Process 0 of 4" in (workspace / "nodes" / "log.txt").read_text()


def test_num_machines_without_torchrun(workspace, repository):
    port = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False).port
    words = ["--eval-only", "--num-gpus", "2", "--num-machines", "2", "--dist-url", f"tcp://127.0.0.1:{port}"]
    finish(
        *(
            start(workspace, [sys.executable], repository, *words, "--machine-rank", rank, **evaluation("machines"))
            for rank in "01"
        )
    )
    check_equal_to_one_process(workspace, "machines")


@pytest.mark.parametrize("restart", [[], ["--restart"]], ids=["resumed", "with --restart"])
def test_a_worker_that_fails_is_restarted_and_resumes(workspace, repository, restart):
    """On the node where it failed, and on the other, which counts no restart."""
    name = "restarted" + "".join(restart)
    if restart:
        finish(start(workspace, [sys.executable], repository, "--eval-only", **evaluation(name)))
    folder = workspace / name / "inference" / ("replacement" if restart else ".")
    launcher, words = torchrun(2, restarts=3), ["--eval-only", *restart]
    nodes = [start(workspace, launcher, repository, *words, **evaluation(name)) for _ in range(2)]
    wait_for("videos/*.npz", folder, *nodes)
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("videos/*.npz")}
    kill_a_worker(nodes[1])
    output = finish(*nodes)
    check_equal_to_one_process(workspace, name)
    records = workspace / name / "inference" / "videos"
    assert len(list(records.iterdir())) == VIDEOS and len(kept) < VIDEOS
    assert {path.name: path.stat().st_mtime_ns for path in records.iterdir() if path.name in kept} == kept
    assert f"of {VIDEOS} videos are finished; " in output


def test_training_resumes_after_a_worker_failed(workspace, repository):
    run = start(workspace, torchrun(1, restarts=1), repository, **TRAINING, OUTPUT_DIR="training")
    wait_for("training/model_0000004.pth", workspace, run)
    kill_a_worker(run)
    output = finish(run)
    assert (workspace / "training" / "model_final.pth").is_file()
    starts = [line.rsplit(" ", 1)[1] for line in output.splitlines() if "Starting training from iteration" in line]
    assert starts[0] == "0" and int(starts[-1]) >= 5 and len(starts) == 2
