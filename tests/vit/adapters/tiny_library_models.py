"""Every known Vision Transformer at a tiny size with random weights, and videos for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

SIZE, PATCH, DIM, DEPTH, HEADS, HIDDEN = 32, 8, 32, 3, 2, 64
TIMM = {"img_size": SIZE, "patch_size": PATCH, "embed_dim": DIM, "depth": DEPTH, "num_heads": HEADS, "num_classes": 5}
HUGGING_FACE = {
    "hidden_size": DIM,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "image_size": SIZE,
    "patch_size": PATCH,
}


def timm_vit(**options) -> nn.Module:
    pytest.importorskip("timm", reason="timm is not installed")
    from timm.models.vision_transformer import VisionTransformer

    return prepared(VisionTransformer(**{**TIMM, **options}))


def timm_swiglu(**options) -> nn.Module:
    layers = pytest.importorskip("timm.layers", reason="timm is not installed")
    return timm_vit(mlp_layer=getattr(layers, options.pop("mlp")), act_layer=nn.SiLU, **options)


def eva(**options) -> nn.Module:
    module = pytest.importorskip("timm.models.eva", reason="timm is not installed")
    return prepared(module.Eva(**{**TIMM, "use_rot_pos_emb": True, **options}))


def hugging_face(name: str, **options) -> nn.Module:
    """A model such as "ViT" or "CLIPVision", or a backbone such as "Dinov2Backbone"."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = getattr(transformers, f"{name.removesuffix('Backbone')}Config")(**{**HUGGING_FACE, **options})
    return prepared(getattr(transformers, name if name.endswith("Backbone") else f"{name}Model")(config))


def torchvision_vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return prepared(VisionTransformer(SIZE, PATCH, DEPTH, HEADS, DIM, HIDDEN, num_classes=5))


def segment_anything(**options) -> nn.Module:
    module = pytest.importorskip("segment_anything.modeling.image_encoder", reason="segment_anything is not installed")
    sizes = {"img_size": SIZE, "patch_size": PATCH, "embed_dim": DIM, "depth": DEPTH, "num_heads": HEADS}
    windows = {"mlp_ratio": 2, "out_chans": 8, "use_rel_pos": True, "window_size": 3, "global_attn_indexes": (1,)}
    return prepared(module.ImageEncoderViT(**sizes, **windows, **options))


