"""One evaluation from start to end: plan the videos, run them, keep a record of each, make results of the records."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from ..budgets import DENSE
from ..errors import EvaluationError
from ..files import write_json
from ..masks import NO_MASKS, MaskRequest, has_masks, masks_requested
from .collect import coco_limits, collect, finished_videos, measure, write_detections, write_video_rows
from .fingerprint import hash_weights, make_fingerprint, write_fingerprint
from .folder_lock import exclusive
from .peer_watch import shared_fate
from .record_exchange import fetch_records
from .results import RESULTS_FILE, describe_device, make_results
from .resume_plan import make_plan
from .run import run_share
from .stored_detections import StoredDetections
from .targets import VideoTestSet

logger = logging.getLogger(__name__)


@contextmanager
def results_safe(folder: str) -> Iterator[None]:
    """Turn an OSError of writing results into an EvaluationError that says what is not lost."""
    try:
        yield
    except OSError as error:
        raise EvaluationError(
            f"{error.filename or folder}: cannot be written ({error.strerror or error}); all videos are evaluated and "
            "safe, and the same command makes their results"
        ) from error


def check_records(test_set: VideoTestSet, folder: str, skipped: Collection[int | str]) -> None:
    """Raise EvaluationError unless every video that was not skipped has a record."""
    finished = {video[0]["video_id"] for video in finished_videos(test_set, folder)}
    ids = (video[0]["video_id"] for video in test_set.videos)
    vanished = [video_id for video_id in ids if video_id not in finished and video_id not in skipped]
    if vanished:
        raise EvaluationError(
            f"{folder}: the records of {len(vanished)} videos have vanished while the evaluation ran, the first that "
            f"of video {test_set.video_name(vanished[0])}; the same command evaluates them again"
        )


class Evaluation:
    """Evaluates one model, at whatever policy it has at the moment; all processes do the same together."""

    def __init__(self, cfg: CfgNode, model: nn.Module, *, restart: bool) -> None:
        """`restart` forgets what earlier evaluations have finished. Raises ValueError for TEST.* out of range."""
        if cfg.TEST.THREADS_PER_PROCESS < 0:
            raise ValueError(f"TEST.THREADS_PER_PROCESS must be 0 or larger, found {cfg.TEST.THREADS_PER_PROCESS}")
        self.cfg = cfg
        self.model = model
        self.restart = restart
        self.stored = StoredDetections.of(cfg)
        self.limits = coco_limits(cfg)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @cached_property
    def weights(self) -> str:
        """What tells the model's weights from others."""
        return hash_weights(self.model)

    def run(self, test_set: VideoTestSet, folder: str, policy: str) -> dict | None:
        """Evaluate the videos of a data set that have no record below `folder` yet, and write all results there.

        `policy` describes the one that the model has. Returns the content of results.json in the first process, None
        in the others. Raises DataError or EvaluationError.
        """
        with fixed_threads(self.cfg.TEST.THREADS_PER_PROCESS) as threads, ExitStack() as held:
            fingerprint = self._fingerprint(test_set, policy, threads)
            try:
                with shared_fate():
                    held.enter_context(exclusive(folder))
                    skipped = self._run_videos(test_set, folder, policy, fingerprint)
            except KeyboardInterrupt:
                logger.warning("interrupted; finished videos are safe in %s, and the same command goes on", folder)
                raise
            with shared_fate():  # the first process may need minutes
                skipped = self._bring_together(test_set, folder, skipped)
                with results_safe(folder):
                    results = self._write_results(test_set, folder, policy, threads, skipped)
            # Only now: records whose results nobody has seen are not to be replaced by those of other settings.
            write_fingerprint(folder, fingerprint, complete=True)
            return results

    def _fingerprint(self, test_set: VideoTestSet, policy: str, threads: int) -> dict:
        return make_fingerprint(
            self.cfg,
            policy=policy,
            stored=self.stored,
            masks=self._masks(test_set),
            weights=self.weights,
            dataset=test_set.hash,
            device=describe_device(self.device),
            threads=threads,
        )

    def _masks(self, test_set: VideoTestSet) -> MaskRequest:
        """Those of the detections that COCO's figures are made from, where there is something to compare them with."""
        if not (has_masks(self.model) and test_set.has_masks):
            return NO_MASKS
        return MaskRequest(self.cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST, self.cfg.TEST.DETECTIONS_PER_IMAGE)

    def _run_videos(self, test_set: VideoTestSet, folder: str, policy: str, fingerprint: dict) -> dict:
        """Run this process's share; returns the videos that it skipped, with the reasons."""
        plan = make_plan(folder, test_set.videos, fingerprint, restart=self.restart)
        with self.stored.applied(self.model), masks_requested(self.model, self._masks(test_set)):
            return run_share(self.cfg, self.model, test_set, plan, policy)

    def _bring_together(self, test_set: VideoTestSet, folder: str, skipped: dict) -> list[dict]:
        """Returns, in the first process, the videos that any process skipped; and it has all records.

        Raises EvaluationError if a record has vanished.
        """
        fetch_records(folder, [video[0]["video_id"] for video in test_set.videos])
        gathered = {video_id: reason for part in comm.gather(skipped, dst=0) for video_id, reason in part.items()}
        if comm.is_main_process():
            check_records(test_set, folder, gathered)
        return test_set.skipped + [
            {"video": test_set.video_name(video_id), "reason": reason} for video_id, reason in gathered.items()
        ]

    def _write_results(
        self, test_set: VideoTestSet, folder: str, policy: str, threads: int, skipped: list[dict]
    ) -> dict | None:
        """Make all results of the records, in the first process."""
        if not comm.is_main_process():
            return None
        videos = finished_videos(test_set, folder)
        if not videos:
            raise EvaluationError(
                f"no video of data set '{test_set.name}' could be evaluated: all {len(skipped)} were skipped, the "
                f"first because of: {skipped[0]['reason']}"
            )
        collected = collect(videos, folder)
        metrics = measure(test_set, collected, self.limits)
        write_detections(test_set, folder, collected, self.limits)
        write_video_rows(test_set, folder, self.limits)
        results = make_results(
            metrics,
            collected.costs,
            policy=policy,
            attention=self.cfg.MODEL.EVENTFUL.ATTENTION if policy != DENSE else DENSE,
            device=self.device,
            threads=threads,
            streams=self.cfg.TEST.STREAMS_PER_BATCH,
            skipped=skipped,
        )
        write_json(os.path.join(folder, RESULTS_FILE), results)
        return results


@contextmanager
def fixed_threads(number: int) -> Iterator[int]:
    """Let PyTorch use this many CPU threads within the context (0: as many as it does by itself); yields the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
