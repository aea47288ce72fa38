"""Which adapter knows a model. No library is imported that is not already there, as the model's class is from it."""

from __future__ import annotations

from importlib import import_module

from torch import nn

from .family import Family

ADAPTERS = {
    "segment_anything": "segment_anything",
    "timm": "timm",
    "torchvision": "torchvision",
    "transformers": "huggingface",
}
"""The adapter (a file beside this one) for each library."""
KNOWN = (
    "timm's VisionTransformer and Eva, Hugging Face's ViT, DeiT, ViT-MSN, I-JEPA, DINOv2, DINOv3 (also as backbones), "
    "CLIP, AltCLIP, Chinese-CLIP, CLIPSeg, MetaCLIP 2, OWL-ViT, OWLv2, SigLIP, YOLOS, ViTDet, SAM and SAM-HQ, "
    "torchvision's VisionTransformer, and segment_anything's ImageEncoderViT"
)


def family_of(model: nn.Module) -> Family:
    """How a model is laid out.

    Raises:
        TypeError: it is no module.
        ValueError: it is none of those that are known.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"a Vision Transformer (a torch.nn.Module) is needed, got {model!r}")
    family = _find(model)
    if family is not None:
        return family
    name = type(model).__name__
    for place, inner in model.named_modules():
        if place and _find(inner) is not None:
            # A compiled module would run what was compiled, whatever is put in the place of its `_orig_mod`.
            path = _path(place)
            raise ValueError(
                f"{name} is not a Vision Transformer itself, but its {place} is one ({type(inner).__name__}): "
                f"{path.removesuffix('._orig_mod')} = make_eventful({path})"
            )
    origin = type(model).__module__  # several libraries have a class of the same name
    raise ValueError(f"{name} is no plain Vision Transformer that is known (it is of {origin}); known are {KNOWN}")


def _path(place: str) -> str:
    """How Python code reaches a module inside a model, such as "model.vits[0]"."""
    return "model" + "".join(f"[{name}]" if name.isdigit() else f".{name}" for name in place.split("."))


def _find(model: nn.Module) -> Family | None:
    libraries = dict.fromkeys(kind.__module__.split(".")[0] for kind in type(model).__mro__)
    for library in libraries:
        if library in ADAPTERS:
            return import_module(f".{ADAPTERS[library]}", __package__).family_of(model)
    return None
