"""The GPU's linear layers and patch embedding against float64 (conftest.py), by the library and by the kernel."""

import importlib
from types import ModuleType

import pytest
import torch
from eventful_vit import ops
from torch import nn

from .conftest import in_double

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture(params=["library", "kernel"])
def products(request, monkeypatch, gpu_kernels):
    """Both ways to compute products, whatever the table says."""
    module = importlib.import_module("eventful_vit.ops.gpu.linear")
    monkeypatch.setattr(module, "uses_library", lambda *_: request.param == "library")
    monkeypatch.setattr(module, "precise_products", lambda *_: request.param == "kernel")


def use_descriptors(monkeypatch) -> ModuleType:
    """Let all products by the kernel read by descriptors; returns the kernel's module."""
    module = importlib.import_module("eventful_vit.ops.gpu.linear")
    tile = {"ROWS": 64, "COLUMNS": 32, "DEPTH": 32, "TMA": True, "num_warps": 4, "num_stages": 3}
    monkeypatch.setattr(module, "linear_tile", lambda *_: dict(tile))
    monkeypatch.setattr(module, "PRECISE_TILE", tile)
    return module


@pytest.mark.usefixtures("products")
class TestLinear:
    @pytest.mark.parametrize("rows", [0, 1, 70])
    @pytest.mark.parametrize("inputs, outputs", [(1, 1), (7, 5), (64, 64), (130, 70)])
    @pytest.mark.parametrize("gelu, plus", [(False, False), (True, False), (False, True)])
    def test_against_float64(self, run, close, dtype, rows, inputs, outputs, gelu, plus):
        layer, x = nn.Linear(inputs, outputs, dtype=dtype), torch.randn(rows, inputs).to(dtype)
        added = torch.randn(rows, outputs).to(dtype) if plus else None
        arguments = (x, layer.weight, layer.bias, gelu, added, None, None)
        close(run(ops.linear, *arguments)[0], in_double(ops.linear, *arguments)[0], 2)

    def test_a_short_type_for_float32_tokens(self, run):
        layer, x = nn.Linear(48, 70), torch.randn(9, 48)
        result, _ = run(ops.linear, x, layer.weight, layer.bias, True, None, None, torch.float16)
        assert result.dtype == torch.float16
        torch.testing.assert_close(result.float().cpu(), nn.functional.gelu(layer(x)), atol=2e-3, rtol=2e-3)

    def test_only_the_rows_in_use_are_computed(self, run):
        layer, x = nn.Linear(20, 30, dtype=torch.float16), torch.randn(80, 20).half()
        whole = run(ops.linear, x, layer.weight, layer.bias, True, None, None, None)[0]
        part = run(ops.linear, x, layer.weight, layer.bias, True, None, torch.tensor(5), None)[0]
        assert part.shape == whole.shape and torch.equal(part[:5], whole[:5])

    @pytest.mark.parametrize("rows, inputs, outputs", [(1, 8, 1), (70, 72, 50), (70, 80, 50), (130, 64, 128)])
    @pytest.mark.parametrize("gelu, plus", [(True, False), (False, True)])
    def test_operands_read_by_descriptors(self, run, close, dtype, monkeypatch, rows, inputs, outputs, gelu, plus):
        module = use_descriptors(monkeypatch)
        if inputs % 16 and module.triton.__version__.startswith("3.4.") and not torch.cuda.is_available():
            pytest.skip("Triton 3.4's interpreter takes rows of 16 values, descriptors themselves rows of 16 bytes")
        layer, x = nn.Linear(inputs, outputs, dtype=dtype), torch.randn(rows, inputs).to(dtype)
        arguments = (x, layer.weight, layer.bias, gelu, torch.randn(rows, outputs) if plus else None, None, None)
        assert module._takes_descriptors(x.clone(), layer.weight)
        close(run(ops.linear, *arguments)[0], in_double(ops.linear, *arguments)[0], 2)
        assert not module._takes_descriptors(x, x[:, 1:])

    def test_single_rows_that_are_parts_of_longer_ones_read_by_descriptors(self, gpu_kernels, gpu_device, monkeypatch):
        use_descriptors(monkeypatch)
        x, weight = torch.randn(1, 17, device=gpu_device)[:, :16], torch.randn(1, 17, device=gpu_device)[:, :16]
        result = gpu_kernels[ops.linear](x, weight, None, False, None, None, None)
        torch.testing.assert_close(result, x @ weight.T)

    def test_a_single_row_without_other_dimensions(self, run, close, dtype):
        layer, x = nn.Linear(40, 30, dtype=dtype), torch.randn(40).to(dtype)
        arguments = (x, layer.weight, layer.bias, True, None, None, None)
        close(run(ops.linear, *arguments)[0], in_double(ops.linear, *arguments)[0], 2)

    def test_a_short_product_added_to_float32_tokens(self, run):
        layer, x, added = nn.Linear(48, 70), torch.randn(2, 9, 48), torch.randn(2, 9, 70)
        result, _ = run(ops.linear, x, layer.weight, layer.bias, False, added, torch.tensor(18), torch.float16)
        assert result.dtype == torch.float32
        torch.testing.assert_close(result.cpu(), layer(x) + added, atol=2e-3, rtol=2e-3)

    @pytest.mark.parametrize("dtype", [torch.float32])
    def test_gelu(self, run, dtype):
        """It has an error function of its own."""
        x = torch.cat([torch.linspace(-12, 12, 4801), torch.tensor([1e-30, -1e-30, 3e4, -3e4, 3e38, -3e38])])
        (result, _), expected = run(ops.linear, x[:, None], torch.ones(1, 1), None, True, None, None, None), x.double()
        error = result[:, 0].cpu().double() - nn.functional.gelu(expected)
        assert error[:4801].abs().max() < 1e-6 and (error / (1 + expected.abs())).abs().max() < 2e-7
        for bad in (torch.nan, torch.inf):
            result, _ = run(ops.linear, torch.full((1, 1), bad), torch.ones(1, 1), None, True, None, None, None)
            assert not result.isfinite().any()

    @pytest.mark.parametrize("sizes", [(5, 70, 1), (64, 64, 64)])
    def test_side_by_side(self, run, close, dtype, sizes):
        layers, x = [nn.Linear(20, size, dtype=dtype) for size in sizes], torch.randn(70, 20).to(dtype)
        weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
        biases[1] = None
        result = run(ops.linear_side_by_side, x, weights, biases, None, None)[0]
        close(result, in_double(ops.linear_side_by_side, x, weights, biases, None, None)[0], 2)
        part = run(ops.linear_side_by_side, x, weights, biases, torch.tensor(5), None)[0]
        assert part.shape == result.shape and torch.equal(part[:5], result[:5])