@torch.no_grad()
def prepared(model: nn.Module) -> nn.Module:
    """In eval mode, with weights that make every part matter."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        parameter.normal_(std=0.15, generator=generator)
        if parameter.dim() == 1 and name.endswith("weight") or "gamma" in name or "lambda" in name:
            parameter.add_(1.0)
    return model.eval()


DINOV2 = {"mlp_ratio": 2, "layerscale_value": 0.5}
WIDE = {"intermediate_size": HIDDEN}
YOLOS = {**WIDE, "image_size": [SIZE, SIZE], "num_detection_tokens": 6}
SAM = {"mlp_dim": HIDDEN, "window_size": 3, "global_attn_indexes": [1], "output_channels": 8, "num_pos_feats": 4}
STAGES = {"out_features": ["stage1", "stage3"]}
RELATIVES: dict[str, dict] = {
    **dict.fromkeys(("DeiT", "IJepa", "ViTMSN", "AltCLIPVision", "CLIPSegVision", "ChineseCLIPVision"), WIDE),
    **dict.fromkeys(("MetaClip2Vision", "OwlViTVision", "Owlv2Vision"), WIDE),
    "Dinov2Backbone": {**STAGES, **DINOV2},
    "Dinov2WithRegistersBackbone": {**STAGES, **DINOV2},
    "DINOv3ViTBackbone": {**STAGES, **WIDE},
    "VitDetBackbone": {**STAGES, "mlp_ratio": 2, "pretrain_image_size": SIZE},
    "SamHQVision": SAM,
}
"""Models of Hugging Face whose layers are those of one of MODELS under other names."""
MODELS: dict[str, Callable[[], nn.Module]] = {
    "timm": timm_vit,
    "timm without class token": lambda: timm_vit(class_token=False, global_pool="avg"),
    "timm with registers and LayerScale": lambda: timm_vit(reg_tokens=4, init_values=0.1, no_embed_class=True),
    "timm with QK norm": lambda: timm_vit(qk_norm=True),
    "timm with a norm before the blocks": lambda: timm_vit(pre_norm=True),
    "timm with scaled norms": lambda: timm_vit(scale_attn_norm=True, scale_mlp_norm=True),
    "timm with attention pooling": lambda: timm_vit(class_token=False, global_pool="map"),
    "timm with images of any size": lambda: timm_vit(dynamic_img_size=True),
    "timm with packed SwiGLU": lambda: timm_swiglu(mlp="SwiGLUPacked"),
    "timm with SwiGLU": lambda: timm_swiglu(mlp="SwiGLU"),
    "timm with a gate behind": lambda: timm_swiglu(mlp="GluMlp"),
    "timm EVA": lambda: eva(use_rot_pos_emb=False),
    "timm EVA-02": lambda: eva(swiglu_mlp=True, scale_mlp=True, init_values=0.1),
    "timm EVA with layers apart": lambda: eva(qkv_fused=False, swiglu_mlp=True, scale_attn_inner=True),
    "timm EVA with biases apart": lambda: eva(qkv_bias=True, attn_type="eva", qk_norm=True),
    "timm DINOv3": lambda: eva(
        rope_type="dinov3", rope_rotate_half=True, num_reg_tokens=4, use_abs_pos_emb=False, init_values=0.1,
        qkv_bias=False, dynamic_img_size=True,
    ),
    "timm with mixed rotary positions": lambda: eva(rope_type="mixed", attn_type="rope"),
    "timm with shared keys": lambda: eva(attn_type="rope", qkv_fused=False, num_kv_heads=1),
    "Hugging Face ViT": lambda: hugging_face("ViT", **WIDE),
    "Hugging Face DINOv2": lambda: hugging_face("Dinov2", **DINOV2),
    "Hugging Face DINOv2 with SwiGLU": lambda: hugging_face("Dinov2", use_swiglu_ffn=True, **DINOV2),
    "Hugging Face DINOv2 with registers": lambda: hugging_face("Dinov2WithRegisters", **DINOV2),
    "Hugging Face DINOv3": lambda: hugging_face("DINOv3ViT", num_register_tokens=4, layerscale_value=0.5, **WIDE),
    "Hugging Face DINOv3 with SwiGLU": lambda: hugging_face("DINOv3ViT", use_gated_mlp=True, **WIDE),
    "Hugging Face CLIP": lambda: hugging_face("CLIPVision", **WIDE),
    "Hugging Face SigLIP": lambda: hugging_face("SiglipVision", **WIDE),
    "Hugging Face YOLOS": lambda: hugging_face("Yolos", use_mid_position_embeddings=False, **YOLOS),
    "Hugging Face YOLOS with positions between": lambda: hugging_face("Yolos", **YOLOS),
    "Hugging Face ViTDet": lambda: hugging_face(
        "VitDet", mlp_ratio=2, pretrain_image_size=SIZE, window_size=3, window_block_indices=[0, 1],
        residual_block_indices=[1], use_relative_position_embeddings=True,
    ),
    "Hugging Face SAM": lambda: hugging_face("SamVision", **SAM),
    "torchvision": torchvision_vit,
    "segment_anything": segment_anything,
}  # fmt: skip
OTHER_ATTENTION = ("timm with shared keys",)
"""Models whose attention runs on all tokens of every frame."""
WINDOWED = ("Hugging Face ViTDet", "Hugging Face SAM", "segment_anything")


def tensors(output: object) -> dict[str, Tensor]:
    """Everything that a model returned, by name."""
    if isinstance(output, Tensor):
        return {"output": output}
    found = {}
    for name, value in output.items():
        for number, part in enumerate(value if isinstance(value, (tuple, list)) else (value,)):
            found[f"{name}.{number}"] = part
    return found


def tiny_video(frames: int, seed: int = 0) -> Tensor:
    """A still background in which one patch after the other changes, (T, 1, 3, 32, 32)."""
    generator = torch.Generator().manual_seed(seed)
    video = torch.randn(1, 3, SIZE, SIZE, generator=generator).repeat(frames, 1, 1, 1, 1)
    for t in range(1, frames):
        top, left = PATCH * (t % 4), PATCH * (t // 2 % 4)
        change = 0.5 * torch.randn(1, 3, PATCH, PATCH, generator=generator)
        video[t:, :, :, top : top + PATCH, left : left + PATCH] += change
    return video
