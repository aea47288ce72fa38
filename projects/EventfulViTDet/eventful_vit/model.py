"""What every eventful model has in common: a policy, the switch between its two paths, state, and who watches its
frames."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import wraps
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .finite_frames import check_finite
from .frame import Frame, FrameTrace
from .policies import Policy, fixed_form
from .recorded import RecordedFrame, RecordedFrames, RecordedInput, arithmetic, is_on_gpu, is_plain_call
from .repetition import Repetition
from .streams import FrameForm, Streams
from .weights import WeightWatch, watch_of

if TYPE_CHECKING:
    from .encoder import EventfulEncoder

Observer = Callable[[FrameTrace], None]

_in_use: ContextVar[Mapping[int, Streams]] = ContextVar("states in use", default=MappingProxyType({}))


def not_compiled(function: Callable) -> Callable:
    """For what `torch.compile` around a model is to leave as it is: it would break there many times for nothing, and
    fails in it with PyTorch 2.4 and 2.8.

    PyTorch 2.8 compiles again for each new object among the arguments, such as a bound method or a partial.
    """
    left_alone: list[Callable] = []

    @wraps(function)
    def call(*args, **kwargs):
        if not torch.compiler.is_compiling():
            return function(*args, **kwargs)
        if not left_alone:  # not earlier: `disable` imports the compiler, which takes a second or two
            left_alone.append(torch.compiler.disable(function))
        return left_alone[0](*args, **kwargs)

    return call


class Traced(nn.Module):
    """A module that tells observers what its frames executed (see `count_operations`)."""

    category_behind = "pyramid"
    """What the operations of layers around it are counted as, unless their names say."""

    def __init__(self) -> None:
        super().__init__()
        self.observers: list[Observer] = []

    def report(self, trace: FrameTrace) -> None:
        """Show a finished frame to all observers."""
        for observer in tuple(self.observers):  # another thread may begin or end its counting meanwhile
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
            TypeError: it is no policy.
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
        """Free the state of all streams, whose next frame is a flush. Raises RuntimeError within a frame."""
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

    def _apply(self, *args, **kwargs) -> EventfulModel:
        """As of any module. Recorded frames would keep weights in memory that are moved or converted."""
        if self._own_state is not None:
            self._own_state.recorded.clear()
        self._of_thread = None
        return super()._apply(*args, **kwargs)

    def _weights(self) -> WeightWatch:
        return watch_of(self, self)

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), **self._without_state()}

    @staticmethod
    def _without_state() -> dict[str, None]:
        """Attributes of a copy that a model does not share with it."""
        return {"_own_state": None, "_watch": None, "_of_thread": None}

    def _needs_earlier_frames(self) -> bool:
        """Whether the next frame is one of running streams."""
        return self.enabled and not self.training

    def _replicate_for_data_parallel(self) -> EventfulModel:
        """As of any module, for the dense model. `nn.DataParallel` makes copies for a single call, which would be the
        only frame that they see.

        Raises RuntimeError for one with streams.
        """
        if self._needs_earlier_frames():
            raise RuntimeError(
                "nn.DataParallel copies a model for each call, and copies have no streams; give each device a model, "
                "for instance in a process of its own, and set model.enabled = False to replicate the dense model"
            )
        replica = super()._replicate_for_data_parallel()
        vars(replica).update(self._without_state())
        return replica

    # Frames.

    def _run_dense(
        self, inputs: Tensor, grid: tuple[int, int], trace: FrameTrace | None,
        run: Callable[[Tensor, FrameTrace | None], Tensor],
    ) -> Tensor:  # fmt: skip
        """A dense frame: `run` with its input and trace, repeated from a recording where that is possible."""
        if not is_on_gpu(inputs) or self.training or torch.is_grad_enabled() or _is_traced():
            return run(inputs, trace)
        if self._weights().is_partly_training():  # somebody wants other values each time
            return run(inputs, trace)
        if torch.is_inference_mode_enabled():  # recorded memory may be written to outside of it
            with torch.inference_mode(False), torch.no_grad():
                return self._run_dense(inputs, grid, trace, run)
        key = (inputs.shape, inputs.dtype, inputs.device, grid, arithmetic(inputs))
        result = self._repeat_dense(key, inputs, trace)
        if result is not None:
            return result
        recorded = self._recorded_dense(inputs)
        if recorded is None:
            return run(inputs, trace)
        trace = trace or FrameTrace((True,) * len(inputs), grid)
        kind = recorded.find(key, lambda recorder: RecordedFrame(recorder, None), inputs.device)
        result = kind.compute(inputs, lambda inputs: run(inputs, trace), trace)
        recorded.keep(key, kind)
        self._prepare_repetition(recorded, key, trace, None, None)
        return result

    def _repeat_dense(self, key: Hashable, inputs: Tensor, trace: FrameTrace | None) -> Tensor | None:
        """A dense frame that is like the last one of this thread (repetition.py), else None."""
        recorded = getattr(self._of_thread, "recorded", None)
        repetition = None if recorded is None else recorded.take_repetition()
        if repetition is None or not self._may_repeat(repetition, key, inputs):
            return None
        result, _ = repetition.start(inputs)
        if self._weights().version() != self._of_thread.version:
            return None
        if trace is not None:
            trace.gates, trace.blocks = repetition.trace.gates, repetition.trace.blocks
        recorded.repetition = repetition
        return result

    def _may_repeat(self, repetition: Repetition, key: Hashable, inputs: Tensor) -> bool:
        """Whether a frame is like the one before it, as far as that can be told without a look at the weights."""
        return (
            repetition.key == key
            and is_plain_call(inputs)
            and not self._weights().is_observed_as_known()
            and not torch.jit.is_tracing()
        )

    def _prepare_repetition(
        self, recorded: RecordedFrames, key: Hashable, trace: FrameTrace, policy: Hashable, source: RecordedInput | None
    ) -> None:
        """Let the next frame repeat the last one at once if it is recorded."""
        kind = recorded.last
        if kind is None or not kind.is_recorded:
            return
        if recorded.weights is None:
            recorded.weights = [x.detach() for x in (*self.parameters(), *self.buffers())]
        recorded.repetition = Repetition(key, policy, kind, source, trace, recorded.weights)

    def _recorded_dense(self, inputs: Tensor) -> RecordedFrames | None:
        """This thread's recorded frames of the dense model as it is now; None where recording would be wrong."""
        version = self._weights().version()
        if self._weights().is_observed() or not is_plain_call(inputs):
            return None
        known = self._of_thread
        if known is None:  # two threads may both make one, of which one is used once
            known = self._of_thread = threading.local()
        if getattr(known, "version", None) != version:
            known.version, known.recorded = version, RecordedFrames()
        return known.recorded

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
        if torch.is_inference_mode_enabled() or torch.is_grad_enabled():
            # State outlives the call, so it must not consist of inference tensors, which a later call outside of
            # inference mode could not update.
            with torch.inference_mode(False), torch.no_grad():
                return self._run_frame(inputs, form, state, embed, note)
        state, key = self._state_in_use(state), (inputs.shape, form, arithmetic(inputs))
        with state.exclusive():
            policy = state.next_policy(self.policy)
            x = self._repeat_frame(key, inputs, state, policy)
            if x is None:
                x = self._run_other_frame(key, inputs, form, state, policy, embed, note)
            trace = state.trace
        self.report(trace)  # observers may compute frames with this state
        return x

    def _repeat_frame(self, key: Hashable, inputs: Tensor, state: Streams, policy: Policy) -> Tensor | None:
        """An eventful frame that is like the last one of its state (repetition.py), else None. If the weights turn out
        to have changed, no stream is running any more."""
        repetition, streams, version = state.recorded.take_repetition(), len(inputs), self._weights().last_version
        if repetition is None or not state.continues(streams, version) or not self._may_repeat(repetition, key, inputs):
            return None
        self._check_modes()
        form = fixed_form(policy)
        if form is None or form != repetition.policy:
            if not self._encoder.write_budget(repetition.kind, policy):
                return None
            repetition = replace(repetition, policy=form)
        state.begin(streams)
        x, answer = repetition.start(inputs)
        if self._weights().version() != version:
            return None
        answer.refuse_others()
        state.end(streams)
        state.recorded.repetition, state.trace = repetition, repetition.new_trace()
        return x

    def _run_other_frame(
        self, key: Hashable, inputs: Tensor, form: FrameForm, state: Streams, policy: Policy,
        embed: Callable[[Tensor], Tensor], note: Callable[[FrameTrace], None],
    ) -> Tensor:  # fmt: skip
        early = state.recorded.find_input(key, inputs)
        refuse_others = check_finite(inputs) if early is None else early.start(inputs).refuse_others
        observed = self._weights().is_observed()
        self._check_modes()
        with self._open_frame(len(inputs), form, state, policy) as frame:
            note(frame.trace)
            if early is not None and early is state.recorded.input and not observed:
                x, stays = early.tokens, True
            elif observed:
                x, stays = embed(inputs), False
            else:
                x, stays = state.recorded.embed(key, inputs, embed, self._weights_of_input)
            x = self._encoder.eventful(self.blocks, x, frame, observed, stays)
            refuse_others()
        if stays and not any(frame.trace.flushed):
            source = state.recorded.input
            self._prepare_repetition(state.recorded, key, frame.trace, fixed_form(policy), source)
        return x

    def _check_modes(self) -> None:
        """Raise ValueError for blocks that would drop branches."""
        if self._weights().is_partly_training():
            self._encoder.check_modes(self.blocks)

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
        with state.exclusive():
            policy = state.next_policy(self.policy)
            with self._open_frame(streams, form, state, policy) as frame:
                yield frame
        self.report(frame.trace)

    @contextmanager
    def _open_frame(self, streams: int, form: FrameForm, state: Streams, policy: Policy) -> Iterator[Frame]:
        if torch.jit.is_tracing():
            raise RuntimeError(
                "a frame with state cannot be traced: set model.enabled = False to trace the dense model"
            )
        with state.exclusive_frame(streams, form, self._weights().version()) as begins:
            tokens = form.prefix + form.grid[0] * form.grid[1]
            in_full = begins
            if is_on_gpu(form) and self._encoder.is_beyond_crossover(policy, tokens):
                in_full = (True,) * streams
            frame = Frame(policy, in_full, state, FrameTrace(begins, form.grid, in_full=in_full))
            yield frame
        state.trace = frame.trace


def _is_traced() -> bool:
    """Whether somebody makes a program of this call: a repeated frame would be a constant in it."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()
