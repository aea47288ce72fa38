"""Relative positions resized as the paper's code does: the expanded matrix, bicubically."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from eventful_vit import EventfulViT, TopR
from eventful_vit.attention.layout import attention_layout
from eventful_vit.attention.position import add_position_terms, position_matrix, position_tables, position_terms

from vit.small_models import CLOSE, make_video, make_vit, run


@pytest.fixture(scope="module")
def theirs(golden):
    with np.load(golden / "matrix_positions.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file}


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(("size", "pool"), [(6, 1), (6, 2), (8, 1), (8, 2), (11, 1)])
def test_biases_of_the_authors_code(theirs, size, pool, grad):
    layout = attention_layout(size, size, 0, pool)
    with torch.set_grad_enabled(grad):
        tables = position_tables(*map(position_matrix, theirs["tables"]), layout)
        terms = position_terms(theirs[f"query.{size}.{pool}"], tables, layout)
    bias = theirs[f"bias.{size}.{pool}"]
    torch.testing.assert_close(add_position_terms(torch.zeros_like(bias), terms, layout), bias, atol=1e-5, rtol=1e-5)


def matrix_vit(**options) -> EventfulViT:
    return make_vit(64, rel_pos_img_size=40, rel_pos_resize="matrix", **options)


def test_tables_have_the_size_they_are_made_for():
    assert [tuple(matrix_vit().blocks[i].attn.rel_pos_h.shape) for i in (0, 1)] == [(5, 12), (9, 12)]


def test_it_is_another_rule_than_that_of_tables():
    video = make_video(1, size=(64, 64))
    matrix, table = matrix_vit(enabled=False), make_vit(64, rel_pos_img_size=40, enabled=False)
    difference = (run(matrix, video) - run(table, video)).abs().max()
    assert difference > 1e-2
    # At the size of the tables there is nothing to resize.
    small = make_video(1, size=(40, 40))
    torch.testing.assert_close(run(matrix, small), run(table, small))


@pytest.mark.parametrize("attention", ["exact", "full", "query-key", "tokenwise"])
def test_eventful_frames_are_those_of_the_dense_model(attention):
    video = make_video(4, size=(64, 64))
    vit = matrix_vit(attention=attention, policy=TopR(64))
    with torch.no_grad():
        found = run(vit, video)
        vit.enabled = False
        torch.testing.assert_close(found, run(vit, video), **CLOSE)


def test_changed_tables_are_seen():
    vit, video = matrix_vit(policy=TopR(64)), make_video(2, size=(64, 64))
    with torch.no_grad():
        before = run(vit, video)
        vit.blocks[1].attn.rel_pos_h.mul_(2)
        after = run(vit, video)
        vit.enabled = False
        assert (after - before).abs().max() > 1e-2
        torch.testing.assert_close(after, run(vit, video), **CLOSE)


def test_it_trains():
    vit = matrix_vit().train()
    vit(make_video(1, size=(64, 64)))["last_feat"].square().mean().backward()
    assert vit.blocks[1].attn.rel_pos_w.grad.abs().max() > 0


def test_unknown_rules_are_refused():
    with pytest.raises(ValueError, match="rel_pos_resize = 'tables' is unknown; choose 'table' or 'matrix'"):
        make_vit(64, rel_pos_resize="tables")
    with pytest.raises(ValueError, match="rel_pos_img_size 41 x 41 is not a multiple"):
        make_vit(64, rel_pos_img_size=41)
