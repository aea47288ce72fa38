"""Optimisers: groups, clipping, and Muon with AdamW as one optimiser that can be scheduled, saved and resumed."""

import copy
import re

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler
from eventful_vitdet import EventfulViT
from eventful_vitdet.config_files import build_cfg
from eventful_vitdet.optimizer import build_optimizer


class Detector(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Module()
        self.backbone.net = EventfulViT(
            32, 8, embed_dim=16, depth=2, num_heads=2, use_rel_pos=True, pretrain_img_size=32
        )
        self.head = torch.nn.Linear(16, 2)

    def forward(self, images):
        return self.head(self.backbone.net(images)["last_feat"].flatten(2).mean(2))


def cfg_for(**overrides):
    settings = {"MODEL.VIT.DEPTH": 2, "SOLVER.BASE_LR": 0.01, "SOLVER.WEIGHT_DECAY": 0.1}
    settings.update({key.replace("__", "."): value for key, value in overrides.items()})
    return build_cfg("", [item for pair in settings.items() for item in pair])


def train(model, optimizer, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(2, 3, 32, 32, generator=generator)).square().sum().backward()
        optimizer.step()


def settings_of(optimizer, model) -> dict:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[p]: group for group in optimizer.param_groups for p in group["params"]}


@pytest.mark.parametrize("name", ["adamw", "muon", "sgd"])
def test_every_parameter_is_trained_once(name):
    model = Detector().train()
    optimizer = build_optimizer(cfg_for(SOLVER__OPTIMIZER=name), model)
    assert len(settings_of(optimizer, model)) == sum(len(g["params"]) for g in optimizer.param_groups)
    before = copy.deepcopy(model.state_dict())
    train(model, optimizer, 2)
    assert all(not torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_layer_decay_and_weight_decay_rules():
    model = Detector()
    groups = settings_of(build_optimizer(cfg_for(SOLVER__LAYER_DECAY=0.5, SOLVER__WEIGHT_DECAY_NORM=0.0), model), model)
    rate = {name: group["lr"] for name, group in groups.items()}
    assert rate["head.weight"] == pytest.approx(0.01)
    assert rate["backbone.net.blocks.1.mlp.fc1.weight"] == pytest.approx(0.01 * 0.5)
    assert rate["backbone.net.blocks.0.mlp.fc1.weight"] == pytest.approx(0.01 * 0.5**2)
    assert rate["backbone.net.pos_embed"] == pytest.approx(0.01 * 0.5**3)
    decay = {name: group["weight_decay"] for name, group in groups.items()}
    assert decay["backbone.net.blocks.0.attn.qkv.weight"] == pytest.approx(0.1)
    assert decay["backbone.net.blocks.0.attn.rel_pos_h"] == pytest.approx(0.1)
    for name in ("pos_embed", "blocks.1.norm1.weight", "blocks.1.norm2.bias"):
        assert decay[f"backbone.net.{name}"] == 0


def recipe(name: str = "vitdet_b_1024_from_coco"):
    cfg = build_cfg(f"imagenet_vid/{name}.yaml")
    cfg.MODEL.DEVICE = "meta"
    return cfg


def test_the_recipe_has_the_rates_and_decays_of_vitdet_b():
    cfg = recipe()
    with torch.device("meta"):
        model = build_model(cfg)
    groups = settings_of(build_optimizer(cfg, model), model)
    assert groups.keys() == dict(model.named_parameters()).keys()
    for name, group in groups.items():
        block = re.match(r"backbone\.net\.blocks\.(\d+)\.", name)
        # Thirteen layers below the heads: the embedding, then twelve blocks.
        layers_above = 12 - int(block[1]) if block else 13 if name.startswith("backbone.net.") else 0
        assert group["lr"] == pytest.approx(2.5e-5 * 0.7**layers_above), name
        free = name == "backbone.net.pos_embed" or (block and ".norm" in name)
        assert group["weight_decay"] == (0.0 if free else 0.1), name
    # Numbers of Detectron2's rule, written out: the first block and the embedding of ViT-B.
    assert groups["backbone.net.blocks.0.attn.qkv.bias"]["lr"] / 2.5e-5 == pytest.approx(0.013841287201)
    assert groups["backbone.net.patch_embed.proj.weight"]["lr"] / 2.5e-5 == pytest.approx(0.0096889010407)


@pytest.mark.parametrize(
    ("name", "last", "factors"),
    [
        ("vitdet_b_1024_from_coco", 29999, {19999: 1.0, 20000: 0.1}),
        ("vitdet_b_1024_from_mae", 89999, {79999: 1.0, 80000: 0.1, 86667: 0.01}),
    ],
)
def test_the_recipes_warm_up_and_steps(name, last, factors):
    cfg = recipe(name)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=cfg.SOLVER.BASE_LR)
    schedule = build_lr_scheduler(cfg, optimizer)
    expected = {0: 0.001, 125: 0.5005, 250: 1.0, **factors, last: min(factors.values())}
    for iteration, factor in expected.items():
        schedule.last_epoch = iteration
        assert schedule.get_lr()[0] / cfg.SOLVER.BASE_LR == pytest.approx(factor), iteration


