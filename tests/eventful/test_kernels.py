"""The compiled kernels against PyTorch operations in float64, and what happens where they cannot be had."""

import logging
import subprocess

import pytest
import torch
from eventful_vitdet import EventfulViT, TopR
from eventful_vitdet.eventful.attention import Attention, AttentionLayout
from eventful_vitdet.eventful.kernels import build, native
from eventful_vitdet.eventful.linear import Linear
from eventful_vitdet.eventful.selection import Selection
from torch import nn

needs_kernels = pytest.mark.skipif(native.load_library() is None, reason="no C++ compiler, or switched off")


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def make_attention(grid, window, pool, heads, channels, positions):
    torch.manual_seed(0)
    layout = AttentionLayout(grid, window, pool)
    layer = Attention(heads * channels, heads, True, positions, (window, window) if window else grid)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer, layout


def dense_in_double(layer, layout, qkv):
    """The attention of attend_groups, by products."""
    double = Attention(layer.proj.in_features, layer.num_heads, True, layer.use_rel_pos, layout.query_grid).double()
    double.load_state_dict(layer.state_dict())
    qkv = qkv.double()
    return layout.merge(double.attend_groups(layout.partition(qkv, double.qkv.bias), layout))


@needs_kernels
@pytest.mark.parametrize("grid", [(5, 7), (12, 12), (3, 61)])
@pytest.mark.parametrize("channels", [5, 16, 24, 64, 80])
@pytest.mark.parametrize("positions", [True, False])
def test_dense_attention(grid, channels, positions):
    layer, layout = make_attention(grid, 0, 1, 3, channels, positions)
    qkv = torch.randn(2, layout.tokens, 9 * channels)
    # Sums of some hundred products of numbers around 1, in float32.
    torch.testing.assert_close(
        layer.attend(qkv, layout).double(), dense_in_double(layer, layout, qkv), atol=2e-5, rtol=0
    )


@needs_kernels
@pytest.mark.parametrize("window, pool", [(3, 1), (14, 1), (0, 2), (0, 4)])
def test_windows_and_pooling(window, pool):
    layer, layout = make_attention((8, 12), window, pool, 2, 16, True)
    qkv = torch.randn(2, layout.tokens, 96)
    torch.testing.assert_close(
        layer.attend(qkv, layout).double(), dense_in_double(layer, layout, qkv), atol=1e-5, rtol=0
    )


@needs_kernels
@pytest.mark.parametrize("score", [-1e4, -200.0, 200.0, 1e4])
def test_scores_of_any_size(score):
    """A softmax does not change when all scores rise or fall together; one key may win everything."""
    layer, layout = make_attention((6, 6), 0, 1, 1, 16, False)
    qkv = torch.randn(1, 36, 48)
    qkv[..., 16:32] = qkv[..., 16:32] * 0.01
    qkv[..., 0], qkv[..., 16] = 1.0, score / layer.scale
    expected = dense_in_double(layer, layout, qkv)
    # Scores of this size are themselves rounded by up to |score| 2^-24.
    torch.testing.assert_close(layer.attend(qkv, layout).double(), expected, atol=1e-6 * abs(score) + 1e-5, rtol=0)
    qkv[0, 7, 16] *= 2
    expected = dense_in_double(layer, layout, qkv)
    torch.testing.assert_close(layer.attend(qkv, layout).double(), expected, atol=1e-6 * abs(score) + 1e-5, rtol=0)


@needs_kernels
def test_number_of_threads_changes_nothing():
    layer, layout = make_attention((9, 13), 0, 1, 3, 16, True)
    qkv = torch.randn(1, layout.tokens, 144)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(layer.attend(qkv, layout))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)


@needs_kernels
@pytest.mark.parametrize("rows", [0, 1, 6, 11, 300])
@pytest.mark.parametrize("inputs, outputs", [(1, 1), (7, 5), (64, 64), (48, 144), (130, 70), (1700, 65)])
@pytest.mark.parametrize("gelu", [False, True])
def test_linear_layers(rows, inputs, outputs, gelu):
    layer = nn.Linear(inputs, outputs)
    x = torch.randn(rows, inputs)
    expected = layer.double()(x.double())
    layer.float()
    result = native.linear(x, native.PackedWeights().of(layer.weight), outputs, layer.bias, gelu)
    # Sums of up to 1,700 products, and an erf of 1.5e-7 times numbers up to 5.
    expected = nn.functional.gelu(expected) if gelu else expected
    torch.testing.assert_close(result.double(), expected, atol=1e-5, rtol=1e-6)


