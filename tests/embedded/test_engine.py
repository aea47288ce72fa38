"""The trainer: losses, hooks, checkpoints, resuming, evaluation."""

import argparse
import itertools
import json
import os

import detectron2
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.engine import DefaultTrainer, HookBase, SimpleTrainer, default_argument_parser, default_setup, launch
from detectron2.engine.train_loop import AMPTrainer
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch import nn

EMBEDDED = detectron2.__version__.endswith("+embedded")


class TinyModel(nn.Module):
    """Regression with two losses."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, batch):
        x = torch.stack([element["x"] for element in batch])
        y = torch.stack([element["y"] for element in batch])
        error = self.net(x) - y
        return {"loss_square": error.square().mean(), "loss_absolute": 0.1 * error.abs().mean()}


def _batches(count=4, size=5):
    generator = torch.Generator().manual_seed(1)
    return [
        [{"x": x, "y": x.sum(0, keepdim=True)} for x in torch.randn(size, 3, generator=generator)] for _ in range(count)
    ]


class Trainer(DefaultTrainer):
    @classmethod
    def build_model(cls, cfg):
        return TinyModel()

    @classmethod
    def build_train_loader(cls, cfg):
        return itertools.cycle(_batches())

    @classmethod
    def build_optimizer(cls, cfg, model):
        return torch.optim.SGD(model.parameters(), lr=cfg.SOLVER.BASE_LR, momentum=0.9)

    @classmethod
    def test(cls, cfg, model):
        weight = next(model.parameters())
        return {"regression": {"norm": weight.norm().item(), "count": 10}, "seconds": 0.5}


@pytest.fixture
def cfg(tmp_path):
    cfg = get_cfg()
    cfg.merge_from_list(["OUTPUT_DIR", str(tmp_path / "out"), "MODEL.DEVICE", "cpu", "SEED", 1])
    cfg.merge_from_list(["SOLVER.MAX_ITER", 12, "SOLVER.STEPS", (6, 10), "SOLVER.WARMUP_ITERS", 3])
    cfg.merge_from_list(["SOLVER.BASE_LR", 0.05, "SOLVER.CHECKPOINT_PERIOD", 8])
    seed_all_rng(1)
    return cfg


def _weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def test_a_resumed_run_equals_an_uninterrupted_one(cfg, tmp_path):
    initial = TinyModel().state_dict()

    def run(output_dir, stop_at=None):
        this = cfg.clone()
        this.OUTPUT_DIR = str(tmp_path / output_dir)
        os.makedirs(this.OUTPUT_DIR, exist_ok=True)
        trainer = Trainer(this)
        trainer.model.load_state_dict(initial)
        trainer.resume_or_load(resume=True)
        if stop_at is not None:
            trainer.register_hooks([_StopAt(stop_at)])
        try:
            trainer.train()
        except _Stopped:
            pass
        return trainer

    whole = run("whole")
    run("parts", stop_at=9)  # after the checkpoint of iteration 7 (8 done), in the middle of nothing
    assert sorted(os.listdir(tmp_path / "parts")).count("model_final.pth") == 0
    resumed = run("parts")  # the data repeats every 4 iterations, so iteration 8 sees what it saw before
    assert resumed.start_iter == 8
    for name, value in _weights(whole).items():
        torch.testing.assert_close(_weights(resumed)[name], value, rtol=0, atol=0)
        assert not torch.equal(value, initial[name])
    momentum = [s["momentum_buffer"] for s in resumed.optimizer.state_dict()["state"].values()]
    expected = [s["momentum_buffer"] for s in whole.optimizer.state_dict()["state"].values()]
    torch.testing.assert_close(momentum, expected, rtol=0, atol=0)
    assert resumed.scheduler.last_epoch == whole.scheduler.last_epoch == 12


class _Stopped(BaseException):
    """Like Ctrl-C, not an Exception."""


class _StopAt(HookBase):
    def __init__(self, iteration):
        self.iteration = iteration

    def before_step(self):
        if self.trainer.iter == self.iteration:
            raise _Stopped


def test_what_a_run_writes(cfg):
    cfg.SOLVER.MAX_ITER = 45
    cfg.SOLVER.CHECKPOINT_PERIOD = 20
    cfg.DATASETS.TEST = ("some_test_set",)
    cfg.TEST.EVAL_PERIOD = 30
    default_setup(cfg, argparse.Namespace(eval_only=False))
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()

    out = cfg.OUTPUT_DIR
    checkpoints = {name for name in os.listdir(out) if name.endswith(".pth")}
    assert checkpoints == {"model_0000019.pth", "model_0000039.pth", "model_final.pth"}
    with open(os.path.join(out, "last_checkpoint")) as file:
        assert file.read() == "model_final.pth"
    with open(os.path.join(out, "metrics.json")) as file:
        rows = [json.loads(line) for line in file]
    assert [row["iteration"] for row in rows if "total_loss" in row] == [19, 39, 44]
    assert [row["iteration"] for row in rows if "regression/norm" in row] == [29, 45]
    expected = {"loss_square", "loss_absolute", "total_loss", "lr", "time", "data_time", "iteration"}
    assert expected <= set(rows[0])
    assert rows[-1]["regression/count"] == 10 and rows[-1]["seconds"] == 0.5
    losses = [row["total_loss"] for row in rows if "total_loss" in row]
    assert losses == sorted(losses, reverse=True)

    saved = get_cfg()
    saved.merge_from_file(os.path.join(out, "config.yaml"))
    assert saved.SOLVER == cfg.SOLVER and saved.OUTPUT_DIR == cfg.OUTPUT_DIR
    with open(os.path.join(out, "log.txt")) as file:
        assert "total_loss" in file.read()


def test_recorded_rates_follow_the_schedule(cfg):
    class Recorder(HookBase):
        rates = []

        def after_step(self):
            self.rates.append(self.trainer.storage.latest()["lr"][0])

    recorder = Recorder()
    trainer = Trainer(cfg)
    trainer.register_hooks([recorder])
    trainer.train()
    # Warm-up over 3 iterations from 1/1000, steps at 6 and 10.
    factors = [0.001, 0.334, 0.667] + [1.0] * 3 + [0.1] * 4 + [0.01] * 2
    assert recorder.rates == pytest.approx([0.05 * factor for factor in factors])


def test_hooks_are_called_in_order():
    calls = []

    class Noisy(HookBase):
        def before_train(self):
            calls.append("before_train")

        def before_step(self):
            calls.append("before_step")

        def after_step(self):
            calls.append("after_step")

        def after_train(self):
            assert self.trainer.iter == self.trainer.max_iter
            calls.append("after_train")

    model = TinyModel()
    trainer = SimpleTrainer(model, itertools.cycle(_batches()), torch.optim.SGD(model.parameters(), lr=0.1))
    trainer.register_hooks([Noisy()])
    trainer.train(0, 2)
    assert calls == ["before_train"] + ["before_step", "after_step"] * 2 + ["after_train"]


def test_a_loss_that_is_not_finite_ends_training_and_spares_the_weights(cfg):
    batches = _batches()
    batches[2][0]["y"] = torch.tensor([float("nan")])
    model = TinyModel()
    trainer = SimpleTrainer(model, iter(batches), torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(FloatingPointError, match="(?s)iteration=2.*loss_square"):
        trainer.train(0, 4)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_no_evaluation_after_an_error(cfg):
    cfg.DATASETS.TEST = ("some_test_set",)

    class Failing(Trainer):
        def run_step(self):
            raise RuntimeError("broken step")

        @classmethod
        def test(cls, cfg, model):
            raise AssertionError("evaluated a failed run")

    with pytest.raises(RuntimeError, match="broken step"):
        Failing(cfg).train()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_mixed_precision_on_a_gpu():
    model = TinyModel().cuda()
    batches = [[{k: v.cuda() for k, v in element.items()} for element in batch] for batch in _batches()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    trainer = AMPTrainer(model, itertools.cycle(batches), optimizer)
    dtypes = []
    model.net[0].register_forward_hook(lambda module, args, output: dtypes.append(output.dtype))
    trainer.train(0, 4)
    assert set(dtypes) == {torch.float16}


def test_checkpointer_keeps_extra_state_and_names_what_is_missing(tmp_path):
    model = TinyModel()
    optimizer = torch.optim.AdamW(model.parameters())
    model(_batches(1)[0])["loss_square"].backward()
    optimizer.step()
    DetectionCheckpointer(model, str(tmp_path), optimizer=optimizer).save("saved", iteration=3)
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "saved.pth"]

    other = TinyModel()
    other_optimizer = torch.optim.AdamW(other.parameters())
    checkpointer = DetectionCheckpointer(other, str(tmp_path), optimizer=other_optimizer)
    extra = checkpointer.resume_or_load("", resume=True)
    assert extra["iteration"] == 3
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert len(other_optimizer.state_dict()["state"]) == 4
    with pytest.raises((FileNotFoundError, AssertionError), match="lost.pth"):
        checkpointer.load(str(tmp_path / "lost.pth"))


def test_command_line():
    parser = default_argument_parser()
    args = parser.parse_args("--config-file a.yaml --num-gpus 2 --resume SOLVER.MAX_ITER 3".split())
    assert (args.config_file, args.num_gpus, args.resume, args.eval_only) == ("a.yaml", 2, True, False)
    assert args.opts == ["SOLVER.MAX_ITER", "3"]
    assert parser.parse_args([]).num_gpus == 1


def test_seeds():
    import random

    import numpy as np

    drawn = []
    for _ in range(2):
        seed_all_rng(5)
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert drawn[0] == drawn[1]


def test_launch_of_one_process_runs_here():
    seen = []
    launch(seen.append, 1, args=(comm.get_world_size(),))
    assert seen == [1]
    assert comm.is_main_process()


@pytest.mark.long
@pytest.mark.skipif(torch.cuda.is_available(), reason="with GPUs, launch wants one per process")
def test_two_cpu_processes_see_each_other(tmp_path):
    launch(_report, 2, dist_url="auto", args=(str(tmp_path),))
    reports = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [report["gathered"] for report in reports] == [[0, 10], []]
    assert [report["all"] for report in reports] == [[0, 10], [0, 10]]
    assert [report["local_rank"] for report in reports] == [0, 1]
    assert reports[0]["seed"] == reports[1]["seed"]
    # The processes take turns in one shuffled sequence.
    assert sorted(reports[0]["indices"] + reports[1]["indices"]) == list(range(6))
    assert reports[0]["weights"] == reports[1]["weights"]
    if EMBEDDED:  # Detectron2 wraps models for GPUs only
        assert reports[0]["weights"] == pytest.approx(_weights_of_joint_training(), rel=1e-5)


def _report(folder):
    from detectron2.data.samplers import TrainingSampler

    rank = comm.get_rank()
    report = {
        "gathered": comm.gather(10 * rank),
        "all": comm.all_gather(10 * rank),
        "local_rank": comm.get_local_rank(),
        "seed": comm.shared_random_seed(),
        "indices": list(itertools.islice(TrainingSampler(6), 3)),
    }
    report["weights"] = _train_jointly(folder, rank) if EMBEDDED else None
    with open(os.path.join(folder, f"{rank}.json"), "w") as file:
        json.dump(report, file)


def _train_jointly(folder, rank):
    """The final weights of two iterations, each process seeing its half of every batch."""

    class HalfBatches(Trainer):
        @classmethod
        def build_train_loader(cls, cfg):
            return [batch[rank::2] for batch in _batches(2, size=4)]

    cfg = get_cfg()
    cfg.merge_from_list(["OUTPUT_DIR", folder, "SOLVER.MAX_ITER", 2, "SOLVER.WARMUP_ITERS", 0])
    torch.manual_seed(0)
    trainer = HalfBatches(cfg)
    trainer.train()
    return nn.utils.parameters_to_vector(trainer.model.parameters()).tolist()


def _weights_of_joint_training():
    """The same on whole batches, in one process."""
    torch.manual_seed(0)
    model = TinyModel()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    for batch in _batches(2, size=4):
        optimizer.zero_grad()
        sum(model(batch).values()).backward()
        optimizer.step()
    return nn.utils.parameters_to_vector(model.parameters()).tolist()
