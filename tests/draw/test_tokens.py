from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from eventful_vit.selection import Selection
from eventful_vitdet.draw.tokens import TOKEN_COLOR, choose_gates, draw_tokens, updated_share


def gate(tokens: int, *chosen: int):
    mask = torch.zeros(1, tokens, dtype=torch.bool)
    mask[0, list(chosen)] = True
    return SimpleNamespace(selection=Selection.from_mask(mask))


def test_choosing_gates():
    gates = {f"blocks.{b}.{name}": gate(6) for b in (0, 1, 10) for name in ("qkv", "projection", "mlp")}
    assert choose_gates(gates, "any") == list(gates)
    assert choose_gates(gates, "1") == ["blocks.1.qkv", "blocks.1.projection", "blocks.1.mlp"]
    assert choose_gates(gates, "10.mlp") == choose_gates(gates, "blocks.10.mlp") == ["blocks.10.mlp"]
    for wrong in ("", "2", "1.", "x", "0.key", "-1"):
        with pytest.raises(ValueError, match="names no tokens to show"):
            choose_gates(gates, wrong)


def test_share_of_the_gates_that_updated_a_token():
    everything = SimpleNamespace(selection=Selection.everything(1, 6))
    gates = {"a": gate(6, 0, 5), "b": gate(6, 5), "c": everything}
    assert updated_share(gates, ["a", "b"], (2, 3)).tolist() == [[0.5, 0, 0], [0, 0, 1]]
    assert updated_share(gates, ["c"], (2, 3)).min() == 1


def test_tokens_are_tinted_where_they_lie():
    image = np.full((30, 60, 3), 200, np.uint8)
    share = np.zeros((2, 3), np.float32)
    share[0, 1] = 1
    drawn = draw_tokens(image, share, (40, 60))  # padded by 10 pixels at the bottom: a token covers 20 x 20
    changed = (drawn != image).any(axis=2)
    assert changed[:20, 20:40].all() and changed.sum() == 400
    assert abs(int(drawn[5, 25, 2]) - TOKEN_COLOR[2]) < abs(200 - TOKEN_COLOR[2])


def test_the_tint_does_not_hide_what_it_marks():
    image = np.full((40, 40, 3), 200, np.uint8)
    image[8:12, 8:12] = 0  # something dark in the first token
    share = np.ones((2, 2), np.float32)
    share[1, 1] = 0
    drawn = draw_tokens(image, share, (40, 40)).astype(int)
    assert abs(drawn[10, 10] - drawn[5, 5]).min() > 0.6 * 200  # nearly as clear as it was
    # A line around the three together, where they end inside of the picture, and none between them.
    inner, edge = abs(drawn[5, 5] - 200).sum(), abs(drawn[10, 39] - 200).sum()
    assert abs(drawn[19, 30] - 200).sum() > 2 * inner and abs(drawn[30, 19] - 200).sum() > 2 * inner
    assert edge == abs(drawn[5, 19] - 200).sum() == inner