@needs_kernels
def test_gelu_of_any_number():
    x = torch.tensor([[-1e30, -50.0, -6.0, -1.0, -1e-20, 0.0, 1e-20, 1.0, 6.0, 50.0, 1e30, torch.nan]]).t()
    one = native.PackedWeights().of(torch.ones(1, 1))
    torch.testing.assert_close(
        native.linear(x, one, 1, None, gelu=True).double(), nn.functional.gelu(x.double()), atol=1e-6, rtol=1e-6,
        equal_nan=True,
    )  # fmt: skip


@needs_kernels
def test_the_number_of_threads_and_of_rows_changes_no_linear_layer():
    """A row's result depends on nothing but the row: a selection gives what all tokens give, bit by bit."""
    layer, x = Linear(200, 130), torch.randn(500, 200)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(layer(x))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)
    assert torch.equal(layer(x[3:10]), results[0][3:10])


@needs_kernels
@pytest.mark.parametrize("change", ["in place", "behind PyTorch's back", "another parameter", "loaded"])
def test_packed_weights_follow_the_parameter(change):
    layer, x = Linear(40, 30), torch.randn(5, 40)
    layer(x)
    if change == "in place":
        layer.weight.mul_(2)
    elif change == "behind PyTorch's back":
        layer.weight.data.normal_()
    elif change == "another parameter":
        layer.weight = nn.Parameter(torch.randn(30, 40))
    else:
        layer.load_state_dict(Linear(40, 30).state_dict())
    torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight, layer.bias), atol=1e-5, rtol=1e-5)


@needs_kernels
def test_weights_that_moved_leave_no_copy_behind():
    layer = Linear(8, 8)
    layer(torch.randn(1, 8))
    layer.double()
    assert layer._packed._packed is None
    assert layer(torch.randn(1, 8, dtype=torch.float64)).dtype == torch.float64


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("channels", [7, 48])
def test_gates(dtype, norm, channels):
    torch.manual_seed(0)
    x, reference = torch.randn(2, 9, channels) + 3, torch.randn(2, 9, channels).to(dtype)
    layer = nn.LayerNorm(channels, eps=1e-6) if norm else None
    if layer is not None:
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
    values = x if layer is None else layer(x)
    expected = torch.linalg.vector_norm(values - reference, dim=-1)
    torch.testing.assert_close(native.error_norms(x, reference, layer), expected, atol=1e-5, rtol=1e-5)

    index = torch.tensor([0, 4, 17])
    kept = reference.clone()
    rows = native.take_rows(x, kept, index, layer)
    torch.testing.assert_close(rows, values.flatten(0, 1)[index], atol=1e-5, rtol=1e-5)
    assert torch.equal(kept.flatten(0, 1)[index], rows.to(dtype))
    untouched = torch.ones(18, dtype=torch.bool)
    untouched[index] = False
    assert torch.equal(kept.flatten(0, 1)[untouched], reference.flatten(0, 1)[untouched])


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gates_with_a_fixed_budget(dtype):
    x, reference = torch.randn(3, 20, 24), torch.randn(3, 20, 24).to(dtype)
    expected = torch.linalg.vector_norm(x - reference, dim=-1)
    kept = reference.clone()
    norms, index, rows = native.gate(x, kept, None, 7)
    torch.testing.assert_close(norms, expected, atol=1e-5, rtol=1e-5)
    chosen = Selection.largest(expected, 7)
    assert torch.equal(index, chosen.index)
    assert torch.equal(rows, chosen.take(x))
    chosen.put(reference, rows)
    assert torch.equal(kept, reference)


@needs_kernels
def test_of_equal_errors_the_earlier_token_goes_first_and_nan_before_all():
    x = torch.zeros(1, 6, 4)
    x[0, :, 0] = torch.tensor([1.0, 3.0, 2.0, 3.0, 3.0, torch.nan])
    assert native.gate(x, torch.zeros(1, 6, 4), None, 3)[1].tolist() == [1, 3, 5]


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("index", [[], [0, 5, 19]])
def test_buffers_and_the_residual(dtype, index):
    x, buffer, rows = torch.randn(2, 10, 12), torch.randn(2, 10, 12).to(dtype), torch.randn(len(index), 12)
    expected = buffer.clone()
    expected.view(20, 12)[index] = rows.to(dtype)
    result = native.store_and_add(x, buffer, torch.tensor(index, dtype=torch.int64), rows)
    assert torch.equal(buffer, expected)
    torch.testing.assert_close(result, x + expected, atol=1e-6, rtol=0)


