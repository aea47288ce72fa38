"""The moving average of the weights."""

from types import SimpleNamespace

import pytest
import torch
from detectron2.engine.train_loop import SimpleTrainer
from eventful_vitdet.training import Bfloat16Trainer, WeightAverage, make_cpu_trainer
from torch import nn


def make(decay: float, folder: str = "") -> tuple[nn.Module, WeightAverage]:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage(model, decay, folder)
    average.before_train()
    return model, average


def step(model: nn.Module, average: WeightAverage, value: float) -> None:
    nn.init.constant_(model.weight, value)
    average.after_step()


def test_average_follows_its_formula():
    model, average = make(0.25)
    expected = 0.0
    for n, value in enumerate((1.0, 2.0, 4.0, 8.0), start=1):
        step(model, average, value)
        decay = min(0.25, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
        assert average.average["weight"].item() == pytest.approx(expected)
    assert model.weight.item() == 8.0


def test_applied_for_a_while():
    model, average = make(0.5)
    step(model, average, 4.0)
    mean = average.average["weight"].item()
    with pytest.raises(RuntimeError), average.applied():
        assert model.weight.item() == pytest.approx(mean)
        raise RuntimeError("evaluation failed")
    assert model.weight.item() == 4.0


def test_starts_from_weights_loaded_after_it_was_made():
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, 0.5, "")
    nn.init.constant_(model.weight, 7.0)
    average.before_train()
    assert average.average["weight"].item() == 7.0


def test_resumes():
    model, average = make(0.5)
    for value in (1.0, 3.0):
        step(model, average, value)
    other, resumed = make(0.5)
    resumed.load_state_dict(average.state_dict())
    other.load_state_dict(model.state_dict())
    resumed.before_train()
    step(model, average, 5.0)
    step(other, resumed, 5.0)
    assert torch.equal(resumed.average["weight"], average.average["weight"])


@pytest.mark.parametrize(("iteration", "written"), [(10, True), (7, False)])
def test_written_when_training_is_complete(tmp_path, iteration, written):
    model, average = make(0.5, str(tmp_path))
    step(model, average, 4.0)
    average.trainer = SimpleNamespace(iter=iteration, max_iter=10)
    average.after_train()
    assert (tmp_path / "model_ema.pth").exists() == written
    if written:
        stored = torch.load(tmp_path / "model_ema.pth", weights_only=True)["model"]
        assert torch.equal(stored["weight"], average.average["weight"])
        assert not (tmp_path / "last_checkpoint").exists()  # a resumed training needs the raw weights


@pytest.mark.parametrize("decay", [0.0, 1.0, 1.5, float("nan")])
def test_bad_decay(decay):
    with pytest.raises(ValueError, match="SOLVER.EMA_DECAY"):
        make(decay)


@pytest.mark.parametrize(("has_instructions", "kind"), [(True, Bfloat16Trainer), (False, SimpleTrainer)])
def test_mixed_precision_where_a_cpu_gains_by_it(has_instructions, kind, monkeypatch, caplog):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_instructions, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    model = nn.Linear(3, 2)
    trainer = SimpleTrainer(model, [1], torch.optim.SGD(model.parameters(), 0.1))
    made = make_cpu_trainer(trainer)
    assert type(made) is kind and made.model is model and made.optimizer is trainer.optimizer
    assert ("so training runs in float32" in caplog.text) is not has_instructions
