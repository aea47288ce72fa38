"""Calls, hooks, refusals and counts of adapted models."""

import copy

import pytest
import torch
from eventful_vit import PerGate, Threshold, TopR, count_operations, make_eventful
from eventful_vit.model import EventfulModel
from torch import nn

from ..small_models import CLOSE
from .tiny_library_models import (
    DEPTH,
    DIM,
    DINOV2,
    HEADS,
    HIDDEN,
    HUGGING_FACE,
    MODELS,
    PATCH,
    RELATIVES,
    SIZE,
    hugging_face,
    prepared,
    tensors,
    timm_vit,
    tiny_video,
    torchvision_vit,
)

ALL, FEW = TopR(1000), TopR(4)
PATCHES = (SIZE // PATCH) ** 2


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def assert_same(ours, theirs, **tolerance):
    assert type(ours) is type(theirs)
    if isinstance(theirs, (tuple, list)):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs):
            assert_same(one, other, **tolerance)
        return
    ours, theirs = tensors(ours), tensors(theirs)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, **(tolerance or CLOSE))


class TestOtherCalls:
    @pytest.mark.parametrize(
        "call",
        [
            lambda vit, x: vit.forward_features(x),
            lambda vit, x: vit.forward_head(vit.forward_features(x), pre_logits=True),
            lambda vit, x: vit.forward_intermediates(x, indices=[0, 2], norm=True),
            lambda vit, x: vit.get_intermediate_layers(x, n=2, return_prefix_tokens=True),
        ],
        ids=["features", "head", "intermediates", "layers"],
    )
    def test_timm(self, call):
        vit = timm_vit(reg_tokens=2)
        model = make_eventful(vit, policy=ALL)
        for frame in tiny_video(3):
            assert_same(call(model, frame), call(vit, frame))
        assert model.state.trace.flushed == (False,)

    @pytest.mark.parametrize("name", [f"Hugging Face {kind}" for kind in ("ViT", "DINOv3", "YOLOS", "ViTDet", "SAM")])
    def test_hidden_states(self, name):
        vit = MODELS[name]()
        model = make_eventful(vit, policy=ALL)
        for frame in tiny_video(3):
            ours, theirs = (which(frame, output_hidden_states=True) for which in (model, vit))
            assert len(ours.hidden_states) == DEPTH + 1
            assert_same(ours, theirs)

    @pytest.mark.parametrize("name", RELATIVES)
    def test_relatives(self, name):
        vit = hugging_face(name, **RELATIVES[name])
        model = make_eventful(vit, policy=ALL)
        for frame in tiny_video(3):
            assert_same(model(frame), vit(frame))
        assert model.state.trace.flushed == (False,)
        for block in model.state.trace.blocks:
            assert block.attention.kind != "other"

    def test_a_backbone_of_a_larger_model(self):
        transformers = pytest.importorskip("transformers", reason="transformers is not installed")
        sizes = {"reassemble_hidden_size": DIM, "reassemble_factors": [4, 2, 1], "neck_hidden_sizes": [8, 8, 8]}
        stages = {"out_features": ["stage1", "stage2", "stage3"], "reshape_hidden_states": False}
        backbone = transformers.Dinov2Config(**HUGGING_FACE, **DINOV2, **stages)
        sizes.update(fusion_hidden_size=8, patch_size=PATCH)
        config = transformers.DepthAnythingConfig(backbone_config=backbone, **sizes)
        depth, video = prepared(transformers.DepthAnythingForDepthEstimation(config)), tiny_video(3)
        expected = [depth(frame).predicted_depth for frame in video]
        depth.backbone = make_eventful(depth.backbone, policy=ALL)
        for frame, theirs in zip(video, expected):
            torch.testing.assert_close(depth(frame).predicted_depth, theirs, **CLOSE)
        assert depth.backbone.state.trace.flushed == (False,)

    def test_hidden_states_of_few_tokens_are_those_that_the_output_came_from(self):
        vit = MODELS["Hugging Face ViT"]()
        plain, watched = make_eventful(vit, policy=FEW), make_eventful(vit, policy=FEW)
        for frame in tiny_video(4):
            output = watched(pixel_values=frame, output_hidden_states=True)
            assert_same(output.last_hidden_state, plain(pixel_values=frame).last_hidden_state)
            assert_same(vit.layernorm(output.hidden_states[-1]), output.last_hidden_state)

    def test_tuples(self):
        vit, (frame,) = MODELS["Hugging Face ViT"](), tiny_video(1)
        assert_same(make_eventful(vit)(frame, return_dict=False), vit(frame, return_dict=False))

    @pytest.mark.parametrize("name", ["OwlViT", "Owlv2"])
    def test_the_vision_tower_of_a_detector(self, name):
        transformers = pytest.importorskip("transformers", reason="transformers is not installed")
        text = {"vocab_size": 9, "hidden_size": DIM, "num_hidden_layers": 1, "num_attention_heads": HEADS}
        vision = {**HUGGING_FACE, "intermediate_size": HIDDEN}
        config = getattr(transformers, f"{name}Config")(text_config=text, vision_config=vision, projection_dim=DIM)
        detector = prepared(getattr(transformers, f"{name}ForObjectDetection")(config))
        video, query = tiny_video(3), {"input_ids": torch.tensor([[1, 5, 2]])}
        expected = [detector(pixel_values=frame, **query).pred_boxes for frame in video]
        place = name.lower() + ".vision_model"
        with pytest.raises(ValueError, match=rf"model.{place} = make_eventful\(model.{place}\)"):
            make_eventful(detector)
        tower = detector.get_submodule(name.lower())
        tower.vision_model = make_eventful(tower.vision_model, policy=ALL)
        for frame, boxes in zip(video, expected):
            torch.testing.assert_close(detector(pixel_values=frame, **query).pred_boxes, boxes, **CLOSE)
        assert tower.vision_model.state.trace.flushed == (False,)

    def test_a_part_of_a_larger_model(self):
        transformers = pytest.importorskip("transformers", reason="transformers is not installed")
        config = transformers.ViTConfig(**HUGGING_FACE, intermediate_size=HIDDEN, num_labels=3)
        classifier, (frame,) = prepared(transformers.ViTForImageClassification(config)), tiny_video(1)
        keys, expected = list(classifier.state_dict()), classifier(frame).logits
        with pytest.raises(ValueError, match=r"its vit is one .* model.vit = make_eventful\(model.vit\)"):
            make_eventful(classifier)
        classifier.vit = make_eventful(classifier.vit)
        torch.testing.assert_close(classifier(frame).logits, expected, **CLOSE)
        assert list(classifier.state_dict()) == keys
        with count_operations(classifier) as counts:
            classifier(frame)
        assert counts.by_category()["heads"] == 3 * DIM

    def test_attributes_are_set_where_the_library_reads_them(self):
        vit, (frame,) = timm_vit(), tiny_video(1)
        model = make_eventful(vit, policy=ALL)
        model.global_pool, model.head, model.policy, model.note = "avg", nn.Linear(DIM, 2), FEW, "mine"
        assert vit.global_pool == "avg" and vit.head is model.head and model.policy == FEW
        assert not hasattr(vit, "policy") and not hasattr(vit, "note") and model.note == "mine"
        assert_same(model(frame), vit(frame))

    @pytest.mark.parametrize("fused", [True, False])
    def test_a_scale_of_scores_counts_where_timm_reads_it(self, fused):
        vit, (frame,) = timm_vit(), tiny_video(1)
        for block in vit.blocks:
            block.attn.fused_attn, block.attn.scale = fused, 2.0
        assert_same(make_eventful(vit, policy=ALL)(frame), vit(frame))

    def test_attributes_are_those_of_the_library(self):
        model = make_eventful(timm_vit())
        assert model.num_classes == 5 and model.patch_embed.patch_size == (PATCH, PATCH)
        with pytest.raises(AttributeError, match="nothing_of_the_kind"):
            _ = model.nothing_of_the_kind