@needs_kernels
@pytest.mark.parametrize("state_dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("kv_pool", [1, 2])
def test_a_model_gives_the_same_with_and_without_kernels(state_dtype, kv_pool, monkeypatch):
    def run():
        torch.manual_seed(0)
        vit = EventfulViT(
            (64, 80), 8, embed_dim=32, depth=3, num_heads=2, use_rel_pos=True, window_size=3, window_block_indexes=[1],
            pretrain_img_size=32, kv_pool=kv_pool, state_dtype=state_dtype, policy=TopR(12),
        ).eval()  # fmt: skip
        for parameter in vit.parameters():
            nn.init.normal_(parameter, std=0.2)
        frame = torch.randn(2, 3, 64, 80)
        outputs = []
        for t in range(8):
            frame = frame.clone()
            frame[:, :, 8 * t : 8 * t + 8, :24] = torch.randn(2, 3, 8, 24)
            outputs.append(vit(frame)["last_feat"])
        return torch.stack(outputs)

    ours = run()
    monkeypatch.setattr(native, "load_library", lambda: None)
    # With bfloat16 state a difference in float32's last digit may round to a neighbour, 2^-8 away.
    torch.testing.assert_close(ours, run(), atol=1e-3 if state_dtype is None else 0.1, rtol=1e-3)


def test_operation_counters_see_every_product():
    """Under a dispatch mode the model runs on PyTorch operations, which the mode can see."""
    from torch.utils.flop_counter import FlopCounterMode

    layer, layout = make_attention((4, 4), 0, 1, 1, 8, False)
    with FlopCounterMode(display=False) as mode:
        layer.attend(torch.randn(1, 16, 24), layout)
    assert mode.get_total_flops() == 2 * 2 * 16 * 16 * 8


class TestBuilding:
    @pytest.fixture(autouse=True)
    def fresh(self, monkeypatch, tmp_path):
        """An empty cache, and nothing loaded; afterwards things are as they were."""
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.delenv(build.SWITCH, raising=False)
        self.load = build.load_library.__wrapped__

    def test_switched_off(self, monkeypatch, caplog):
        monkeypatch.setenv(build.SWITCH, "off")
        with caplog.at_level(logging.INFO):
            assert self.load() is None
        assert f"{build.SWITCH} is off" in caplog.text

    def test_no_compiler(self, monkeypatch, caplog):
        monkeypatch.setenv("CXX", "no-such-compiler")
        assert self.load() is None
        assert "no C++ compiler" in caplog.text

    def test_a_compiler_that_fails(self, monkeypatch, tmp_path, caplog):
        broken = tmp_path / "broken"
        broken.write_text('#!/bin/sh\n[ "$1" = --version ] && echo 1.0 && exit 0\necho "it is broken" >&2\nexit 1\n')
        broken.chmod(0o755)
        monkeypatch.setenv("CXX", str(broken))
        assert self.load() is None
        assert "it is broken" in caplog.text
        assert not list(tmp_path.rglob("*.so"))

    def test_a_cache_that_cannot_be_written(self, monkeypatch, tmp_path, caplog):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        if build.find_compiler() is None:
            pytest.skip("no C++ compiler")
        assert self.load() is None
        assert "cannot be compiled or loaded" in caplog.text

    @needs_kernels
    def test_it_is_compiled_once(self, monkeypatch, tmp_path):
        assert self.load() is not None
        (library,) = tmp_path.rglob("*.so")
        assert [path.name for path in library.parent.iterdir()] == [library.name]  # nothing else is left behind

        def compile_again(command, **options):
            assert "--version" in command, "it was compiled again"
            return subprocess.CompletedProcess(command, 0, stdout=versions[0])

        versions = [subprocess.run([build.find_compiler(), "--version"], capture_output=True, text=True).stdout]
        monkeypatch.setattr(build.subprocess, "run", compile_again)
        assert self.load() is not None
