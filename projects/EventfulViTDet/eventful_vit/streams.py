"""What a model keeps of its streams from one frame to the next, and which streams are running."""

from __future__ import annotations

import copy
import math
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .recorded import RecordedFrames

if TYPE_CHECKING:
    from .frame import FrameTrace
    from .policies import Policy


@dataclass(frozen=True)
class FrameForm:
    """What all frames of running streams have in common."""

    grid: tuple[int, int]
    """Tokens (h, w)."""
    dtype: torch.dtype
    device: torch.device
    prefix: int = 0
    """Tokens beside those of the grid."""


class Streams:
    """The state of a model's streams. A stream is a position in the batch: one video after another.

    It owns every tensor that outlives a frame, with a slot per stream. A stream is *running* if its last frame came
    through; a frame of any other stream is a flush, computed in full. Models have one such state of their own; further
    ones (`model.new_state()`) may be handed in with each frame, kept aside, moved, copied and dropped.

    Example:
        >>> left, right = model.new_state(), model.new_state()
        >>> model(first_camera, left), model(second_camera, right)
    """

    def __init__(self) -> None:
        self.trace: FrameTrace | None = None
        """What the last frame selected and executed. Its tensors belong to this state: read them before the next
        frame."""
        self.frame_policy: Policy | None = None
        """What the policy said of the last frame."""
        self.recorded = RecordedFrames()
        """Recorded frames (recorded.py); they point to this state's memory, and are dropped with it."""
        self._slots: dict[str, Tensor] = {}
        self._missing: dict[str, set[int]] = {}
        self._running: list[bool | None] = []  # None: its frame is being computed
        self._form: FrameForm | None = None
        self._weights: int | None = None
        self._of_policy: Any = None  # what a policy remembers of these streams
        self._policy: Policy | None = None  # the one that was asked last, ...
        self._asked_about: FrameTrace | None = None  # ... and what it was told of
        self._in_use = threading.Lock()
        self._thread: int | None = None  # which one has it in use
        _states.add(self)

    @property
    def running(self) -> tuple[bool, ...]:
        """For each stream, whether its next frame continues its video."""
        return tuple(map(bool, self._running))

    def reset(self, streams: Sequence[int] | None = None) -> None:
        """Forget the past: the next frame of these streams (positions in the batch), or of all, is a flush.

        Memory is kept for the next video; `release` frees it. While a frame is being computed, this concerns the one
        after it.
        """
        if streams is None:
            self._running = []
            return
        for stream in streams:
            _check_place(stream)
            if stream < len(self._running):
                self._running[stream] = False

    def swap(self, first: int, second: int) -> None:
        """Exchange the places of two streams in the batch, with all that is kept of them."""
        _check_place(min(first, second))
        with self.exclusive():
            self._swap(first, second)

    def _swap(self, first: int, second: int) -> None:
        self._running += [False] * (max(first, second) + 1 - len(self._running))
        self._running[first], self._running[second] = self._running[second], self._running[first]
        for name, slot in list(self._slots.items()):
            if len(slot) > min(first, second):  # with memory for the other, too: a stream keeps its past wherever it is
                size = max(len(slot), first + 1, second + 1)
                slot = self.slots(name, (size, *slot.shape[1:]), slot.dtype, slot.device)
                slot[[first, second]] = slot[[second, first]]
        exchanged = {first: second, second: first}
        self._missing = {
            part: {exchanged.get(stream, stream) for stream in streams} for part, streams in self._missing.items()
        }

    def release(self) -> None:
        """Free the memory of all streams, whose next frame is a flush.

        Raises RuntimeError while a frame is being computed with it; so do `swap` and `to`.
        """
        with self.exclusive():
            self._release_slots()
            self._of_policy = self._policy = None

    def _release_slots(self) -> None:
        """The same, but for what a policy remembers: it was asked about the next frame already."""
        self._running = []
        self._slots = {}
        self._missing = {}
        self.recorded.clear()
        self.trace = self._asked_about = None

    def to(self, device: torch.device | str) -> Streams:
        """Move everything to a device, for instance to set a paused stream aside in host memory."""
        with self.exclusive():
            self._move(device)
        return self

    def _move(self, device: torch.device | str) -> None:
        self.recorded.clear()
        self._of_policy = self._learnt()  # the trace, which knows what the last frame cost, is not moved
        self.trace = self._asked_about = None
        self._slots = {name: slot.to(device) for name, slot in self._slots.items()}
        if self._form is not None:
            self._form = replace(self._form, device=torch.empty(0, device=device).device)

    @property
    def nbytes(self) -> int:
        """Bytes held for all streams."""
        return sum(slot.numel() * slot.element_size() for slot in self._slots.values())

    def slots(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """A state tensor's slots for the first `shape[0]` streams, allocated on first use.

        A stream's flush writes its slot in full before anything reads it, so slots are handed out uninitialised.
        """
        slot = self._slots.get(name)
        if slot is not None and slot.shape == shape:
            return slot
        try:
            if slot is None or slot.shape[1:] != shape[1:]:
                slot = torch.empty(shape, dtype=dtype, device=device)
            elif slot.shape[0] < shape[0]:
                slot = torch.cat([slot, slot.new_empty(shape[0] - slot.shape[0], *shape[1:])])
            else:
                return slot[: shape[0]]
        except torch.OutOfMemoryError as error:
            more = math.prod(shape) * dtype.itemsize
            raise torch.OutOfMemoryError(
                f"no memory on {device} for {more:,} bytes of {name}, beside {self.nbytes:,} bytes of state of "
                f"{shape[0]} streams; fewer streams, smaller frames or a state_dtype of 16 bits take less"
            ) from error
        self._slots[name] = slot
        self.recorded.clear_kinds()  # they point to the old memory
        return slot

    def next_policy(self, policy: Policy) -> Policy:
        """What a policy says of these streams' next frame, after what it remembers of earlier ones. To be asked once
        for each frame, before anything of it is computed."""
        self.frame_policy, self._of_policy = policy.next(self._of_policy, self._news)
        self._policy, self._asked_about = policy, self.trace
        return self.frame_policy

    @property
    def _news(self) -> FrameTrace | None:
        """The last frame's trace, if no policy was told of it yet."""
        return None if self.trace is self._asked_about else self.trace

    def _learnt(self) -> Any:
        """What the policy remembers, with the last frame."""
        if self._policy is None or self._news is None:
            return self._of_policy
        return self._policy.next(self._of_policy, self._news)[1]

    def note_missing(self, part: str, streams: int) -> None:
        """Say that the first `streams` streams came through a part of the model that did not bring its slots up to
        date."""
        self._missing.setdefault(part, set()).update(range(streams))

    def take_missing(self, part: str, streams: int) -> set[int]:
        """Which of the first `streams` streams a part has to compute in full, since its slots are not up to date."""
        missing = self._missing.get(part, set())
        found = {stream for stream in missing if stream < streams}
        missing -= found
        if found and not missing:
            del self._missing[part]
        return found

    @property
    def is_complete(self) -> bool:
        """Whether the slots of all parts are up to date."""
        return not self._missing

    def continues(self, streams: int, weights: int) -> bool:
        """Whether the first `streams` streams are all running, with weights of this version."""
        return weights == self._weights and len(self._running) >= streams and all(self._running[:streams])

    def begin(self, streams: int) -> None:
        """Say that a frame of the first `streams` streams is being computed: they are running again at its `end`."""
        self._running[:streams] = [None] * streams

    def end(self, streams: int) -> None:
        """Say that their frame came through. Those that were reset meanwhile are not running."""
        now = (self._running + [False] * streams)[:streams]
        self._running[:streams] = [is_running is None for is_running in now]

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other threads out.

        Raises:
            RuntimeError: another thread computes a frame with this state, or this is called within a frame of it.
        """
        if not self._in_use.acquire(blocking=False):
            if self._thread == threading.get_ident():
                raise RuntimeError(
                    "this state is computing a frame, and this was called within it, as by a hook; call it when the "
                    "frame is done, or use another state: model.new_state()"
                )
            raise RuntimeError(
                "this state is computing another frame in another thread; give each thread its own: model.new_state()"
            )
        self._thread = threading.get_ident()
        try:
            yield
        finally:
            self._thread = None
            self._in_use.release()

    @contextmanager
    def frame(self, streams: int, form: FrameForm, weights: int) -> Iterator[tuple[bool, ...]]:
        """One frame of the first `streams` streams; yields which of them flush.

        They are running again only when the frame has come through: an interrupted one leaves half of the state behind,
        and is followed by a flush.

        Args:
            form: what the frame is like.
            weights: a number that changes with the model's weights; streams begin again when it does.

        Raises:
            ValueError: running streams have another size.
            RuntimeError: as `exclusive`.
        """
        with self.exclusive(), self.exclusive_frame(streams, form, weights) as flush:
            yield flush

    @contextmanager
    def exclusive_frame(self, streams: int, form: FrameForm, weights: int) -> Iterator[tuple[bool, ...]]:
        """The same where this state is kept for the frame already (`exclusive`)."""
        self._prepare(form, weights)
        running = (self._running + [False] * streams)[:streams]
        self.begin(streams)
        yield tuple(not alive for alive in running)
        self.end(streams)

    def _prepare(self, form: FrameForm, weights: int) -> None:
        if weights != self._weights:
            self._running = []
            self.recorded.clear()
        if self._form is not None and form.grid != self._form.grid and any(self._running):
            raise ValueError(
                f"the running streams have {self._form.grid[0]} x {self._form.grid[1]} tokens and this frame "
                f"{form.grid[0]} x {form.grid[1]}; call reset() before a video of another size"
            )
        if form != self._form:
            self._release_slots()
        self._form, self._weights = form, weights

    def __copy__(self) -> Streams:
        """With memory of its own, too: two states that share it would write into each other's streams."""
        return copy.deepcopy(self)

    def __getstate__(self) -> dict:
        """For copies and pickles: everything but what cannot be copied or points to memory."""
        gone = dict.fromkeys(("_in_use", "_thread", "_policy", "frame_policy", "trace", "_asked_about"))
        return {**vars(self), **gone, "recorded": RecordedFrames(), "_of_policy": self._learnt()}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state, _in_use=threading.Lock())
        _states.add(self)


_states: weakref.WeakSet[Streams] = weakref.WeakSet()


def _free_states() -> None:
    """In a forked process: its parent's other threads are not there to finish their frames."""
    for state in _states:
        if state._thread != threading.get_ident():
            state._in_use, state._thread = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_states)


def _check_place(stream: int) -> None:
    if stream < 0:
        raise ValueError(f"a stream is a position in the batch, got {stream}")
