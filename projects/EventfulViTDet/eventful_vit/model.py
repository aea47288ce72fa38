"""What every eventful model has in common: a policy, the switch between its two paths, state, and who watches its
frames."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

import torch
from torch import Tensor, nn

from . import ops
from .frame import Frame, FrameTrace
from .policies import Policy
from .recorded import RecordedFrames
from .streams import FrameForm, Streams
from .weights import WeightWatch

Observer = Callable[[FrameTrace], None]

_in_use: ContextVar[Mapping[int, Streams]] = ContextVar("states in use", default=MappingProxyType({}))


class Traced(nn.Module):
    """A module that tells observers what its frames executed (see `count_operations`)."""

    category_behind = "pyramid"
    """What the operations of layers around it are counted as, unless their names say."""

    def __init__(self) -> None:
        super().__init__()
        self.observers: list[Observer] = []

    def report(self, trace: FrameTrace) -> None:
        """Show a finished frame to all observers."""
        for observer in self.observers:
            observer(trace)

    def counted(self) -> Iterable[nn.Module]:
        """The modules inside whose operations are in the traces."""
        return self.modules()

    def categories(self) -> Mapping[nn.Module, str]:
        """What the operations of other modules inside are counted as, such as "heads"."""
        return {}

    def __getstate__(self) -> dict:
        """For copies and pickles: without who watches."""
        return {**vars(self), "observers": []}


class EventfulModel(Traced):
    """Base of models that recompute only the tokens that changed.

    In training mode, and with `enabled = False`, it is the dense model. In eval mode with `enabled = True` every
    position of the batch is a *stream*: a video whose frames arrive in order, one per call, until `reset`. Copies and
    pickles of a model have its weights and none of its state.
    """

    def __init__(self, enabled: bool) -> None:
        super().__init__()
        self.enabled = enabled
        self._own_state: Streams | None = None
        self._watch: WeightWatch | None = None
        self._of_thread: threading.local | None = None

    # Streams and their state.

    @property
    def state(self) -> Streams:
        """The state of frames that come without one."""
        if self._own_state is None:
            self._own_state = Streams()
        return self._own_state

    def new_state(self) -> Streams:
        """A further state, to be handed in with the frames of other streams. Any number of them share the model."""
        return Streams()

    @contextmanager
    def using(self, state: Streams) -> Iterator[None]:
        """Let this model's frames in this thread use a state, where it cannot be handed in with them."""
        token = _in_use.set({**_in_use.get(), id(self): state})
        try:
            yield
        finally:
            _in_use.reset(token)

    def set_policy(self, policy: Policy) -> None:
        """Exchange the policy; it decides from the next frame on, without a flush.

        Raises:
            ValueError: it has nothing for one of the gates, or names one that does not exist.
        """
        if not isinstance(policy, Policy):
            raise TypeError(f"a policy such as TopR(256) is needed, got {policy!r}")
        policy.check(self.gate_names)
        self.policy = policy

    def reset(self, streams: Sequence[int] | None = None) -> None:
        """Forget the past: the next frame of these streams (positions in the batch), or of all, is a flush.

        This and the next two are those of the model's own state. Its memory is kept for the next video.
        """
        self.state.reset(streams)

    def release(self) -> None:
        """Free the state of all streams, whose next frame is a flush."""
        self.state.release()

    def state_bytes(self) -> int:
        """Bytes of state held for all streams."""
        return self.state.nbytes

    def weights_changed(self) -> None:
        """Say that weights were changed in a way that PyTorch does not track, such as `parameter.data[0] = 1`.

        Streams begin again, with the new weights. Other changes are noticed without this (weights.py).
        """
        self._weights().changed()

    def train(self, mode: bool = True) -> EventfulModel:
        """As of any module; a change of mode ends the running streams."""
        if mode != self.training and self._watch is not None:
            self._watch.changed()
        return super().train(mode)

    def _weights(self) -> WeightWatch:
        if self._watch is None:
            self._watch = WeightWatch(self)
        return self._watch

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "_own_state": None, "_watch": None, "_of_thread": None}

    # Frames.

    def _recorded_dense(self, x: Tensor) -> RecordedFrames | None:
        """This thread's recorded frames of the dense model as it is now; None where recording would be wrong, or gain
        nothing."""
        if not x.is_cuda or self.training or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return None
        version = self._weights().version()
        if self._weights().is_observed():
            return None
        if self._of_thread is None:
            self._of_thread = threading.local()
        if getattr(self._of_thread, "version", None) != version:
            self._of_thread.version, self._of_thread.recorded = version, RecordedFrames()
        return self._of_thread.recorded

    @property
    def gate_names(self) -> tuple[str, ...]:
        """The model's gates, such as `blocks.0.qkv`: what a policy may decide on, and a trace tells of."""
        raise NotImplementedError

    @contextmanager
    def _frame(self, streams: int, form: FrameForm, state: Streams | None) -> Iterator[Frame]:
        """An eventful frame of the first `streams` streams of a state."""
        if torch.jit.is_tracing():
            raise RuntimeError(
                "a frame with state cannot be traced: set model.enabled = False to trace the dense model"
            )
        state = state or _in_use.get().get(id(self)) or self.state
        with state.frame(streams, form, self._weights().version()) as flush:
            frame = Frame(self.policy, flush, state, FrameTrace(flush, form.grid))
            yield frame
        state.trace = frame.trace
        self.report(frame.trace)


def check_finite(images: Tensor) -> Callable[[], None]:
    """Raise ValueError, naming the streams, for frames (B, ...) with NaN or infinity.

    On a GPU, nothing waits for the answer here: the returned function raises. Call it within the frame, when all its
    work is under way, so that the GPU has something to do meanwhile.
    """
    finite = ops.finite(images)
    if not finite.is_cuda:
        _refuse_others(finite, "no state was changed")
        return lambda: None
    answer = torch.empty(finite.shape, dtype=finite.dtype, pin_memory=True).copy_(finite, non_blocking=True)
    with torch.cuda.device(finite.device):
        arrived = torch.cuda.Event()
        arrived.record()

    def refuse() -> None:
        arrived.synchronize()
        _refuse_others(answer, "all streams begin again")

    return refuse


def _refuse_others(finite: Tensor, consequence: str) -> None:
    if not bool(finite.all()):
        bad = (~finite).nonzero().flatten().tolist()
        raise ValueError(f"NaN or infinity in the frame of stream {', '.join(map(str, bad))}; {consequence}")
