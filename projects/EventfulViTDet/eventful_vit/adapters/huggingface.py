"""The Vision Transformers of Hugging Face's transformers.

Classes are told by name, so that the code of no model is imported but that of the one in hand.
"""

from __future__ import annotations

import transformers
from torch import nn
from transformers.modeling_utils import PreTrainedModel

from .family import GRID, MAP, ROWS, Arguments, Family
from .huggingface_layers import describe, is_library

OLDEST = (5, 24)
"""The version since when models have their layers where `MODELS` says."""
MODELS = {
    "AltCLIPVisionModel": "encoder.layers",
    "CLIPSegVisionModel": "encoder.layers",
    "CLIPVisionModel": "encoder.layers",
    "ChineseCLIPVisionModel": "encoder.layers",
    "DINOv3ViTBackbone": "model.layer",
    "DINOv3ViTModel": "model.layer",
    "DeiTModel": "layers",
    "Dinov2Backbone": "encoder.layer",
    "Dinov2Model": "encoder.layer",
    "Dinov2WithRegistersBackbone": "encoder.layer",
    "Dinov2WithRegistersModel": "encoder.layer",
    "IJepaModel": "layers",
    "MetaClip2VisionModel": "encoder.layers",
    "OwlViTVisionModel": "vision_model.encoder.layers",
    "OwlViTVisionTransformer": "encoder.layers",
    "Owlv2VisionModel": "vision_model.encoder.layers",
    "Owlv2VisionTransformer": "encoder.layers",
    "SamHQVisionEncoder": "layers",
    "SamHQVisionModel": "vision_encoder.layers",
    "SamVisionEncoder": "layers",
    "SamVisionModel": "vision_encoder.layers",
    "SiglipVisionModel": "encoder.layers",
    "ViTMSNModel": "layers",
    "ViTModel": "layers",
    "VitDetBackbone": "encoder.layer",
    "VitDetModel": "encoder.layer",
    "YolosModel": "encoder.layer",
}
"""Where a class of models has its layers."""


def family_of(model: nn.Module) -> Family | None:
    """How a model of this library is laid out; None for one that is not known."""
    name = _model_name(model)
    if name is None:
        return None
    if tuple(map(int, transformers.__version__.split(".")[:2])) < OLDEST:
        raise ValueError(f"transformers {transformers.__version__} is too old, {'.'.join(map(str, OLDEST))} is needed")
    return Family(
        blocks=MODELS[name],
        describe=describe,
        dim=lambda model: model.config.hidden_size,
        images="pixel_values",
        methods=("forward", "forward_with_filtered_kwargs") if name.endswith("Backbone") else ("forward",),
        grid=_grid,
        form=MAP if name.startswith("VitDet") else GRID if name.startswith("Sam") else ROWS,
        is_chain=_is_chain,
        prepare=_prepare,
    )


def _model_name(model: nn.Module) -> str | None:
    return next((kind.__name__ for kind in type(model).__mro__ if kind.__name__ in MODELS and is_library(kind)), None)


def _grid(model: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    patch = model.config.patch_size
    height, width = (patch, patch) if isinstance(patch, int) else patch
    return size[0] // height, size[1] // width


# Calls.


def _is_chain(model: nn.Module, method: str, arguments: Arguments) -> bool:
    # YOLOS may add positions between its layers, and SAM-HQ returns what some of them compute.
    between = getattr(model.config, "use_mid_position_embeddings", False) or _model_name(model).startswith("SamHQ")
    return not (between or _asks_for("hidden_states", model, arguments))


def _prepare(model: nn.Module, arguments: Arguments) -> None:
    if _asks_for("attentions", model, arguments):
        raise ValueError("output_attentions cannot be served on changed tokens; ask the dense model: enabled = False")
    if not _asks_for("hidden_states", model, arguments) or _model_name(model).startswith("VitDet"):
        return
    # Hooks record them, which the library installs on the first such call, and would on the copy that runs the frame.
    from transformers.utils.output_capturing import maybe_install_capturing_hooks

    names = MODELS[_model_name(model)].split(".")
    holders = [model, *(model.get_submodule(".".join(names[:depth])) for depth in range(1, len(names)))]
    maybe_install_capturing_hooks([holder for holder in holders if isinstance(holder, PreTrainedModel)][-1])


def _asks_for(what: str, model: nn.Module, arguments: Arguments) -> bool:
    if what == "hidden_states" and _model_name(model).endswith("Backbone"):  # its features are some of them
        return True
    asked = arguments.get(f"output_{what}")
    return bool(getattr(model.config, f"output_{what}", False) if asked is None else asked)
