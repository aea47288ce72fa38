"""What every eventful model has in common: a policy, the switch between its two paths, state, and who watches its
frames."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .finite_frames import check_finite
from .frame import Frame, FrameTrace
from .policies import Policy
from .recorded import RecordedFrame, RecordedFrames, is_on_gpu, is_plain_call
from .streams import FrameForm, Streams
from .weights import WeightWatch

if TYPE_CHECKING:
    from .encoder import EventfulEncoder

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

    _encoder: EventfulEncoder

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

    def _run_dense(
        self, inputs: Tensor, grid: tuple[int, int], trace: FrameTrace | None,
        run: Callable[[Tensor, FrameTrace | None], Tensor],
    ) -> Tensor:  # fmt: skip
        """A dense frame: `run` with its input and trace, repeated from a recording where that is possible."""
        recorded = self._recorded_dense(inputs)
        if recorded is None:
            return run(inputs, trace)
        trace = trace or FrameTrace((True,) * len(inputs), grid)
        key = (inputs.shape, inputs.dtype, grid)
        with torch.inference_mode(False), torch.no_grad():  # its memory may be written to outside of inference mode
            kind = recorded.find(key, lambda recorder: RecordedFrame(recorder, None), inputs.device)
            result = kind.compute(inputs, lambda inputs: run(inputs, trace), trace)
        recorded.keep(key, kind)
        return result

    def _recorded_dense(self, inputs: Tensor) -> RecordedFrames | None:
        """This thread's recorded frames of the dense model as it is now; None where recording would be wrong, or gain
        nothing."""
        if torch.compiler.is_compiling() or not is_on_gpu(inputs) or self.training or torch.is_grad_enabled():
            return None
        version = self._weights().version()
        if self._weights().is_observed() or not is_plain_call(inputs):
            return None
        if self._of_thread is None:
            self._of_thread = threading.local()
        if getattr(self._of_thread, "version", None) != version:
            self._of_thread.version, self._of_thread.recorded = version, RecordedFrames()
        return self._of_thread.recorded

    def _run_frame(
        self, inputs: Tensor, form: FrameForm, state: Streams | None, embed: Callable[[Tensor], Tensor],
        note: Callable[[FrameTrace], None],
    ) -> Tensor:  # fmt: skip
        """An eventful frame of models with `blocks`: its tokens behind them, (B, N, D).

        A GPU gets work as early as possible, and nothing waits for it before it has all of the frame's.

        Args:
            inputs: images or tokens, (B, ...).
            embed: computes the tokens that the blocks get.
            note: notes in the trace what that executes.
        """
        state, key = self._state_in_use(state), (inputs.shape, form)
        with state.exclusive():
            early = state.recorded.find_input(key, inputs)
            refuse_others = check_finite(inputs) if early is None else early.start(inputs).refuse_others
            with self._open_frame(state.exclusive_frame, len(inputs), form, state) as frame:
                note(frame.trace)
                observed = self._weights().is_observed()
                if early is not None and early is state.recorded.input and not observed:
                    x, stays = early.tokens, True
                elif observed:
                    x, stays = embed(inputs), False
                else:
                    x, stays = state.recorded.embed(key, inputs, embed, self._weights_of_input)
                x = self._encoder.eventful(self.blocks, x, frame, observed, stays)
                refuse_others()
        return x

    def _weights_of_input(self) -> list[Tensor]:
        """Parameters and buffers outside of the blocks."""
        inside = {id(x) for x in (*self.blocks.parameters(), *self.blocks.buffers())}
        return [x for x in (*self.parameters(), *self.buffers()) if id(x) not in inside]

    @property
    def gate_names(self) -> tuple[str, ...]:
        """The model's gates, such as `blocks.0.qkv`: what a policy may decide on, and a trace tells of."""
        raise NotImplementedError

    def _state_in_use(self, state: Streams | None) -> Streams:
        return state or _in_use.get().get(id(self)) or self.state

    @contextmanager
    def _frame(self, streams: int, form: FrameForm, state: Streams | None) -> Iterator[Frame]:
        """An eventful frame of the first `streams` streams of a state."""
        state = self._state_in_use(state)
        with self._open_frame(state.frame, streams, form, state) as frame:
            yield frame

    @contextmanager
    def _open_frame(
        self, open_streams: Callable[..., AbstractContextManager], streams: int, form: FrameForm, state: Streams
    ) -> Iterator[Frame]:
        if torch.jit.is_tracing():
            raise RuntimeError(
                "a frame with state cannot be traced: set model.enabled = False to trace the dense model"
            )
        with open_streams(streams, form, self._weights().version()) as begins:
            tokens = form.prefix + form.grid[0] * form.grid[1]
            in_full = begins
            if is_on_gpu(form) and self._encoder.is_beyond_crossover(self.policy, tokens):
                in_full = (True,) * streams
            frame = Frame(self.policy, in_full, state, FrameTrace(begins, form.grid, in_full=in_full))
            yield frame
        state.trace = frame.trace
        self.report(frame.trace)