class SeveralAdapters(nn.Module):
    """A linear layer with two adapters, as PEFT makes them."""

    def __init__(self, layer):
        super().__init__()
        self.base_layer, self.adapter = layer, prepared(nn.Linear(layer.in_features, layer.out_features))
        self._active_adapter, self._disable_adapters = ["default"], False
        self.scaling = {"default": 1.0, "other": -2.0}

    def forward(self, x):
        factor = 0.0 if self._disable_adapters else self.scaling[self._active_adapter[0]]
        return self.base_layer(x) + factor * self.adapter(x)


class TestModes:
    def test_training_is_dense_and_has_gradients(self):
        vit = timm_vit()
        model, video = make_eventful(vit, policy=FEW), tiny_video(2)
        model.train()
        assert vit.training and vit.blocks[0].training
        with torch.enable_grad():
            model(video[1]).sum().backward()
        assert vit.blocks[0].mlp.fc1.weight.grad.abs().sum() > 0 and model.state.nbytes == 0

    @pytest.mark.parametrize("name", ["timm", "Hugging Face ViT"])
    def test_activations_recomputed_in_training_are_counted_once(self, name):
        vit, (frame,) = MODELS[name](), tiny_video(1)
        model = make_eventful(vit).train()
        (vit.set_grad_checkpointing if name == "timm" else vit.gradient_checkpointing_enable)()
        with torch.enable_grad(), count_operations(model) as counts:
            sum(output.sum() for output in tensors(model(frame)).values()).backward()
        assert vit.get_submodule("blocks.0" if name == "timm" else "layers.0").mlp.fc1.weight.grad.abs().sum() > 0
        expected = make_eventful(MODELS[name](), enabled=False)
        with count_operations(expected) as dense:
            expected(frame)
        assert counts.backbone() == dense.backbone()

    def test_streams_begin_again_with_other_weights(self):
        vit, video = timm_vit(), tiny_video(4)
        model = make_eventful(vit, policy=FEW)
        for frame in video[:3]:
            model(frame)
        vit.blocks[1].mlp.fc1.weight.mul_(1.5)
        torch.testing.assert_close(model(video[3]), vit(video[3]), **CLOSE)
        assert model.state.trace.flushed == (True,)

    @pytest.mark.parametrize("change", ["attn.scale", "norm1.eps", "mlp.act.approximate"])
    def test_streams_begin_again_with_other_settings(self, change):
        vit, video = timm_vit(), tiny_video(6)
        for block in vit.blocks:
            block.attn.fused_attn = False  # which has no scale
        model = make_eventful(vit, policy=FEW)
        for frame in video[:5]:
            model(frame)
        path, _, name = change.rpartition(".")
        for block in vit.blocks:
            setattr(block.get_submodule(path), name, {"scale": 2.0, "eps": 0.5, "approximate": "tanh"}[name])
        for _ in range(4):  # recorded ones too
            torch.testing.assert_close(model(video[5]), vit(video[5]), **CLOSE)
        assert model.state.trace.flushed == (False,)

    @pytest.mark.parametrize("change", ["other adapter", "no adapter", "other factor"])
    def test_streams_begin_again_with_other_adapters_in_use(self, change):
        peft = pytest.importorskip("peft", reason="peft is not installed")
        vit, video = timm_vit(), tiny_video(6)
        config = peft.LoraConfig(target_modules=["qkv", "fc1"], r=2, init_lora_weights=False)
        adapted = peft.get_peft_model(vit, config)
        adapted.add_adapter("other", config)
        adapted.eval()
        model = make_eventful(vit, policy=FEW)
        for frame in video[:5]:
            model(frame)
        if change == "other adapter":
            adapted.set_adapter("other")
        elif change == "no adapter":
            adapted.base_model.disable_adapter_layers()
        else:
            vit.blocks[1].mlp.fc1.set_scale("default", 3.0)
        torch.testing.assert_close(model(video[5]), vit(video[5]), **CLOSE)
        assert model.state.trace.flushed == (True,)

    @pytest.mark.parametrize("change", [{"_active_adapter": ["other"]}, {"_disable_adapters": True}])
    def test_layers_with_several_adapters(self, change):
        vit, video = timm_vit(), tiny_video(6)
        layer = vit.blocks[1].mlp.fc1 = SeveralAdapters(vit.blocks[1].mlp.fc1)
        model = make_eventful(vit, policy=FEW)
        for frame in video[:5]:
            model(frame)
        vars(layer).update(change)
        torch.testing.assert_close(model(video[5]), vit(video[5]), **CLOSE)
        layer.scaling["other"] = layer.scaling["default"] = 5.0
        torch.testing.assert_close(model(video[4]), vit(video[4]), **CLOSE)

    def test_dense_frames_leave_state_alone(self):
        model, video = make_eventful(timm_vit(), policy=FEW), tiny_video(3)
        model(video[0])
        model.enabled = False
        model(video[2])
        model.enabled = True
        expected = make_eventful(model.original, policy=FEW)
        expected(video[0])
        torch.testing.assert_close(model(video[1]), expected(video[1]), **CLOSE)

    @pytest.mark.parametrize("name", ["timm with registers and LayerScale", "Hugging Face DINOv3"])
    def test_short_types(self, name):
        vit = MODELS[name]()
        model = make_eventful(vit, policy=ALL, state_dtype=torch.bfloat16, compute_dtype=torch.bfloat16)
        full = make_eventful(vit, policy=ALL)
        for frame in tiny_video(3):
            for ours, theirs in zip(tensors(model(frame)).values(), tensors(full(frame)).values()):
                assert float((ours - theirs).norm() / theirs.norm()) < 0.05
        assert model.state_bytes() < 0.7 * full.state_bytes()

    @pytest.mark.parametrize("name", ["timm with registers and LayerScale", "Hugging Face DINOv3"])
    def test_gpu_kernels(self, name, interpreted):
        vit = MODELS[name]()
        model = make_eventful(vit, policy=ALL)
        for frame in tiny_video(2):
            assert_same(model(frame), vit(frame), atol=1e-4, rtol=1e-3)


class LowRank(nn.Linear):
    """A linear layer with an adapter, as libraries for fine-tuning put them in."""

    def forward(self, x):
        return super().forward(x) + 0.3 * x.flip(-1)[..., : self.out_features]


def exchange(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put another module in the place of one."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


class Packed(torch.Tensor):
    """Weights as libraries for quantisation keep them: the values are those of another tensor."""

    @staticmethod
    def __new__(cls, values):
        return torch.Tensor._make_wrapper_subclass(cls, values.shape, dtype=values.dtype)

    def __init__(self, values):
        self.values_of = values

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.detach.default:
            return cls(args[0].values_of)
        args = [arg.values_of if isinstance(arg, cls) else arg for arg in args]
        return function(*args, **(kwargs or {}))


class TestOtherCode:
    """User code inside is run."""

    @pytest.mark.parametrize("path", ["blocks.1.attn.proj", "blocks.0.mlp.fc2", "blocks.2.attn.qkv"])
    def test_a_subclass_of_a_layer(self, path):
        vit = timm_vit(mlp_ratio=1)
        layer = vit.get_submodule(path)
        if layer.out_features <= layer.in_features:
            exchange(vit, path, prepared(LowRank(layer.in_features, layer.out_features)))
        else:
            exchange(vit, path, nn.Sequential(layer, nn.Tanh()))
        self._check(vit)

    @pytest.mark.parametrize("path", ["attn", "mlp", "norm1", "ls2"])
    def test_hooks_change_what_a_module_returns(self, path):
        vit = timm_vit(init_values=0.5)
        vit.blocks[1].get_submodule(path).register_forward_hook(lambda module, args, output: output * 1.5)
        self._check(vit)

    def test_hooks_on_a_block_see_its_tokens(self):
        vit, seen = timm_vit(), []
        vit.blocks[1].register_forward_hook(lambda module, args, output: seen.append(output.clone()))
        model = make_eventful(vit, policy=ALL)
        for frame in tiny_video(2):
            model(frame), vit(frame)
        assert len(seen) == 4
        torch.testing.assert_close(seen[2], seen[3], **CLOSE)

    def test_attention_of_another_class_runs_on_all_tokens(self):
        vit = MODELS["Hugging Face ViT"]()
        kind = type(vit.layers[0].attention)

        class Other(kind):
            def forward(self, *args, **kwargs):
                return super().forward(*args, **kwargs)[0] * 0.5, None

        vit.layers[1].attention.__class__ = Other
        self._check(vit)

    @pytest.mark.parametrize("use", [lambda x, seen: x * 1.1, lambda x, seen: x + sum(seen)], ids=["last", "all"])
    def test_a_subclass_that_uses_what_each_block_returns(self, use):
        vit = timm_vit()

        class Other(type(vit)):
            def forward_features(self, x, **kwargs):
                x, seen = self._pos_embed(self.patch_embed(x)), []
                for block in self.blocks:
                    seen.append(block(x))
                    x = use(seen[-1], seen)
                return self.norm(x)

        vit.__class__ = Other
        self._check(vit)

    @pytest.mark.parametrize("name, path", [("timm", "blocks.0"), ("Hugging Face ViT", "layers.0")])
    @pytest.mark.parametrize("part", ["attention", "mlp"])
    def test_a_class_with_another_forward(self, name, path, part, monkeypatch):
        """As programs do that replace the attention of a library."""
        vit = MODELS[name]()
        kind = type(getattr(vit.get_submodule(path), "attn" if (name, part) == ("timm", "attention") else part))
        forward = kind.forward

        def halved(module, *args, **kwargs):
            result = forward(module, *args, **kwargs)
            return (0.5 * result[0], *result[1:]) if isinstance(result, tuple) else 0.5 * result

        expected = vit(tiny_video(1)[0])
        monkeypatch.setattr(kind, "forward", halved)
        with pytest.raises(AssertionError):  # it changes something
            assert_same(vit(tiny_video(1)[0]), expected)
        self._check(vit)

    def test_one_block_in_two_places(self):
        vit = timm_vit()
        vit.blocks[2] = vit.blocks[0]
        self._check(vit)

    @pytest.mark.parametrize("path", ["mlp.fc1", "attn.qkv", "norm1"])
    @pytest.mark.usefixtures("kernels_or_not")
    def test_weights_of_a_class_that_has_no_values_at_its_address(self, path):
        vit = timm_vit()
        for block in vit.blocks:
            layer = block.get_submodule(path)
            layer.weight = nn.Parameter(Packed(layer.weight.detach()), requires_grad=False)
        self._check(vit)

    def _check(self, vit):
        model = make_eventful(vit, policy=ALL)
        for frame in tiny_video(3):
            assert_same(model(frame), vit(frame))
        few = make_eventful(vit, policy=FEW)
        for frame in tiny_video(2):
            few(frame)


class Unknown(nn.Module):
    def forward(self, x, *args, **kwargs):
        return x


class TestRefusals:
    def test_other_designs(self):
        from torchvision.models import SwinTransformer

        with pytest.raises(ValueError, match="SwinTransformer is no plain Vision Transformer that is known"):
            make_eventful(SwinTransformer([4, 4], 16, [2], [2], [2, 2]))

    def test_a_class_of_the_name_of_a_known_one_is_told_with_its_origin(self):
        from torchvision.models.feature_extraction import create_feature_extractor

        graph = create_feature_extractor(torchvision_vit(), ["encoder"])
        with pytest.raises(ValueError, match=r"VisionTransformer is no .* is known \(it is of torch.fx"):
            make_eventful(graph)

    def test_the_advice_for_a_model_in_a_list_works(self):
        model = nn.Sequential(nn.ModuleDict({"vits": nn.ModuleList([torchvision_vit()])}))
        with pytest.raises(ValueError, match=r"Sequential is not .* its 0\.vits\.0 is one") as refused:
            make_eventful(model)
        advice = str(refused.value).rpartition(": ")[2]
        exec(advice, {"model": model, "make_eventful": make_eventful})
        assert isinstance(model[0].vits[0], EventfulModel)

    def test_what_is_no_model(self):
        with pytest.raises(TypeError, match="a torch.nn.Module.* got 'vit_small_patch16_224'"):
            make_eventful("vit_small_patch16_224")

    def test_an_eventful_model(self):
        with pytest.raises(ValueError, match="is eventful already; set_policy"):
            make_eventful(make_eventful(torchvision_vit()))

    @pytest.mark.parametrize(
        "name, value", [("state_dtype", "bfloat16"), ("compute_dtype", torch.int8), ("gpu_crossover", "0.3")]
    )
    def test_options_that_are_none(self, name, value):
        with pytest.raises((TypeError, ValueError), match=f"{name} .*{value}"):
            make_eventful(torchvision_vit(), **{name: value})

    def test_the_crossover_of_gpus(self):
        model = make_eventful(torchvision_vit(), gpu_crossover=0.4)
        assert [model._encoder.is_beyond_crossover(TopR(r), 10) for r in (3, 4)] == [False, True]

    def test_the_advice_for_compiled_models_works(self):
        compiled = torch.compile(timm_vit(), backend="eager")
        with pytest.raises(ValueError, match=r"its _orig_mod is one .*: model = make_eventful\(model._orig_mod\)"):
            make_eventful(compiled)
        with pytest.raises(ValueError, match=r": model.vit = make_eventful\(model.vit._orig_mod\)"):
            make_eventful(nn.ModuleDict({"vit": compiled}))
        model = make_eventful(compiled._orig_mod, policy=FEW)
        model(tiny_video(1)[0])
        assert model.state.nbytes > 0

    def test_a_block_with_another_forward(self):
        vit, video = timm_vit(), tiny_video(2)
        model = make_eventful(vit, policy=FEW)
        model(video[0])
        vit.blocks[1].forward = lambda x, **kwargs: x
        for call in (lambda: model(video[1]), lambda: make_eventful(vit)):
            with pytest.raises(ValueError, match=r"Block \(VisionTransformer.blocks.1\) was given another `forward`"):
                call()
        del vit.blocks[1].forward
        model(video[1])
        assert model.state.trace.flushed == (False,)

    def test_a_class_of_blocks_with_another_forward(self, monkeypatch):
        vit, video = timm_vit(), tiny_video(3)
        model = make_eventful(vit, policy=FEW)
        for frame in video:
            model(frame)
        monkeypatch.setattr(type(vit.blocks[0]), "forward", lambda block, x, **kwargs: x)
        for call in (lambda: model(video[1]), lambda: make_eventful(vit)):
            with pytest.raises(ValueError, match=r"Block \(VisionTransformer.blocks.0\) was given another `forward`"):
                call()

    def test_a_model_with_another_forward(self):
        vit = timm_vit()
        vit.forward = vit.forward  # bound to this model, as programs that replace it do
        with pytest.raises(ValueError, match="0 of 3 blocks ran.*not by the `forward` that this model was given"):
            make_eventful(vit)(tiny_video(1)[0])

    @pytest.mark.parametrize("hooked", [False, True])
    def test_blocks_that_were_added(self, hooked):
        vit, video = timm_vit(), tiny_video(2)
        model = make_eventful(vit, policy=ALL)
        model(video[0])
        vit.blocks.append(copy.deepcopy(vit.blocks[1]))
        if hooked:
            vit.blocks[0].register_forward_hook(lambda *args: None)
        with pytest.raises(ValueError, match="has 4 blocks, and had 3 when it was made eventful; make it again"):
            model(video[1])
        assert_same(make_eventful(vit, policy=ALL)(video[1]), vit(video[1]))

    def test_two_passes_in_one_call(self):
        vit = timm_vit()

        class Flipped(type(vit)):
            def forward(self, x):
                return super().forward(x) + super().forward(x.flip(-1))

        vit.__class__ = Flipped
        with pytest.raises(ValueError, match="block 0 was called after 3 blocks .* once and in order"):
            make_eventful(vit)(tiny_video(1)[0])

    def test_post_norm(self):
        blocks = pytest.importorskip("timm.models.vision_transformer", reason="timm is not installed")
        with pytest.raises(ValueError, match=r"ResPostBlock \(VisionTransformer.blocks.0\) normalises behind"):
            make_eventful(timm_vit(block_fn=blocks.ResPostBlock))

    @pytest.mark.parametrize("path", ["blocks.1", "blocks.2.mlp", "blocks.0.norm2", "blocks.1.ls1"])
    def test_unknown_modules(self, path):
        vit = timm_vit(init_values=0.5)
        exchange(vit, path, Unknown())
        with pytest.raises(ValueError, match=rf"Unknown \(VisionTransformer.{path}\) is "):
            make_eventful(vit)

    @pytest.mark.parametrize("path", ["blocks.1.attn.proj_drop", "blocks.0.attn.attn_drop", "blocks.2.mlp.drop1"])
    def test_dropout_in_eval(self, path):
        vit, video = timm_vit(attn_drop_rate=0.1, proj_drop_rate=0.1), tiny_video(2)
        model = make_eventful(vit, policy=FEW)
        model(video[0])
        vit.get_submodule(path).train()
        with pytest.raises(ValueError, match=rf"{path}\) is in training mode.*eval"):
            model(video[1])
        vit.eval()
        assert model(video[1]).isfinite().all() and model.state.trace.flushed == (False,)

    @pytest.mark.parametrize("chained", [True, False])
    def test_another_size_in_the_middle_of_a_stream(self, chained):
        vit, video = timm_vit(dynamic_img_size=True), tiny_video(3)
        model = make_eventful(vit, policy=FEW)
        call = model if chained else model.forward_intermediates
        call(video[0])
        with pytest.raises(ValueError, match="4 x 4 tokens and this frame 4 x 2; call reset"):
            call(video[1][..., :16])
        call(video[1])
        assert model.state.trace.flushed == (False,)
        model.reset()
        torch.testing.assert_close(model(video[1][..., :16]), vit(video[1][..., :16]), **CLOSE)

    def test_bad_frames(self):
        model, video = make_eventful(timm_vit(), policy=FEW), tiny_video(2)
        model(video[0])
        with pytest.raises(ValueError, match="NaN or infinity in the frame of stream 0"):
            model(video[1] * torch.nan)
        with pytest.raises(AssertionError, match="doesn't match model"):  # the library's own words
            model(video[1][..., :-1])
        model(video[1])
        assert model.state.trace.flushed == (False,)

    def test_what_changed_tokens_cannot_serve(self):
        frame, vit = tiny_video(1)[0], MODELS["Hugging Face ViT"]()
        with pytest.raises(ValueError, match="output_attentions cannot be served .* enabled = False"):
            make_eventful(vit)(frame, output_attentions=True)
        model = make_eventful(timm_vit())
        with pytest.raises(ValueError, match="attn_mask cannot be served"):
            model(frame, attn_mask=torch.ones(1, 1, PATCHES + 1, PATCHES + 1))

    def test_blocks_left_out(self):
        model = make_eventful(timm_vit())
        with pytest.raises(ValueError, match="2 of 3 blocks ran"):
            model.forward_intermediates(tiny_video(1)[0], indices=[1], stop_early=True, intermediates_only=True)

    def test_a_policy_for_other_gates(self):
        with pytest.raises(ValueError, match="blocks.9"):
            make_eventful(torchvision_vit(), policy=PerGate({"*": FEW, "blocks.9.qkv": FEW}))


@pytest.mark.parametrize("number", [3, 7])
def test_counts_are_the_closed_form(number):
    """Of a frame whose gates let so many tokens through, in `tokenwise`: all attention is computed."""
    model = make_eventful(torchvision_vit(), policy=TopR(number), attention="tokenwise")
    video, tokens = tiny_video(2), PATCHES + 1
    for rows, frame in zip((tokens, number), video):
        with count_operations(model) as counts:
            model(frame)
        ours = counts.by_category()
        linear = DEPTH * rows * (4 * DIM * DIM + 2 * DIM * HIDDEN)
        assert ours["linear"] == linear
        assert ours["matmul"] == DEPTH * 2 * tokens * tokens * DIM
        assert ours["embedding"] == PATCHES * DIM * 3 * PATCH * PATCH
        assert ours["heads"] == 5 * DIM


def test_dense_counts_are_those_of_a_flush():
    model, (frame,) = make_eventful(MODELS["Hugging Face DINOv3"](), policy=Threshold(0.0)), tiny_video(1)
    results = []
    for enabled in (True, False):
        model.enabled = enabled
        with count_operations(model) as counts:
            model(frame)
        results.append({key: counts.by_category()[key] for key in ("linear", "bias", "matmul", "embedding")})
    assert results[0] == results[1]


def test_heads_of_another_number():
    """Head sizes that suit no vector."""
    vit = hugging_face("ViT", hidden_size=HEADS * 15, intermediate_size=HIDDEN)
    model = make_eventful(vit, policy=ALL)
    for frame in tiny_video(2):
        assert_same(model(frame), vit(frame))


def test_hooks_see_blocks_from_the_first_frame_on():
    vit, seen = timm_vit(), []
    vit.blocks[0].register_forward_hook(lambda block, args, output: seen.append(output.clone()))
    model, video = make_eventful(vit, policy=ALL), tiny_video(3)
    for frame in video:
        model(frame)
    ours = seen[:]
    seen.clear()
    for frame in video:
        vit(frame)
    assert len(ours) == len(seen) == len(video)
    for output, expected in zip(ours, seen):
        torch.testing.assert_close(output, expected, **CLOSE)


@pytest.mark.parametrize("enabled", [True, False])
def test_replicas_are_refused(enabled):
    """As `nn.DataParallel` makes them on several GPUs: all of them would run the one library's model."""
    model = make_eventful(timm_vit(), enabled=enabled)
    with pytest.raises(RuntimeError, match=r"cannot replicate an adapted model.*DataParallel\(model.original\)"):
        model._replicate_for_data_parallel()
