"""How an adapter describes a library's Vision Transformers: Family, TokenForm, BlockParts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ..block import BlockSpec
from ..layers import MlpParts, Norm, NormWeights, is_plain

Arguments = Mapping[str, Any]
"""Arguments of a call by name."""


class UnsuitableModule(Exception):
    """A module that cannot run on changed tokens. `Adaptation` turns this into a ValueError with the module's name."""

    def __init__(self, module: nn.Module, reason: str) -> None:
        super().__init__(reason)
        self.module = module
        self.reason = reason


@dataclass(frozen=True)
class BlockCall:
    """How a library calls a block."""

    dim: int
    """D, channels of a token."""
    prefix: int = 0
    """Tokens beside those of the grid."""
    arguments: Arguments = field(default_factory=dict)
    """What goes in beside the tokens."""
    memo: dict[int, tuple] = field(default_factory=dict)
    """Cache of `once`, shared by the blocks of a frame."""

    def once(self, argument: Any, make: Callable[[], Any]) -> Any:
        """A value derived from an argument, computed once per frame for all blocks that are called with it."""
        if id(argument) not in self.memo:
            self.memo[id(argument)] = (argument, make())  # while it is alive, no other object has its id
        return self.memo[id(argument)][1]


@dataclass(frozen=True)
class BlockParts:
    """A library's block: its specification, and the modules that an eventful frame skips."""

    spec: BlockSpec
    idle: tuple[nn.Module, ...] = ()
    """Modules that do nothing in inference: dropout, stochastic depth."""
    attention: nn.Module | None = None
    """The attention's module where its code is not called; it may drop weights in training."""


@dataclass(frozen=True)
class TokenForm:
    """The form in which blocks take and return tokens."""

    flatten: Callable[[Tensor], Tensor]
    """To (B, N, D)."""
    restore: Callable[[Tensor, Tensor], Tensor]
    """From (B, N, D) to the form, given a tensor of that shape."""
    grid: Callable[[Tensor], tuple[int, int] | None]
    """The grid (h, w), where the form shows it."""
    in_tuple: bool = False
    """Whether a block returns a tuple that begins with them."""


ROWS = TokenForm(lambda x: x, lambda tokens, x: tokens, lambda x: None)
"""(B, N, D), with prefix tokens or without."""
GRID = TokenForm(lambda x: x.flatten(1, 2), lambda tokens, x: tokens.view(x.shape), lambda x: tuple(x.shape[1:3]))
"""(B, h, w, D)."""
MAP = TokenForm(
    lambda x: x.flatten(2).transpose(1, 2),
    lambda tokens, x: tokens.transpose(1, 2).reshape(x.shape),
    lambda x: tuple(x.shape[2:]),
    in_tuple=True,
)
"""(B, D, h, w)."""


@dataclass(frozen=True)
class Family:
    """How a class of Vision Transformers is laid out."""

    blocks: str
    """Where the container of the blocks is, such as "encoder.layers"."""
    describe: Callable[[nn.Module, BlockCall], BlockParts]
    """The parts of a block. Raises UnsuitableModule."""
    dim: Callable[[nn.Module], int]
    """D, channels of a token."""
    images: str
    """The argument that holds the images."""
    grid: Callable[[nn.Module, tuple[int, int]], tuple[int, int]] | None = None
    """The token grid (h, w) of a model for images of a height and width in pixels, where the form does not show it."""
    form: TokenForm = ROWS
    methods: tuple[str, ...] = ("forward",)
    """Methods that run the blocks."""
    is_chain: Callable[[nn.Module, str, Arguments], bool] = lambda vit, method, arguments: True
    """Whether a call of a method hands each block's result to the next block and does nothing else with it. Blocks then
    run in one go."""
    prepare: Callable[[nn.Module, Arguments], None] = lambda vit, arguments: None
    """Prepares a call with these named arguments. Raises ValueError for a request that is not supported."""


# Shared by the adapters.


def check_kind(module: nn.Module, kinds: tuple[type, ...], what: str) -> None:
    """Raise UnsuitableModule if a module is of none of these classes."""
    if not isinstance(module, kinds):
        raise UnsuitableModule(module, f"is not known as {what}")


def norm_of(norm: nn.Module, same: tuple[type, ...] = (), other: tuple[type, ...] = ()) -> Norm:
    """A norm as operators take it, or itself, to be called.

    Args:
        same: classes of a library that compute what `nn.LayerNorm` does.
        other: further classes of it that normalise single tokens.
    """
    check_kind(norm, (nn.LayerNorm, nn.RMSNorm, nn.Identity, *same, *other), "a norm of single tokens")
    if is_plain(norm, *same) and len(norm.normalized_shape) == 1:
        return NormWeights(norm.weight, norm.bias, norm.eps)
    return norm


def norm_or_none(norm: nn.Module, *kinds: tuple[type, ...]) -> Norm | None:
    """The same, and None for `nn.Identity`."""
    return None if is_plain(norm, nn.Identity) else norm_of(norm, *kinds)


def mlp_of(
    mlp: nn.Module, kinds: tuple[type, ...], parts: Callable[[Any], tuple[MlpParts, tuple[nn.Module, ...]]]
) -> tuple[MlpParts | nn.Module, tuple[nn.Module, ...]]:
    """An MLP and its idle modules: its parts if it is of one of these very classes, or itself, to be called, if it is
    of a subclass or hooked into."""
    check_kind(mlp, kinds, "an MLP on single tokens")
    return parts(mlp) if is_plain(mlp, *kinds) else (mlp, ())


def other_attention(attention: nn.Module, attend: Callable[[Tensor], Tensor], common: Mapping[str, Any]) -> BlockSpec:
    """The specification of a block whose attention's code is not known.

    Args:
        attend: calls it, on (G, a, b, D).
        common: the other parts of the block.
    """
    counted_as = {"heads": 1, "head_dim": common["dim"], "qkv": attention, "projection": nn.Identity()}
    return BlockSpec(other_attention=attend, **counted_as, **common)


def on_rows(attention: Callable[[Tensor], Any]) -> Callable[[Tensor], Tensor]:
    """Attention on (B, N, D), which may return a tuple, in the form that a `BlockSpec` asks for."""

    def attend(x: Tensor) -> Tensor:
        return first(attention(x.flatten(1, 2))).view(x.shape)

    return attend


def first(result: Any) -> Tensor:
    """A result without what follows it in a tuple."""
    return result[0] if isinstance(result, tuple) else result
