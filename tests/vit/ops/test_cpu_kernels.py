"""The compiled kernels against PyTorch operations in float64, for the arguments that they take and for those they do
not."""

import pytest
import torch
from eventful_vit import ops
from eventful_vit.attention.layout import attention_layout
from torch import nn

pytestmark = pytest.mark.usefixtures("needs_kernels", "no_gradients")
SHORT = (torch.float32, torch.bfloat16)


@pytest.fixture
def no_gradients():
    with torch.no_grad():
        yield


def attention_arguments(grid, window, pool, heads, channels, positions):
    """The sizes of an attention, in the order that operators take them."""
    torch.manual_seed(0)
    query_grid = (window, window) if window else grid
    tables = [0.5 * torch.randn(2 * size - 1, channels) for size in query_grid] if positions else []
    return tables, heads, channels**-0.5, (*grid, window, pool)


def in_double(operator, *arguments):
    """The operator's reference implementation in float64."""

    def widen(x):
        if isinstance(x, list):
            return [widen(part) for part in x]
        if isinstance(x, torch.Tensor) and x.is_floating_point():
            return x.double()
        return torch.float64 if x is torch.float32 else x

    return operator.reference(*map(widen, arguments))


class TestAttend:
    @pytest.mark.parametrize("grid", [(5, 7), (12, 12), (3, 61)])
    @pytest.mark.parametrize("channels", [5, 16, 24, 64, 80])
    @pytest.mark.parametrize("positions", [True, False])
    def test_whole_frames(self, grid, channels, positions):
        sizes = attention_arguments(grid, 0, 1, 3, channels, positions)
        qkv = torch.randn(2, grid[0] * grid[1], 9 * channels)
        expected = in_double(ops.attend, qkv, None, *sizes, torch.float32)
        # Sums of some hundred products of numbers around 1, in float32.
        result = ops.attend(qkv, None, *sizes, torch.float32)
        torch.testing.assert_close(result.double(), expected, atol=2e-5, rtol=0)

    @pytest.mark.parametrize("window, pool", [(3, 1), (14, 1), (0, 2), (0, 4)])
    @pytest.mark.parametrize("padding", [True, False])
    def test_windows_and_pooling(self, window, pool, padding):
        sizes = attention_arguments((8, 12), window, pool, 2, 16, True)
        qkv, fill = torch.randn(2, 96, 96), torch.randn(96) if padding else None
        expected = in_double(ops.attend, qkv, fill, *sizes, torch.float32)
        result = ops.attend(qkv, fill, *sizes, torch.float32)
        torch.testing.assert_close(result.double(), expected, atol=1e-5, rtol=0)

    @pytest.mark.parametrize("stored", SHORT)
    @pytest.mark.parametrize("wanted", SHORT)
    def test_types_of_operands_and_result(self, stored, wanted):
        sizes = attention_arguments((6, 6), 0, 1, 2, 16, True)
        qkv = torch.randn(1, 36, 96).to(stored)
        result = ops.attend(qkv, None, *sizes, wanted)
        assert result.dtype == wanted
        expected = in_double(ops.attend, qkv, None, *sizes, torch.float32)
        rounding = 2**-8 if wanted is torch.bfloat16 else 1e-5
        torch.testing.assert_close(result.double(), expected, atol=1e-5, rtol=rounding)

    @pytest.mark.parametrize("score", [-1e4, -200.0, 200.0, 1e4])
    def test_scores_of_any_size(self, score):
        """A softmax does not change when all scores rise or fall together; one key may win everything."""
        sizes = attention_arguments((6, 6), 0, 1, 1, 16, False)
        qkv = torch.randn(1, 36, 48)
        qkv[..., 16:32] = qkv[..., 16:32] * 0.01
        qkv[..., 0], qkv[..., 16] = 1.0, score * 4
        for _ in range(2):
            expected = in_double(ops.attend, qkv, None, *sizes, torch.float32)
            result = ops.attend(qkv, None, *sizes, torch.float32).double()
            # Scores of this size are themselves rounded by up to |score| 2^-24.
            torch.testing.assert_close(result, expected, atol=1e-6 * abs(score) + 1e-5, rtol=0)
            qkv[0, 7, 16] *= 2

    def test_windows_with_a_selected_token(self):
        sizes = attention_arguments((5, 8), 3, 1, 2, 8, True)
        qkv, padding, before = torch.randn(2, 40, 48), torch.randn(48), torch.randn(2, 40, 16)
        whole, out = ops.attend(qkv, padding, *sizes, torch.float32), before.clone()
        touched = ops.attend_windows(qkv, torch.tensor([0, 1, 39, 40]), torch.tensor(4), out, padding, *sizes)
        assert touched.tolist() == [2, 1]  # the first and the last of six windows, and the first one
        places = attention_layout(5, 8, 3).window_of_token
        computed = torch.stack([(places == 0) | (places == 5), places == 0])
        assert torch.equal(out[computed], whole[computed]) and torch.equal(out[~computed], before[~computed])

    def test_number_of_threads_changes_nothing(self):
        sizes = attention_arguments((9, 13), 0, 1, 3, 16, True)
        qkv = torch.randn(2, 117, 144)
        assert same_for_threads(lambda: ops.attend(qkv, None, *sizes, torch.float32))


