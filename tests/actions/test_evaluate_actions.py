"""Evaluations of clips: numbers, budgets, resuming, clips that cannot be read, several processes."""

import json
from pathlib import Path

import pytest
import torch
from eventful_vit import TopR, count_operations
from eventful_vitdet.actions import evaluate_actions as module
from eventful_vitdet.actions import load_action_set, register_action_csv
from eventful_vitdet.actions.accuracy_plot import write_accuracy_plot
from eventful_vitdet.actions.action_metrics import rank_truth
from eventful_vitdet.actions.clip import Clip
from eventful_vitdet.actions.clip_loader import ClipReader
from eventful_vitdet.actions.clip_records import (
    RecordWriter,
    current_records,
    digest_clips,
    read_records,
    say_changed,
)
from eventful_vitdet.actions.evaluate_actions import evaluate_action_budgets, evaluate_actions
from eventful_vitdet.cli.train_command import main
from eventful_vitdet.errors import ConfigError, DataError, EvaluationError, ReportError
from eventful_vitdet.evaluation import fingerprint
from eventful_vitdet.report.evaluation_folder import read_budgets

from .conftest import TINY, write_video


@pytest.fixture
def evaluation(tiny_classifier, tiny_classifier_cfg, clips_csv):
    """(configuration, model) of an evaluation of three clips."""

    def make(**overrides):
        overrides = {"DATASETS__TEST": (register_action_csv(str(clips_csv)),), **overrides}
        return tiny_classifier_cfg(**overrides), tiny_classifier()

    return make


@pytest.fixture
def interrupted(monkeypatch):
    """Let the evaluation's n-th clip be the one during which it is interrupted."""

    def after(clips: int):
        calls, run_clip = [], module.run_clip

        def run(*args):
            calls.append(args)
            if len(calls) > clips:
                raise KeyboardInterrupt
            return run_clip(*args)

        monkeypatch.setattr(module, "run_clip", run)
        return calls

    return after


def results_of(cfg, budget: str = "") -> dict:
    return json.loads(Path(cfg.OUTPUT_DIR, "inference", budget, "results.json").read_text())


def test_numbers_are_those_of_the_clips_one_by_one(evaluation):
    cfg, model = evaluation()
    returned = evaluate_actions(cfg, model)
    clips = load_action_set(cfg.DATASETS.TEST[0], model.heads).clips
    ranks, macs = [], 0
    for clip in clips:
        with torch.no_grad(), count_operations(model) as counts:
            [output] = model([ClipReader([clip], model.views, 30.0)[0]])
        ranks.append(rank_truth(output["logits"], clip.labels))
        macs += counts.total()
    results = results_of(cfg)
    assert results["clips"] == 3 and results["policy"] == "top-r 5" and results["attention"] == "exact"
    for name in ("verb", "noun", "action"):
        expected = 100 * sum(rank[name] < 1 for rank in ranks) / 3
        assert results["accuracy"][f"{name}_top1"] == pytest.approx(expected)
        assert results["accuracy"][f"{name}_top5"] >= expected
    assert returned["accuracy"] == results["accuracy"]
    gflops = results["gflops_per_clip"]
    assert gflops["total"] == pytest.approx(macs / 3 / 1e9)
    assert gflops["total"] - gflops["paper"] == pytest.approx(gflops["by_category"]["embedding"])
    steps = results["gflops_per_step"]
    assert steps["flush"] > steps["later"] > 0
    # Six views of four steps, the first of which is a flush; what is left belongs to the rest.
    assert 6 * (steps["flush"] + 3 * steps["later"]) < gflops["paper"]
    assert results["seconds_per_clip"]["total"] >= results["seconds_per_clip"]["spatial"] > 0


