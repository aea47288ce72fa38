"""Evaluations from a configuration: a single one, or one per budget on the same weights."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from detectron2.config import CfgNode
from eventful_vit import Policy, SharedBudget
from torch import nn

from ..budgets import DENSE, apply_budget, describe_budget, parse_budgets
from ..errors import ConfigError
from ..files import write_json
from ..modeling.backbone import build_policy
from .collect import compare_with_dense
from .evaluate import Evaluation, Outcome, policy_restored, put_in_place, start_over
from .results import RESULTS_FILE, format_screen, scalar_results, write_budgets, write_progress, write_table
from .targets import load_test_set, make_result_folders
from .tensorboard_curves import write_sweep


def evaluate_once(cfg: CfgNode, model: nn.Module, *, restart: bool = False) -> dict[str, dict]:
    """Evaluate a VideoRCNN as it is on every data set of DATASETS.TEST and write
    OUTPUT_DIR/inference/results.json, and the same as tables to results.md.

    Videos that an earlier call has finished are not run again, unless `restart`; what is there then stays until its
    replacement is complete. With several data sets each has a folder of its own in there. Returns
    {task: {metric: float}}, as Detectron2's trainer expects (by data set if there are several; {} in all processes but
    the first).
    """
    policy = build_policy(cfg) if model.enabled else None
    _check_streams(cfg, [policy])
    evaluation, folders = Evaluation(cfg, model), make_result_folders(cfg)
    if restart:
        start_over(folders.values())
    returned = {}
    for name, folder in folders.items():
        test_set = load_test_set(cfg, name, annotated=not cfg.TEST.TUBE_AP)
        outcome = evaluation.run(test_set, folder, describe_budget(policy))
        if outcome.results is not None:
            write_table(outcome.place, outcome.results)
        put_in_place({folder: outcome})
        if outcome.results is not None:
            print(format_screen(name, [outcome.results]))
            returned[name] = scalar_results(outcome.results)
    return next(iter(returned.values())) if len(returned) == 1 else returned


def evaluate_budgets(
    cfg: CfgNode, model: nn.Module, budgets: Sequence[str | int], *, restart: bool = False
) -> dict[str, list[dict]]:
    """Evaluate a VideoRCNN at several budgets on every data set of DATASETS.TEST, on the same weights.

    A budget is "dense", the r of top-r, or "calibrated" (MODEL.EVENTFUL.POLICY_FILE); if "dense" is among them, it
    comes first, and the others are compared with it too, which is all that a data set without annotations allows. Each
    writes results.json to the folder OUTPUT_DIR/inference/<budget>; the combined table is budgets.json and budgets.md
    beside these folders. Videos that an earlier call has finished are not run again, unless `restart`; what is there
    then stays until its replacement is complete. Afterwards the model has the configuration's policy again. Returns the
    content of budgets.json by data set ({} in all processes but the first).
    """
    policies = parse_budgets(budgets, cfg.MODEL.EVENTFUL.POLICY_FILE, model.vit)
    _check_streams(cfg, policies.values())
    evaluation, folders = Evaluation(cfg, model), make_result_folders(cfg)
    if restart:
        start_over(os.path.join(folder, budget) for folder in folders.values() for budget in policies)
    combined: dict[str, list[dict]] = {}
    with policy_restored(cfg, model):
        for name, folder in folders.items():
            results = _evaluate_policies(evaluation, name, folder, policies)
            if results:
                combined[name] = results
                print(format_screen(name, results))
    return combined


def _check_streams(cfg: CfgNode, policies: Iterable[Policy | None]) -> None:
    """Refuse a batch of videos that would share a budget: what each gets would depend on those beside it."""
    streams = cfg.TEST.STREAMS_PER_BATCH
    if streams > 1 and any(isinstance(policy, SharedBudget) for policy in policies):
        raise ConfigError(
            f"TEST.STREAMS_PER_BATCH = {streams}: videos of a batch would share the budget of MODEL.EVENTFUL."
            "POLICY_FILE, and results depend on which of them run side by side; set it to 1"
        )


def _evaluate_policies(
    evaluation: Evaluation, name: str, folder: str, policies: dict[str, Policy | None]
) -> list[dict]:
    """One data set at every budget; the results, in the order of the budgets ([] but in the first process)."""
    test_set = load_test_set(evaluation.cfg, name, annotated=DENSE not in policies and not evaluation.cfg.TEST.TUBE_AP)
    folders = {budget: os.path.join(folder, budget) for budget in policies}
    outcomes: dict[str, Outcome] = {}
    for budget in sorted(policies, key=lambda budget: budget != DENSE):
        apply_budget(evaluation.model, policies[budget])
        outcomes[budget] = outcome = evaluation.run(test_set, folders[budget], describe_budget(policies[budget]))
        if outcome.results is None:
            continue
        if budget != DENSE and DENSE in outcomes:
            agreement, intervals = compare_with_dense(test_set, outcomes[DENSE].place, outcome.place)
            outcome.results["agreement"] = agreement
            outcome.results["intervals"] = {**outcome.results.get("intervals", {}), **intervals}
            write_json(os.path.join(outcome.place, RESULTS_FILE), outcome.results)
        if all(outcomes[other].place == folders[other] for other in outcomes):
            write_progress(folder, _in_order(policies, outcomes))
    put_in_place({folders[budget]: outcome for budget, outcome in outcomes.items()})
    results = _in_order(policies, outcomes)
    if results:
        write_budgets(folder, results)
        write_sweep(folder, results)
    return results


def _in_order(policies: Iterable[str], outcomes: dict[str, Outcome]) -> list[dict]:
    """The results so far, in the order of the budgets; [] but in the first process."""
    found = (outcomes[budget].results for budget in policies if budget in outcomes)
    return [results for results in found if results is not None]