def same_for_threads(call) -> bool:
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(call())
    finally:
        torch.set_num_threads(before)
    return all(torch.equal(result, results[0]) for result in results)


class TestLinear:
    @pytest.mark.parametrize("rows", [0, 1, 6, 11, 300])
    @pytest.mark.parametrize("inputs, outputs", [(1, 1), (7, 5), (64, 64), (48, 144), (130, 70), (1700, 65)])
    @pytest.mark.parametrize("gelu", [False, True])
    @pytest.mark.parametrize("plus", [False, True])
    def test_against_float64(self, rows, inputs, outputs, gelu, plus):
        layer, x = nn.Linear(inputs, outputs), torch.randn(rows, inputs)
        added = torch.randn(rows, outputs) if plus else None
        result = ops.linear(x, layer.weight, layer.bias, gelu, added, None, None)
        expected = nn.functional.linear(x.double(), layer.weight.double(), layer.bias.double())
        expected = nn.functional.gelu(expected) if gelu else expected
        # Sums of up to 1,700 products, and an erf of 1.5e-7 times numbers up to 5.
        torch.testing.assert_close(
            result.double(), expected if added is None else expected + added, atol=1e-5, rtol=1e-6
        )

    def test_gelu_of_any_number(self):
        x = torch.tensor([[-1e30, -50.0, -6.0, -1.0, -1e-20, 0.0, 1e-20, 1.0, 6.0, 50.0, 1e30, torch.nan]]).t()
        result = ops.linear(x, torch.ones(1, 1), None, True, None, None, None).double()
        torch.testing.assert_close(result, nn.functional.gelu(x.double()), atol=1e-6, rtol=1e-6, equal_nan=True)

    def test_a_row_does_not_depend_on_the_others(self):
        """A selection gives what all tokens give, bit by bit, whatever the number of threads."""
        layer, x = nn.Linear(200, 130), torch.randn(500, 200)

        def run(rows):
            return ops.linear(rows, layer.weight, layer.bias, False, None, None, None)

        assert same_for_threads(lambda: run(x))
        assert torch.equal(run(x[3:10]), run(x)[3:10])

    def test_only_the_rows_in_use_are_computed(self):
        layer, x = nn.Linear(20, 30), torch.randn(8, 20)
        whole = ops.linear(x, layer.weight, layer.bias, True, None, None, None)
        part = ops.linear(x, layer.weight, layer.bias, True, None, torch.tensor(5), None)
        assert part.shape == whole.shape and torch.equal(part[:5], whole[:5])

    @pytest.mark.parametrize("sizes", [(64, 64, 64), (5, 70, 1), (130, 3, 65)])
    @pytest.mark.parametrize("rows", [0, 1, 11, 300])
    def test_side_by_side_is_each_of_them(self, rows, sizes):
        layers, x = [nn.Linear(300, size) for size in sizes], torch.randn(rows, 300)
        weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
        biases[1] = None
        result = ops.linear_side_by_side(x, weights, biases, None, None)
        alone = [ops.linear(x, *part, False, None, None, None) for part in zip(weights, biases)]
        assert torch.equal(result, torch.cat(alone, dim=-1))
        if rows > 5:
            part = ops.linear_side_by_side(x, weights, biases, torch.tensor(5), None)
            assert part.shape == result.shape and torch.equal(part[:5], result[:5])

    @pytest.mark.parametrize("shape", [(0, 8), (1, 1), (2, 300, 50)])
    def test_scale_channels(self, shape):
        rows, factors = torch.randn(shape), torch.randn(shape[-1])
        assert torch.equal(ops.scale_channels(rows, factors), rows * factors)

    @pytest.mark.parametrize("change", ["in place", "another parameter", "loaded"])
    def test_packed_weights_follow_the_parameter(self, change):
        layer, x = nn.Linear(40, 30), torch.randn(5, 40)
        ops.linear(x, layer.weight, layer.bias, False, None, None, None)
        if change == "in place":
            layer.weight.mul_(2)
        elif change == "another parameter":
            layer.weight = nn.Parameter(torch.randn(30, 40))
        else:
            layer.load_state_dict(nn.Linear(40, 30).state_dict())
        result = ops.linear(x, layer.weight, layer.bias, False, None, None, None)
        torch.testing.assert_close(result, layer(x), atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("inputs", [1, 3, 64, 4096])
    def test_an_input_of_another_width_is_pytorchs_error(self, inputs):
        with pytest.raises(RuntimeError, match="cannot be multiplied"):
            ops.linear(torch.randn(4, inputs), torch.randn(8, 32), None, False, None, None, None)

    @pytest.mark.parametrize("channels", [1, 4, 64])
    def test_a_picture_with_other_channels_is_pytorchs_error(self, channels):
        with pytest.raises(RuntimeError, match="channels"):
            ops.embed(torch.randn(1, channels, 16, 16), torch.randn(8, 3, 8, 8), None, None, None)

    def test_patches_and_positions(self):
        proj, images, positions = nn.Conv2d(3, 20, 8, 8), torch.randn(2, 3, 40, 24), torch.randn(1, 15, 20)
        expected = proj(images).flatten(2).transpose(1, 2)
        for also in (None, positions):
            result = ops.embed(images, proj.weight, proj.bias, also, None)
            torch.testing.assert_close(result, expected if also is None else expected + also, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", SHORT)
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("channels", [7, 48])
class TestGates:
    @pytest.fixture(autouse=True)
    def tokens(self, dtype, norm, channels):
        torch.manual_seed(0)
        self.x, self.u = torch.randn(2, 9, channels) + 3, torch.randn(2, 9, channels).to(dtype)
        self.norm = (torch.randn(channels), torch.randn(channels), 1e-6) if norm else (None, None, None)
        self.c = nn.functional.layer_norm(self.x, (channels,), *self.norm[:2], 1e-6) if norm else self.x
        self.norms = torch.linalg.vector_norm(self.c - self.u, dim=-1)

    def test_error_norms(self):
        torch.testing.assert_close(ops.error_norms(self.x, self.u, *self.norm), self.norms, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("short", [torch.float16, torch.bfloat16])
    def test_rows_in_a_short_type(self, short):
        """What goes on is rounded; the reference is not."""
        other, numbers = self.u.clone(), (torch.tensor(4), torch.tensor(-torch.inf), None, 8)

        def sent(u, dtype):
            gated = ops.gate(self.x, u, *numbers, *self.norm, None, dtype)[3]
            return gated, ops.send(self.x, u, None, *self.norm, dtype)

        for rows, wide in zip(sent(self.u, short), sent(other, None)):
            assert rows.dtype is short and torch.equal(rows, wide.to(short))
        assert torch.equal(self.u, other)
        if self.norm[2] is not None:
            assert torch.equal(ops.normalise(self.x, *self.norm, short), ops.normalise(self.x, *self.norm).to(short))

    @pytest.mark.parametrize("places", [[0, 4, 17], [], None])
    def test_send(self, places):
        index, before = None if places is None else torch.tensor(places, dtype=torch.int64), self.u.clone()
        rows = ops.send(self.x, self.u, index, *self.norm)
        chosen = torch.arange(18) if index is None else index
        torch.testing.assert_close(rows, self.c.flatten(0, 1)[chosen], atol=1e-5, rtol=1e-5)
        expected = before.flatten(0, 1).index_copy(0, chosen, rows.to(before.dtype))
        assert torch.equal(self.u.flatten(0, 1), expected)

    @pytest.mark.parametrize("count, threshold", [(4, -torch.inf), (0, -torch.inf), (9, 5.0), (2, 5.0), (9, torch.inf)])
    @pytest.mark.parametrize("flush", [None, [1, 0]])
    @pytest.mark.parametrize("plus", [True, False])
    def test_gate(self, count, threshold, flush, plus):
        numbers = (torch.tensor(count), torch.tensor(threshold), None if flush is None else torch.tensor(flush).byte())
        u, x, added = self.u.clone(), self.x.clone(), torch.randn_like(self.x).to(self.u.dtype) if plus else None
        norms, index, offsets, rows = ops.gate(self.x, self.u, *numbers, 18, *self.norm, added, None)
        expected = ops.gate.reference(x, u, *numbers, 18, *self.norm, added, None)
        used = int(offsets[-1])
        assert torch.equal(self.x, x)
        torch.testing.assert_close(norms, expected[0], atol=1e-5, rtol=1e-5)
        assert offsets.tolist() == expected[2].tolist()
        assert index[:used].tolist() == expected[1][:used].tolist()
        torch.testing.assert_close(rows[:used], expected[3][:used], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(self.u.float(), u.float(), atol=1e-5, rtol=2**-7)


def test_of_equal_errors_the_earlier_token_goes_first_and_nan_before_all():
    x = torch.zeros(1, 6, 4)
    x[0, :, 0] = torch.tensor([1.0, 3.0, 2.0, 3.0, 3.0, torch.nan])
    numbers = (torch.tensor(3), torch.tensor(-torch.inf), None)
    for run in (ops.gate, ops.gate.reference):
        assert run(x, torch.zeros(1, 6, 4), *numbers, 3, None, None, None)[1].tolist() == [1, 3, 5]


@pytest.mark.parametrize("dtype", SHORT)
@pytest.mark.parametrize("places", [[], [0, 5, 19], None])
class TestBuffers:
    def test_store(self, dtype, places):
        index, buffer, rows, expected = buffers(dtype, places)
        ops.store(buffer, index, rows, None)
        assert torch.equal(buffer, expected)

    @pytest.mark.parametrize("short", [torch.float16, torch.bfloat16])
    def test_store_rows_of_a_short_type(self, dtype, places, short):
        index, buffer, rows, _ = buffers(dtype, places)
        other = buffer.clone()
        ops.store(buffer, index, rows.to(short), None)
        ops.store(other, index, rows.to(short).float(), None)
        assert torch.equal(buffer, other)

    def test_replace(self, dtype, places):
        if places is None:
            pytest.skip("only parts are replaced")
        index, buffer, rows, expected = buffers(dtype, places)
        before = buffer.flatten(0, 1)[index, 4:]
        assert torch.equal(ops.replace(buffer, index, rows, None, 4), before)
        assert torch.equal(buffer, expected)


@pytest.mark.parametrize("dtype", SHORT)
def test_add(dtype):
    x, buffer = torch.randn(2, 10, 12), torch.randn(2, 10, 12).to(dtype)
    total = x + buffer
    ops.add(x, buffer)
    assert torch.equal(x, total)


def buffers(dtype, places):
    torch.manual_seed(0)
    buffer, rows = torch.randn(2, 10, 12).to(dtype), torch.randn(20 if places is None else len(places), 12)
    index = None if places is None else torch.tensor(places, dtype=torch.int64)
    expected = buffer.clone()
    expected.view(20, 12)[slice(None) if index is None else index] = rows.to(dtype)
    return index, buffer, rows, expected


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_finite(bad):
    images = torch.full((3, 3, 200, 201), 3e38)  # their sum overflows
    images[1, 2, 137, 200] = bad
    for run in (ops.finite, ops.finite.reference):
        assert run(images).tolist() == [True, False, True]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_types_run_as_pytorch_operations(dtype):
    x, weight = torch.randn(6, 8).to(dtype), torch.randn(5, 8).to(dtype)
    assert torch.equal(ops.linear(x, weight, None, False, None, None, None), nn.functional.linear(x, weight))
    tokens, u = x[None], torch.zeros(1, 6, 8, dtype=dtype)
    torch.testing.assert_close(
        ops.error_norms(tokens, u, None, None, None), tokens.float().norm(dim=-1), atol=1e-2, rtol=1e-2
    )


def test_parameters_that_lie_otherwise():
    """Neither transposed weights nor strided biases are read as if they were in order."""
    weight, bias, x = torch.randn(16, 8).t(), torch.randn(16)[::2], torch.randn(5, 16)
    result = ops.linear(x, weight, bias, False, None, None, None)
    torch.testing.assert_close(result, nn.functional.linear(x, weight, bias), atol=1e-6, rtol=1e-5)
    strided, u = torch.randn(1, 5, 16)[..., ::2], torch.randn(1, 5, 8)
    torch.testing.assert_close(
        ops.error_norms(strided, u, None, None, None), (strided - u).norm(dim=-1), atol=1e-6, rtol=1e-5
    )