def test_budgets_in_one_table(evaluation, capsys):
    cfg, model = evaluation()
    [results] = evaluate_action_budgets(cfg, model, ["dense", 2, 17]).values()
    assert [result["policy"] for result in results] == ["dense", "top-r 2", "top-r 17"]
    dense, few, all_tokens = results
    assert few["gflops_per_clip"]["paper"] < dense["gflops_per_clip"]["paper"]
    assert dense["gflops_per_step"]["later"] is None
    assert all_tokens["accuracy"] == dense["accuracy"]
    assert model.enabled and model.vivit.policy == TopR(5)
    table = Path(cfg.OUTPUT_DIR, "inference", "budgets.md").read_text()
    with pytest.raises(ReportError, match="budgets.json: is of action recognition"):
        read_budgets(str(Path(cfg.OUTPUT_DIR, "inference")))
    write_accuracy_plot(str(Path(cfg.OUTPUT_DIR, "plot.svg")), results, "Three clips")
    drawing = Path(cfg.OUTPUT_DIR, "plot.svg").read_text()
    assert "<svg" in drawing and all(f"<!-- {label} -->" in drawing for label in ("dense", "r = 2", "verb", "action"))
    assert table in capsys.readouterr().out
    assert table.splitlines()[0].count("top-1 / top-5") == 3
    assert json.loads(Path(cfg.OUTPUT_DIR, "inference", "budgets.json").read_text()) == results
    assert results_of(cfg, "2") == few


def test_weights_are_hashed_once_for_all_budgets(evaluation, monkeypatch):
    cfg, model = evaluation()
    hashed, hash_weights = [], module.hash_weights
    monkeypatch.setattr(module, "hash_weights", lambda model: hashed.append(model) or hash_weights(model))
    evaluate_action_budgets(cfg, model, ["dense", 2])
    assert hashed == [model]


def test_one_process_of_each_machine_reads_the_records(evaluation, monkeypatch):
    cfg, model = evaluation()
    evaluate_actions(cfg, model)
    folder = str(Path(cfg.OUTPUT_DIR, "inference"))
    sources = digest_clips(load_action_set(cfg.DATASETS.TEST[0], model.heads).clips)
    assert list(module.records_of_machine(folder, sources)) == ["a", "b", "c"]
    monkeypatch.setattr(module.comm, "get_local_rank", lambda: 1)
    assert module.records_of_machine(folder, sources) == {}


def test_an_interrupted_evaluation_resumes(evaluation, interrupted, monkeypatch):
    cfg, model = evaluation()
    with monkeypatch.context():
        interrupted(1)
        with pytest.raises(KeyboardInterrupt):
            evaluate_actions(cfg, model)
        monkeypatch.undo()
    folder = Path(cfg.OUTPUT_DIR, "inference")
    assert list(read_records(str(folder))) == ["a"]
    calls = interrupted(2)
    evaluate_actions(cfg, model)
    assert [clip["clip_id"] for _, clip in calls] == ["b", "c"]
    assert results_of(cfg)["clips"] == 3


def test_why_a_clip_is_evaluated_again(tmp_path, caplog):
    folder, sources = str(tmp_path), {"same": "1", "changed": "2"}
    with RecordWriter(folder, 0) as writer:
        for clip_id in ("same", "changed", "unreadable"):
            writer.add({"clip_id": clip_id, "source": "1"})
    say_changed(folder, current_records(folder, sources), sources)
    assert caplog.messages == [
        "clip changed is evaluated again: its files have changed since",
        "clip unreadable is evaluated again: its files cannot be read any more",
    ]


@pytest.mark.parametrize("touched", [False, True])
def test_a_clip_whose_video_was_replaced_is_evaluated_again(evaluation, interrupted, clips_csv, caplog, touched):
    cfg, model = evaluation()
    evaluate_actions(cfg, model)
    before = results_of(cfg)
    video = clips_csv.parent / "P02" / "videos" / "P02_01.MP4"
    if touched:
        video.write_bytes(video.read_bytes())  # the same content, written later
    else:
        write_video(video.with_suffix(".mp4"), frames=50)
        video.with_suffix(".mp4").rename(video)
    calls = interrupted(1)
    evaluate_actions(cfg, model)
    again = [] if touched else ["b"]
    assert [clip["clip_id"] for _, clip in calls] == again
    assert caplog.messages.count("clip b is evaluated again: its files have changed since") == len(again)
    assert (results_of(cfg)["seconds_per_clip"] == before["seconds_per_clip"]) == touched
    calls.clear()
    evaluate_actions(cfg, model)
    assert not calls


