"""One evaluation from start to end: plan the videos, run them, keep a record of each, make results of the records."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from ..budgets import DENSE
from ..contention import container_threads, kept_threads
from ..errors import ConfigError, EvaluationError
from ..files import write_json
from ..identities import describe_tracker
from ..masks import NO_MASKS, MaskRequest, has_masks, masks_requested
from ..modeling.backbone import build_policy
from .collect import coco_limits, collect, finished_videos, measure, write_detections, write_video_rows
from .fingerprint import hash_weights, make_fingerprint, write_fingerprint
from .folder_lock import exclusive
from .process_barrier import patient_group, wait_for_all
from .record_exchange import fetch_records
from .replacement import finish_replacement
from .results import RESULTS_FILE, describe_device, make_results
from .resume_plan import choose_folder, in_turns, make_plan, plan_replacement
from .run import run_share
from .store import remove_records
from .stored_detections import StoredDetections
from .targets import VideoTestSet
from .tube_results import check_tubes, measure_tubes
from .tubes import check_identities

logger = logging.getLogger(__name__)


@contextmanager
def results_safe(folder: str) -> Iterator[None]:
    """Turn an OSError of writing results into an EvaluationError that says what is not lost."""
    try:
        yield
    except OSError as error:
        raise EvaluationError(
            f"{error.filename or folder}: cannot be written ({error.strerror or error}); all videos are evaluated and "
            "safe. Rerun the same command to make their results"
        ) from error


def check_records(test_set: VideoTestSet, folder: str, skipped: Collection[int | str]) -> None:
    """Raise EvaluationError unless every video that was not skipped has a record."""
    finished = {video[0]["video_id"] for video in finished_videos(test_set, folder)}
    ids = (video[0]["video_id"] for video in test_set.videos)
    vanished = [video_id for video_id in ids if video_id not in finished and video_id not in skipped]
    if vanished:
        raise EvaluationError(
            f"{folder}: the records of {len(vanished)} videos disappeared during the evaluation, the first that "
            f"of video {test_set.video_name(vanished[0])}. Rerun the same command to evaluate them again"
        )


@dataclass(frozen=True)
class Outcome:
    """What came of an evaluation."""

    place: str
    """Where its records and results are."""
    results: dict | None
    """The content of results.json in the first process, None in the others."""


def start_over(folders: Iterable[str]) -> None:
    """Let the next evaluation in each of these folders run all videos; what is there stays until `put_in_place`."""
    for folder in folders:
        with exclusive(folder):
            wait_for_all()  # for the lock
            plan_replacement(folder)


def put_in_place(outcomes: Mapping[str, Outcome]) -> None:
    """Where the outcome of an evaluation in a folder is the replacement of what is there, let it take its place."""
    for folder, outcome in outcomes.items():
        if outcome.place != folder:
            with exclusive(folder):
                wait_for_all()  # for the lock
                in_turns(lambda folder=folder: finish_replacement(folder))


class Evaluation:
    """Evaluates one model, at whatever policy it has at the moment; all processes do the same together."""

    def __init__(self, cfg: CfgNode, model: nn.Module) -> None:
        """Raises ConfigError for TEST.* out of range, MissingPackageError where TEST.TUBE_AP lacks its tracker."""
        check_threads(cfg)
        check_tubes(cfg)
        self.cfg = cfg
        self.model = model
        self.stored = StoredDetections.of(cfg)
        self.limits = coco_limits(cfg)
        patient_group()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @cached_property
    def weights(self) -> str:
        """What tells the model's weights from others."""
        return hash_weights(self.model)

    def run(self, test_set: VideoTestSet, folder: str, policy: str) -> Outcome:
        """Evaluate the videos of a data set that have no record in `folder` yet, and write all results there.

        After `start_over`, the place is the replacement in that folder, until `put_in_place`. `policy` describes the
        one that the model has. Raises DataError or EvaluationError; the latter also where records are there that were
        made under other settings.
        """
        if self.cfg.TEST.TUBE_AP:
            check_identities(test_set.name, test_set.frames)
        with fixed_threads(self.cfg.TEST.THREADS_PER_PROCESS) as threads, exclusive(folder):
            fingerprint = self._fingerprint(test_set, policy, threads)
            wait_for_all()  # for the lock
            place = choose_folder(folder, fingerprint)
            try:
                skipped = self._run_videos(test_set, place, policy, fingerprint)
                wait_for_all()
            except KeyboardInterrupt:
                logger.warning("interrupted; finished videos are safe in %s. Rerun the same command to resume", place)
                raise
            skipped = self._bring_together(test_set, place, skipped)
            with results_safe(place):
                results = self._write_results(test_set, place, policy, threads, skipped)
            wait_for_all()  # for the first process, which may need minutes
            # Only now: records whose results nobody has seen are not those of a complete evaluation.
            write_fingerprint(place, fingerprint, complete=True)
            return Outcome(place, results)

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
        """Those of the detections that COCO's figures are made from, where there is something to compare them with, or
        a server that has it."""
        for_server = self.cfg.TEST.TUBE_AP and not test_set.is_annotated
        if not (has_masks(self.model) and (test_set.has_masks or for_server)):
            return NO_MASKS
        return MaskRequest(self.cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST, self.cfg.TEST.DETECTIONS_PER_IMAGE)

    def _run_videos(self, test_set: VideoTestSet, folder: str, policy: str, fingerprint: dict) -> dict:
        """Run this process's share; returns the videos that it skipped, with the reasons."""
        plan = make_plan(folder, test_set.videos, fingerprint)
        with self.stored.applied(self.model), masks_requested(self.model, self._masks(test_set)):
            return run_share(self.cfg, self.model, test_set, plan, policy)

    def _bring_together(self, test_set: VideoTestSet, folder: str, skipped: dict) -> list[dict]:
        """Returns, in the first process, the videos that any process skipped; and it has all records.

        Raises EvaluationError if a record has vanished.
        """
        fetch_records(folder, [video[0]["video_id"] for video in test_set.videos])
        gathered = {video_id: reason for part in comm.gather(skipped, dst=0) for video_id, reason in part.items()}
        if comm.is_main_process():
            remove_records(folder, gathered)  # of the video before its files changed, or damaged: none counts
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
        if self.cfg.TEST.TUBE_AP:
            min_score = self.cfg.TEST.TUBE_MIN_SCORE
            metrics.update(measure_tubes(test_set, folder, collected, self.limits, min_score))
        write_detections(test_set, folder, collected, self.limits)
        write_video_rows(test_set, folder, self.limits)
        results = make_results(
            metrics,
            collected.costs,
            collected.times,
            policy=policy,
            attention=self.cfg.MODEL.EVENTFUL.ATTENTION if policy != DENSE else DENSE,
            device=self.device,
            threads=threads,
            streams=self.cfg.TEST.STREAMS_PER_BATCH,
            skipped=skipped,
        )
        if self.cfg.TEST.TUBE_AP:
            results["tracker"] = describe_tracker()
        write_json(os.path.join(folder, RESULTS_FILE), results)
        return results


def check_threads(cfg: CfgNode) -> None:
    """Raise ConfigError for a number of threads that cannot be."""
    if cfg.TEST.THREADS_PER_PROCESS < 0:
        raise ConfigError(f"TEST.THREADS_PER_PROCESS must be 0 or larger, found {cfg.TEST.THREADS_PER_PROCESS}")


@contextmanager
def policy_restored(cfg: CfgNode, model: nn.Module) -> Iterator[None]:
    """Let a model have the configuration's policy again after the context, and no earlier frames."""
    try:
        yield
    finally:
        model.enabled = cfg.MODEL.EVENTFUL.ENABLED
        model.set_policy(build_policy(cfg))
        model.reset()


@contextmanager
def fixed_threads(number: int) -> Iterator[int]:
    """Let PyTorch use this many CPU threads within the context, on a busy machine too; yields the number.

    0: as many as it does by itself, within a container's limit.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(number or container_threads(before))
    try:
        with kept_threads():
            yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
