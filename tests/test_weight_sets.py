"""Which of several sets of weights in a file is taken."""

from __future__ import annotations

import logging

import pytest
import torch
from eventful_vitdet.errors import CheckpointError, DamagedCheckpointError
from eventful_vitdet.weight_sets import BARE, choose_set, find_sets


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"a.weight": torch.full((2, 2), value), "a.bias": torch.full((2,), value)}


@pytest.fixture
def choose(tmp_path):
    def call(content: object, wanted: str = "") -> tuple[str, float]:
        torch.save(content, tmp_path / "w.pth")
        key, chosen = choose_set(str(tmp_path / "w.pth"), content, wanted)
        assert set(chosen) == {"a.weight", "a.bias"}
        return key, chosen["a.bias"][0].item()

    return call


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict", "teacher", "model_ema", "ema", "network"])
def test_the_only_set_is_taken_whatever_its_name(choose, key, caplog):
    with caplog.at_level(logging.INFO):
        assert choose({key: weights(1), "epoch": 3, "optimizer": {"state": {0: {"step": torch.ones(1)}}}}) == (key, 1)
    assert not caplog.records


def test_a_bare_dict(choose):
    assert choose(weights(1)) == (BARE, 1)
    assert choose({**weights(1), "epoch": 3, "arguments": {"lr": 0.1}}) == (BARE, 1)


@pytest.mark.parametrize(
    ("content", "taken"),
    [
        ({"model_ema": weights(2), "model": weights(1)}, ("model", 1)),
        ({"student": weights(2), "teacher": weights(1)}, ("teacher", 1)),
        ({"ema_state_dict": weights(2), "state_dict": weights(1)}, ("state_dict", 1)),
        ({"teacher": {"module": weights(1)}, "student": {"module": {**weights(2)}}}, ("teacher.module", 1)),
    ],
)
def test_of_several_sets_the_usual_one_is_taken_and_all_are_named(choose, content, taken, caplog):
    with caplog.at_level(logging.INFO):
        assert choose(content) == taken
    (record,) = caplog.records
    assert f"used: {taken[0]} (MODEL.WEIGHTS_SET chooses)" in record.getMessage()
    assert f"several sets of weights: {', '.join(find_sets(content))};" in record.getMessage()


def test_the_key_chooses(choose):
    content = {"model": weights(1), "model_ema": weights(2), "ema": {"module": weights(3)}}
    assert choose(content, "model_ema") == ("model_ema", 2) and choose(content, "ema.module") == ("ema.module", 3)
    with pytest.raises(CheckpointError, match="MODEL.WEIGHTS_SET: .*no set 'best', only model, model_ema, ema.m"):
        choose(content, "best")


def test_entries_that_are_no_tensors_are_left_out_and_said(choose, caplog):
    with caplog.at_level(logging.INFO):
        assert choose({"model": {**weights(1), "a._extra_state": None}}) == ("model", 1)
    assert "no tensors and left out: a._extra_state" in caplog.text


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([1, 2], "found list"),
        ({}, "found nothing"),
        ({"model": [1]}, "found 'model': list"),
        ({"model": {"a": "text"}, "epoch": 1}, r"found 'model': dict, 'epoch': int \(in it 'a': str\)"),
        ({"model": {1: torch.zeros(2)}}, r"\(in it 1: Tensor\)"),
    ],
)
def test_what_was_found_in_place_of_weights(choose, content, found):
    with pytest.raises(DamagedCheckpointError, match=f"w.pth holds no weights by name: .*{found}"):
        choose(content)
