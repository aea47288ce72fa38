"""Adaptation: a library's model and its adapter's description of it."""

from __future__ import annotations

from torch import nn

from ..block import BlockSpec
from ..layers import is_replaced, runs_other_code
from .family import BlockCall, BlockParts, TokenForm, UnsuitableModule
from .libraries import ADAPTERS, family_of

NOT_SERVED = ("attn_mask", "attention_mask", "head_mask", "is_causal", "output_attentions")
"""Arguments of blocks that are not supported on changed tokens, unless they are None or False."""


class Adaptation:
    """A library's model, its blocks and their specifications."""

    def __init__(self, model: nn.Module) -> None:
        """
        Raises:
            ValueError: the model is not known, or something in its blocks cannot run on changed tokens.
        """
        self.model = model
        self.family = family_of(model)
        for block in self.blocks:
            self.specification(block, BlockCall(self.dim), in_use=False)

    def __getstate__(self) -> dict:
        return {"model": self.model}

    def __setstate__(self, state: dict) -> None:
        self.model = state["model"]
        self.family = family_of(self.model)

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        """The blocks, as they are now. One that is there twice is two blocks, each with state of its own."""
        return tuple(self.model.get_submodule(self.family.blocks)._modules.values())

    @property
    def dim(self) -> int:
        """D, channels of a token."""
        return self.family.dim(self.model)

    @property
    def form(self) -> TokenForm:
        """The form in which blocks take tokens."""
        return self.family.form

    def is_library_code(self) -> bool:
        """Whether only code of the library and of PyTorch runs between the model's methods and the blocks. That of a
        subclass may do more with what the blocks return."""
        path = self.family.blocks.split(".")
        inside = [self.model.get_submodule(".".join(path[: depth + 1])) for depth in range(len(path))]
        functions = [getattr(type(self.model), name) for name in self.family.methods if hasattr(self.model, name)]
        functions += [type(module).forward for module in inside]
        return all(function.__module__.split(".")[0] in ("torch", *ADAPTERS) for function in functions)

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """The token grid (h, w) of images of a height and width in pixels."""
        height, width = self.family.grid(self.model, size)
        return height, width

    def specification(self, block: nn.Module, call: BlockCall, in_use: bool = True) -> BlockSpec:
        """The specification of a block in its present state.

        Args:
            in_use: the block will run on changed tokens, so its modules must be in eval mode.

        Raises:
            ValueError: it cannot run on changed tokens.
        """
        for name in NOT_SERVED if in_use else ():
            value = call.arguments.get(name)
            if value is not None and value is not False:
                raise ValueError(f"{name} cannot be served on changed tokens; ask the dense model: enabled = False")
        try:
            if "forward" in block.__dict__ or is_replaced(type(block)):
                raise UnsuitableModule(block, "was given another `forward`, which an eventful frame would not run")
            parts = self.family.describe(block, call)
            _check(parts, in_use)
        except UnsuitableModule as error:
            raise ValueError(f"{self._name(error.module)} {error.reason}") from None
        return parts.spec

    def _name(self, module: nn.Module) -> str:
        """A module's class and where it is, such as "Mlp (VisionTransformer.blocks.0.mlp)"."""
        place = next((name for name, other in self.model.named_modules() if other is module), "")
        return f"{type(module).__name__} ({'.'.join(filter(None, (type(self.model).__name__, place)))})"


def _check(parts: BlockParts, in_use: bool) -> None:
    """Raise UnsuitableModule if a frame must not pass over a module."""
    for module in parts.idle:
        known = type(module) in (nn.Dropout, nn.Identity) or _is_drop_path(module)
        if not known or runs_other_code(module):
            raise UnsuitableModule(module, "is in the place of a dropout, and may do more in inference")
    for module in (*parts.idle, parts.attention) if in_use else ():
        if module is not None and module.training:
            raise UnsuitableModule(module, "is in training mode, where it may drop values; call eval()")


def _is_drop_path(module: nn.Module) -> bool:
    """Whether it is stochastic depth of one of the libraries."""
    kind = type(module)
    return kind.__name__.endswith("DropPath") and kind.__module__.split(".")[0] in ("timm", "transformers")
