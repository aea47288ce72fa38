"""Is a data set of clips complete and readable? Its numbers, beside the known ones, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tqdm import tqdm

from ..data.parallel_map import map_in_processes
from ..data.video_data import SKIP
from ..errors import DataError, describe_error
from .action_sets import KNOWN_CLIPS, load_action_set
from .clip import BadClip, Clip
from .clip_frames import open_clip

MAX_NAMED = 20
ALL_FRAMES = 0
"""The rate at which `open_clip` gives every frame that is there."""


@dataclass(frozen=True)
class ActionSetReport:
    """What was found."""

    name: str
    clips: int
    expected: int | None
    """Known number of clips, if any."""
    classes: dict[str, int]
    """By head, how many classes occur."""
    frames: int | None
    """Frames of all clips that can be used; None where only files were looked for."""
    bad_clips: list[BadClip]

    @property
    def is_sound(self) -> bool:
        """Nothing is missing, unreadable or of another number than known."""
        return not self.bad_clips and self.expected in (None, self.clips)


def check_action_set(
    name: str, heads: Mapping[str, int], *, quick: bool = False, is_part: bool = False
) -> ActionSetReport:
    """Load a registered data set and, unless `quick`, decode every clip.

    Args:
        heads: number of classes of each head whose columns are to be checked.
        is_part: it is meant to be a part of the data set of that name, so that the known number does not hold.

    Raises:
        DatasetError: it cannot be loaded at all.
    """
    actions = load_action_set(name, heads, SKIP)
    bad, frames = list(actions.bad_clips), None
    if not quick:
        frames = 0
        outcomes = map_in_processes(decode_clip, actions.clips)
        for clip, outcome in zip(actions.clips, tqdm(outcomes, total=len(actions.clips), unit="clip", delay=2.0)):
            if isinstance(outcome, str):
                bad.append(BadClip(clip.clip_id, outcome))
            else:
                frames += outcome
    return ActionSetReport(
        name,
        len(actions.clips) + len(actions.bad_clips),
        None if is_part else KNOWN_CLIPS.get(name),
        {head: len({clip.labels[head] for clip in actions.clips}) for head in heads if actions.clips},
        frames,
        bad,
    )


def decode_clip(clip: Clip) -> int | str:
    """Read all frames of a clip; returns their number, or what is wrong."""
    try:
        frames = open_clip(clip, ALL_FRAMES)
        for _ in frames.images(range(len(frames))):
            pass
    except DataError as error:
        return describe_error(error)
    return len(frames)


def format_report(report: ActionSetReport) -> str:
    """The report as text."""
    known = "" if report.expected is None else f"   known: {report.expected:,}"
    lines = [report.name, "", f"{'clips':<24}{report.clips:>12,}{known}"]
    if report.frames is not None:
        lines.append(f"{'frames':<24}{report.frames:>12,}")
    lines += [f"{f'classes of {head}':<24}{number:>12,}" for head, number in report.classes.items()]
    lines += ["", *(f"clip {bad.clip_id} cannot be used: {bad.reason}" for bad in report.bad_clips[:MAX_NAMED])]
    if len(report.bad_clips) > MAX_NAMED:
        lines.append(f"and {len(report.bad_clips) - MAX_NAMED} more")
    return "\n".join([*lines, _summary(report)])


def _summary(report: ActionSetReport) -> str:
    problems = [f"{len(report.bad_clips)} clips cannot be used"] if report.bad_clips else []
    if report.expected not in (None, report.clips):
        problems.append(f"{report.expected:,} clips are known")
    if problems:
        return f"{report.name}: NOT complete: {'; '.join(problems)}"
    read = "every clip was decoded" if report.frames is not None else "files exist, but were not decoded (--quick)"
    return f"{report.name}: complete; {read}"
