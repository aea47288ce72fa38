"""The report as a whole, and the plot of quality against cost as a file of its own."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import jinja2
from detectron2.data import MetadataCatalog

from .. import data
from ..data.read_rules import DEFAULT_RULES, ReadRules
from ..errors import DataError, ReportError
from ..files import write_atomically
from . import sections
from .advice import TOLERATED_LOSS, advise, disturbed_times
from .charts import pixel
from .colors import budget_styles, style_rules
from .evaluation_folder import AP50, Budget, read_budgets
from .metric_tables import class_table, interval_table, motion_table, summary_table
from .pictures import Frames
from .video_summaries import summarise_videos

TEMPLATES = Path(__file__).resolve().parent / "templates"
# Not allowed in HTML, or, for lone surrogates, not representable in a file.
FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


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
    frames = load_pictures(dataset, rules)
    summaries = summarise_videos(budgets, videos, timelines)
    names = video_names(frames, dataset)
    advice = advise(budgets)
    advised = advice.budget if advice else None
    charts, absent = sections.tradeoff_charts(budgets)
    style, script = _read("charts.css") + _read("page.css") + style_rules(budgets), _read("page.js")
    template = environment().get_template("report.html")
    page = template.render(
        title=title or "Eventful detection: evaluation",
        origin=_origin(budgets[0]),
        style=style,
        script=script,
        style_hash=content_hash(style),
        script_hash=content_hash(script),
        budgets=budgets,
        styles=budget_styles(budgets),
        advice=advice,
        disturbed=disturbed_times(budgets),
        tolerated_loss=TOLERATED_LOSS,
        snapshots=sections.snapshots(advised, summaries, names, frames) if thumbnails else None,
        charts=charts,
        absent_charts=absent,
        summary=summary_table(budgets),
        intervals=interval_table(budgets),
        classes=class_table(budgets),
        motion=motion_table(budgets),
        bars=sections.video_bars(budgets, summaries, names),
        timelines=sections.timelines(budgets, summaries, names),
        thumbnails=thumbnails,
        galleries=sections.disagreements(budgets, advised, summaries, names, frames, thumbnails),
        absent_frames=frames.absent,
    )
    write_atomically(path, page + "\n")


def write_tradeoff(folder: str, path: str, title: str = "") -> None:
    """Write the report's charts of AP50 against cost as an SVG file, which follows its reader's colour scheme.

    Raises DataError: nothing to show in `folder`.
    """
    budgets = read_budgets(folder)
    charts, _ = sections.tradeoff_charts([b for b in budgets if b.number(*AP50) is not None])
    if not charts:
        raise ReportError(f"{folder}: no AP50 was measured, so there is no plot of it")
    charts = [chart for chart in charts if chart.y.label.startswith("AP50")]
    style = _read("charts.css") + style_rules(budgets)
    text = environment().get_template("tradeoff.svg").render(title=title, style=style, charts=charts)
    write_atomically(path, text + "\n")


def environment() -> jinja2.Environment:
    """Templates in which every value is text, unless it is said to be markup, and no value may be missing."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_without_forbidden,
    )
    made.filters["px"] = pixel
    return made


def _without_forbidden(value: object) -> object:
    return FORBIDDEN.sub("\ufffd", value) if type(value) is str else value


def content_hash(text: str) -> str:
    """What a content security policy calls a style sheet or script of this content."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def load_pictures(dataset: str | None, rules: ReadRules) -> Frames:
    """The frames of a data set; if they are not there, the reason in their place."""
    if dataset is None:
        return Frames(absent="no data set was given (--config-file or --test-json)")
    try:
        frames, _ = data.load_frames(dataset, rules=rules)
    except DataError as error:
        return Frames(absent=str(error).rstrip("."))
    return Frames({frame["image_id"]: frame for frame in frames}, MetadataCatalog.get(dataset).thing_classes)


def _read(name: str) -> str:
    return TEMPLATES.joinpath(name).read_text(encoding="utf-8")


def _origin(budget: Budget) -> str:
    """What was evaluated, where, with what."""
    known = budget.results
    counts = [f"{known[key]} {key}" for key in ("videos", "frames") if isinstance(known.get(key), int)]
    software = [f"{key} {known[key]}" for key in ("detectron2", "torch") if isinstance(known.get(key), str)]
    device = [f"on {known['device']}"] if isinstance(known.get("device"), str) else []
    return " · ".join([", ".join(counts), *device, ", ".join(software)]).strip(" ·")


def video_names(frames: Frames, dataset: str | None) -> dict[object, str]:
    """The name of each video's file, or of its folder of frames; that of the data set, where several share a folder."""
    names = {}
    for frame in frames.by_id.values():
        if frame["video_id"] not in names:
            path = frame["file_name"] if frame["is_video_file"] else os.path.dirname(frame["file_name"])
            names[frame["video_id"]] = Path(path).name
    if len(set(names.values())) < len(names) and dataset is not None:
        names.update(MetadataCatalog.get(dataset).get("video_names", {}))
    return names