@pytest.mark.usefixtures("products")
class TestEmbedding:
    @pytest.mark.parametrize(
        "streams, channels, grid, size", [(1, 3, (1, 1), 16), (2, 3, (5, 3), 8), (3, 1, (4, 7), 5)]
    )
    @pytest.mark.parametrize("plus", [True, False])
    def test_against_float64(self, run, close, dtype, streams, channels, grid, size, plus):
        proj = nn.Conv2d(channels, 20, size, size, dtype=dtype)
        images = torch.randn(streams, channels, grid[0] * size, grid[1] * size).to(dtype)
        positions = torch.randn(1, grid[0] * grid[1], 20).to(dtype) if plus else None
        arguments = (images, proj.weight, proj.bias, positions, None)
        close(run(ops.embed, *arguments)[0], in_double(ops.embed, *arguments)[0], 2)

    @pytest.mark.parametrize("plus", [True, False])
    def test_a_short_type_for_float32_images(self, run, plus):
        proj, images = nn.Conv2d(3, 40, 16, 16), torch.randn(2, 3, 48, 32)
        positions = torch.randn(1, 6, 40) if plus else None
        result, _ = run(ops.embed, images, proj.weight, proj.bias, positions, torch.float16)
        expected = ops.embed.reference(images, proj.weight, proj.bias, positions, torch.float64)
        assert result.dtype == torch.float32 == expected.dtype
        torch.testing.assert_close(result.cpu(), expected, atol=4e-3, rtol=4e-3)

    @pytest.mark.parametrize("shape", [(1, 3, 20, 16), (1, 4, 16, 16)])
    def test_pictures_that_do_not_fit_are_pytorchs(self, gpu_kernels, gpu_device, shape):
        proj, images = nn.Conv2d(3, 4, 16, 16, device=gpu_device), torch.randn(shape, device=gpu_device)
        assert gpu_kernels[ops.embed](images, proj.weight, proj.bias, None, None) is NotImplemented