def test_a_clip_of_images_has_their_sizes(tmp_path):
    clip = Clip("a", "validation.csv, line 2", str(tmp_path))
    assert digest_clips([clip]) == {}
    (tmp_path / "1.png").write_bytes(b"first")
    first = digest_clips([clip])
    (tmp_path / "1.png").write_bytes(b"second")
    assert set(first) == {"a"} and digest_clips([clip]) != first


def test_half_a_line_does_not_count(evaluation, interrupted):
    cfg, model = evaluation()
    evaluate_actions(cfg, model)
    first = results_of(cfg)
    [records] = Path(cfg.OUTPUT_DIR, "inference", "clips").glob("*.jsonl")
    records.write_text(records.read_text()[:-30])
    calls = interrupted(1)
    evaluate_actions(cfg, model)
    assert [clip["clip_id"] for _, clip in calls] == ["c"]
    assert results_of(cfg)["accuracy"] == first["accuracy"]


def test_other_settings_are_refused_until_restart(evaluation, tiny_classifier_cfg):
    cfg, model = evaluation()
    evaluate_actions(cfg, model)
    other, _ = evaluation(MODEL__EVENTFUL__R=3)
    model.set_policy(TopR(3))
    with pytest.raises(EvaluationError, match="policy was top-r 5, now it is top-r 3. Start over with --restart"):
        evaluate_actions(other, model)
    evaluate_actions(other, model, restart=True)
    assert results_of(other)["policy"] == "top-r 3"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.VIT.NUM_HEADS", 4),
        ("MODEL.VIVIT.STRIDE", 2),
        ("MODEL.EVENTFUL.STATE_DTYPE", "bfloat16"),
        ("MODEL.PIXEL_STD", [50.0, 50.0, 50.0]),
    ],
)
def test_records_of_another_model_with_the_same_weights_are_refused(evaluation, tiny_classifier, key, value):
    cfg, model = evaluation()
    evaluate_actions(cfg, model)
    changed = {key.replace(".", "__"): value}
    cfg, _ = evaluation(**changed)
    with pytest.raises(EvaluationError, match=rf"holds the results of another evaluation \(3 clips\): {key} was "):
        evaluate_actions(cfg, tiny_classifier(**changed))


def test_what_only_training_needs_lets_an_evaluation_resume(evaluation, interrupted):
    cfg, model = evaluation()
    evaluate_actions(cfg, model)
    calls = interrupted(0)
    cfg, _ = evaluation(
        MODEL__VIVIT__DROPOUT=0.5, MODEL__VIVIT__FREEZE_SPATIAL=True, MODEL__VIVIT__TRAIN_WITH_GATES=True
    )
    evaluate_actions(cfg, model)
    assert not calls and results_of(cfg)["clips"] == 3


def test_versions_kernels_and_code_count_as_they_do_for_detectors(evaluation, monkeypatch):
    cfg, model = evaluation()
    evaluate_actions(cfg, model)
    monkeypatch.setattr(fingerprint.cpu, "describe_kernels", lambda: "kernels-0")
    monkeypatch.setattr(fingerprint, "hash_detectron2", lambda: "code-0")
    with pytest.raises(EvaluationError, match="now it is kernels-0; detectron2 was .* code code-0"):
        evaluate_actions(cfg, model)
    assert "budgets.py" in module.COMPUTING


