"""The GPU's part of a detector, on a GPU where there is one, else in Triton's interpreter."""

from importlib.util import find_spec

import pytest
import torch
from eventful_vit.ops import gpu


@pytest.fixture
def device(full_float32) -> torch.device:
    if find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    if gpu.load_kernels() is None:
        pytest.skip("the GPU's kernels are switched off, or do not run on this GPU")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield
