"""Muon: against singular value decompositions, and against PyTorch's, which multiplies in bfloat16."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from eventful_vitdet import muon
from eventful_vitdet.muon import Muon, orthogonalised

SHAPES = [(24, 24), (24, 40), (40, 24), (1, 7), (7, 1)]


def matrix_with(values: np.ndarray, shape: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Its left singular vectors, itself, and its right ones."""
    random = np.random.default_rng(seed)
    left, _ = np.linalg.qr(random.normal(size=(shape[0], len(values))))
    right, _ = np.linalg.qr(random.normal(size=(shape[1], len(values))))
    return left, left * values @ right.T, right


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1e-12, 1e-3, 1.0, 1e6])
def test_singular_vectors_stay_and_values_come_near_one(shape, size):
    values = np.geomspace(1, 0.05, min(shape)) if min(shape) > 1 else np.ones(1)
    left, matrix, right = matrix_with(values, shape)
    result = orthogonalised(torch.from_numpy(size * matrix), torch.float64).numpy()
    found = left.T @ result @ right
    np.testing.assert_allclose(left * np.diag(found) @ right.T, result, atol=1e-9)  # and nothing beside these values
    if size > muon.SMALLEST_NORM:
        assert 0.68 < np.diag(found).min() and np.diag(found).max() < 1.14
    else:  # a vanishing matrix stays near 0
        assert abs(result).max() < 0.1


def test_the_bounds_that_the_docstring_gives():
    values = np.concatenate([np.linspace(0.01, 1, 20_000), [1e-9]])
    result = values.copy()
    first, third, fifth = muon.COEFFICIENTS
    for _ in range(muon.ITERATIONS):
        result = first * result + third * result**3 + fifth * result**5
    assert 0.68 < result[:-1].min() and result[:-1].max() < 1.14
    assert result[-1] / values[-1] == pytest.approx(484.9, abs=0.1)


def test_the_matrix_is_left_as_it_is():
    matrix = torch.randn(5, 4)
    before = matrix.clone()
    orthogonalised(matrix, matrix.dtype)
    assert torch.equal(matrix, before)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch has one since 2.9")
@pytest.mark.parametrize("shape", SHAPES)
def test_steps_are_those_of_pytorchs_muon(shape):
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(shape)) for _ in range(2))
    optimizer = Muon([ours], lr=0.02, weight_decay=0.3)
    reference = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.3, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        before = ours.detach().clone()
        optimizer.step()
        reference.step()
    # Of entries with this root mean square. Theirs are sums of 40 products of 8 bits at most, through five iterations.
    step = (ours - before).square().mean().sqrt().item()
    assert (ours - theirs).abs().max().item() < 0.15 * step


@pytest.mark.parametrize("has_instructions", [True, False])
def test_bfloat16_only_where_the_processor_multiplies_it(monkeypatch, has_instructions):
    monkeypatch.setattr(muon, "has_bfloat16_instructions", lambda: has_instructions)
    types = []
    monkeypatch.setattr(muon, "orthogonalised", lambda matrix, dtype: types.append(dtype) or matrix)
    weight = torch.nn.Parameter(torch.ones(3, 2))
    weight.grad = torch.ones(3, 2)
    Muon([weight], lr=0.1, weight_decay=0.0).step()
    assert types == [torch.bfloat16 if has_instructions else torch.float32]


def test_without_a_gradient_nothing_is_done():
    weight = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = Muon([weight], lr=0.1, weight_decay=0.5)
    optimizer.step()
    assert torch.equal(weight, torch.ones(3, 2)) and not optimizer.state


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16)])
def test_each_gpu_is_asked_whether_it_multiplies_bfloat16(monkeypatch, capability, expected):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: asked.append(device) or capability)
    device = torch.device("cuda", 1)
    assert muon._product_type(device) is expected and asked == [device]
