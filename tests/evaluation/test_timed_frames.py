"""Running a model over frames: order, modes, costs; one stream and several."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest
import torch
from detectron2.data import DatasetCatalog
from eventful_vitdet.data import build_video_test_loader
from eventful_vitdet.data.video_test_loader import make_filler, make_test_loader
from eventful_vitdet.evaluation import run_frames

from .conftest import make_document


def run(cfg, name, model, **options) -> list[tuple]:
    """(video, frame, cost) of every frame, in the order of running."""
    loader = make_test_loader(cfg, DatasetCatalog.get(name), **options)
    return [(x["video_id"], x["frame_id"], cost) for x, _, cost in run_frames(model, loader)]


def test_frames_run_in_order_without_gradients_and_the_mode_is_restored(cfg, dataset, model):
    model.train()
    run(cfg, dataset[0], model)
    assert model.seen == [(1, i) for i in range(5)] + [(2, i) for i in range(3)]
    assert model.modes == {(False, False)}
    assert model.training and torch.is_grad_enabled()


def test_training_mode_and_counting_are_restored_after_an_error(cfg, dataset, model):
    model.train()
    model.detect = lambda frame: 1 / 0
    with pytest.raises(ZeroDivisionError):
        run(cfg, dataset[0], model)
    assert model.training and not model.work.observers
    assert not [thread for thread in threading.enumerate() if thread.name == "frame-reader"]


def test_the_consumer_keeps_its_gradients(cfg, dataset, model):
    for _ in run_frames(model, build_video_test_loader(cfg, dataset[0])):
        assert torch.is_grad_enabled()


def test_the_model_starts_without_memory(cfg, dataset, model):
    model._last = {0: 1}  # as if it had just seen video 1
    with closing(run_frames(model, build_video_test_loader(cfg, dataset[0]))) as frames:
        assert next(frames)[2].flushed


@pytest.mark.parametrize("streams", [2, 3])
def test_streams_cost_what_each_costs_alone(cfg, model, write_dataset, streams):
    lengths = {1: 3, 2: 5, 3: 1, 4: 4, 5: 2}
    name, _ = write_dataset(make_document(lengths))
    alone = {(v, f): (cost.flushed, cost.macs) for v, f, cost in run(cfg, name, model)}
    together = run(cfg, name, model, streams=streams)
    assert {(v, f): (cost.flushed, cost.macs) for v, f, cost in together} == alone
    assert sum(cost.flushed for _, _, cost in together) == len(lengths)  # no video changed its position
    for video, length in lengths.items():
        assert [f for v, f, _ in together if v == video] == list(range(length))


def test_streams_share_the_seconds_of_their_batch(cfg, model, dataset):
    costs = {(v, f): cost for v, f, cost in run(cfg, dataset[0], model, streams=2)}
    for kind in ("backbone_seconds", "total_seconds"):
        assert getattr(costs[1, 0], kind) == getattr(costs[2, 0], kind) > 0
    assert 0 < costs[1, 0].backbone_seconds < costs[1, 0].total_seconds


def test_fillers_cost_nobody_anything(cfg, model, dataset):
    (frame,) = next(iter(make_test_loader(cfg, DatasetCatalog.get(dataset[0]))))
    ((model_input, _, cost),) = run_frames(model, [[make_filler(frame), frame]])
    assert model_input is frame and cost.macs == {"linear": 100}
