"""Running a model over the videos that are still missing, and keeping a record of each that is finished."""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import replace

from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn
from tqdm import tqdm

from ..data.coco_vid import group_by_video
from ..data.video_data import SKIP
from ..data.video_test_loader import VideoTestLoader, make_test_loader
from ..structures import MACS_PER_GFLOP
from .provenance import describe_machine, digest_video
from .recorder import VideoRecorder
from .resume_plan import Plan
from .store import VideoRecord, write_record
from .targets import VideoTestSet
from .timed_frames import run_frames

logger = logging.getLogger(__name__)


def run_share(cfg: CfgNode, model: nn.Module, test_set: VideoTestSet, plan: Plan, description: str) -> dict:
    """Run this process's share of an evaluation and write a record for each video.

    Returns the videos that could not be read to their end, with the reason, if TEST.ON_BAD_VIDEO is "skip"; nothing
    is kept of them. Otherwise raises DataError for the first one.
    """
    loader = make_test_loader(
        cfg,
        plan.share,
        streams=cfg.TEST.STREAMS_PER_BATCH,
        mix_sizes=not cfg.MODEL.VIT.IMG_SIZE_HW,  # then frames are padded to one square
        skip_bad_videos=cfg.TEST.ON_BAD_VIDEO == SKIP,
    )
    _run(model, loader, test_set, plan.folder, description)
    return loader.skipped


def _run(model: nn.Module, loader: VideoTestLoader, test_set: VideoTestSet, folder: str, description: str) -> None:
    videos = {video[0]["video_id"]: video for video in group_by_video(loader.frames)}
    lengths = {video_id: len(video) for video_id, video in videos.items()}
    recorder = VideoRecorder(lengths, len(test_set.classes), test_set.name)
    machine = describe_machine(next(model.parameters()).device)
    frames = len(loader.frames)
    hidden = {"disable": True} if not (frames and comm.is_main_process()) else {}
    progress = tqdm(total=frames, desc=description, unit="frame", mininterval=1.0, **hidden)
    with progress, closing(run_frames(model, loader)) as run:
        for model_input, output, cost in run:
            progress.update()
            recorder.discard(loader.skipped)
            if model_input["video_id"] in loader.skipped:
                continue
            record = recorder.add(model_input, output, cost)
            if record is not None:
                source = digest_video(videos[record.video_id])
                write_record(folder, replace(record, source=source, machine=machine))
                logger.debug("%s: %s", description, describe(record, test_set.video_name(record.video_id)))


def describe(record: VideoRecord, name: str) -> str:
    """A finished video as a line of the log."""
    gflops = record.macs.sum() / len(record) / MACS_PER_GFLOP
    milliseconds = 1000 * record.total_seconds.mean()
    return (
        f"video {name}: {len(record)} frames, {gflops:.3f} GFlops and {milliseconds:.1f} ms per frame, "
        f"{len(record.detections)} detections"
    )
