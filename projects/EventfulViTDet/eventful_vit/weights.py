"""Noticing that a model's weights changed, whoever changed them: streams that were computed with the old ones begin
again."""

from __future__ import annotations

import weakref

from torch import Tensor, nn

from . import ops
from .layers import is_observed
from .ops import derived


class WeightWatch:
    """Looks at a model's parameters, buffers and modules in every eventful frame.

    Seen are: writes that PyTorch tracks, other parameters or modules in place of the old ones, moves, changes of type.
    Writes that it does not track (`parameter.data.copy_(...)`) are seen on a CPU with compiled kernels if they change
    some of a few dozen values of a parameter. For all others there is `EventfulModel.weights_changed`.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = weakref.ref(model)
        self._number = 0
        self._stamps: list = []
        self._sample: int | None = None
        self._sampler: ops.cpu.Sampler | None = None
        self._children: list[tuple[dict, tuple]] = []
        self._tensors: list[tuple[dict, str]] = []
        self._modules: list[nn.Module] = []

    def version(self) -> int:
        """A number that is another one whenever the weights may be."""
        self._look_again()
        tensors = [owner.get(name) for owner, name in self._tensors]
        try:
            stamps = [(tensor.data_ptr(), tensor._version) for tensor in tensors]
        except (AttributeError, RuntimeError):  # one is gone, or an inference tensor, which has no version
            stamps = [None if tensor is None else derived.stamp(tensor) for tensor in tensors]
        if stamps != self._stamps:
            self._stamps, self._sampler, self._sample = stamps, _make_sampler(tensors), None
            self._number += 1
        if self._sampler is not None:
            sample, before = self._sampler.value(), self._sample
            self._sample = sample
            if before is not None and sample != before:
                self._number += 1
                self._forget()
        return self._number

    def changed(self) -> None:
        """Count the weights as changed."""
        self._stamps = []
        self._forget()

    def is_observed(self) -> bool:
        """Whether somebody hooked into a module inside, or gave one another `forward`."""
        self._look_again()
        return any(is_observed(module) for module in self._modules)

    def _look_again(self) -> None:
        if not self._children or any(tuple(children.values()) != known for children, known in self._children):
            self._look()

    def _forget(self) -> None:
        model = self._model()
        if model is not None:
            derived.forget(model.parameters())

    def _look(self) -> None:
        """Find out what the model consists of; it counts as changed."""
        model = self._model()
        assert model is not None
        modules = list(model.modules())
        self._children = [(m._modules, tuple(m._modules.values())) for m in modules if m._modules or m is model]
        owners = [owner for m in modules for owner in (m._parameters, m._buffers)]
        self._tensors = [(owner, name) for owner in owners for name, tensor in owner.items() if tensor is not None]
        self._modules = modules[1:]  # whoever hooks into the model itself sees it called in any case
        self._stamps = []


def _make_sampler(tensors: list[Tensor | None]) -> ops.cpu.Sampler | None:
    readable = [t for t in tensors if t is not None and t.device.type == "cpu" and t.is_contiguous()]
    return ops.cpu.Sampler(readable) if readable and ops.cpu.available() else None
