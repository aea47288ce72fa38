"""The GPU's kernels compile for the GPUs that they are for, without one. Interpreters accept what compilers refuse."""

import json
import os
import subprocess
import sys
from pathlib import Path

import eventful_vit
import pytest
from eventful_vit.ops import gpu

pytestmark = pytest.mark.skipif(gpu.load_kernels() is None, reason=f"kernels do not run: {gpu.why_unavailable()}")

SHARED_MEMORY = {80: 166912, 89: 101376, 90: 232448, 100: 232448, 120: 101376}
"""Bytes that a program may have: of an A100, an RTX 4090 or L4, an H100, a B200, and an RTX 5090."""
STACK = {"float32": 640, "float16": 320, "bfloat16": 320}
"""Bytes of a thread's stack, where registers are spilled to: a few of 255 in the largest tiles."""
DETECTOR_KERNELS = {
    "_add_and_cut", "_compare", "_decide", "_decode", "_norm", "_normalise", "_pool", "_predict", "_rank", "_walk",
}  # fmt: skip
EVERY_KERNEL = {
    "_add", "_attend", "_count", "_divide", "_error_norms", "_exchange", "_find_cutoffs", "_finish", "_linear", "_list",
    "_look", "_mark", "_merge", "_patches", "_position_terms", "_select_one", "_send", "_store", "_touch", "_write_all",
} | DETECTOR_KERNELS  # fmt: skip


def compile_for(architecture: int, dtype: str, folder: Path, *options: object) -> list[dict]:
    """Compiled kernels: what compile_kernels.py prints of them."""
    switches = {"TRITON_INTERPRET", "EVENTFUL_VITDET_KERNELS"}
    environment = {name: value for name, value in os.environ.items() if name not in switches}
    environment["PYTHONPATH"] = str(Path(eventful_vit.__file__).parents[1])
    environment["TRITON_CACHE_DIR"] = str(folder)
    script = Path(__file__).with_name("compile_kernels.py")
    words = [sys.executable, str(script), str(architecture), dtype, *map(str, options)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(compiled: list[dict], architecture: int, dtype: str) -> None:
    assert compiled
    for kernel in compiled:
        assert kernel["shared"] <= SHARED_MEMORY[architecture], kernel
        assert kernel["stack"] is None or kernel["stack"] <= STACK[dtype], kernel


@pytest.fixture
def kept(request, tmp_path) -> Path:
    """Where Triton keeps what it compiled from run to run, and finds it as long as source, version and target agree."""
    cache = getattr(request.config, "cache", None)  # none with `-p no:cacheprovider`
    return tmp_path if cache is None else cache.mkdir("triton")


def test_some_kernels(kept):
    """Those of gates, of sums (which Triton 3.4 refused) and of a detector, for every run of the suite."""
    compiled = compile_for(90, "bfloat16", kept, "--operators", "gate", "update_sums", "detector")
    found = {kernel["kernel"] for kernel in compiled}
    assert found >= {"_error_norms", "_select_one", "_write_all", "_send", "_attend", "_exchange"} | DETECTOR_KERNELS
    check(compiled, 90, "bfloat16")
    # Each row is summed within a warp: only norms, four bytes each, are exchanged between warps.
    norms = [kernel for kernel in compiled if kernel["kernel"] == "_error_norms"]
    assert norms and all(kernel["shared"] <= 4 * kernel["num_warps"] for kernel in norms)


def test_a_detectors_kernels_for_newer_gpus(kept):
    """Whose pairs of float32 the compiler treats in another way; an abort of it ends the process."""
    compiled = compile_for(120, "bfloat16", kept, "--operators", "detector")
    assert {kernel["kernel"] for kernel in compiled} == DETECTOR_KERNELS
    check(compiled, 120, "bfloat16")


@pytest.mark.long
@pytest.mark.parametrize("dtype", STACK)
@pytest.mark.parametrize("architecture", SHARED_MEMORY)
def test_every_kernel(architecture, dtype, tmp_path):
    compiled = compile_for(architecture, dtype, tmp_path, "--heads", 16, 32, 64, 80, 128)
    assert {kernel["kernel"] for kernel in compiled} == EVERY_KERNEL
    check(compiled, architecture, dtype)


@pytest.mark.long
@pytest.mark.parametrize("dtype", STACK)
def test_the_largest_heads_fit_into_the_smallest_memory(dtype, tmp_path):
    names = ("attend", "attend_windows", "update_sums")
    for kernel in compile_for(89, dtype, tmp_path, "--heads", 256, "--operators", *names):
        assert kernel["shared"] <= SHARED_MEMORY[89], kernel
