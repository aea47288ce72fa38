"""Noticing that a model's weights changed, whoever changed them: streams that were computed with the old ones begin
again."""

from __future__ import annotations

import os
import secrets
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, count, repeat
from operator import attrgetter, contains
from types import MappingProxyType

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from . import ops
from .layers import is_observed
from .ops import derived
from .ops.fork_safe_lock import ForkSafeLock

SETTINGS = ("approximate", "eps", "scale", "scaling")
"""Of modules: settings of activations and norms, and factors of attention's scores. Recorded frames keep them."""
ADAPTERS_IN_USE = ("_active_adapter", "_disable_adapters")
"""Of PEFT's layers: which of their adapters are in use, and whether any is. No weight changes with them."""

_looking = ForkSafeLock()
_version_of = Tensor._version.__get__
_is_training = attrgetter("training")
_get = MappingProxyType.get
_numbers: Iterator[int]
"""Versions differ between models and processes, too: a state that is handed to another model, or loaded where other
weights may be, begins again."""


def _restart_numbers() -> None:
    global _numbers
    _numbers = count(1 + secrets.randbits(48))


_restart_numbers()
if hasattr(os, "register_at_fork"):  # a forked process would give the numbers that its parent gives
    os.register_at_fork(after_in_child=_restart_numbers)


class HookWatch:
    """Looks whether somebody hooked into one of some modules, or gave it another `forward`.

    This takes microseconds as long as nobody registered a hook on any module since the last look.
    """

    def __init__(self, modules: Sequence[nn.Module], is_hooked: Callable[[nn.Module], bool] = is_observed) -> None:
        """
        Args:
            is_hooked: whether the hooks of a module count.
        """
        self._modules, self._is_hooked = modules, is_hooked
        self._attributes = [module.__dict__ for module in modules]
        self._any_hook = False
        self._hooks_seen = -1

    def is_observed(self) -> bool:
        """Whether somebody did."""
        # Every hook gets the next number, so nobody hooked in since a look that found none if no number was given.
        if self._any_hook or self._hooks_seen != RemovableHandle.next_id:
            self._hooks_seen = RemovableHandle.next_id
            self._any_hook = any(map(self._is_hooked, self._modules))
        return self._any_hook or any(map(contains, self._attributes, repeat("forward")))


