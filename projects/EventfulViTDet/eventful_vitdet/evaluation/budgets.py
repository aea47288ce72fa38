"""Evaluations from a configuration: a single one, or one per budget on the same weights."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.utils import comm
from torch import nn

from ..data import build_video_test_loader
from ..data.registration import check_classes
from ..eventful import TopR
from ..modeling.backbone import build_policy
from .errors import EvaluationError
from .results import (
    RESULTS_FILE,
    format_budgets,
    format_results,
    make_results,
    scalar_results,
    write_budgets,
    write_json,
)
from .streaming import evaluate_stream
from .vid_evaluator import VIDEvaluator, check_annotated

DENSE = "dense"


def evaluate_once(cfg: CfgNode, model: nn.Module) -> dict[str, dict]:
    """Evaluate a VideoRCNN as it is on every data set of DATASETS.TEST and write
    OUTPUT_DIR/inference/results.json.

    With several data sets each has a folder of its own in there. Returns {task: {metric: float}}, as
    Detectron2's trainer expects (by data set if there are several; {} in all processes but the first).
    """
    policy = str(build_policy(cfg)) if model.enabled else DENSE
    returned = {}
    for name, folder in _targets(cfg).items():
        results = _evaluate(cfg, model, name, folder, policy, load_test_frames(cfg, name))
        if results is not None:
            print(f"\n{name}\n\n{format_results(results)}\n")
            returned[name] = scalar_results(results)
    return next(iter(returned.values())) if len(returned) == 1 else returned


def evaluate_budgets(cfg: CfgNode, model: nn.Module, budgets: Sequence[str | int]) -> dict[str, list[dict]]:
    """Evaluate a VideoRCNN at several budgets on every data set of DATASETS.TEST, on the same weights.

    A budget is "dense" or the r of top-r. Each writes OUTPUT_DIR/inference/<budget>/results.json; the
    combined table is budgets.json and budgets.md beside these folders. Afterwards the model has the
    configuration's policy again. Returns the content of budgets.json by data set ({} in all processes but the
    first).
    """
    policies = parse_budgets(budgets)
    combined: dict[str, list[dict]] = {}
    try:
        for name, folder in _targets(cfg).items():
            frames = load_test_frames(cfg, name)
            for budget, policy in policies.items():
                apply_budget(model, policy)
                description = DENSE if policy is None else str(policy)
                results = _evaluate(cfg, model, name, os.path.join(folder, budget), description, frames)
                if results is not None:
                    combined.setdefault(name, []).append(results)
                    write_budgets(folder, combined[name])
            if name in combined:
                print(f"\n{name}\n\n{format_budgets(combined[name])}\n")
    finally:
        model.enabled = cfg.MODEL.EVENTFUL.ENABLED
        model.set_policy(build_policy(cfg))
        model.reset()
    return combined


def load_test_frames(cfg: CfgNode, name: str) -> list[dict]:
    """The frames of a data set, which can be evaluated: it has annotations, and as many classes as the model.

    Raises DataError or EvaluationError.
    """
    frames = DatasetCatalog.get(name)
    check_classes(name, cfg.MODEL.ROI_HEADS.NUM_CLASSES)
    check_annotated(name, frames)
    return frames


def parse_budgets(budgets: Sequence[str | int]) -> dict[str, TopR | None]:
    """Map each budget, as text, to its policy; "dense" to None. Raises EvaluationError for anything else."""
    policies: dict[str, TopR | None] = {}
    for budget in budgets:
        word = str(budget).strip()
        if word != DENSE and not re.fullmatch(r"\d+", word):
            raise EvaluationError(f"budget {word!r} is neither 'dense' nor a number of tokens, 0 or more")
        word = word if word == DENSE else str(int(word))
        policies[word] = None if word == DENSE else TopR(int(word))
    if not policies:
        raise EvaluationError("no budgets to evaluate: name 'dense' or numbers of tokens")
    return policies


def apply_budget(model: nn.Module, policy: TopR | None) -> None:
    """
    Lets a VideoRCNN run densely (None) or with a policy, from the next frame on, forgetting earlier frames.
    """
    model.enabled = policy is not None
    if policy is not None:
        model.set_policy(policy)
    model.reset()


def _evaluate(cfg: CfgNode, model: nn.Module, name: str, folder: str, policy: str, frames: list[dict]) -> dict | None:
    """One data set, one budget: evaluate, write and return the results (None but in the first process)."""
    evaluator = VIDEvaluator(name, folder, frames)
    loader = build_video_test_loader(cfg, name, frames)
    metrics, costs = evaluate_stream(model, loader, evaluator, description=policy)
    if not comm.is_main_process():
        return None
    results = make_results(
        metrics,
        costs,
        policy=policy,
        attention=cfg.MODEL.EVENTFUL.ATTENTION if model.enabled else DENSE,
        device=next(model.parameters()).device,
    )
    write_json(os.path.join(folder, RESULTS_FILE), results)
    return results


def _targets(cfg: CfgNode) -> dict[str, str]:
    """The folder for each data set's results; make sure, before any work, that they can be written."""
    names = list(cfg.DATASETS.TEST)
    if not names:
        raise EvaluationError("DATASETS.TEST is empty: name a registered data set, or give a file by --test-json")
    base = os.path.join(cfg.OUTPUT_DIR, "inference")
    folders = {name: base if len(names) == 1 else os.path.join(base, re.sub(r"[^\w.-]+", "_", name)) for name in names}
    for folder in folders.values():
        try:
            os.makedirs(folder, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise EvaluationError(f"OUTPUT_DIR: cannot write to {folder} ({error.strerror})") from error
    return folders
