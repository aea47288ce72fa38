import pytest
from eventful_vit.ops import cpu
from eventful_vit.ops.cpu import library


@pytest.fixture
def no_kernels(monkeypatch):
    """Operators run as PyTorch operations."""
    monkeypatch.setattr(library, "load_library", lambda: None)


@pytest.fixture
def needs_kernels():
    if not cpu.available():
        pytest.skip("no compiled kernels here: no C++ compiler, or switched off")


@pytest.fixture(params=["kernels", "pytorch"])
def kernels_or_not(request):
    """Runs a test with the compiled kernels, and again with PyTorch operations only."""
    request.getfixturevalue("needs_kernels" if request.param == "kernels" else "no_kernels")
    return request.param
