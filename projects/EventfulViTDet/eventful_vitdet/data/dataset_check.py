"""Is a data set complete and readable? Its numbers, beside the known ones, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tqdm import tqdm

from ..errors import VideoReadError
from ..video import VideoFile
from .builtin import KNOWN_TOTALS
from .coco_vid import NO_TRACK, group_by_video, identity_of, split_sequences
from .label_remarks import label_remarks
from .listed_frames import check_size, iterate_listed_frames
from .parallel_map import map_in_processes
from .read_rules import DEFAULT_RULES, ReadRules
from .registration import load_video_data
from .video_data import BadVideo, Defect, VideoData


@dataclass(frozen=True)
class DatasetReport:
    """What was found. `classes` maps every class to its numbers of boxes and of videos that show it."""

    name: str
    totals: dict[str, int]
    expected: dict[str, int]
    classes: dict[str, tuple[int, int]]
    other_classes: dict[str, int]
    decoded: bool
    bad_videos: list[BadVideo] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    """What is odd about the labels."""

    @property
    def differences(self) -> list[str]:
        """The totals that are not the known ones."""
        return [key for key, number in self.expected.items() if self.totals[key] != number]

    @property
    def is_sound(self) -> bool:
        """Nothing is missing, unreadable or of another number than known."""
        return not self.bad_videos and not self.differences


def check_dataset(
    name: str, *, quick: bool = False, is_part: bool = False, rules: ReadRules = DEFAULT_RULES
) -> DatasetReport:
    """Load a registered data set, by these rules, and, unless `quick`, decode every frame of it.

    With `quick`, video files are opened, to see whether they are complete and have the frames that are listed.

    `is_part` says that it is meant to be a part of the data set of that name, so that the known totals do not hold.
    Raises DatasetError if it cannot be loaded at all.
    """
    data = load_video_data(name, rules)
    bad_videos = list(data.bad_videos)
    known = {bad.video_id for bad in bad_videos}
    videos = [video for video in group_by_video(data.frames) if video[0]["video_id"] not in known]
    if quick:
        videos = [video for video in videos if video[0]["is_video_file"]]
    bad_videos += _read_all(videos, data.video_names, look_at_video if quick else read_video)
    return DatasetReport(
        name=name,
        totals=count_totals(data),
        expected={} if is_part else KNOWN_TOTALS.get(name, {}),
        classes=count_classes(data),
        other_classes=data.other_classes,
        decoded=not quick,
        bad_videos=sorted(bad_videos, key=lambda bad: bad.video_id),
        remarks=label_remarks(data),
    )


def count_totals(data: VideoData) -> dict[str, int]:
    """Numbers of videos, sequences without a gap, frames, frames with and without objects, and boxes; of masks and of
    tracks (objects with an identity) where there are some."""
    with_objects = sum(bool(frame["annotations"]) for frame in data.frames)
    masks = sum("segmentation" in annotation for frame in data.frames for annotation in frame["annotations"])
    tracks = {
        (frame["video_id"], identity_of(annotation))
        for frame in data.frames
        for annotation in frame["annotations"]
        if identity_of(annotation) != NO_TRACK
    }
    return {
        "videos": len(data.video_names),
        "sequences": len(split_sequences(data.frames)),
        "frames": len(data.frames),
        "frames with objects": with_objects,
        "frames without objects": len(data.frames) - with_objects,
        "boxes": sum(len(frame["annotations"]) for frame in data.frames),
        **({"masks": masks} if masks else {}),
        **({"tracks": len(tracks)} if tracks else {}),
    }


def count_classes(data: VideoData) -> dict[str, tuple[int, int]]:
    """Per class, the numbers of boxes and of videos that show it."""
    boxes: Counter = Counter()
    shown: set[tuple[int, int]] = set()
    for frame in data.frames:
        for annotation in frame["annotations"]:
            boxes[annotation["category_id"]] += 1
            shown.add((annotation["category_id"], frame["video_id"]))
    videos = Counter(category for category, _ in shown)
    return {name: (boxes[i], videos[i]) for i, name in enumerate(data.classes)}


def _read_all(
    videos: list[list[dict]], names: dict[int, str], read: Callable[[list[dict]], tuple[Defect, ...]]
) -> Iterator[BadVideo]:
    """Read all videos; yields those that have defects."""
    frames = sum(map(len, videos))
    with tqdm(total=frames, desc="reading frames", unit="frame", mininterval=1.0, delay=2.0) as progress:
        for video, defects in zip(videos, map_in_processes(read, videos)):
            progress.update(len(video))
            if defects:
                yield BadVideo(video[0]["video_id"], names[video[0]["video_id"]], defects)


def look_at_video(video: list[dict]) -> tuple[Defect, ...]:
    """Open a video file; returns what is wrong with it, or with what is listed of it, as far as its index tells."""
    last = video[-1]
    try:
        file = VideoFile(last["file_name"])
        file.check_complete()
        file.check_number(last["frame_id"])
        for frame in video:
            check_size(frame, (file.index.height, file.index.width))
    except VideoReadError as error:
        return (Defect(last["file_name"], str(error)),)
    return ()


def read_video(video: list[dict]) -> tuple[Defect, ...]:
    """Decode all frames of a video; returns the frames that cannot be read, of a video file only the first."""
    defects = []
    # Image files do not depend on each other; behind a defect, a video file is as good as lost.
    for part in [video] if video[0]["is_video_file"] else ([frame] for frame in video):
        try:
            for _ in iterate_listed_frames(part):
                pass
        except VideoReadError as error:
            defects.append(Defect(error.file_name, str(error)))
    return tuple(defects)


def format_report(report: DatasetReport, max_defects: int = 20) -> str:
    """The report as text; at most `max_defects` defects of every bad video are named."""
    lines = [f"{report.name}", ""]
    lines += [_format_total(key, number, report.expected.get(key)) for key, number in report.totals.items()]
    lines += ["", f"{'class':<24}{'boxes':>12}{'videos':>12}"]
    lines += [f"{name:<24}{boxes:>12,}{videos:>12,}" for name, (boxes, videos) in report.classes.items()]
    if report.other_classes:
        boxes, names = sum(report.other_classes.values()), len(report.other_classes)
        lines.append(f"left out: {boxes:,} objects of {names} other classes")
    lines += ["", *(f"labels: {remark}" for remark in report.remarks)] if report.remarks else []
    for bad in report.bad_videos:
        lines += ["", f"video {bad.name} cannot be used:"]
        lines += [f"  {defect.reason}" for defect in bad.defects[:max_defects]]
        if len(bad.defects) > max_defects:
            lines.append(f"  and {len(bad.defects) - max_defects} more")
    return "\n".join([*lines, "", _summary(report)])


def _format_total(key: str, number: int, expected: int | None) -> str:
    remark = "" if expected is None else "as known" if number == expected else f"known to be {expected:,}"
    return f"{key:<24}{number:>12,}   {remark}".rstrip()


def _summary(report: DatasetReport) -> str:
    problems = [f"{len(report.bad_videos)} videos cannot be used"] if report.bad_videos else []
    if report.differences:
        problems.append(f"{', '.join(report.differences)}: not as many as are known")
    if problems:
        return f"{report.name}: NOT complete: {'; '.join(problems)}"
    read = "every frame was decoded" if report.decoded else "files are there, but were not decoded (--quick)"
    remark = "" if report.totals["boxes"] else "; there are no annotations"
    return f"{report.name}: complete; {read}{remark}"
