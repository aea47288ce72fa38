"""An operator on a GPU against the same in float64: on a GPU where there is one, else in Triton's interpreter.

The interpreter cuts numbers off where a GPU rounds them to bfloat16, so that type has a tolerance of a whole unit in
the last place, 2^-7.
"""

import pytest
import torch

TYPES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
"""Rounding of numbers around 1 in each type, some times over."""


def in_types(case: tuple, *types: torch.dtype) -> list:
    """Parameters `dtype` and those of a case: in some types, or all. In other types it is only for the long suite."""
    parameters = []
    for dtype in TYPES:
        name = "-".join(map(str, (name_of(dtype), *case)))
        marks = () if dtype in (types or TYPES) else pytest.mark.long
        parameters.append(pytest.param(dtype, *case, marks=marks, id=name))
    return parameters


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@pytest.fixture
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=TYPES, ids=name_of)
def dtype(request):
    return request.param


@pytest.fixture
def close(dtype):
    """Compares with float64, within a type's rounding."""

    def check(result, expected, factor=1.0):
        tolerance = factor * TYPES[dtype]
        torch.testing.assert_close(result.cpu().double(), expected.double(), atol=tolerance, rtol=tolerance)

    return check


@pytest.fixture
def run(gpu_kernels, gpu_device):
    """Runs an operator's kernel on copies of its arguments; returns its results and the copies."""

    def call(operator, *arguments):
        arguments = on_device(arguments, gpu_device)
        result = gpu_kernels[operator](*arguments)
        assert result is not NotImplemented
        return result, arguments

    return call


def on_device(x, device):
    if isinstance(x, (list, tuple)):
        return type(x)(on_device(part, device) for part in x)
    return x.detach().clone().to(device) if isinstance(x, torch.Tensor) else x


def in_double(operator, *arguments):
    """The reference implementation in float64; returns its results and its copies of the arguments."""

    def widen(x):
        if isinstance(x, (list, tuple)):
            return type(x)(widen(part) for part in x)
        if isinstance(x, torch.Tensor):
            return x.double() if x.is_floating_point() else x.clone()
        return torch.float64 if isinstance(x, torch.dtype) else x

    arguments = widen(arguments)
    return operator.reference(*arguments), arguments