def test_a_complete_evaluation_stays_until_its_replacement_is_complete(evaluation, interrupted, monkeypatch):
    """As of detectors: records, results and the table of all budgets."""
    cfg, model = evaluation()
    evaluate_action_budgets(cfg, model, ["dense", "5"])
    folder = Path(cfg.OUTPUT_DIR, "inference")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with monkeypatch.context():
        interrupted(4)  # in the second budget
        with pytest.raises(KeyboardInterrupt):
            evaluate_action_budgets(cfg, model, ["dense", "5"], restart=True)
        monkeypatch.undo()
    assert {path: path.read_bytes() for path in before} == before
    calls = interrupted(6)
    evaluate_action_budgets(cfg, model, ["dense", "5"])
    assert [clip["clip_id"] for _, clip in calls] == ["b", "c"]  # of the replacement, which the same command continues
    assert not list(folder.rglob("replac*"))
    records = [path for path in folder.rglob("*.jsonl") if path.read_bytes() != before.get(path)]  # of other seconds
    assert {path.parts[-3] for path in records} == {"dense", "5"} and len(records) == 2


def test_clips_that_cannot_be_read_stop_or_are_left_out(evaluation, clips_csv):
    (clips_csv.parent / "P02" / "videos" / "P02_01.MP4").write_bytes(b"nothing" * 50)
    cfg, model = evaluation()
    with pytest.raises(DataError, match=r"validation.csv, line 3: .*P02_01.MP4.* leaves such clips out"):
        evaluate_actions(cfg, model)
    cfg, model = evaluation(TEST__ON_BAD_VIDEO="skip")
    evaluate_actions(cfg, model)
    results = results_of(cfg)
    assert results["clips"] == 2
    assert [entry["clip"] for entry in results["skipped"]] == ["b"]


def test_a_negative_number_of_threads_is_refused_before_anything_is_written(evaluation):
    cfg, model = evaluation(TEST__THREADS_PER_PROCESS=-1)
    for evaluate in (evaluate_actions, lambda *args: evaluate_action_budgets(*args, ["dense", 2])):
        with pytest.raises(ConfigError, match="TEST.THREADS_PER_PROCESS must be 0 or larger, found -1"):
            evaluate(cfg, model)
    assert not Path(cfg.OUTPUT_DIR).exists()


def test_scores_that_are_not_finite_are_no_result(evaluation):
    cfg, model = evaluation()
    torch.nn.init.constant_(model.vivit.heads["noun"].bias, float("nan"))
    with pytest.raises(EvaluationError, match="clip a: the model's noun scores are not finite"):
        evaluate_actions(cfg, model)


def test_worker_processes_change_nothing(evaluation):
    cfg, model = evaluation()
    evaluate_actions(cfg, model)
    first = results_of(cfg)
    cfg, _ = evaluation(DATALOADER__NUM_WORKERS=2)
    evaluate_actions(cfg, model, restart=True)
    assert results_of(cfg)["accuracy"] == first["accuracy"]


def run(repository, tmp_path, clips_csv, *words: str) -> int:
    settings = [str(item) for pair in TINY.items() for item in pair]
    return main(
        ["--config-file", str(repository / "configs" / "Base-ViViT.yaml"), "--eval-only"]
        + ["--test-json", str(clips_csv), *words, *settings, "OUTPUT_DIR", str(tmp_path / "output")]
    )


def test_the_command(repository, tmp_path, clips_csv, capsys):
    assert run(repository, tmp_path, clips_csv, "--budgets", "dense", "5") == 0
    assert "| top-r 5 |" in capsys.readouterr().out
    assert run(repository, tmp_path, clips_csv.with_name("no.csv")) == 1
    assert "no.csv: cannot be read as CSV" in capsys.readouterr().err


@pytest.mark.long
def test_two_processes(repository, tmp_path, clips_csv, capfd):
    assert run(repository, tmp_path, clips_csv, "--num-gpus", "2") == 0
    results = json.loads((tmp_path / "output" / "inference" / "results.json").read_text())
    assert results["clips"] == 3
    assert len(list((tmp_path / "output" / "inference" / "clips").glob("*.jsonl"))) == 2
