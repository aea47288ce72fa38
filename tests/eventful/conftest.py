import pytest
from eventful_vitdet.eventful.kernels import native


@pytest.fixture(params=["kernels", "pytorch"])
def kernels_or_not(request, monkeypatch):
    """Runs a test with the compiled kernels, and again with PyTorch operations alone."""
    if request.param == "pytorch":
        monkeypatch.setattr(native, "load_library", lambda: None)
    elif native.load_library() is None:
        pytest.skip("no compiled kernels here: no C++ compiler, or switched off")
    return request.param
