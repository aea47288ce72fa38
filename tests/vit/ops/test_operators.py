"""Operators as PyTorch sees them: schemas, shapes without content, autograd, autocast."""

import pytest
import torch
from eventful_vit import ops
from eventful_vit.ops.operator import operator
from torch import nn

N, D = 12, 8
WHOLE = ([torch.randn(5, 4), torch.randn(7, 4)], 2, 0.5, [3, 4, 0, 1])
WINDOWS = ([torch.randn(3, 4), torch.randn(3, 4)], 2, 0.5, [3, 4, 2, 1])
INDEX = torch.tensor([1, 5, 14])
OFFSETS = torch.tensor([0, 2, 3])


def sums():
    return [torch.rand(2, 2, N, 4), torch.rand(2, 2, N) + 1, torch.rand(2, 2, N), torch.rand(2, 2, N)]


NORM = (torch.ones(D), torch.zeros(D), 1e-6)
ARGUMENTS = {
    "linear": lambda: (torch.randn(N, D), torch.randn(5, D), torch.randn(5), True, torch.randn(N, 5), None, None),
    "linear_side_by_side": lambda: (
        torch.randn(N, D), [torch.randn(5, D), torch.randn(3, D)], [torch.randn(5), None], None, None,
    ),
    "scale_channels": lambda: (torch.randn(2, N, D), torch.randn(D)),
    "embed": lambda: (torch.randn(2, 3, 8, 16), torch.randn(D, 3, 4, 4), torch.randn(D), torch.randn(1, 8, D), None),
    "normalise": lambda: (torch.randn(2, N, D), *NORM),
    "error_norms": lambda: (torch.randn(2, N, D), torch.randn(2, N, D), *NORM),
    "send": lambda: (torch.randn(2, N, D), torch.randn(2, N, D), INDEX, *NORM),
    "gate": lambda: (
        torch.randn(2, N, D), torch.randn(2, N, D), torch.tensor(3), torch.tensor(0.5), torch.tensor([0, 1]).byte(), 24,
        *NORM,
    ),
    "store": lambda: (torch.randn(2, N, D), INDEX, torch.randn(3, D), None),
    "replace": lambda: (torch.randn(2, N, D), INDEX, torch.randn(3, D), torch.tensor(3), 2),
    "add": lambda: (torch.randn(2, N, D), torch.randn(2, N, D)),
    "finite": lambda: (torch.randn(2, 3, 8, 8),),
    "attend": lambda: (torch.randn(2, N, 3 * D), torch.randn(3 * D), *WINDOWS, torch.float32),
    "attend_windows": lambda: (torch.randn(2, N, 3 * D), INDEX, None, torch.randn(2, N, D), None, *WINDOWS),
    "update_sums": lambda: (
        torch.randn(2, N, D), torch.randn(2, N, 2 * D), [INDEX, OFFSETS, INDEX, OFFSETS, torch.randn(3, 2 * D)], sums(),
        *WHOLE,
    ),
    "divide": lambda: (*sums()[:2], torch.float32),
}  # fmt: skip


def test_every_operator_is_here():
    assert set(ARGUMENTS) == {name for name, operator in vars(ops).items() if isinstance(operator, ops.Operator)}


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("kernels", [True, False])
def test_schema_and_shapes(name, kernels, request):
    """What an operator says of its results, and of what it writes to, is so."""
    request.getfixturevalue("needs_kernels" if kernels else "no_kernels")
    overload = getattr(torch.ops.eventful_vit, name).default
    with torch.no_grad():
        torch.library.opcheck(overload, ARGUMENTS[name](), test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("name", ["linear", "linear_side_by_side", "scale_channels", "embed", "attend", "normalise"])
def test_gradients(name):
    """Those of the parts that an operator consists of."""
    tensors = []

    def widen(x):
        if isinstance(x, list) and isinstance(x[0], torch.Tensor):
            return [None if part is None else widen(part) for part in x]
        if isinstance(x, torch.Tensor) and x.is_floating_point():
            tensors.append(x.double().requires_grad_())
            return tensors[-1]
        return torch.float64 if x is torch.float32 else x

    arguments = [widen(x) for x in ARGUMENTS[name]()]
    assert torch.autograd.gradcheck(lambda *_: getattr(ops, name)(*arguments), tuple(tensors))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_linear_layer_in_another_type_than_its_weights(dtype):
    layer, x = nn.Linear(6, 4), torch.randn(3, 6)
    with torch.no_grad():
        result = ops.linear(x, layer.weight, layer.bias, False, None, None, dtype)
    assert result.dtype == dtype
    torch.testing.assert_close(result.float(), layer(x).detach(), atol=0.05, rtol=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("plus", [True, False])
def test_an_embedding_in_another_type_than_its_weights(dtype, plus, kernels_or_not):
    images, weight, bias, positions, _ = ARGUMENTS["embed"]()
    positions = positions if plus else None
    with torch.no_grad():
        result = ops.embed(images, weight, bias, positions, dtype)
        expected = ops.embed(images, weight, bias, positions, None)
    assert result.dtype == images.dtype and not torch.equal(result, expected)
    torch.testing.assert_close(result, expected, atol=0.2 if dtype is torch.bfloat16 else 1e-4, rtol=0.02)


def test_autocast_does_not_reach_into_an_operator(kernels_or_not):
    q, kv, change, state, *kind = ARGUMENTS["update_sums"]()
    before, plain = ([x.clone() for x in state] for _ in range(2))
    with torch.no_grad():
        ops.update_sums(q, kv, change, plain, *kind)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            ops.update_sums(q, kv, change, state, *kind)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(state, plain))
    assert not torch.equal(state[0], before[0])


def test_autocast_does_not_reach_into_an_implementation():
    """Such as a GPU's, whose products may be PyTorch's."""

    @operator("squared(Tensor x) -> Tensor", shapes=torch.empty_like)
    def squared(x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the implementation for this device runs")

    squared.implement("CPU")(lambda x: x @ x)
    x = torch.randn(4, 4)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        result = squared(x)
    torch.testing.assert_close(result, x @ x)