def test_muon_takes_the_matrices_of_the_blocks():
    model = Detector()
    optimizer = build_optimizer(cfg_for(SOLVER__OPTIMIZER="muon", SOLVER__MUON_LR=0.02), model)
    chosen = {name for name, group in settings_of(optimizer, model).items() if group["lr"] == 0.02}
    kinds = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert chosen == {f"backbone.net.blocks.{i}.{kind}.weight" for i in (0, 1) for kind in kinds}


def test_muon_resumes_where_it_stopped():
    cfg = cfg_for(SOLVER__OPTIMIZER="muon")
    torch.manual_seed(0)
    model = Detector().train()
    optimizer = build_optimizer(cfg, model)
    train(model, optimizer, 2)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    train(model, optimizer, 2, seed=1)
    other = Detector().train()
    resumed = build_optimizer(cfg, other)
    other.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    train(other, resumed, 2, seed=1)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, msg=name)


def test_a_schedule_reaches_both_parts_of_muon():
    model = Detector().train()
    optimizer = build_optimizer(cfg_for(SOLVER__OPTIMIZER="muon"), model)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)
    before = copy.deepcopy(model.state_dict())
    train(model, optimizer, 1)
    scheduler.step()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_full_model_clipping():
    model = Detector().train()
    clip = {"ENABLED": True, "CLIP_TYPE": "full_model", "CLIP_VALUE": 0.5}
    overrides = {f"SOLVER__CLIP_GRADIENTS__{key}": value for key, value in clip.items()}
    optimizer = build_optimizer(cfg_for(SOLVER__OPTIMIZER="sgd", **overrides), model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    assert norm.item() == pytest.approx(0.5, rel=1e-4)


@pytest.mark.skipif(not hasattr(torch.amp, "GradScaler"), reason="torch 2.3 or later scales losses on CPUs")
def test_clipping_sees_the_gradients_without_the_scale_of_mixed_precision():
    model = torch.nn.Linear(4, 1, bias=False)
    before = model.weight.detach().clone()
    clip = {"ENABLED": True, "CLIP_TYPE": "full_model", "CLIP_VALUE": 0.5}
    overrides = {f"SOLVER__CLIP_GRADIENTS__{key}": value for key, value in clip.items()}
    settings = {"SOLVER__BASE_LR": 1.0, "SOLVER__WEIGHT_DECAY": 0.0, "SOLVER__OPTIMIZER": "sgd"}
    optimizer = build_optimizer(cfg_for(**settings, **overrides), model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(10 * model(torch.ones(1, 4)).sum()).backward()
    scaler.step(optimizer)
    # A gradient of norm 20, clipped to 0.5. Clipped while scaled, the step would be a thousand times smaller.
    assert (model.weight - before).norm().item() == pytest.approx(0.5, rel=1e-4)


def test_unknown_optimizer():
    with pytest.raises(ValueError, match="SOLVER.OPTIMIZER = 'lion' is unknown"):
        build_optimizer(cfg_for(SOLVER__OPTIMIZER="lion"), Detector())
