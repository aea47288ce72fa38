"""Layout, positions and dense attention against formulas written out token by token."""

import math

import pytest
import torch
from eventful_vit import EventfulViT, ops
from eventful_vit.attention.layout import AttentionLayout
from eventful_vit.attention.position import expand_table
from eventful_vit.models.vitdet_layers import Attention


@pytest.mark.parametrize(("grid", "window"), [((4, 6), 2), ((5, 7), 3), ((2, 3), 4), ((6, 6), 6)])
def test_partition_and_merge(grid, window):
    layout = AttentionLayout(grid, window)
    x = torch.arange(2 * grid[0] * grid[1] * 3.0).view(2, -1, 3)
    groups = layout.partition(x, torch.full((3,), -1.0))
    columns = math.ceil(grid[1] / window)
    per_image = math.ceil(grid[0] / window) * columns
    for y in range(grid[0]):
        for c in range(grid[1]):
            group = (y // window) * columns + c // window
            inside = (y % window) * window + c % window
            assert torch.equal(groups[per_image + group, inside], x[1, y * grid[1] + c])
    assert (groups == -1).sum() == 2 * 3 * (layout.padded_tokens - layout.tokens)
    assert torch.equal(layout.merge(groups), x)


def test_the_pooled_cell_of_a_token():
    layout = AttentionLayout((4, 6), pool=2)
    # Tokens (0, 0), (1, 1), (0, 2), (3, 5): the first two share the first cell.
    assert layout.cell_of(torch.tensor([0, 7, 2, 23])).tolist() == [0, 0, 1, 5]


@pytest.mark.parametrize("pool", [1, 2])
def test_position_table_entries(pool):
    table = torch.randn(2 * 6 - 1, 4)
    expanded = expand_table(table, 6, pool)
    for i in range(6):
        for j in range(6 // pool):
            keys = range(j * pool, (j + 1) * pool)
            expected = sum(table[i - key + 5] for key in keys) / pool
            torch.testing.assert_close(expanded[i, j], expected)


def test_position_table_of_another_size_is_resized_linearly():
    table = torch.randn(5, 3)
    expanded = expand_table(table, 6)
    # Half-pixel centres: target row t of 11 lies at (t + 0.5) * 5 / 11 - 0.5 of the source, clamped to it.
    for i, j in ((0, 0), (5, 0), (0, 5), (3, 1)):
        place = min(max((i - j + 5 + 0.5) * 5 / 11 - 0.5, 0.0), 4.0)
        low, part = int(place), place - int(place)
        expected = table[low] * (1 - part) + table[min(low + 1, 4)] * part
        torch.testing.assert_close(expanded[i, j], expected)


@pytest.mark.parametrize(("grid", "window", "pool"), [((3, 4), 0, 1), ((4, 6), 0, 2), ((3, 4), 2, 1)])
def test_dense_attention_token_by_token(grid, window, pool):
    heads, dim = 2, 8
    layer = Attention(dim, heads, True, True, input_size=(window, window) if window else grid)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    qkv = torch.randn(1, grid[0] * grid[1], 3 * dim)
    with torch.no_grad():
        tables, layout = (layer.rel_pos_h, layer.rel_pos_w), (*grid, window, pool)
        out = ops.attend(qkv, layer.qkv.bias, tables, heads, layer.head_dim**-0.5, layout, torch.float32)[0]
    for y in range(grid[0]):
        for x in range(grid[1]):
            torch.testing.assert_close(
                out[y * grid[1] + x], naive_token(layer, qkv[0], grid, window, pool, y, x), atol=1e-5, rtol=1e-4
            )


def naive_token(layer, qkv, grid, window, pool, y, x):
    """Attention output of one token, by loops over keys; padding tokens are the QKV bias."""
    heads, d = layer.num_heads, layer.proj.in_features // layer.num_heads
    height, width = (window, window) if window else grid
    top, left = (y // window * window, x // window * window) if window else (0, 0)

    def token(row, column):
        inside = row < grid[0] and column < grid[1]
        return (qkv[row * grid[1] + column] if inside else layer.qkv.bias).view(3, heads, d)

    cells = [(cy, cx) for cy in range(height // pool) for cx in range(width // pool)]
    members = {
        cell: [(top + cell[0] * pool + a, left + cell[1] * pool + b) for a in range(pool) for b in range(pool)]
        for cell in cells
    }
    outputs = []
    for head in range(heads):
        q = token(y, x)[0, head]
        scores, values = [], []
        for cell in cells:
            tokens = [token(*place)[:, head] for place in members[cell]]
            k, v = (sum(t[i] for t in tokens) / len(tokens) for i in (1, 2))
            rows = [layer.rel_pos_h[y - row + height - 1] for row, _ in members[cell]]
            columns = [layer.rel_pos_w[x - column + width - 1] for _, column in members[cell]]
            bias = q @ (sum(rows) / len(rows)) + q @ (sum(columns) / len(columns))
            scores.append(q @ k * d**-0.5 + bias)
            values.append(v)
        outputs.append(torch.softmax(torch.stack(scores), 0) @ torch.stack(values))
    return torch.cat(outputs).detach()


def test_chunked_attention_equals_whole(no_kernels, monkeypatch):
    torch.manual_seed(0)
    vit = EventfulViT(64, 8, embed_dim=24, depth=2, num_heads=3, use_rel_pos=True, enabled=False).eval()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        whole = vit(image)["last_feat"]
        monkeypatch.setattr(ops.attention, "CHUNK_SCORES", 1)
        torch.testing.assert_close(vit(image)["last_feat"], whole, atol=1e-6, rtol=1e-5)
