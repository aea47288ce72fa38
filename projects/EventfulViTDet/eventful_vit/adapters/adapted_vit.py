"""AdaptedViT: a library's Vision Transformer whose blocks run on changed tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..block import EventfulOptions
from ..encoder import EventfulEncoder
from ..finite_frames import check_finite
from ..frame import Frame
from ..model import EventfulModel, not_compiled
from ..policies import Policy, TopFraction
from ..streams import FrameForm, Streams
from .adaptation import Adaptation
from .block_runs import BlockRun, ChainedRun, CountedRun, SteppedRun
from .stand_ins import named_arguments, with_stand_ins

SHARED = (
    "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "_state_dict_hooks", "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
)  # fmt: skip
"""Where a module keeps its content. The two models have the same dictionaries, not copies of them."""


class AdaptedViT(EventfulModel):
    """A library's Vision Transformer that recomputes only the tokens that changed; `make_eventful` makes it.

    It is called like the library's model, returns the same, and has its parameters and modules under the same names.
    Only the blocks are replaced; everything else, and the blocks too in training mode and with `enabled = False`, is
    run by the library's code.
    """

    category_behind = "heads"

    def __init__(self, model: nn.Module, options: EventfulOptions, policy: Policy | None, enabled: bool) -> None:
        """
        Args:
            policy: which tokens to update; None: a quarter of them.

        Raises:
            ValueError: the model, or something in its blocks, cannot run on changed tokens.
        """
        super().__init__(enabled)
        adaptation = Adaptation(model)
        self.__dict__.update({name: model.__dict__[name] for name in SHARED}, _adaptation=adaptation)
        self._encoder = EventfulEncoder(len(adaptation.blocks), options)
        self.set_policy(TopFraction(0.25) if policy is None else policy)

    # Shared with the library's model.

    @property
    def original(self) -> nn.Module:
        """The library's model."""
        return self._adaptation.model

    @property
    def training(self) -> bool:
        """The mode, which is that of the library's model."""
        adaptation = self.__dict__.get("_adaptation")
        return adaptation is None or adaptation.model.training

    @training.setter
    def training(self, mode: bool) -> None:
        if "_adaptation" in self.__dict__:
            self.original.training = mode

    def __getattr__(self, name: str) -> Any:
        """Other attributes: those of the library's model."""
        adaptation = self.__dict__.get("_adaptation")
        if adaptation is None:
            raise AttributeError(name)
        if name in adaptation.family.methods:
            return partial(self._run, name)
        return getattr(adaptation.model, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """What only the library's model has is set there, where its code reads it."""
        adaptation = self.__dict__.get("_adaptation")
        is_own = adaptation is None or name in self.__dict__ or hasattr(type(self), name)
        if is_own or name not in adaptation.model.__dict__:
            super().__setattr__(name, value)
        else:
            setattr(adaptation.model, name, value)

    @property
    def gate_names(self) -> tuple[str, ...]:
        return self._encoder.gate_names

    # Counting.

    def counted(self) -> Iterable[nn.Module]:
        return [self, *(module for block in self._adaptation.blocks for module in block.modules())]

    def categories(self) -> Mapping[nn.Module, str]:
        """Layers before the blocks are the embedding, those behind them heads."""
        inside = set(self.counted())
        categories, category = {}, "embedding"
        for module in self.children():
            for part in module.modules():
                if part in inside:
                    category = "heads"
                else:
                    categories[part] = category
        return categories

    def _replicate_for_data_parallel(self) -> AdaptedViT:
        """Raises RuntimeError: the library's code runs on the library's model, which would not be replicated."""
        raise RuntimeError(
            "nn.DataParallel cannot replicate an adapted model; give each device a model, for instance in a process of "
            "its own, or replicate the library's model: nn.DataParallel(model.original)"
        )

    # Frames.

    def forward(self, *args: Any, state: Streams | None = None, **kwargs: Any) -> Any:
        """What the library's model returns for these arguments. Its images are one frame of each stream.

        Args:
            state: state of the streams; None: the model's own. The dense model has none.

        Raises:
            ValueError: a request that is not supported on changed tokens, or a frame that does not fit a running
                stream. The state is as it was before the call.
        """
        return self._run("forward", *args, state=state, **kwargs)

    def _run(self, method: str, *args: Any, state: Streams | None = None, **kwargs: Any) -> Any:
        if not self.training and self.enabled:
            return self._run_eventful(method, args, kwargs, state)
        if not self.observers:
            return _call(self.original, method, args, kwargs)
        run = CountedRun(self._adaptation, _size(self._images(args, kwargs)))
        result = self._run_with(run, method, args, kwargs)
        self.report(run.trace)
        return result

    @not_compiled
    # State outlives the call, so it must not consist of inference tensors, which a later call outside of inference mode
    # could not update.
    @torch.inference_mode(False)
    @torch.no_grad()
    def _run_eventful(self, method: str, args: tuple, kwargs: dict[str, Any], state: Streams | None) -> Any:
        images = self._images(args, kwargs)
        is_picture = isinstance(images, Tensor) and images.is_floating_point()
        refuse_others = check_finite(images) if is_picture else _accept
        family, arguments = self._adaptation.family, self._named(args, kwargs)
        family.prepare(self.original, arguments)
        chained = family.is_chain(self.original, method, arguments) and self._adaptation.is_library_code()
        chained = chained and not self._weights().is_observed()
        kind = ChainedRun if chained else SteppedRun
        run = kind(self._adaptation, _size(images), self._encoder, partial(self._checked_frame, refuse_others, state))
        return self._run_with(run, method, args, kwargs)

    @contextmanager
    def _checked_frame(
        self, refuse_others: Callable[[], None], state: Streams | None, streams: int, form: FrameForm
    ) -> Iterator[Frame]:
        with self._frame(streams, form, state) as frame:
            yield frame
            refuse_others()

    def _run_with(self, run: BlockRun, method: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        model = with_stand_ins(self.original, self._adaptation.family.blocks, run.stand_in)
        with run.stack:
            result = _call(model, method, args, kwargs)
            run.finish()
        return result

    def _named(self, args: tuple, kwargs: dict[str, Any]) -> Mapping[str, Any]:
        return named_arguments(type(self.original), args, kwargs, skip=0)

    def _images(self, args: tuple, kwargs: dict[str, Any]) -> Any:
        return args[0] if args else kwargs.get(self._adaptation.family.images)


def _accept() -> None:
    """Images of integers are finite; what is no image, the library refuses."""


def _call(model: nn.Module, method: str, args: tuple, kwargs: dict[str, Any]) -> Any:
    return model(*args, **kwargs) if method == "forward" else getattr(model, method)(*args, **kwargs)


def _size(images: Any) -> tuple[int, int]:
    """Height and width of images; (0, 0) for anything else, which the library will refuse."""
    return tuple(images.shape[-2:]) if isinstance(images, Tensor) and images.dim() > 1 else (0, 0)