class WeightWatch:
    """Looks at a model's parameters, buffers and modules in every eventful frame.

    Seen are: writes that PyTorch tracks, other parameters or modules in place of the old ones, moves, changes of type,
    modules of another class, classes with another `forward`, other `SETTINGS`, other adapters of PEFT in use. Threads
    may share it: after a change, all of them find the same new version. Writes that it does not track
    (`parameter.data.copy_(...)`) are seen on a CPU with compiled kernels if they change some of a few dozen values of a
    parameter. For all others there is `EventfulModel.weights_changed`.

    A look runs over flat lists, without a line of Python for each of them: 35 microseconds for ViTDet-B's 171 tensors
    and 135 modules, where loops took 60.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = weakref.ref(model)
        self._number = 0
        self._stamps: tuple | None = None
        self._sample: int | None = None
        self._sampler: ops.cpu.Sampler | None = None
        self._children: list[dict] = []
        self._known_children: list[nn.Module | None] = []
        self._modules: list[nn.Module] = []
        self._classes: list[type] = []
        self._of_classes: list[Mapping[str, object]] = []
        self._forwards: list[object] = []
        self._owners: list[dict] = []
        self._tensors: list[Tensor] = []
        self._ids: list[int] = []
        self._set_in: list[dict] = []
        self._set_names: list[str] = []
        self._settings: list[object] = []
        self._hooks = HookWatch(())

    def version(self) -> int:
        """A number that is another one whenever the weights may be."""
        with _looking.lock:
            return self._current_version()

    def _current_version(self) -> int:
        self._look_again()
        found = list(chain.from_iterable(map(dict.values, self._owners)))
        ids = list(map(id, found))
        if ids != self._ids:
            # They are kept until the next look, so that nothing else gets their identity.
            self._ids, self._tensors, self._stamps = ids, [tensor for tensor in found if tensor is not None], None
        settings = list(map(dict.get, self._set_in, self._set_names))
        if settings != self._settings:
            self._settings, self._stamps = settings, None
        stamps = _stamps(self._tensors)
        if stamps != self._stamps:
            if self._number:  # other values may lie where the old ones did, in the same version
                self._forget()
            self._number = next(_numbers)
            self._stamps, self._sampler, self._sample = stamps, _make_sampler(self._tensors), None
        if self._sampler is not None:
            sample = self._sampler.value()
            if self._sample not in (None, sample):
                self._number = next(_numbers)
                self._forget()
            self._sample = sample
        return self._number

    def changed(self) -> None:
        """Count the weights as changed."""
        with _looking.lock:
            self._stamps = None
            self._forget()

    @property
    def last_version(self) -> int:
        """The `version` that was found last."""
        return self._number

    def is_observed(self) -> bool:
        """Whether somebody hooked into a module inside, or gave one another `forward`."""
        with _looking.lock:
            self._look_again()
        return self.is_observed_as_known()

    def is_observed_as_known(self) -> bool:
        """The same of the modules that were there at the last look: quick, as long as no hook was registered."""
        return self._hooks.is_observed()

    def is_partly_training(self) -> bool:
        """Whether a module that was inside at the last look is in training mode."""
        return any(map(_is_training, self._modules))

    def _look_again(self) -> None:
        children = list(chain.from_iterable(map(dict.values, self._children)))
        is_known = children == self._known_children and self._classes == list(map(type, self._modules))
        if not (self._children and is_known and self._forwards == _forwards(self._of_classes)):
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
        children = [m._modules for m in modules if m._modules or m is model]
        self._owners = [owner for m in modules for owner in (m._parameters, m._buffers) if owner]
        self._modules = modules[1:]
        self._classes = list(map(type, self._modules))
        classes = dict.fromkeys(chain.from_iterable(kind.__mro__ for kind in dict.fromkeys(self._classes)))
        self._of_classes = list(map(vars, classes))  # a subclass may get a `forward` that it had not
        self._forwards = _forwards(self._of_classes)
        self._hooks = HookWatch(self._modules)  # hooks of the model itself are called in any case
        self._ids = []
        self._stamps = None
        settings = [setting for m in modules for setting in _settings_of(m)]
        self._set_in, self._set_names = [place for place, _ in settings], [name for _, name in settings]
        self._known_children = [child for each in children for child in each.values()]
        self._children = children  # last: a process forked before this looks again


def watch_of(owner: nn.Module, model: nn.Module) -> WeightWatch:
    """The watch of `model` that `owner` keeps as `_watch`, made on first use: one, also where threads begin together.

    With two of them, streams that began with one would begin again with the other.
    """
    if owner._watch is None:
        with _looking.lock:
            if owner._watch is None:
                owner._watch = WeightWatch(model)
    return owner._watch


def _forwards(of_classes: list[Mapping[str, object]]) -> list[object]:
    return list(map(_get, of_classes, repeat("forward")))


def _settings_of(module: nn.Module) -> Iterator[tuple[dict, str]]:
    """The settings of a module: dictionaries, and names in them."""
    attributes = vars(module)
    for name in SETTINGS:
        value = attributes.get(name)
        if type(value) in (float, str):
            yield attributes, name
        elif type(value) is dict:  # one for each adapter
            yield from ((value, key) for key, factor in value.items() if type(factor) in (float, int))
    for name in ADAPTERS_IN_USE:
        if name in attributes or hasattr(type(module), name):
            yield attributes, name


def _stamps(tensors: list[Tensor]) -> tuple:
    """What changes when one of them is written to or moved."""
    try:
        return list(map(_version_of, tensors)), list(map(Tensor.data_ptr, tensors))
    except RuntimeError:  # one is an inference tensor, which has no version
        return tuple(map(derived.stamp, tensors))


def _make_sampler(tensors: list[Tensor]) -> ops.cpu.Sampler | None:
    readable = [t for t in tensors if derived.is_ordinary(t) and t.device.type == "cpu" and t.is_contiguous()]
    return ops.cpu.Sampler(readable) if readable and ops.cpu.available() else None
