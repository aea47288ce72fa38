from collections.abc import Iterator
from functools import partial

import pytest
import torch
from eventful_vit import encoder, model, recorded
from eventful_vit.ops import Operator, cpu, gpu, tf32
from eventful_vit.ops.cpu import library
from eventful_vit.recorded import RecordedFrames

from .call_graph import CallGraph


@pytest.fixture
def no_kernels(monkeypatch):
    """Operators run as PyTorch operations."""
    monkeypatch.setattr(library, "load_library", lambda: None)


@pytest.fixture
def needs_kernels():
    if not cpu.available():
        pytest.skip("no compiled kernels here: no C++ compiler, or switched off")


@pytest.fixture
def full_float32() -> Iterator[None]:
    """A GPU computes float32 as such, as the CPU does with which it is compared.

    By default, cuDNN rounds what convolutions multiply to TF32, by up to 2^-11. Two ways of one result then differ by
    1e-3 of its values; in float32, they differ by some units of 2^-24.
    """
    with tf32.switched_off():
        yield


@pytest.fixture
def gpu_device(full_float32) -> torch.device:
    """Where the GPU's kernels are tested: on a CPU in Triton's interpreter, if there is no GPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def gpu_kernels(gpu_device) -> dict:
    """The GPU's implementation of each operator."""
    kernels = gpu.load_kernels()
    if kernels is None:
        pytest.skip(f"the GPU's kernels do not run: {gpu.why_unavailable()}")
    return kernels


@pytest.fixture
def interpreted(monkeypatch, gpu_device, gpu_kernels):
    """Operators on CPU tensors run as the GPU's kernels, in Triton's interpreter."""
    if gpu_device.type != "cpu":
        pytest.skip("on a machine with a GPU, its kernels run there")
    call = partial(run_interpreted, gpu_kernels)
    monkeypatch.setattr(Operator, "__call__", lambda operator, *args: call(operator, *args))
    monkeypatch.setattr(gpu, "serves", lambda x: True)


def run_interpreted(kernels: dict, operator: Operator, *args):
    result = NotImplemented
    if operator in kernels and not torch.is_grad_enabled():
        result = kernels[operator](*args)
    return operator.reference(*args) if result is NotImplemented else result


@pytest.fixture(params=["kernels", "pytorch"])
def kernels_or_not(request):
    """Runs a test with the compiled kernels, and again with PyTorch operations only."""
    request.getfixturevalue("needs_kernels" if request.param == "kernels" else "no_kernels")
    return request.param


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Frames take the way that they take on a GPU, with the CPU's kernels."""
    for module in (recorded, encoder, model):
        monkeypatch.setattr(module, "is_on_gpu", lambda x: True)
    monkeypatch.setattr(encoder, "_make_room_for_kernels", lambda x: None)
    monkeypatch.setattr(encoder, "CROSSOVER", 0.5)  # whatever was measured last
    monkeypatch.setattr(RecordedFrames, "_make_recorder", lambda frames, device: CallGraph())
