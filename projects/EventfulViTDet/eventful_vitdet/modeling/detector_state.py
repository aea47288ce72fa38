"""What a video detector keeps between frames: where each stream stands, and the state of its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from eventful_vit import FrameTrace, Streams


@dataclass(frozen=True)
class FramePosition:
    """Where a frame stands in its video."""

    video_id: int | str
    frame_id: int
    step: int | None
    """Distance between neighbouring frame numbers, where it is known."""
    size: tuple[int, int]
    """Height and width in pixels of the frame as the model sees it."""

    @classmethod
    def of(cls, frame: Mapping) -> FramePosition | None:
        """The position of a model input; None for a single image that belongs to no video."""
        if "video_id" not in frame:
            return None
        if "frame_id" not in frame:
            raise KeyError(f"the input of video {frame['video_id']} has no 'frame_id': its frames cannot be ordered")
        height, width = frame["image"].shape[-2:]
        return cls(frame["video_id"], int(frame["frame_id"]), frame.get("frame_step"), (height, width))

    def follow(self, before: FramePosition | None) -> tuple[bool, FramePosition]:
        """Whether this frame continues a sequence, and the position to compare the next one with.

        A gap in the frame numbers ends a sequence; a regular step of every n-th frame does not. Where the input does
        not tell the step, it is taken from the frames: it is 1 until a longer one has been seen, so such a
        sequence starts over at its second frame.
        """
        if before is None or self.video_id != before.video_id or self.size != before.size:
            return False, self
        distance = self.frame_id - before.frame_id
        step = self.step or before.step or 1
        known = FramePosition(self.video_id, self.frame_id, self.step or (max(distance, 1)), self.size)
        return 0 < distance <= step, known


@dataclass(frozen=True)
class DetectorTrace:
    """What the parts of a detector did in a frame of B streams."""

    flushed: tuple[bool, ...]
    """For each input, whether it began a sequence and was computed in full."""
    canvas: tuple[int, int]
    """Height and width in pixels of the frames with their padding."""
    vit: FrameTrace | None
    """Of the Transformer; None for the dense model."""
    pyramid: FrameTrace | None
    """Of the eventful pyramid, where it ran."""


@dataclass
class DetectorState:
    """What a detector keeps of its streams. A stream is a position in the list of inputs."""

    vit: Streams = field(default_factory=Streams)
    pyramid: Streams = field(default_factory=Streams)
    trace: DetectorTrace | None = None
    """Of the last frame."""
    positions: list[FramePosition | None] = field(default_factory=list)
    """Where each stream's last frame stood; None before its first."""
    canvas: tuple[int, int] | None = None

    def __getstate__(self) -> dict:
        """For copies and pickles: without the trace, which names the model's layers."""
        return {**vars(self), "trace": None}

    def reset(self, streams: Sequence[int] | None = None) -> None:
        """Forget some streams, or all: their next frame starts a sequence."""
        self.vit.reset(streams)
        self.pyramid.reset(streams)
        if streams is None:
            self.positions = []
            self.canvas = None
            return
        for stream in streams:
            if stream < len(self.positions):
                self.positions[stream] = None

    def swap(self, first: int, second: int) -> None:
        """Exchange the places of two streams in the list of inputs."""
        self.vit.swap(first, second)
        self.pyramid.swap(first, second)
        self.positions += [None] * (max(first, second) + 1 - len(self.positions))
        self.positions[first], self.positions[second] = self.positions[second], self.positions[first]

    @property
    def nbytes(self) -> int:
        """Bytes held for all streams."""
        return self.vit.nbytes + self.pyramid.nbytes

    def begin(self, frames: Sequence[Mapping]) -> tuple[list[bool], list[FramePosition | None]]:
        """Compare frames with the streams' last ones, and reset streams that begin a sequence.

        Returns:
            For each stream: whether its frame begins a sequence, and the position to remember once the frame is
            through.
        """
        before = (self.positions + [None] * len(frames))[: len(frames)]
        begins, positions = [], []
        for frame, last in zip(frames, before):
            position = FramePosition.of(frame)
            continues, known = position.follow(last) if position else (False, None)
            begins.append(not continues)
            positions.append(known)
        self.reset([stream for stream, begin in enumerate(begins) if begin])
        return begins, positions

    def use_canvas(self, canvas: tuple[int, int]) -> None:
        """Take frames of a padded size; another one than the last frame's ends all running sequences."""
        if self.canvas is not None and canvas != self.canvas:
            self.vit.reset()
            self.pyramid.reset()
        self.canvas = canvas
