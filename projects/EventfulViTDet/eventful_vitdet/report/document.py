"""The report as a whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from detectron2.data import MetadataCatalog

from ..data.read_rules import DEFAULT_RULES, ReadRules
from ..data.registration import load_frames as load_data_set
from ..errors import DataError
from ..files import write_atomically
from . import sections
from .colors import budget_colors
from .evaluation_folder import Budget, read_budgets
from .markup import Markup, tag
from .pictures import Frames
from .video_summaries import VideoSummary, summarise_videos

PARTS = Path(__file__).resolve().parent
# Even if a name slipped through unescaped, the page could load nothing and send nothing.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def write_report(
    folder: str,
    path: str,
    *,
    dataset: str | None = None,
    videos: Sequence[int | str] = (),
    title: str = "",
    thumbnails: int = 6,
    timelines: int = 12,
    rules: ReadRules = DEFAULT_RULES,
) -> None:
    """Write one HTML file, without any reference to another, about an evaluation.

    Args:
        folder: the inference folder of an evaluation, with budgets.json or results.json.
        path: the file to write.
        dataset: name of the evaluated data set in DatasetCatalog; with it the report has pictures and names.
        videos: ids of the videos whose timelines to show; by default the first ones.
        title: heading of the report.
        thumbnails: pictures of disagreements for each budget; 0 for none.
        timelines: how many videos have a timeline by default.
        rules: by which the data set's annotation file is read.

    Raises DataError: nothing to report in `folder`, or a video that it does not have.
    """
    budgets = read_budgets(folder)
    frames = load_frames(dataset, rules)
    summaries = summarise_videos(budgets, videos, timelines)
    body = _body(budgets, summaries, frames, title or "Eventful detection: evaluation", thumbnails)
    write_atomically(path, body + "\n")


def load_frames(dataset: str | None, rules: ReadRules) -> Frames:
    """The frames of a data set; if they are not there, the reason in their place."""
    if dataset is None:
        return Frames(absent="no data set was given (--config-file or --test-json)")
    try:
        frames, _ = load_data_set(dataset, rules=rules)
    except DataError as error:
        return Frames(absent=str(error).rstrip("."))
    return Frames({frame["image_id"]: frame for frame in frames}, MetadataCatalog.get(dataset).thing_classes)


def _body(
    budgets: Sequence[Budget], summaries: Sequence[VideoSummary], frames: Frames, title: str, thumbnails: int
) -> Markup:
    colors = budget_colors(budgets)
    names = _video_names(frames)
    parts = (
        tag("header", None, tag("h1", None, title), tag("p", {"class": "soft"}, _origin(budgets[0]))),
        sections.tiles(budgets),
        sections.tradeoff(budgets, colors),
        sections.classes(budgets, colors),
        sections.motion(budgets, colors),
        sections.bars(budgets, colors, summaries, names),
        sections.timelines(budgets, colors, summaries, names),
        sections.disagreements(budgets, summaries, names, frames, thumbnails) if thumbnails else None,
    )
    head = tag(
        "head",
        None,
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"http-equiv": "Content-Security-Policy", "content": POLICY}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("title", None, title),
        tag("style", None, _read("page.css")),
    )
    body = tag("body", None, tag("main", None, *parts), tag("script", None, _read("page.js")))
    return Markup("<!doctype html>\n" + tag("html", {"lang": "en"}, head, body))


def _read(name: str) -> Markup:
    return Markup(PARTS.joinpath(name).read_text(encoding="utf-8"))


def _origin(budget: Budget) -> str:
    """What was evaluated, where, with what."""
    known = budget.results
    counts = [f"{known[key]} {key}" for key in ("videos", "frames") if isinstance(known.get(key), int)]
    software = [f"{key} {known[key]}" for key in ("detectron2", "torch") if isinstance(known.get(key), str)]
    device = [f"on {known['device']}"] if isinstance(known.get("device"), str) else []
    return " · ".join([", ".join(counts), *device, ", ".join(software)]).strip(" ·")


def _video_names(frames: Frames) -> dict[object, str]:
    """The name of each video's file, or of its folder of frames."""
    names = {}
    for frame in frames.by_id.values():
        if frame["video_id"] not in names:
            path = frame["file_name"] if frame["is_video_file"] else os.path.dirname(frame["file_name"])
            names[frame["video_id"]] = Path(path).name
    return names
