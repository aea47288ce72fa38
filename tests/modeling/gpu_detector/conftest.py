"""The GPU's part of a detector, on a GPU where there is one, else in Triton's interpreter."""


import pytest
import torch
from eventful_vit.ops import gpu


@pytest.fixture
def device(full_float32) -> torch.device:
    if gpu.load_kernels() is None:
        pytest.skip(f"the GPU's kernels do not run: {gpu.why_unavailable()}")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield
