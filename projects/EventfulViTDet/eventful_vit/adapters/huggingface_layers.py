"""The layers of Hugging Face's Vision Transformers, by the names of their classes."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from torch import Tensor, nn
from transformers.activations import GELUActivation

from ..attention.rotary import RotaryTables
from ..block import BlockSpec
from ..layers import MlpParts, SideBySide, is_plain, runs_other_code
from .family import BlockCall, BlockParts, UnsuitableModule, norm_of, on_rows, other_attention
from .windowed import windowed_spec

ATTENTION_FUNCTIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
"""Ways to compute attention, all with the same result."""
GELU = nn.GELU()


@dataclass(frozen=True)
class Layer:
    """What a kind of layer calls its parts."""

    norms: tuple[str, str] = ("norm1", "norm2")
    attention: tuple[str, ...] = ("attention",)
    """The module that the layer calls, and those inside that compute something themselves."""
    core: str = "attention"
    """The one of them that knows the heads."""
    qkv: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    projection: str = "attention.o_proj"
    mlp: tuple[str, ...] = ("mlp",)
    """Modules of the MLP that compute something themselves."""
    layers: tuple[str, str, str] = ("mlp.fc1", "mlp.activation_fn", "mlp.fc2")
    """Layers of the MLP."""
    idle: tuple[str, ...] = ()
    scales: tuple[str, ...] = ()


DINO = {"idle": ("drop_path",), "scales": ("layer_scale1", "layer_scale2")}
CLIP = Layer(("layer_norm1", "layer_norm2"), ("self_attn",), "self_attn", projection="self_attn.out_proj")
SAM = Layer(("layer_norm1", "layer_norm2"), ("attn",), "attn", layers=("mlp.lin1", "mlp.act", "mlp.lin2"))
VIT = Layer(("layernorm_before", "layernorm_after"), idle=("dropout",))
LAYERS = {
    "DeiTLayer": VIT,
    "IJepaLayer": VIT,
    "ViTLayer": VIT,
    "ViTMSNLayer": VIT,
    "Dinov2Layer": Layer(**DINO),
    "Dinov2WithRegistersLayer": Layer(**DINO),
    "DINOv3ViTLayer": Layer(layers=("mlp.up_proj", "mlp.act_fn", "mlp.down_proj"), **DINO),
    "AltCLIPEncoderLayer": CLIP,
    "CLIPEncoderLayer": CLIP,
    "CLIPSegEncoderLayer": CLIP,
    "ChineseCLIPVisionLayer": CLIP,
    "MetaClip2EncoderLayer": CLIP,
    "OwlViTEncoderLayer": CLIP,
    "Owlv2EncoderLayer": CLIP,
    "SiglipEncoderLayer": CLIP,
    "YolosLayer": Layer(
        ("layernorm_before", "layernorm_after"),
        ("attention", "attention.attention", "attention.output"),
        "attention.attention",
        ("query", "key", "value"),
        "attention.output.dense",
        ("intermediate", "output"),
        ("intermediate.dense", "intermediate.intermediate_act_fn", "output.dense"),
        ("attention.output.dropout", "output.dropout"),
    ),
    "SamHQVisionLayer": SAM,
    "SamVisionLayer": SAM,
    "VitDetLayer": Layer(layers=("mlp.fc1", "mlp.act", "mlp.fc2"), idle=("drop_path", "mlp.drop")),
}
PARTS = {
    "AltCLIPAttention", "AltCLIPMLP", "CLIPAttention", "CLIPMLP", "CLIPSegAttention", "CLIPSegMLP",
    "ChineseCLIPVisionAttention", "ChineseCLIPVisionMLP", "DINOv3ViTAttention", "DINOv3ViTGatedMLP",
    "DINOv3ViTLayerScale", "DINOv3ViTMLP", "DeiTAttention", "DeiTMLP", "Dinov2Attention", "Dinov2LayerScale",
    "Dinov2MLP", "Dinov2SwiGLUFFN", "Dinov2WithRegistersAttention", "Dinov2WithRegistersLayerScale",
    "Dinov2WithRegistersMLP", "Dinov2WithRegistersSwiGLUFFN", "IJepaAttention", "IJepaMLP", "MetaClip2Attention",
    "MetaClip2MLP", "OwlViTAttention", "OwlViTMLP", "Owlv2Attention", "Owlv2MLP", "SamHQMLPBlock",
    "SamHQVisionAttention", "SamHQVisionSdpaAttention", "SamMLPBlock", "SamVisionAttention", "SamVisionSdpaAttention",
    "SiglipAttention", "SiglipMLP", "ViTAttention", "ViTMLP", "ViTMSNAttention", "ViTMSNMLP", "VitDetAttention",
    "VitDetMlp", "YolosAttention", "YolosIntermediate", "YolosOutput", "YolosSelfAttention", "YolosSelfOutput",
}  # fmt: skip
"""Classes whose code is known, so that a frame may compute the same in another way."""


def describe(layer: nn.Module, call: BlockCall) -> BlockParts:
    """The parts of a layer."""
    kind = type(layer)
    if not (is_library(kind) and kind.__name__ in LAYERS):
        raise UnsuitableModule(layer, "is a block that is not known")
    names = LAYERS[kind.__name__]
    norms = [norm_of(getattr(layer, name)) for name in names.norms]
    scales = [_scale(getattr(layer, name)) for name in names.scales] or [None, None]
    mlp = _mlp(layer, names)
    common = {"dim": call.dim, "norm1": norms[0], "norm2": norms[1], "mlp": mlp}
    common.update(layer_scale1=scales[0], layer_scale2=scales[1])
    core = _core(layer, names)
    passed = ([] if core is None else [names.attention[0]]) + (list(names.mlp) if isinstance(mlp, MlpParts) else [])
    idle = [path for path in names.idle if "." not in path or path.split(".")[0] in passed]
    spec = (_windowed if hasattr(layer, "window_size") else _unwindowed)(layer, names, core, call, common)
    return BlockParts(spec, tuple(attrgetter(path)(layer) for path in idle), core)


def is_library(kind: type) -> bool:
    """Whether a class is one of the library's models or their parts."""
    return kind.__module__.startswith("transformers.models.")


def _core(layer: nn.Module, names: Layer) -> nn.Module | None:
    """The module that knows the heads; None if the attention has to be called."""
    for path in names.attention:
        if not _is_known(attrgetter(path)(layer)):
            return None
    core = attrgetter(names.core)(layer)
    function = core.config._attn_implementation if hasattr(core, "config") else ATTENTION_FUNCTIONS[0]
    return core if function in ATTENTION_FUNCTIONS else None


def _is_part(kind: type) -> bool:
    return kind.__name__ in PARTS and is_library(kind)


def _is_known(module: nn.Module) -> bool:
    return _is_part(type(module)) and not runs_other_code(module)


def _unwindowed(
    layer: nn.Module, names: Layer, core: nn.Module | None, call: BlockCall, common: dict[str, Any]
) -> BlockSpec:
    common["prefix"] = call.prefix
    if core is None:
        attention = getattr(layer, names.attention[0])
        attend = on_rows(lambda x: attention(x, **call.arguments))
        return other_attention(attention, attend, common)
    heads = _heads(core)
    return BlockSpec(
        heads=heads,
        head_dim=call.dim // heads,
        qkv=SideBySide(tuple(getattr(core, name) for name in names.qkv)),
        projection=attrgetter(names.projection)(layer),
        scale=core.scaling if hasattr(core, "scaling") else core.scale,
        rotary=_rotary(call),
        **common,
    )


def _windowed(
    layer: nn.Module, names: Layer, core: nn.Module | None, call: BlockCall, common: dict[str, Any]
) -> BlockSpec:
    after = layer.residual if getattr(layer, "use_residual_block", False) else None
    attention = getattr(layer, names.attention[0])
    heads = None if core is None else _heads(core)
    return windowed_spec(attention, heads, window=layer.window_size, after=after, **common)


def _heads(core: nn.Module) -> int:
    return core.num_heads if hasattr(core, "num_heads") else core.num_attention_heads


def _rotary(call: BlockCall) -> RotaryTables | None:
    """From cosines and sines of the grid's tokens, (h * w, d)."""
    angles = call.arguments.get("position_embeddings")
    if angles is None:
        return None
    cos, sin = (part[:, None] for part in angles)
    return call.once(angles, lambda: RotaryTables.of_grid(sin, cos, call.prefix, interleaved=False))


def _mlp(layer: nn.Module, names: Layer) -> MlpParts | nn.Module:
    modules = [getattr(layer, name) for name in names.mlp]
    if all(map(_is_known, modules)):
        if hasattr(modules[0], "gate_proj"):
            gated = SideBySide((modules[0].gate_proj, modules[0].up_proj))
            return MlpParts(gated, modules[0].act_fn, modules[0].down_proj, gate=0)
        fc1, act, fc2 = (attrgetter(path)(layer) for path in names.layers)
        exact = is_plain(act, GELUActivation)
        return MlpParts(fc1, GELU if exact else act, fc2)
    for module in modules:
        if len(modules) > 1 or not any(map(_is_part, type(module).__mro__)):
            raise UnsuitableModule(module, "is not known as an MLP on single tokens")
    return modules[0]


def _scale(scale: nn.Module) -> Tensor | nn.Module:
    if not any(map(_is_part, type(scale).__mro__)):
        raise UnsuitableModule(scale, "is not known as a scale of channels")
    return scale.lambda1 if _is_known(scale) else scale
