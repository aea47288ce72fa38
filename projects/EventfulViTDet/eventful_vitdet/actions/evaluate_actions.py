"""Evaluating a VideoClassifier: accuracy, operations and seconds of clips, at one budget or several."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from eventful_vit import Policy
from tqdm import tqdm

from ..budgets import DENSE, apply_budget, describe_budget, parse_budgets
from ..data.video_data import SKIP
from ..errors import DataError, EvaluationError
from ..evaluation.computing_code import hash_our_code
from ..evaluation.evaluate import (
    Outcome,
    check_threads,
    fixed_threads,
    policy_restored,
    put_in_place,
    start_over,
)
from ..evaluation.fingerprint import common_settings, hash_weights, write_fingerprint
from ..evaluation.folder_lock import exclusive
from ..evaluation.process_barrier import patient_group, wait_for_all
from ..evaluation.results import RESULTS_FILE, describe_device, write_budgets, write_progress
from ..evaluation.targets import make_result_folders
from ..files import write_json
from ..modeling.backbone import build_policy
from ..modeling.video_classifier import VideoClassifier
from ..timing import timed_call
from .action_metrics import best_classes, rank_truth
from .action_results import format_budgets, format_results, make_results
from .action_sets import ActionSet, load_action_set
from .clip import BadClip, Clip
from .clip_loader import load_clips
from .clip_records import RecordWriter, begin, current_records, digest_clips, say_changed
from .step_counts import count_clips

logger = logging.getLogger(__name__)

COMPUTING = (
    *("modeling", "video", "budgets.py", "timing.py", "actions/action_metrics.py", "actions/clip_frames.py"),
    *("actions/clip_loader.py", "actions/evaluate_actions.py", "actions/step_counts.py"),
)
"""Code that a clip passes on its way from the video to its record."""


def evaluate_actions(cfg: CfgNode, model: VideoClassifier, *, restart: bool = False) -> dict[str, dict]:
    """Evaluate a model as it is on every data set of DATASETS.TEST and write OUTPUT_DIR/inference/results.json.

    Clips that an earlier call has finished are not run again, unless `restart`; what is there then stays until its
    replacement is complete. Returns {"accuracy": {metric: percent}, ...}, by data set if there are several; {} in all
    processes but the first.
    """
    check_threads(cfg)
    policy = str(build_policy(cfg)) if model.enabled else DENSE
    patient_group()
    weights, folders = hash_weights(model), make_result_folders(cfg)
    if restart:
        start_over(folders.values())
    returned = {}
    for name, folder in folders.items():
        outcome = _evaluate(cfg, model, _load(cfg, model, name), folder, policy, weights)
        put_in_place({folder: outcome})
        results = outcome.results
        if results is not None:
            print(f"\n{name}\n\n{format_results(results)}\n")
            returned[name] = {"accuracy": results["accuracy"], "seconds_per_clip": results["seconds_per_clip"]}
    return next(iter(returned.values())) if len(returned) == 1 else returned


def evaluate_action_budgets(
    cfg: CfgNode, model: VideoClassifier, budgets: Sequence[str | int], *, restart: bool = False
) -> dict[str, list[dict]]:
    """Evaluate a model at several budgets, on the same weights: "dense", the r of top-r, or "calibrated".

    Each writes results.json to OUTPUT_DIR/inference/<budget>; the combined table is budgets.json and budgets.md beside
    these folders. With `restart`, what is there stays until its replacement is complete. Afterwards the model has the
    configuration's policy again. Returns the content of budgets.json by data set ({} in all processes but the first).
    """
    check_threads(cfg)
    policies = parse_budgets(budgets, cfg.MODEL.EVENTFUL.POLICY_FILE, model.vivit.spatial)
    patient_group()
    weights, folders = hash_weights(model), make_result_folders(cfg)
    if restart:
        start_over(os.path.join(folder, budget) for folder in folders.values() for budget in policies)
    combined = {}
    with policy_restored(cfg, model):
        for name, folder in folders.items():
            done = _evaluate_policies(cfg, model, _load(cfg, model, name), folder, policies, weights)
            if done:
                combined[name] = done
                print(f"\n{name}\n\n{format_budgets(done)}\n")
    return combined


def _evaluate_policies(
    cfg: CfgNode,
    model: VideoClassifier,
    actions: ActionSet,
    folder: str,
    policies: Mapping[str, Policy | None],
    weights: str,
) -> list[dict]:
    """One data set at every budget; the results ([] but in the first process)."""
    outcomes: dict[str, Outcome] = {}
    for budget, policy in policies.items():
        apply_budget(model, policy)
        own_folder = os.path.join(folder, budget)
        outcomes[own_folder] = _evaluate(cfg, model, actions, own_folder, describe_budget(policy), weights)
        done = [outcome.results for outcome in outcomes.values() if outcome.results is not None]
        if done and all(outcome.place == own for own, outcome in outcomes.items()):
            write_progress(folder, done, format_budgets)
    put_in_place(outcomes)
    if done:
        write_budgets(folder, done, format_budgets)
    return done


def _load(cfg: CfgNode, model: VideoClassifier, name: str) -> ActionSet:
    return load_action_set(name, model.heads, cfg.TEST.ON_BAD_VIDEO)


def _evaluate(
    cfg: CfgNode, model: VideoClassifier, actions: ActionSet, folder: str, policy: str, weights: str
) -> Outcome:
    """One data set at the budget that a model has; `weights` is their hash."""
    with fixed_threads(cfg.TEST.THREADS_PER_PROCESS) as threads, exclusive(folder):
        wait_for_all()  # for the lock
        settings = common_settings(
            cfg,
            policy=policy,
            weights=weights,
            dataset=actions.hash,
            device=describe_device(model.device),
            threads=threads,
            code=hash_our_code(COMPUTING),
        )
        place = begin(folder, settings)
        sources = digest_clips(actions.clips)
        records = records_of_machine(place, sources)
        if comm.get_local_rank() == 0:
            say_changed(place, records, sources)
        finished = set().union(*comm.all_gather(list(records)))
        missing = [clip for clip in actions.clips if clip.clip_id not in finished]
        if finished and comm.is_main_process():
            logger.info("%s: %d of %d clips are finished", place, len(actions.clips) - len(missing), len(actions.clips))
        share = missing[comm.get_rank() :: comm.get_world_size()]
        skipped = _run(cfg, model, share, sources, place, policy)
        wait_for_all()
        results = _write_results(cfg, model, actions, sources, place, policy, skipped)
        wait_for_all()
        write_fingerprint(place, settings, complete=True)
        return Outcome(place, results)


def _run(
    cfg: CfgNode, model: VideoClassifier, clips: Sequence[Clip], sources: Mapping[str, str], folder: str, policy: str
) -> list[BadClip]:
    """Run clips and keep a record of each; returns those that cannot be read, if they may be left out."""
    skipped = []
    labels = {clip.clip_id: clip.labels for clip in clips}
    was_training = model.training
    model.eval()
    progress = tqdm(total=len(clips), desc=policy, unit="clip", disable=not (clips and comm.is_main_process()))
    try:
        with progress, RecordWriter(folder, comm.get_rank()) as writer, count_clips(model.vivit) as counts:
            for clip in load_clips(cfg, clips, model.views):
                progress.update()
                if "error" not in clip:
                    counts.clear()
                    outcome = run_clip(model, clip)
                    ranks = rank_truth(outcome["logits"], labels[clip["clip_id"]])
                    best = best_classes(outcome["logits"])
                    work = {"macs": counts.macs(), "steps": counts.steps, "seconds": outcome["seconds"]}
                    source = sources.get(clip["clip_id"])
                    writer.add({"clip_id": clip["clip_id"], "source": source, "ranks": ranks, "best": best, **work})
                elif cfg.TEST.ON_BAD_VIDEO == SKIP:
                    skipped.append(BadClip(clip["clip_id"], clip["error"]))
                    logger.warning("left out: %s", clip["error"])
                else:
                    raise DataError(f'{clip["error"]}. TEST.ON_BAD_VIDEO "skip" leaves such clips out')
    finally:
        model.train(was_training)
    return skipped


def run_clip(model: VideoClassifier, clip: Mapping) -> dict:
    """{"logits": {head: (classes,)} on the CPU, "seconds": {"spatial", "total"}} of an input of the model.

    The seconds are those of the model, without reading the clip and cutting views from it.
    """
    with torch.no_grad():
        views = model.cut(clip)[None]
        features, spatial = timed_call(lambda: model.vivit.spatial_features(views), model.device)
        logits, temporal = timed_call(lambda: model.vivit.classify(features), model.device)
    logits = {name: values[0].float().cpu() for name, values in logits.items()}
    for name, values in logits.items():
        if not bool(values.isfinite().all()):
            raise EvaluationError(f"clip {clip['clip_id']}: the model's {name} scores are not finite")
    return {"logits": logits, "seconds": {"spatial": spatial, "total": spatial + temporal}}


def records_of_machine(folder: str, sources: Mapping[str, str]) -> dict[str, dict]:
    """The records of the finished clips in the first process of each machine, whose processes share the folder; none in
    the others."""
    return current_records(folder, sources) if comm.get_local_rank() == 0 else {}


def _write_results(
    cfg: CfgNode,
    model: VideoClassifier,
    actions: ActionSet,
    sources: Mapping[str, str],
    folder: str,
    policy: str,
    skipped: list[BadClip],
) -> dict | None:
    """Bring the records of all processes, and machines, together, and make results of them in the first one."""
    parts = comm.gather((records_of_machine(folder, sources), skipped), dst=0)
    if not comm.is_main_process():
        return None
    records = {name: record for part, _ in parts for name, record in part.items()}
    left_out = [*actions.bad_clips, *(clip for _, part in parts for clip in part)]
    found = [records[clip.clip_id] for clip in actions.clips if clip.clip_id in records]
    if not found:
        raise EvaluationError(f"no clip of data set '{actions.name}' could be evaluated: {left_out[0].reason}")
    results = make_results(
        found,
        left_out,
        policy=policy,
        attention=cfg.MODEL.EVENTFUL.ATTENTION if policy != DENSE else DENSE,
        device=describe_device(model.device),
    )
    write_json(os.path.join(folder, RESULTS_FILE), results)
    return results
