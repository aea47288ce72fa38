"""Actions in a video, written as a video with a strip of text, as JSON lines and as a table, a line for every step."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict

from detectron2.config import CfgNode
from tqdm import tqdm

from ..actions.video_recogniser import LISTED, ActionResult, VideoRecogniser
from ..costs import CostSums
from ..errors import VideoReadError
from ..interruption import Interruptions
from ..modeling.video_classifier import VideoClassifier
from ..structures import SourceFrame
from ..video import CsvWriter, JsonLinesWriter, VideoSource
from .action_strip import ActionPainter
from .annotated_video import AnnotateOptions
from .frame_files import FrameFiles, check_files, count_frames, put_off_errors, selected_frames
from .preview_window import PreviewWindow


def write_action_video(
    cfg: CfgNode,
    model: VideoClassifier,
    names: Mapping[str, Sequence[str]],
    source: VideoSource,
    output: str,
    options: AnnotateOptions,
) -> tuple[CostSums, VideoRecogniser]:
    """Recognise actions in a source and write it with a strip of text to `output`, as `annotate_video` does detections.

    Of the options, those of detections are without effect. Returns the costs of the steps and who ran them.
    """
    check_files(source, output, options)
    painter = ActionPainter(list(names), options.enlarge)
    costs = CostSums()
    unread: list[VideoReadError] = []
    with ExitStack() as stack:
        interruptions = stack.enter_context(Interruptions())
        # Files first: they fail at once where they cannot be written.
        files = stack.enter_context(FrameFiles(source, output, options))
        lines = stack.enter_context(JsonLinesWriter(options.save_json)) if options.save_json else None
        table = stack.enter_context(CsvWriter(options.save_csv)) if options.save_csv else None
        window = stack.enter_context(PreviewWindow(source.name)) if options.window else None
        recogniser = stack.enter_context(VideoRecogniser(cfg, model, names))
        frames = stack.enter_context(closing(_recognise_all(recogniser, source, options)))
        stack.enter_context(interruptions.allowed())
        for frame, result in put_off_errors(frames, unread):
            picture = painter.paint(frame, result, recogniser.latest)
            files.write(frame, picture)
            if result is not None:
                costs.add_frame(result.cost)
                record = describe_step(frame, result)
                if lines is not None:
                    lines.write(record)
                if table is not None:
                    table.write(flatten_step(record, list(names)))
            if window is not None and not window.show(picture):
                break
    if unread:
        raise unread[0]
    return costs, recogniser


def _recognise_all(
    recogniser: VideoRecogniser, source: VideoSource, options: AnnotateOptions
) -> Iterator[tuple[SourceFrame, ActionResult | None]]:
    with ExitStack() as stack:
        frames = stack.enter_context(closing(selected_frames(source, options)))
        total = count_frames(source, options)
        progress = stack.enter_context(tqdm(total=total, unit="frame", desc=os.path.basename(source.name)))
        for frame in frames:
            yield frame, recogniser.recognise(frame)
            progress.update()


def describe_step(frame: SourceFrame, result: ActionResult) -> dict:
    """A step's line in the JSON file; `frame` and `seconds` are those of its last frame."""
    return {
        "step": result.step,
        "frame": frame.index,
        "file": frame.name,
        "seconds": round(frame.seconds, 4),
        "budget": result.budget,
        "flushed": result.cost.flushed,
        "scene_cut": result.scene_cut,
        "gflops": result.cost.total_gflops,
        "target": None if result.target is None else asdict(result.target),
        "ms": round(1000 * result.cost.total_seconds, 3),
        "actions": None
        if result.best is None
        else {
            head: [{"class": name, "score": round(score, 4)} for name, score in best]
            for head, best in result.best.items()
        },
    }


def flatten_step(record: Mapping, heads: Sequence[str]) -> dict:
    """A step's line in the table: of each head the likeliest classes; empty until the window is full."""
    row = {key: record[key] for key in ("step", "frame", "seconds", "budget", "flushed", "scene_cut", "gflops", "ms")}
    for head in heads:
        best = record["actions"][head] if record["actions"] else []
        for place in range(LISTED):
            found = best[place] if place < len(best) else {"class": "", "score": ""}
            row |= {f"{head}_{place + 1}": found["class"], f"{head}_{place + 1}_score": found["score"]}
    return row


def describe_step_costs(costs: CostSums) -> str:
    """What a run cost, in one line."""
    if not costs.num_frames:
        return "no step: there are fewer frames than one needs"
    gflops, seconds = costs.gflops_per_frame()["total"], costs.seconds_per_frame()["total"]
    return (
        f"{costs.num_frames} steps, {costs.frames[True]} of them computed in full; "
        f"{gflops['mean']:.2f} GFlops and {1000 * seconds:.0f} ms per step"
    )
